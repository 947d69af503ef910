"""
A conversation as plain text, for tools that take a prompt and not a list of messages.

Law: the format below never changes for the same conversation, and nothing a caller asked for is left out in silence: what a plain
text cannot carry is refused by name.
Never: keeps a prompt.

One message from the user, and nothing else, is its own text, byte for byte. Otherwise each turn has its speaker in brackets on a
line before it, and a blank line between turns; the last user message stands last:

    [system]
    Be brief.

    [user]
    What is 2 + 2?

    [assistant]
    4

    [user]
    And times 3?

A line of a message that is such a mark gets a backslash before it, so that no message can speak for somebody else.

Decision 2026-11 -- what only tunes an answer (temperature, output caps, effort, caching) is passed over: no tool has a switch for
    it, and the answer has the shape that was asked for. What changes the shape (tools, schemas, stop sequences, several choices,
    log probabilities) is refused. Look again where a tool takes a JSON schema.
"""

import re
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from quota_router.errors import InvalidRequest, MalformedBody

SPEAKERS = ("system", "user", "assistant", "tool call", "tool result")
_MARK = re.compile(rf"^(?=\\*\[(?:{'|'.join(SPEAKERS)})\]\r?$)", re.MULTILINE)


class Turn(Struct, frozen=True, kw_only=True):
    """What one speaker said."""

    speaker: str
    text: str


class Prompt(Struct, frozen=True, kw_only=True):
    """A conversation. `system`: what stands outside of it; `None`: nothing does."""

    system: str | None
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """The conversation without the system text."""
        return self.turns[0].text if self._is_plain else _written(self.turns)

    @property
    def whole(self) -> str:
        """The conversation with the system text at its head."""
        return self.text if self.system is None else _written((Turn(speaker="system", text=self.system), *self.turns))

    @property
    def _is_plain(self) -> bool:
        return len(self.turns) == 1 and self.turns[0].speaker == "user"


def read_members(body: bytes) -> dict[str, Any]:
    """
    The members of a body.

    Raises:
        MalformedBody: it is no JSON object.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError) as exc:
        raise MalformedBody from exc


def make_prompt(system: list[str], turns: list[Turn], param: str) -> Prompt:
    """
    Put a conversation together. Neighbouring turns of one speaker stay apart.

    Raises:
        InvalidRequest: nobody asks for an answer: it is empty, or the assistant spoke last.
    """
    if not turns:
        raise InvalidRequest(f"`{param}` holds no message that asks for an answer.", param=param)
    if turns[-1].speaker in {"assistant", "tool call"}:
        refuse("the beginning of its own answer", param)
    return Prompt(system="\n\n".join(system) or None, turns=tuple(turns))


def refuse(what: str, param: str) -> NoReturn:
    """
    Say what cannot be carried.

    Raises:
        InvalidRequest: always.
    """
    raise InvalidRequest(f"`{param}`: a provider that is a command-line tool cannot carry {what}.", param=param)


def refuse_given(members: dict[str, Any], cannot: dict[str, str]) -> None:
    """
    Refuse the first member of *cannot* that was sent and asks for anything.

    Raises:
        InvalidRequest: one was.
    """
    for name, what in cannot.items():
        if members.get(name) not in (None, False, [], {}, ""):
            refuse(what, name)


def objects(value: object, param: str) -> list[dict[str, Any]]:
    """
    A list of objects.

    Raises:
        InvalidRequest: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidRequest(f"`{param}` must be a list of objects.", param=param)
    return value


def text_of(value: object, param: str) -> str:
    """
    A member that must be text.

    Raises:
        InvalidRequest: it is something else.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"`{param}` must be text.", param=param)
    return value


def join_texts(content: object, kinds: tuple[str, ...], param: str) -> str:
    """
    The text of a message: a string, or a list of parts whose texts follow each other on new lines.

    Args:
        content: as the caller sent it; null is empty.
        kinds: the types of parts that are text.
        param: where it stands, for the refusal.

    Raises:
        InvalidRequest: a part is not text, and named.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(objects(content, param)):
        place = f"{param}[{number}]"
        if part.get("type") not in kinds:
            refuse(f"a part of type {part.get('type')!r}", place)
        texts.append(text_of(part.get("text"), f"{place}.text"))
    return "\n".join(texts)


def _written(turns: tuple[Turn, ...]) -> str:
    return "\n\n".join(f"[{turn.speaker}]\n{_escaped(turn.text)}" for turn in turns)


def _escaped(text: str) -> str:
    return _MARK.sub(r"\\", text)

"""
A question and its answer as plain text, in OpenAI's dialect.

Law: what is asked here is read back by our own readers as any caller's body is.
Never: keeps a prompt.

Decision 2026-11 -- the cap is `max_completion_tokens` where only OpenAI and Azure serve, whose reasoning models refuse the older
    name, and `max_tokens` elsewhere, since not every other server knows the newer one. Look again when they do.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.dialects.base import UnreadableAnswer

QUESTION = Operation.CHAT
"""How a question is asked."""
_NEWER_CAP = frozenset({"openai", "azure"})


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def render_question(
    model: str, prompt: str, *, system: str | None, max_output_tokens: int | None, vendors: Collection[str]
) -> bytes:
    """The body that asks *model*, served by *vendors*, for an answer in text."""
    said = [] if system is None else [{"role": "system", "content": system}]
    asked: dict[str, Any] = {"model": model, "messages": [*said, {"role": "user", "content": prompt}]}
    if max_output_tokens is not None:
        asked["max_completion_tokens" if _NEWER_CAP.issuperset(vendors) else "max_tokens"] = max_output_tokens
    return msgspec.json.encode(asked)


def text_of(body: bytes) -> str:
    """
    The text of an answer to such a question.

    Raises:
        UnreadableAnswer: there is none.
    """
    try:
        choices = msgspec.json.decode(body, type=_Completion).choices
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer from error
    if not choices or choices[0].message.content is None:
        raise UnreadableAnswer
    return choices[0].message.content

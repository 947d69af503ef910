"""
What a caller of Anthropic's messages says, as a plain prompt.

Law: a message is read to its last block; whatever a plain text cannot carry is refused by name.

Decision 2026-11 -- a conversation that ran tools before is carried in text, calls and results; tools for the answer to call are
    not. Thinking that is handed back is passed over: it is only for the model that wrote it.

Members and blocks: the official SDK's types (anthropic 2.11), read 2026-11-25.
"""

from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.dialects.prompts import (
    Prompt,
    Turn,
    join_texts,
    make_prompt,
    objects,
    read_members,
    refuse,
    refuse_given,
    text_of,
)
from quota_router.errors import InvalidRequest

_TEXTS = ("text",)
_CANNOT = {
    "tools": "tools to call",
    "mcp_servers": "servers of tools",
    "container": "a container",
    "stop_sequences": "stop sequences",
    "output_format": "a format of the answer",
}


def prompt_of(operation: Operation, body: bytes) -> Prompt:
    """
    The conversation of a body.

    Raises:
        MalformedBody: it is no JSON object.
        InvalidRequest: it holds what a plain prompt cannot carry, or nothing to answer.
    """
    if operation is not Operation.MESSAGES:
        raise InvalidRequest(f"A provider that is a command-line tool does not serve {operation.value}.")
    asked = read_members(body)
    refuse_given(asked, _CANNOT)
    config = asked.get("output_config")
    refuse_given(config if isinstance(config, dict) else {}, {"format": "a format of the answer"})
    system = join_texts(asked.get("system"), _TEXTS, "system")
    turns: list[Turn] = []
    for number, message in enumerate(objects(asked.get("messages"), "messages")):
        _take_message(message, f"messages[{number}]", turns)
    return make_prompt([system] if system else [], turns, "messages")


def _take_message(message: dict[str, Any], place: str, turns: list[Turn]) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        refuse(f"a message of role {role!r}", f"{place}.role")
    if isinstance(content, str):
        turns.append(Turn(speaker=role, text=content))
        return
    texts: list[str] = []
    for number, block in enumerate(objects(content, f"{place}.content")):
        where = f"{place}.content[{number}]"
        match block.get("type"):
            case "text":
                texts.append(text_of(block.get("text"), f"{where}.text"))
            case "tool_use" | "tool_result" as kind:
                _say(role, texts, turns)
                turns.append(_call(block) if kind == "tool_use" else _result(block, where))
            case "thinking" | "redacted_thinking":
                pass
            case kind:
                refuse(f"a block of type {kind!r}", where)
    _say(role, texts, turns)


def _say(role: str, texts: list[str], turns: list[Turn]) -> None:
    """End a turn of texts, if there is one."""
    if texts:
        turns.append(Turn(speaker=role, text="\n".join(texts)))
        texts.clear()


def _call(block: dict[str, Any]) -> Turn:
    return Turn(speaker="tool call", text=f"{block.get('name')} {msgspec.json.encode(block.get('input') or {}).decode()}")


def _result(block: dict[str, Any], where: str) -> Turn:
    return Turn(speaker="tool result", text=join_texts(block.get("content"), _TEXTS, f"{where}.content"))

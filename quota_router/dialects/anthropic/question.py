"""
A question and its answer as plain text, in Anthropic's dialect.

Law: what is asked here is read back by our own readers as any caller's body is.
Never: keeps a prompt.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.dialects.base import UnreadableAnswer

QUESTION = Operation.MESSAGES
"""How a question is asked."""
MAX_TOKENS = 1_024
"""This dialect demands a cap: this one, where nobody names another."""


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    content: list[_Block]


def render_question(
    model: str,
    prompt: str,
    *,
    system: str | None,
    max_output_tokens: int | None,
    vendors: Collection[str],  # noqa: ARG001 -- as in the other family
) -> bytes:
    """The body that asks *model* for an answer in text."""
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    asked["max_tokens"] = MAX_TOKENS if max_output_tokens is None else max_output_tokens
    if system is not None:
        asked["system"] = system
    return msgspec.json.encode(asked)


def text_of(body: bytes) -> str:
    """
    The text of an answer to such a question.

    Raises:
        UnreadableAnswer: there is none.
    """
    try:
        blocks = msgspec.json.decode(body, type=_Message).content
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer from error
    texts = [block.text for block in blocks if block.type == "text"]
    if not texts:
        raise UnreadableAnswer
    return "".join(texts)

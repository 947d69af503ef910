"""
What an OpenAI answer used, read from bodies and counts.

Law: vendors' overlapping counts become buckets that do not overlap. One absurd count makes the usage unknown, never zero.

Fields and who includes what in which: upstreams.md D.1 (OpenAI SDK 3.52, OpenRouter, DeepSeek, xAI), read 2026-11-20.
"""

from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.core.usage import Quality, Usage
from quota_router.dialects.base import Answer, UnreadableAnswer
from quota_router.dialects.costs import read_cost
from quota_router.dialects.error_bodies import Trouble, is_refusal
from quota_router.dialects.fields import CapOrZero
from quota_router.dialects.json import is_given, name_or_none

_ANSWER_MEMBER: dict[Operation, str] = {
    Operation.CHAT: "choices",
    Operation.COMPLETIONS: "choices",
    Operation.EMBEDDINGS: "data",
    Operation.RESPONSES: "status",
}
"""The member that every whole answer of the operation has."""
_FAILED_STATES = ("failed", "cancelled")
_NOTHING = frozenset({b"null", b'""', b"[]", b"{}", b"false"})


class _WriteDetails(msgspec.Struct):
    ttl_12h_tokens: CapOrZero | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: CapOrZero | None = None
    cache_write_tokens: CapOrZero | None = None
    cache_write_tokens_details: _WriteDetails | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: CapOrZero | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: CapOrZero | None = None
    completion_tokens: CapOrZero | None = None
    input_tokens: CapOrZero | None = None
    output_tokens: CapOrZero | None = None
    total_tokens: CapOrZero | None = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: CapOrZero | None = None
    quality: Any = None
    """`estimated`: ours, for an answer whose tool reported none (`rendering`)"""


class Choice(msgspec.Struct):
    """One choice of an answer, or its part in a chunk."""

    index: int | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()
    delta: dict[str, msgspec.Raw] | None = None
    text: str | None = None

    @property
    def is_error(self) -> bool:
        """OpenRouter ends a broken choice with this reason and an `error`."""
        return self.finish_reason == "error" or is_given(self.error)

    @property
    def has_content(self) -> bool:
        """Whether it says more than its role."""
        said = (bytes(raw) for name, raw in (self.delta or {}).items() if name != "role")
        return bool(self.text) or any(value not in _NOTHING for value in said)


class Answered(Trouble):
    """What every answer and every chunk of one may carry. Ids are not held to a type: servers differ."""

    id: Any = None
    usage: msgspec.Raw = msgspec.Raw()
    choices: list[Choice] | None = None

    @property
    def has_failed(self) -> bool:
        """An error of its own, or in a choice."""
        return self.is_error or any(choice.is_error for choice in self.choices or ())


class _Body(Answered):
    data: msgspec.Raw = msgspec.Raw()
    status: Any = None
    code: Any = None


_BODY = msgspec.json.Decoder(_Body)
_COUNTS = msgspec.json.Decoder(_Counts)


def read_answer(operation: Operation, body: bytes) -> Answer:
    """
    Read an answer that did not stream.

    Raises:
        UnreadableAnswer: not JSON, or not a whole answer of this operation (cut, or something else altogether).
    """
    try:
        answer = _BODY.decode(body)
    except (ValueError, RecursionError) as exc:
        raise UnreadableAnswer from exc
    failed = answer.has_failed or answer.status in _FAILED_STATES
    member = getattr(answer, _ANSWER_MEMBER[operation])
    is_whole = is_given(member) if isinstance(member, msgspec.Raw) else member is not None
    failed = failed or (not is_whole and is_refusal(answer.code))
    if not is_whole and not failed:
        raise UnreadableAnswer
    return Answer(
        usage=read_usage(answer.usage, has_output=operation is not Operation.EMBEDDINGS),
        cost_nusd=read_cost(answer.usage),
        failed=failed,
        answer_id=name_or_none(answer.id),
    )


def read_usage(raw: msgspec.Raw, *, has_output: bool = True, quality: Quality = Quality.REPORTED) -> Usage | None:
    """
    The buckets of a `usage` object, chat's or the Responses API's.

    Args:
        raw: the member's bytes, empty or null when absent.
        has_output: False for embeddings, which report none.
        quality: how final the counts are.

    Returns:
        `None` when it is absent, incomplete or absurd (negative, fractional, textual, above a billion, parts above the whole).
    """
    try:
        counts = _COUNTS.decode(raw) if is_given(raw) else None
    except (ValueError, RecursionError):
        return None
    if counts is None:
        return None
    total_input = counts.prompt_tokens if counts.prompt_tokens is not None else counts.input_tokens
    output = counts.completion_tokens if counts.completion_tokens is not None else counts.output_tokens
    if output is None and not has_output:
        output = 0
    if total_input is None or output is None:
        return None
    read = counts.prompt_tokens_details or counts.input_tokens_details or _InputDetails()
    cached = read.cached_tokens if read.cached_tokens is not None else counts.prompt_cache_hit_tokens or 0
    written = read.cache_write_tokens or 0
    written_long = (read.cache_write_tokens_details and read.cache_write_tokens_details.ttl_12h_tokens) or 0
    if cached + written > total_input or written_long > written:
        return None
    return Usage(
        input=total_input - cached - written,
        cache_read=cached,
        cache_write_5m=written - written_long,
        cache_write_1h=written_long,
        output=output,
        reasoning=_reasoning_beside(counts, total_input, output),
        quality=Quality.ESTIMATED if counts.quality == Quality.ESTIMATED.value else quality,
    )


def _reasoning_beside(counts: _Counts, total_input: int, output: int) -> int:
    """Reasoning that is not inside `output`: xAI's chat counts it beside, which only the total shows."""
    details = counts.completion_tokens_details or counts.output_tokens_details
    reasoning = (details and details.reasoning_tokens) or 0
    return reasoning if reasoning and counts.total_tokens == total_input + output + reasoning else 0

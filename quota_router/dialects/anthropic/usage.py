"""
What an Anthropic answer used, read from bodies and streams.

Law: `message_start` gives the first counts and each `message_delta` overwrites them: they are cumulative, never added up. One
absurd count makes the usage unknown, never zero.

Fields: upstreams.md D.1 and D.2 (SDK 2.11), read 2026-11-20. `input_tokens` is without the cache; `output_tokens` includes
thinking. Entries of `iterations` for compaction are billed but not in the totals, and are added. `cost` in USD is no member of this
vendor's: others that speak its dialect report it, and so do we of a command-line tool.
"""

from typing import Any

import msgspec

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.usage import Quality, Usage
from quota_router.dialects.base import Answer, EventKind, UnreadableAnswer
from quota_router.dialects.costs import read_cost
from quota_router.dialects.error_bodies import Trouble, is_refusal
from quota_router.dialects.fields import CapOrZero
from quota_router.dialects.json import is_given, name_or_none
from quota_router.dialects.stream import StreamReader, strings_under

WRITTEN = strings_under("text", "thinking", "partial_json")


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: CapOrZero | None = None


class _Counts(msgspec.Struct):
    input_tokens: CapOrZero | None = None
    cache_read_input_tokens: CapOrZero | None = None
    cache_creation_input_tokens: CapOrZero | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens: CapOrZero | None = None


class _Iteration(_Counts):
    type: str | None = None


class _Usage(_Counts):
    iterations: list[_Iteration] | None = None
    quality: Any = None
    """`estimated`: ours, for an answer whose tool reported none (`rendering`)"""


class _Body(Trouble):
    type: Any = None
    id: Any = None
    code: Any = None
    content: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    input_tokens: msgspec.Raw = msgspec.Raw()


class _Start(msgspec.Struct):
    id: Any = None
    usage: msgspec.Raw = msgspec.Raw()


class _Block(msgspec.Struct):
    type: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    error: msgspec.Raw = msgspec.Raw()
    message: _Start | None = None
    content_block: _Block | None = None
    usage: msgspec.Raw = msgspec.Raw()


_BODY = msgspec.json.Decoder(_Body)
_EVENT = msgspec.json.Decoder(_Event)
_USAGE = msgspec.json.Decoder(_Usage)


def read_answer(operation: Operation, body: bytes) -> Answer:
    """
    Read an answer that did not stream. Counting tokens is free and uses none: its usage is zero.

    Raises:
        UnreadableAnswer: not JSON, or not a whole answer of this operation (cut, or something else altogether).
    """
    try:
        answer = _BODY.decode(body)
    except (ValueError, RecursionError) as exc:
        raise UnreadableAnswer from exc
    is_count = operation is Operation.COUNT_TOKENS
    is_whole = is_given(answer.input_tokens if is_count else answer.content)
    failed = answer.type == "error" or answer.is_error or (not is_whole and is_refusal(answer.code))
    if not failed and not is_whole:
        raise UnreadableAnswer
    counts = Counter()
    counts.take(answer.usage)
    return Answer(
        usage=Usage() if is_count and not failed else counts.usage(Quality.REPORTED),
        cost_nusd=counts.cost_nusd,
        failed=failed,
        answer_id=name_or_none(answer.id),
    )


def reader(operation: Operation, facts: CallFacts) -> StreamReader:  # noqa: ARG001 -- every family's readers are made alike
    """A reader for one stream of that operation."""
    return MessagesReader()


class Counter:
    """The counts of one answer so far; once a count was absurd it stays unknown."""

    def __init__(self) -> None:
        self.cost_nusd: int | None = None
        """as the upstream reported it"""
        self._counts: dict[str, int] = {}
        self._compaction = Usage()
        self._is_absurd = False
        self._is_estimate = False

    def take(self, raw: msgspec.Raw) -> None:
        """Overwrite with what a `usage` object says; what it leaves out stands."""
        if not is_given(raw):
            return
        try:
            said = _USAGE.decode(raw)
        except (ValueError, RecursionError):
            self._is_absurd = True
            return
        self._counts.update(_counts_of(said))
        self._is_estimate = self._is_estimate or said.quality == Quality.ESTIMATED.value
        cost_nusd = read_cost(raw)
        self.cost_nusd = self.cost_nusd if cost_nusd is None else cost_nusd
        if said.iterations is not None:
            usages = [_buckets(_counts_of(it)) for it in said.iterations if it.type == "compaction"]
            known = [usage for usage in usages if usage is not None]
            self._is_absurd = self._is_absurd or len(known) < len(usages)
            self._compaction = _sum(known)

    def usage(self, quality: Quality) -> Usage | None:
        """The buckets; `None` when input or output were never said, or a count was absurd."""
        usage = None if self._is_absurd else _buckets(self._counts)
        quality = Quality.ESTIMATED if self._is_estimate else quality
        return _sum([usage, self._compaction], quality) if usage is not None else None


class MessagesReader(StreamReader):
    """The stream of one message."""

    written = WRITTEN
    markers = (b'"usage"', b'"error"', b'"message_stop"')

    def __init__(self) -> None:
        super().__init__()
        self._counter = Counter()

    def _judge(self, payload: bytes) -> EventKind:
        try:
            event = _EVENT.decode(payload)
        except (ValueError, RecursionError) as exc:
            return self._unreadable(exc)
        if event.type == "error" or is_given(event.error):
            return self._error()
        match event.type:
            case "message_start":
                self._start(event.message or _Start())
                kind = self._waiting()
            case "content_block_start":
                block = event.content_block.type if event.content_block else None
                kind = self._waiting() if block in {"text", "thinking"} else self._content()
            case "message_delta":
                # Only this event's output count is the answer's; until it comes there is a first guess.
                self._counter.take(event.usage)
                self.usage, self.cost_nusd = self._counter.usage(Quality.REPORTED), self._counter.cost_nusd
                kind = self._content()
            case "message_stop":
                kind = self._end()
            case _:
                kind = self._content() if event.type.startswith("content_block_") else self._waiting()
        return kind

    def _start(self, message: _Start) -> None:
        self.answer_id = name_or_none(message.id)
        self._counter.take(message.usage)
        self.usage = self._counter.usage(Quality.ESTIMATED)


def _counts_of(said: _Counts) -> dict[str, int]:
    written_long = said.cache_creation.ephemeral_1h_input_tokens if said.cache_creation else None
    counts = {
        "input": said.input_tokens,
        "cache_read": said.cache_read_input_tokens,
        "cache_write": said.cache_creation_input_tokens,
        "cache_write_1h": written_long,
        "output": said.output_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _buckets(counts: dict[str, int]) -> Usage | None:
    written, written_long = counts.get("cache_write", 0), counts.get("cache_write_1h", 0)
    if "input" not in counts or "output" not in counts or written_long > written:
        return None
    return Usage(
        input=counts["input"],
        cache_read=counts.get("cache_read", 0),
        cache_write_5m=written - written_long,
        cache_write_1h=written_long,
        output=counts["output"],
    )


def _sum(usages: list[Usage], quality: Quality = Quality.REPORTED) -> Usage:
    return Usage(
        input=sum(usage.input for usage in usages),
        cache_read=sum(usage.cache_read for usage in usages),
        cache_write_5m=sum(usage.cache_write_5m for usage in usages),
        cache_write_1h=sum(usage.cache_write_1h for usage in usages),
        output=sum(usage.output for usage in usages),
        quality=quality,
    )

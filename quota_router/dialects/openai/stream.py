"""
OpenAI's streams: chat and completions chunks, and the events of the Responses API.

Law: the last usage that is not null counts; only a chunk without choices that we asked for ourselves is hidden.

Decision 2026-11 -- a chat stream ends with `[DONE]`. Some compatible servers never send it: when every choice asked for had its
    `finish_reason` before the stream ended, the answer is whole; without one it was cut (upstreams.md C.3, read 2026-11-20).
Decision 2026-11 -- an event of the Responses API may be 8 MiB long: its terminal event repeats the whole answer.
"""

from typing import Any

import msgspec

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.usage import Quality
from quota_router.dialects.base import EventKind
from quota_router.dialects.costs import read_cost
from quota_router.dialects.error_bodies import Trouble
from quota_router.dialects.json import is_given, name_or_none
from quota_router.dialects.openai.usage import Answered, read_usage
from quota_router.dialects.stream import StreamReader, strings_under

MAX_RESPONSE_EVENT_BYTES = 8 * 1024 * 1024
CHAT_WRITTEN = strings_under("content", "reasoning_content", "reasoning", "refusal", "arguments")
COMPLETIONS_WRITTEN = strings_under("text")
RESPONSES_WRITTEN = strings_under("delta")

_OPENING = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_summary_part.added",
    }
)
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Response(msgspec.Struct):
    id: Any = None
    usage: msgspec.Raw = msgspec.Raw()


class _ResponseEvent(Trouble):
    type: str = ""
    response: _Response | None = None


_CHUNK = msgspec.json.Decoder(Answered)
_RESPONSE_EVENT = msgspec.json.Decoder(_ResponseEvent)


def reader(operation: Operation, facts: CallFacts) -> StreamReader:
    """A reader for one stream of that operation."""
    return ResponsesReader() if operation is Operation.RESPONSES else ChatReader(operation, facts)


class ChatReader(StreamReader):
    """Chat completions and completions."""

    def __init__(self, operation: Operation, facts: CallFacts) -> None:
        super().__init__()
        self._asks_usage = facts.asks_usage
        self._choices = facts.choices
        self._finished: set[int] = set()
        self._last_usage = msgspec.Raw()
        self.written = COMPLETIONS_WRITTEN if operation is Operation.COMPLETIONS else CHAT_WRITTEN

    def _is_plain(self, data: bytes) -> bool:
        # Both are sent as null on every chunk by many: null is no news.
        is_finish = data.count(b'"finish_reason"') != data.count(b'"finish_reason":null')
        is_usage = b'"usage"' in data and b'"usage":null' not in data
        return not (is_finish or is_usage or b'"error"' in data or b"[DONE]" in data or b'"base_resp"' in data)

    def _judge(self, payload: bytes) -> EventKind:
        if payload.startswith(b"[DONE]"):
            return self._end()
        try:
            chunk = _CHUNK.decode(payload)
        except (ValueError, RecursionError) as exc:
            return self._unreadable(exc)
        choices = chunk.choices or []
        self.answer_id = name_or_none(chunk.id) or self.answer_id
        is_error = chunk.has_failed
        if not is_error:
            self._finished |= {choice.index or 0 for choice in choices if choice.finish_reason}
        if is_given(chunk.usage):
            is_final = not choices or len(self._finished) >= self._choices
            self._last_usage = chunk.usage.copy()
            self.usage = read_usage(chunk.usage, quality=Quality.REPORTED if is_final else Quality.ESTIMATED)
            self.cost_nusd = read_cost(chunk.usage)
        if is_error:
            return self._error()
        if any(choice.finish_reason or choice.has_content for choice in choices):
            return self._content()
        is_ours = not choices and is_given(chunk.usage) and not self._asks_usage
        return EventKind.HIDDEN if is_ours else self._waiting()

    def _end(self) -> EventKind:
        # Counts that were cumulative until now are the last word once the answer is whole.
        if self.usage is not None:
            self.usage = read_usage(self._last_usage)
        return super()._end()

    def _has_ended(self) -> bool:
        return len(self._finished) >= self._choices


class ResponsesReader(StreamReader):
    """
    The Responses API.

    `response.failed` is an error while nothing was written yet, so that another rung may be tried, and the end afterwards.
    """

    written = RESPONSES_WRITTEN
    markers = (b'"error"', b'"response.completed"', b'"response.incomplete"', b'"response.failed"')

    def __init__(self) -> None:
        super().__init__(MAX_RESPONSE_EVENT_BYTES)

    def _judge(self, payload: bytes) -> EventKind:
        if payload.startswith(b"[DONE]"):
            return self._waiting()
        try:
            event = _RESPONSE_EVENT.decode(payload)
        except (ValueError, RecursionError) as exc:
            return self._unreadable(exc)
        response = event.response
        if response is not None:
            self.answer_id = name_or_none(response.id) or self.answer_id
            if is_given(response.usage):
                self.usage = read_usage(response.usage)
                self.cost_nusd = read_cost(response.usage)
        if event.type == "error" or event.is_error:
            return self._error()
        if event.type in _ENDS:
            self.failed = event.type == "response.failed"
            return self._error() if self.failed and not self.saw_content else self._end()
        is_content = event.type.startswith("response.") and event.type not in _OPENING
        return self._content() if is_content else self._waiting()

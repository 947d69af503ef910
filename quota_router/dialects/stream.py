"""
Reading a stream as it passes: what each event is, and what the answer used.

Law: however the bytes were cut, the same events and the same usage come out; event data is never changed.
Never: decodes a content event once content has begun. Words such as "usage" or "error" in an event only lead to a closer look.

Decision 2026-11 -- what comes after the terminal event is handed on as terminal too, and a broken last frame after it is dropped:
    the answer is complete (faults.md F15, read 2026-11-20).
"""

import re
from abc import ABC, abstractmethod

import msgspec

from quota_router.core.usage import Usage
from quota_router.dialects.base import Event, EventKind, UnreadableAnswer
from quota_router.dialects.sse import MAX_EVENT_BYTES, SplitEvents, completed, data_of


def strings_under(*names: str) -> re.Pattern[bytes]:
    """Finds the strings that stand under these member names, wherever they are."""
    return re.compile(rb'"(?:%s)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"' % "|".join(names).encode())


class StreamReader(ABC):
    """
    Reads one stream. `feed` what arrives, then `close` at its end, then ask.

    Counts stay `None` until the upstream says them. A `usage` of quality `estimated` was cut off before its last word: its
    output is only what had been counted by then, and `output_bytes` tells what was seen.
    """

    written: re.Pattern[bytes]
    """finds what the model wrote, each piece once"""
    markers: tuple[bytes, ...] = ()
    """An event with none of these is plain content once content has begun."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._splitter = SplitEvents(max_event_bytes)
        self.usage: Usage | None = None
        self.cost_nusd: int | None = None
        self.saw_content = False
        self.is_complete = False
        """the terminal event was seen; after `close` also where the dialect knows the answer ended without one"""
        self.failed = False
        """an error was seen, in the stream or as the state of its answer"""
        self.output_bytes = 0
        """bytes of what the model wrote, for an estimate when no usage comes"""
        self.answer_id: str | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """
        The events that *chunk* completes.

        Raises:
            UnreadableAnswer: an event is too long, or one before any content is not of this dialect.
        """
        return [self._read(data) for data in self._splitter.feed(chunk)]

    def close(self) -> list[Event]:
        """
        The end of the stream: the last event, if no blank line ended it. Broken remains are dropped.

        Such an event gets the blank line that it lacks, so that an error event may follow it.

        Raises:
            UnreadableAnswer: as `feed`.
        """
        rest = self._splitter.rest()
        events = [] if self.is_complete or not _is_whole(data_of(rest)) else [self._read(completed(rest))]
        if not self.is_complete and not self.failed and self._has_ended():
            self._end()
        return events

    def _read(self, data: bytes) -> Event:
        if self.is_complete:
            return Event(kind=EventKind.TERMINAL, data=data)
        if self.saw_content and self._is_plain(data):
            kind = EventKind.CONTENT
        else:
            payload = data_of(data)
            kind = self._waiting() if payload is None else self._judge(payload)
        if kind is EventKind.CONTENT:
            self.output_bytes += sum(map(len, self.written.findall(data)))
        return Event(kind=kind, data=data)

    def _is_plain(self, data: bytes) -> bool:
        for marker in self.markers:  # noqa: SIM110 -- any() with a generator costs more than the search
            if marker in data:
                return False
        return True

    @abstractmethod
    def _judge(self, payload: bytes) -> EventKind:
        """What an event with this data is; keeps what it tells of usage."""

    def _has_ended(self) -> bool:
        """Whether an answer without a terminal event is known to be whole at the end of the stream."""
        return False

    def _waiting(self) -> EventKind:
        """The kind of what is neither content nor an end."""
        return EventKind.CONTENT if self.saw_content else EventKind.OPENING

    def _content(self) -> EventKind:
        self.saw_content = True
        return EventKind.CONTENT

    def _unreadable(self, exc: Exception) -> EventKind:
        """An event that does not decode: passes once content has begun, for its bytes are the caller's then."""
        if self.saw_content:
            return EventKind.CONTENT
        raise UnreadableAnswer from exc

    def _error(self) -> EventKind:
        self.failed = True
        return EventKind.ERROR

    def _end(self) -> EventKind:
        self.is_complete = True
        return EventKind.TERMINAL


def _is_whole(payload: bytes | None) -> bool:
    if payload is None:
        return False
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return payload.startswith(b"[DONE]")
    return True

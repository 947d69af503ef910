"""
Server-sent events: where one ends, and what its data is.

Law: events are handed on as the bytes that came, blank line included; joined again they are the stream, however it was cut.
Never: decodes what an event carries, nor holds more than one event's worth of bytes.

Source: WHATWG HTML, section 9.2.5 and 9.2.6, read 2026-11-20: lines end with CRLF, LF or CR; a blank line ends an event; a line
that begins with a colon is a comment; one space after `data:` is dropped; several data lines join with LF.
"""

import re

from quota_router.dialects.base import UnreadableAnswer

MAX_EVENT_BYTES = 512 * 1024
"""No delta of any vendor comes near this; a longer event is no event."""

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r(?!\Z))")
"""A CR in last place may be half of a CRLF: the next bytes tell."""
_BLANK_LINE_BYTES = 4
_BOM = b"\xef\xbb\xbf"


class SplitEvents:
    """
    Cuts a stream of bytes into events.

    `_scanned` remembers how far no blank line was found, so that a dripping stream is not searched over and over.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._is_too_long = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """
        The events that *chunk* completes, each with its blank line.

        Raises:
            UnreadableAnswer: an event is longer than the bound; events before it are handed out first, by the call before.
        """
        if self._is_too_long:
            raise UnreadableAnswer("An event of the provider's stream is too long.")
        # The usual chunk is one whole event: no copy is made of it.
        blank = chunk.find(b"\n\n")
        if not self._buffer and 0 <= blank == len(chunk) - 2 < self._max_event_bytes and b"\r" not in chunk:
            return [chunk]
        self._buffer += chunk
        events = self._take_events()
        if self._is_too_long and not events:
            raise UnreadableAnswer("An event of the provider's stream is too long.")
        return events

    def rest(self) -> bytes:
        """What is left at the end of the stream: an event that no blank line ended, or nothing."""
        if self._is_too_long:
            raise UnreadableAnswer("An event of the provider's stream is too long.")
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _take_events(self) -> list[bytes]:
        buffer = self._buffer
        events: list[bytes] = []
        start = 0
        for found in _BLANK_LINE.finditer(buffer, self._scanned):
            if found.end() - start > self._max_event_bytes:
                self._is_too_long = True
                break
            events.append(bytes(buffer[start : found.end()]))
            start = found.end()
        del buffer[:start]
        self._is_too_long = self._is_too_long or len(buffer) > self._max_event_bytes
        self._scanned = max(0, len(buffer) - _BLANK_LINE_BYTES)
        return events


def data_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined with LF; `None` when it has none (a comment, a bare blank line)."""
    if event.startswith(b"data: ") and b"\r" not in event and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    lines = event.removeprefix(_BOM).splitlines()
    found = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(found) if found else None


def completed(rest: bytes) -> bytes:
    """The last event of a stream with the blank line that it may lack, so that what we add after it stands apart."""
    if _BLANK_LINE.search(rest[-_BLANK_LINE_BYTES:] + b" "):
        return rest
    return rest + (b"\n" if rest.endswith(b"\n") else b"\n\n")

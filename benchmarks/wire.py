"""
What the parts of the benchmark share: where an HTTP/1.1 message ends, and which event loop they run on.

Law: mock and generator must cost so little that the target between them is what is measured.
Never: pipelining, compression, trailers; no target here uses them.
"""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:
    uvloop = None

HAS_UVLOOP = uvloop is not None

_T = TypeVar("_T")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
_LAST_CHUNK = b"0\r\n\r\n"


class Message:
    """One request or answer as it arrives, read by its `Content-Length` or to its last chunk."""

    __slots__ = ("body_at", "buffer", "is_chunked", "length")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.body_at = 0
        """where the body begins; 0 while the head is incomplete"""
        self.length = 0
        """of head and body together; says nothing when chunked"""
        self.is_chunked = False

    def feed(self, data: bytes) -> bool:
        """Take what arrived; True when the message is complete."""
        self.buffer += data
        if not self.body_at and not self._read_head():
            return False
        if self.is_chunked:
            return self.buffer.endswith(_LAST_CHUNK)
        return len(self.buffer) >= self.length

    def _read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[:end]).lower()
        self.body_at = end + 4
        self.is_chunked = b"\r\ntransfer-encoding: chunked" in head
        length = _LENGTH.search(head)
        self.length = self.body_at + (int(length[1]) if length else 0)
        return True


def run(main: Coroutine[Any, Any, _T], *, on_uvloop: bool) -> _T:
    """Run *main* to its end on uvloop or on asyncio's own loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as runner:
        return runner.run(main)

"""
A call as the simulator understood it, and the bytes of an answer in the pieces in which they are sent.

Law: an answer that does not stream is one content chunk; opening and closing belong to streams.
Never: knows a dialect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from quota_router.simulator.script import Reply

to_json = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was asked, and the figures its answer will report."""

    path: str
    number: int
    """counts requests from 1; ids are made of it"""
    created: int
    """epoch seconds"""
    model: str
    is_stream: bool
    include_usage: bool
    """`stream_options.include_usage`"""
    input_tokens: int
    output_tokens: int
    inputs: int
    """texts to embed"""
    wants_base64: bool
    """embeddings as base64 text"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The body of a 200, piece by piece."""

    content_type: str
    opening: tuple[bytes, ...] = ()
    """stream events before the first content"""
    chunks: tuple[bytes, ...]
    closing: tuple[bytes, ...] = ()
    """stream events after the last content, the terminal one included"""

    @property
    def is_stream(self) -> bool:
        """Whether it is sent as events."""
        return self.content_type == EVENT_STREAM

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join((*self.opening, *self.chunks, *self.closing))


EVENT_STREAM = "text/event-stream"
JSON = "application/json"


class Dialect(Protocol):
    """What the modules `openai` and `anthropic` offer alike."""

    REQUEST_ID_HEADER: str
    HEARTBEAT: bytes

    def answer(self, call: Call, reply: Reply) -> Answer:
        """The right answer to *call*, with the figures of *call* and *reply*."""

    def error_body(self, status: int, code: str | None = None, message: str | None = None) -> bytes:
        """What the vendor sends with *status*; `None`: its usual code and wording."""

    def error_event(self, path: str, status: int, code: str | None = None) -> bytes:
        """The same, in a stream of *path*."""

    def model_list(self, names: tuple[str, ...]) -> bytes:
        """The answer to `GET /v1/models`."""

    def quota_headers(self, unit: str, limit: int, remaining: int, resets_in_s: float, resets_at: str) -> Mapping[str, str]:
        """How the vendor tells a quota of *unit* (`requests` or `tokens`); `resets_at` in RFC 3339."""


def whole(body: Any) -> Answer:  # noqa: ANN401 -- any value that can be encoded
    """An answer that does not stream."""
    return Answer(content_type=JSON, chunks=(to_json(body),))


def named_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event whose name is its `type`."""
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), to_json(value))


def text_pieces(reply: Reply) -> list[str]:
    """The text in `reply.chunks` pieces, fewer when it is too short for that."""
    count, length = min(reply.chunks, len(reply.text)), len(reply.text)
    return [reply.text[length * number // count : length * (number + 1) // count] for number in range(count)]

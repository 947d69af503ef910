"""
An upstream that begins an answer and goes on when it is told to, so that a fault can happen in the middle of a call.

It speaks both dialects; what a caller asks for is told apart by its path and by `"stream": true`. Behind a shut gate a stream has
had its first words, and a whole answer only its head. Below `/busy` it refuses every call.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

INPUT_TOKENS, OUTPUT_TOKENS = 10, 5
_OPENAI_USAGE = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS}
_ANTHROPIC_USAGE = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
FIRST_WORDS = b"quick"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def _openai(stream: bool) -> tuple[bytes, bytes, bytes]:
    if not stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": "quick"}, "finish_reason": "stop"}
        return b"", b"", json.dumps({"choices": [choice], "usage": _OPENAI_USAGE}).encode()
    first = {"choices": [{"index": 0, "delta": {"content": "quick"}}]}
    last = {"choices": [], "usage": _OPENAI_USAGE}
    return _data(first), _data(first), _data(last) + b"data: [DONE]\n\n"


def _anthropic(stream: bool) -> tuple[bytes, bytes, bytes]:
    if not stream:
        told = {"type": "message", "content": [{"type": "text", "text": "quick"}], "usage": _ANTHROPIC_USAGE}
        return b"", b"", json.dumps(told).encode()
    start = {"type": "message_start", "message": {"usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1}}}
    word = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "quick"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": OUTPUT_TOKENS}}
    return _named(start) + _named(word), _named(word), _named(end) + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def _data(told: object) -> bytes:
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def _named(told: dict[str, object]) -> bytes:
    return f"event: {told['type']}\n".encode() + _data(told)


@dataclass(slots=True)
class Gate:
    """The upstream. `is_open` is set: answers come at once."""

    port: int = 0
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    speaks: asyncio.Event = field(default_factory=asyncio.Event)
    """cleared: not even the head of an answer is sent"""
    more: asyncio.Event = field(default_factory=asyncio.Event)
    """set: a stream says another word before it waits for the gate"""
    begun: int = 0
    """calls that have arrived"""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.speaks.set()
        self.more.set()

    @property
    def openai_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def busy_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/busy/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_for_calls(self, count: int) -> None:
        """Return once so many calls have arrived since the start."""
        while self.begun < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.split(b":")[1]))
                self.begun += 1
                self._arrived.set()
                stream = json.loads(body).get("stream", False)
                first, word, last = (_anthropic if b"/messages" in head.split(b"\r\n")[0] else _openai)(stream)
                kind = b"text/event-stream" if stream else b"application/json"
                size = str(len(first) + len(word) + len(last)).encode()
                await self.speaks.wait()
                if b" /busy/" in head.split(b"\r\n")[0]:
                    writer.write(_BUSY)
                    await writer.drain()
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %s\r\n\r\n%s" % (kind, size, first))
                await writer.drain()
                await self.more.wait()
                writer.write(word)
                await writer.drain()
                await self.is_open.wait()
                writer.write(last)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has no more calls for us
        finally:
            writer.close()


@asynccontextmanager
async def open_gate() -> AsyncIterator[Gate]:
    gate = Gate()
    server = await asyncio.start_server(gate.answer, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        for event in (gate.speaks, gate.more, gate.is_open):
            event.set()
        server.close()

"""
An upstream that costs next to nothing: every request gets the same chat completion, or the same stream.

Law: the answer is decided once, at import; a request only chooses between the two.
Never: judges what it was sent; the scripted upstream of the package does that.

    python upstream_mock.py PORT
"""

import asyncio
import gc
import json
import re
import sys
from typing import Any

import wire

STREAM_CHUNKS = 30
_WANTS_STREAM = re.compile(rb'"stream": ?true')
_COMMON = {"id": "chatcmpl-mock0000000000000001", "created": 1763600000, "model": "gpt-4o-mini", "system_fingerprint": "fp_mock"}
_TEXT = (
    "The router now sets aside the estimated cost of every call before it is sent, and replaces that reservation by "
    "the cost computed from the reported usage as soon as the provider has answered."
)


def _usage(output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 82,
        "completion_tokens": output_tokens,
        "total_tokens": 82 + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _completion() -> bytes:
    message = {"role": "assistant", "content": _TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = _json({**_COMMON, "object": "chat.completion", "choices": [choice], "usage": _usage(37)})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _chunk(data: bytes) -> bytes:
    event = b"data: %s\n\n" % data
    return b"%x\r\n%s\r\n" % (len(event), event)


def _event(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    return _chunk(_json({**_COMMON, "object": "chat.completion.chunk", "choices": choices, "usage": usage}))


def _stream() -> list[bytes]:
    """The writes of one stream: its head, one per event, and the usage together with the end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    deltas = [{"content": f" token{number:02}"} for number in range(STREAM_CHUNKS)]
    deltas[0]["role"] = "assistant"
    events = [_event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    stop = _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    end = _event([], _usage(STREAM_CHUNKS)) + _chunk(b"[DONE]") + b"0\r\n\r\n"
    return [head, *events, stop, end]


COMPLETION = _completion()
STREAM = _stream()


class Upstream(asyncio.Protocol):
    """One keep-alive connection of a target."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A target connected."""
        self.transport = transport
        self.request = wire.Message()

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        if not self.request.feed(data):
            return
        wants_stream = _WANTS_STREAM.search(self.request.buffer, self.request.body_at)
        self.request = wire.Message()
        for write in STREAM if wants_stream else (COMPLETION,):
            self.transport.write(write)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    gc.disable()  # Nothing here makes cycles, and a pause of ours would be counted as the target's.
    await server.serve_forever()


if __name__ == "__main__":
    wire.run(serve(int(sys.argv[1])), on_uvloop=wire.HAS_UVLOOP)

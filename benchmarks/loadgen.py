"""
A closed-loop generator: each connection sends its next call when the last one is answered.

Law: an answer counts only when it is a complete 200 with its usage (and, streamed, its `[DONE]`); everything else is an
error with a name. No call is abandoned when the time is up: whoever counts on the other side must get the same number.
Never: retries.

    python loadgen.py URL [--token T] [--stream] [--connections 64] [--seconds 3]

Prints one JSON line: calls, seconds, errors by name, p50_ms, p99_ms, and first_byte_p50_ms (of the body).
"""

import argparse
import asyncio
import gc
import json
from collections import Counter
from time import perf_counter
from urllib.parse import urlsplit

import wire

MODEL = "m-json"
LAST_ANSWER_S = 30.0
"""how long the last open calls may take once the time is up"""
RECONNECT_S = 0.1

_SYSTEM = "You are a careful assistant working inside a coding agent. Answer briefly and in plain text."
_USER = (
    "Summarise the following change in one sentence: the router now reserves the estimated cost of a call before it is "
    "sent upstream, and settles the reservation with the real usage once the provider has answered."
)


def request_bytes(url: str, token: str, *, stream: bool) -> bytes:
    """Head and body of the one request that is sent over and over."""
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    call = {"model": MODEL, "messages": messages, "temperature": 0.2, "max_tokens": 256}
    if stream:
        call |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(call, separators=(",", ":")).encode()
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one open call."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for the first call."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio names it
        """Whatever was open stays unanswered."""
        self.transport = None
        self._finish()

    def call(self, request: bytes) -> asyncio.Future[None]:
        """Send *request*; the future is done when the answer is complete or the connection lost."""
        self.answer = wire.Message()
        self.first_byte_at = 0.0
        self.is_complete = False
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        """Collect the answer."""
        self.is_complete = self.answer.feed(data)
        if not self.first_byte_at and self.answer.body_at:
            self.first_byte_at = perf_counter()
        if self.is_complete:
            self._finish()

    def _finish(self) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(None)


class Load:
    """The calls of one run and what became of them."""

    def __init__(self, url: str, token: str, *, stream: bool) -> None:
        self.address = urlsplit(url)
        self.request = request_bytes(url, token, stream=stream)
        self.marks = (b'"usage"', b"[DONE]") if stream else (b'"usage"',)
        self.latencies_s: list[float] = []
        self.first_bytes_s: list[float] = []
        self.errors: Counter[str] = Counter()

    async def keep_calling(self, until: float) -> None:
        """One connection's share of the load."""
        connection = Connection()
        while perf_counter() < until:
            if connection.transport is None:
                try:
                    connection = await self._connect()
                except OSError:
                    self.errors["not connected"] += 1
                    await asyncio.sleep(RECONNECT_S)
                    continue
            sent_at = perf_counter()
            await connection.call(self.request)
            self._record(connection, sent_at, perf_counter())
        if connection.transport is not None:
            connection.transport.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self.address.hostname, self.address.port))[1]

    def _record(self, connection: Connection, sent_at: float, answered_at: float) -> None:
        answer = connection.answer.buffer
        status = answer[9:12].decode("ascii", "replace")
        if not connection.is_complete:
            self.errors["cut"] += 1
        elif status != "200":
            self.errors[f"status {status}"] += 1
        elif not all(mark in answer for mark in self.marks):
            self.errors["200 without its usage or its end"] += 1
        else:
            self.latencies_s.append(answered_at - sent_at)
            self.first_bytes_s.append(connection.first_byte_at - sent_at)


def percentile_ms(values_s: list[float], share: float) -> float | None:
    """The value below which *share* of the sorted *values_s* lie; `None` when there are none."""
    return values_s[min(len(values_s) - 1, int(share * len(values_s)))] * 1000 if values_s else None


async def closed_loop(load: Load, connections: int, seconds: float) -> dict[str, object]:
    """Keep *connections* calls open for *seconds*, wait for the last answers, and sum up."""
    gc.disable()  # A pause of ours would be counted as the target's.
    started_at = perf_counter()
    workers = [asyncio.create_task(load.keep_calling(started_at + seconds)) for _ in range(connections)]
    done, unanswered = await asyncio.wait(workers, timeout=seconds + LAST_ANSWER_S)
    took_s = perf_counter() - started_at
    for worker in unanswered:
        worker.cancel()
        load.errors["no answer"] += 1
    for worker in done:
        worker.result()
    latencies_s, first_bytes_s = sorted(load.latencies_s), sorted(load.first_bytes_s)
    return {
        "calls": len(latencies_s),
        "seconds": took_s,
        "errors": load.errors,
        "p50_ms": percentile_ms(latencies_s, 0.5),
        "p99_ms": percentile_ms(latencies_s, 0.99),
        "first_byte_p50_ms": percentile_ms(first_bytes_s, 0.5),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A closed-loop generator of chat completions.")
    parser.add_argument("url")
    parser.add_argument("--token", default="none")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    the_load = Load(options.url, options.token, stream=options.stream)
    print(
        json.dumps(
            wire.run(closed_loop(the_load, options.connections, options.seconds), on_uvloop=wire.HAS_UVLOOP),
        ),
    )

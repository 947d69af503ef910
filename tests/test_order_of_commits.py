"""
What is durable when: a hold before the first byte leaves for an upstream, a post before the last byte reaches the caller.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from caller_kit import LAST_EVENTS, Told, ask, model_toml, open_http, post
from daemon_kit import open_here, provider_toml

from quota_router.daemon import Daemon
from quota_router.errors import ShuttingDown
from quota_router.store.holding import Sweep
from quota_router.store.spill import Spill

BOUND_S = 5
FIRST_EVENTS = {
    "openai": b'data: {"choices":[{"index":0,"delta":{"content":"quick"}}]}\n\n',
    "anthropic": b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"quick"}}\n\n',
}
WHOLE = {
    "openai": b'{"choices":[{"index":0,"message":{"content":"quick"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}',
    "anthropic": b'{"type":"message","content":[{"type":"text","text":"quick"}],"usage":{"input_tokens":9,"output_tokens":1}}',
}
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
dialects = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


def head(status: int, content_type: str) -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The file, read through connections of its own, as another process would."""

    path: Path

    def read(self, sql: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as conn:
            return conn.execute(sql, values).fetchall()

    def holds(self) -> list[tuple[str, str | None]]:
        return self.read("SELECT state, outcome FROM holds ORDER BY id")

    def entries(self, call_id: str) -> int:
        return len(self.read("SELECT 1 FROM entries WHERE call_id = ?", call_id))

    def write(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None)

    def lock(self) -> sqlite3.Connection:
        """Keep everybody else from writing until it is closed."""
        conn = sqlite3.connect(self.path, isolation_level=None)
        conn.execute("BEGIN IMMEDIATE")
        return conn


@dataclass(slots=True, kw_only=True)
class Upstream:
    """Looks at the ledger when the first byte of a request is here, and answers as it is told."""

    look: Callable[[], object]
    looks: list[Any] = field(default_factory=list)
    pieces: list[bytes | asyncio.Event] = field(default_factory=list)
    """of the next answers; an event is waited for"""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """the daemon hung up"""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """an answer has gone out, whole"""
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if first:
            self.looks.append(self.look())
            request = first + await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in request.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            while self.pieces and not reader.at_eof():
                piece = self.pieces.pop(0)
                if isinstance(piece, asyncio.Event):
                    piece.set()
                    await reader.read(1)  # nothing comes but the end
                    self.left.set()
                elif piece:
                    writer.write(piece)
                    await writer.drain()
                else:
                    break
        writer.close()
        self.done.set()


@dataclass(slots=True, kw_only=True)
class House:
    daemon: Daemon
    upstream: Upstream
    ledger: Ledger
    http: aiohttp.ClientSession

    def post(self, dialect: str, *, stream: bool) -> Any:
        return post(self.http, self.daemon.url, dialect, dialect, stream=stream)

    async def ask(self, dialect: str, *, stream: bool) -> Told:
        return await ask(self.http, self.daemon.url, dialect, dialect, stream=stream)

    async def fence(self) -> None:
        """Whatever was ready to happen has happened: requests went around the whole loop and its sockets."""
        for _ in range(3):
            async with self.http.get(f"{self.daemon.url}/healthz") as answer:
                assert answer.status == 200

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not holds():
                await self.fence()

    def cancel_handler(self) -> None:
        (running,) = self.daemon.router.underway
        assert running.task is not None
        running.task.cancel()

    async def settled(self) -> list[tuple[str, str | None]]:
        """The holds, once no call runs and what is queued is written."""
        async with asyncio.timeout(BOUND_S):
            await self.daemon.router.underway.wait_idle()
        await self.daemon.lane.run(Sweep())
        return self.ledger.holds()


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    ledger = Ledger(path=folder / "state" / "ledger.db")
    upstream = Upstream(look=ledger.holds)
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    url = f"http://upstream.test:{upstream.port}"
    catalog = ""
    for dialect, path in (("openai", "/v1"), ("anthropic", "")):
        names = [f"{dialect}-{number}" for number in (1, 2)]
        catalog += "".join(provider_toml(name, url + path, vendor=dialect) for name in names) + model_toml(dialect, *names)
    keys = {f"KEY_{vendor}_{number}": "k" for vendor in ("OPENAI", "ANTHROPIC") for number in (1, 2)}
    async with open_http() as http, server, open_here(folder, catalog, server="settle_wait_s = 0.4\n", **keys) as daemon:
        daemon.router.outbound.upstream._resolver = Resolver()
        yield House(daemon=daemon, upstream=upstream, ledger=ledger, http=http)


class Resolver(AbstractResolver):
    """Every name is loopback; `asked` and `go` let a test stand between a hold and its connection."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        self.asked.set()
        await self.go.wait()
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path) as opened:
        yield opened


def streamed(dialect: str) -> list[bytes | asyncio.Event]:
    return [head(200, "text/event-stream"), FIRST_EVENTS[dialect], LAST_EVENTS[dialect], b""]


def answered(dialect: str, *, stream: bool) -> list[bytes | asyncio.Event]:
    return streamed(dialect) if stream else [head(200, "application/json"), WHOLE[dialect], b""]


@deliveries
@dialects
async def test_the_hold_is_durable_before_the_first_byte_leaves(house, dialect, stream):
    """
    Also that of the second rung; by then the first has left `held`.
    """
    house.upstream.pieces = [head(503, "application/json"), b"{}", b"", *answered(dialect, stream=stream)]
    told = await house.ask(dialect, stream=stream)
    assert (told.status, told.provider) == (200, f"{dialect}-2")
    assert house.upstream.looks == [[("held", None)], [("voided", "failed"), ("held", None)]]


@deliveries
@dialects
async def test_the_entry_is_durable_when_the_last_byte_is_here(house, dialect, stream):
    house.upstream.pieces = answered(dialect, stream=stream)
    end = LAST_EVENTS[dialect] if stream else WHOLE[dialect]
    async with house.post(dialect, stream=stream) as answer:
        received = b""
        while not received.endswith(end):
            received += await answer.content.readany()
        assert house.ledger.entries(answer.headers["x-quota-router-call"]) == 1
    assert house.ledger.holds() == [("posted", "ok")]


@deliveries
@dialects
async def test_the_last_byte_waits_for_the_commit(house, dialect, stream):
    async with AsyncExitStack() as locked:
        house.upstream.look = lambda: locked.enter_context(closing(house.ledger.lock()))
        house.upstream.pieces = answered(dialect, stream=stream)
        asking = asyncio.create_task(house.ask(dialect, stream=stream))
        async with asyncio.timeout(BOUND_S):
            await house.upstream.done.wait()
        await house.fence()
        assert not asking.done()
    told = await asking
    assert (told.status, house.ledger.entries(told.call_id)) == (200, 1)


async def test_a_call_cancelled_while_its_hold_is_written_gives_it_back(house):
    with closing(house.ledger.lock()):
        asking = asyncio.create_task(house.ask("openai", stream=False))
        await house.until(lambda: len(house.daemon.router.underway) == 1)
        house.cancel_handler()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await asking
        assert house.ledger.holds() == []
    assert await house.settled() == [("voided", "cancelled")]
    assert house.upstream.looks == []


async def test_a_shutdown_waits_for_a_hold_that_is_just_being_written(house):
    """
    The call had been taken: it is answered, and its hold does not stay behind.
    """
    house.upstream.pieces = answered("openai", stream=False)
    with closing(house.ledger.lock()):
        asking = asyncio.create_task(house.ask("openai", stream=False))
        await house.until(lambda: len(house.daemon.lane._queue) + len(house.daemon.router.underway) > 0)
        draining = asyncio.create_task(house.daemon.drain())
        await house.fence()
        assert not draining.done()
    assert (await asking).status == 200
    await draining
    assert house.ledger.holds() == [("posted", "ok")]


async def test_a_shutdown_that_may_not_wait_gives_such_a_hold_back(house):
    with closing(house.ledger.lock()):
        asking = asyncio.create_task(house.ask("openai", stream=False))
        await house.until(lambda: len(house.daemon.router.underway) == 1)
        house.daemon.signals.hurry.set()
        draining = asyncio.create_task(house.daemon.drain())
        told = await asking
        assert (told.status, told.error["code"]) == (503, ShuttingDown.code)
    await draining
    assert await house.settled() == [("voided", "cancelled")]
    assert house.upstream.looks == []


async def test_a_call_cancelled_between_its_hold_and_its_first_byte_leaves_nothing_held(house):
    resolver = house.daemon.router.outbound.upstream._resolver
    resolver.go.clear()
    asking = asyncio.create_task(house.ask("openai", stream=False))
    await resolver.asked.wait()
    assert house.ledger.holds() == [("held", None)]
    house.cancel_handler()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await asking
    ((state, outcome),) = await house.settled()
    assert (state != "held", outcome) == (True, "cancelled")
    assert house.upstream.looks == []


@deliveries
async def test_a_call_cancelled_after_it_was_sent_is_booked_for_what_was_seen(house, stream):
    arrived = asyncio.Event()
    seen = [head(200, "text/event-stream"), FIRST_EVENTS["openai"]] if stream else []
    house.upstream.pieces = [*seen, arrived]
    asking = asyncio.create_task(house.ask("openai", stream=stream))
    await arrived.wait()
    await house.fence()
    house.cancel_handler()
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        await asking
    assert await house.settled() == [("posted", "cancelled")]
    ((quality, read, written),) = house.ledger.read("SELECT quality, input, output FROM entries")
    assert (quality, read > 0, written > 0) == ("estimated", True, stream)
    await house.upstream.left.wait()


FULL = "CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT abs(-9223372036854775807 - 1); END"


@deliveries
@dialects
async def test_a_post_that_the_database_cannot_take_is_spilled_and_booked_once_it_can(house, dialect, stream):
    """
    A line in the spill file counts as the post: the caller gets the whole answer, the ledger its money a little later.
    """
    house.upstream.pieces = answered(dialect, stream=stream)
    with closing(house.ledger.write()) as conn:
        conn.execute(FULL)
    told = await house.ask(dialect, stream=stream)
    assert (told.status, told.body.endswith(LAST_EVENTS[dialect])) == (200, stream)
    assert house.ledger.holds() == [("held", None)]
    with closing(house.ledger.write()) as conn:
        conn.execute("DROP TRIGGER full")
    await house.until(lambda: house.daemon.lane.trouble is None)
    assert await house.settled() == [("posted", "ok")]
    assert not house.daemon.lane._spill


@deliveries
@dialects
async def test_a_post_that_can_be_kept_nowhere_ends_the_answer_with_an_error(house, dialect, stream):
    """
    The caller may have read the words, but never their end: what is not booked was not delivered.
    """
    house.upstream.pieces = answered(dialect, stream=stream)
    break_off(house.daemon.lane._spill)
    with closing(house.ledger.write()) as conn:
        conn.execute(FULL)
    told = await house.ask(dialect, stream=stream)
    assert LAST_EVENTS[dialect] not in told.body
    error = json.loads(told.body.split(b"data: ")[-1])["error"]
    assert (told.status, error["code"]) == ((200, "ledger_unavailable") if stream else (503, "ledger_unavailable"))
    assert house.ledger.holds() == [("held", None)]


def break_off(spill: Spill) -> None:
    """Let the disk refuse whatever is written into it."""
    reading = os.open(spill.path, os.O_RDONLY)
    os.dup2(reading, spill._fd)
    os.close(reading)

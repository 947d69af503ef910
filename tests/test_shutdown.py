"""
Signals: a stop lets calls end, then settles what is left; a reload changes what the file says or nothing.
"""

import asyncio
import json
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from caller_kit import LAST_EVENTS, PATHS, Told, ask, asked, model_toml, open_http, post
from daemon_kit import AUTH, TOKEN, Process, environ, get, open_process, provider_toml

from quota_router.simulator import Account, Fault, FaultKind, Reply, Simulator

BOUND_S = 10
"""A signal has been acted on by then."""
AT_ONCE_S = 5
"""An exit that waits for nobody takes less, also on a busy machine."""
DIALECTS = ("openai", "anthropic")


@dataclass(slots=True, kw_only=True)
class House:
    daemon: Process
    sim: Simulator
    http: aiohttp.ClientSession
    folder: Path

    @property
    def url(self) -> str:
        return self.daemon.url

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def signal(self, number: signal.Signals) -> None:
        self.daemon.process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(BOUND_S):
            return await self.daemon.process.wait()

    async def refused(self, kept: aiohttp.ClientSession, dialect: str = "openai") -> Told:
        """The first call on a kept connection that is refused."""
        async with asyncio.timeout(BOUND_S):
            while (told := await ask(kept, self.url, dialect, dialect)).status == 200:
                pass
        return told

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not holds():
                await get(self.url, "/api/v1/status")

    def read(self, sql: str) -> list[Any]:
        """What the ledger says, when the daemon is gone."""
        with closing(sqlite3.connect(self.folder / "state" / "ledger.db")) as conn:
            return conn.execute(sql).fetchall()


@asynccontextmanager
async def open_house(folder: Path, server: str = "") -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key=dialect) for dialect in DIALECTS]))
        urls = {"openai": sim.openai_base_url, "anthropic": sim.anthropic_base_url}
        catalog = "".join(provider_toml(name, urls[name], vendor=name) + model_toml(name, name) for name in DIALECTS)
        keys = {f"KEY_{dialect.upper()}": dialect for dialect in DIALECTS}
        daemon = await stack.enter_async_context(open_process(folder, catalog, server=server, **keys))
        http = await stack.enter_async_context(open_http())
        yield House(daemon=daemon, sim=sim, http=http, folder=folder)


def one_connection() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))


async def begin(house: House, dialect: str) -> aiohttp.ClientResponse:
    """A stream whose first words are here."""
    answer = await post(house.http, house.url, dialect, dialect, stream=True)
    words = b""
    while b"quick" not in words:
        words += await answer.content.readany()
    return answer


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_running_calls_end_and_takes_no_new_ones(tmp_path, how):
    async with open_house(tmp_path) as house, one_connection() as kept:
        assert (await ask(kept, house.url, "openai", "openai")).status == 200
        for dialect in DIALECTS:
            house.sim.script(dialect, Reply(text="quick " * 20, chunks=20, chunk_delay_s=0.1))
        streams = {dialect: await begin(house, dialect) for dialect in DIALECTS}
        house.sim.script("openai", Reply(first_byte_delay_s=1.5))
        whole = asyncio.create_task(ask(house.http, house.url, "openai", "openai"))
        await house.sim.wait_for_requests(4)
        slow_reader, slow_writer = await half_a_call(house.url)

        house.signal(how)
        for dialect in DIALECTS:
            told = await house.refused(kept, dialect)
            assert (told.status, told.error["code"], told.headers["Retry-After"]) == (503, "shutting_down", "1")
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(house.http, house.url, "openai", "openai")
        slow_writer.write(asked("openai")[10:])
        assert (await slow_reader.readline()).startswith(b"HTTP/1.1 503")
        slow_writer.close()

        for dialect, stream in streams.items():
            assert (await stream.content.read()).endswith(LAST_EVENTS[dialect])
        assert (await whole).status == 200
        assert await house.exit_code() == 0
        held = house.read("SELECT state, outcome, count(*) FROM holds GROUP BY 1, 2")
        assert [(state, outcome) for state, outcome, _ in held] == [("posted", "ok")]
        assert house.read("SELECT count(*) FROM entries WHERE quality = 'reported'") == [(held[0][2],)]


async def half_a_call(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call whose head was read and whose body is still on its way."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    body = asked("openai")
    head = f"POST {PATHS['openai']} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    await reader.readline()
    writer.write(body[:10])
    return reader, writer


@pytest.mark.parametrize(("drain_s", "signals"), [(1, 1), (30, 2)], ids=["drain_s is over", "a second signal"])
async def test_what_does_not_end_is_cut_told_and_booked(tmp_path, drain_s, signals):
    async with open_house(tmp_path, f"drain_s = {drain_s}\n") as house, one_connection() as kept:
        assert (await ask(kept, house.url, "openai", "openai")).status == 200
        for dialect in DIALECTS:
            house.sim.script(dialect, Fault(kind=FaultKind.STALL, after_chunks=1))
        streams = {dialect: await begin(house, dialect) for dialect in DIALECTS}
        house.sim.script("anthropic", Fault(kind=FaultKind.STALL))
        unanswered = asyncio.create_task(ask(house.http, house.url, "anthropic", "anthropic"))
        await house.sim.wait_for_requests(4)

        signalled = time.monotonic()
        house.signal(signal.SIGTERM)
        await house.refused(kept)
        if signals == 2:
            house.signal(signal.SIGTERM)
        for dialect, stream in streams.items():
            last = (await stream.content.read()).split(b"\n\n")[-2]
            assert last.startswith(b"event: error\n") == (dialect == "anthropic")
            assert json.loads(last.split(b"data: ")[1])["error"]["code"] == "shutting_down"
        told = await unanswered
        assert (told.status, told.error["code"]) == (503, "shutting_down")
        assert await house.exit_code() == 0
        least_s, most_s = (drain_s, drain_s + AT_ONCE_S) if signals == 1 else (0, AT_ONCE_S)
        assert least_s <= time.monotonic() - signalled < most_s
        cut = ("SELECT state, outcome, count(*) FROM holds WHERE outcome = 'cancelled' OR state = 'held' GROUP BY 1, 2",)
        assert house.read(*cut) == [("posted", "cancelled", 3)]
        assert house.read("SELECT count(*) FROM entries WHERE quality = 'estimated' AND cost_nusd > 0") == [(3,)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_daemon_stops_at_once_and_only_one_may_own_the_ledger(tmp_path, how):
    async with open_house(tmp_path) as house, one_connection() as kept:
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "quota_router.cli", "serve", "--config", str(tmp_path / "quota-router.toml")),
            env=environ(tmp_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(BOUND_S):
            said, complained = await second.communicate()
        assert (second.returncode, said) == (1, b"")
        assert f"Process {house.daemon.process.pid} owns the ledger" in complained.decode()
        assert "Traceback" not in complained.decode()
        # A connection that is open and idle keeps nobody waiting.
        assert (await ask(kept, house.url, "openai", "openai")).status == 200
        signalled = time.monotonic()
        assert await house.daemon.stop(how) == 0
        assert time.monotonic() - signalled < AT_ONCE_S


async def test_a_reload_applies_an_edited_file_and_a_broken_one_changes_nothing(tmp_path):
    async with open_house(tmp_path) as house:
        file = tmp_path / "quota-router.toml"
        good = file.read_text() + model_toml("new", "openai")
        assert (await ask(house.http, house.url, "openai", "new")).status == 404
        file.write_text(good)
        house.signal(signal.SIGHUP)
        async with asyncio.timeout(BOUND_S):
            while (await ask(house.http, house.url, "openai", "new")).status == 404:
                pass
        for broken in ("[[models", f"{good}\n[routing]\npolicyy = 1\n", f"{good}{model_toml('newer', 'nobody')}"):
            complaints = house.log.count("reload_failed")
            file.write_text(broken)
            house.signal(signal.SIGHUP)
            await house.until(lambda before=complaints: house.log.count("reload_failed") > before)
        assert "Traceback" not in house.log
        async with house.http.get(f"{house.url}/v1/models", headers=AUTH) as answer:
            assert {model["id"] for model in (await answer.json())["data"]} == {"openai", "anthropic", "new"}
        assert (await ask(house.http, house.url, "openai", "new")).status == 200
        file.unlink()
        house.signal(signal.SIGHUP)
        await house.until(lambda: house.log.count("reload_failed") == 4)
        assert (await ask(house.http, house.url, "openai", "new")).status == 200
        assert await house.daemon.stop() == 0

"""
A PostgreSQL server that goes away and comes back, under a daemon that runs or that starts: callers are told, nothing is lost, and
nobody has to start anything again.
"""

import asyncio
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from caller_kit import open_http
from daemon_kit import environ, get, write_config
from faults_kit import BOUND_S, LOOK_S, Server, session
from gate_kit import open_gate
from outage_kit import DIALECTS, KEYS, House, catalog_of, end, launch, open_house

from quota_router.store import lane as lane_room

SERVER = "sweep_s = 0.2\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """An admission is refused after half a second rather than five."""
    monkeypatch.setattr(lane_room, "ADMIT_WAIT_S", 0.5)


@pytest.fixture(scope="module")
def server():
    opened = Server()
    yield opened
    opened.remove()


@asynccontextmanager
async def stopped(server: Server):
    """It is stopped, and started again when the block ends."""
    await server.stop()
    try:
        yield
    finally:
        await server.start()


async def test_a_server_that_is_restarted_under_load_loses_and_doubles_nothing(tmp_path, server):
    """
    Answers under way end whole, other calls are refused meanwhile, and the daemon goes on by itself.
    """
    ledger = server.make_database("restarted")
    async with open_house(tmp_path, ledger=ledger) as house:
        await house.begin()
        house.gate.is_open.set()
        enough = asyncio.Event()
        callers = [asyncio.create_task(house.call_until(enough)) for _ in range(4)]
        async with stopped(server):
            await house.until_unready("does not take writes")
            await house.finish()
            for told in await house.ask_all():
                assert (told.status, told.error["code"]) == (503, "ledger_unavailable")
        await house.until_ready()
        enough.set()
        told = sum([await caller for caller in callers], start=Counter())
        assert set(told) == {200, 503}
        assert {answer.status for answer in await house.ask_all()} == {200}
        await house.check()


async def test_sessions_that_the_server_ends_are_begun_again(tmp_path, server):
    """
    Nobody who calls notices: what is not answered yet is tried again.
    """
    ledger = server.make_database("ended")
    async with open_house(tmp_path, ledger=ledger) as house:
        await house.begin()
        for _ in range(3):
            with session(ledger) as run:
                run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'ended'")
            assert {told.status for told in await house.ask_all_at_once()} == {200}
            assert (await get(house.url, "/api/v1/usage"))["total"]["calls"] > 0
        await house.finish()
        await house.check()


def free_address() -> str:
    """One that nobody has now: a daemon tells its own only once it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def open_waiting(folder, ledger):
    """A daemon process whose server is not there."""
    listen = free_address()
    async with open_gate() as gate, open_http() as http:
        gate.is_open.set()
        process = await launch(
            write_config(folder, catalog_of(gate), SERVER, ledger=ledger, listen=listen), environ(folder, **KEYS)
        )
        house = House(folder=folder, ledger=ledger, url=f"http://{listen}", gate=gate, http=http, process=process)
        try:
            await until_it_answers(house)
            yield house
        finally:
            await end(process)


async def until_it_answers(house: House) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                return await house.until_unready("cannot be used")
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(LOOK_S)


async def until_it_serves(house: House) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                return await house.until_ready()
            except aiohttp.ServerDisconnectedError:
                pass  # it has just changed from waiting to serving


async def test_a_daemon_waits_for_a_server_that_is_not_there_yet(tmp_path, server):
    """
    It lives, says what it waits for, refuses calls in their dialect, and serves as soon as the server is there.
    """
    ledger = server.make_database("late")
    async with AsyncExitStack() as stack:
        async with stopped(server):
            house = await stack.enter_async_context(open_waiting(tmp_path, ledger))
            async with house.http.get(f"{house.url}/healthz") as answer:
                assert answer.status == 200
            for told, dialect in zip(await asyncio.gather(*(house.ask(dialect) for dialect in DIALECTS)), DIALECTS, strict=True):
                assert (told.status, told.error["code"], told.headers["Retry-After"]) == (503, "ledger_unavailable", "5")
                assert (b'"type":"error"' in told.body) == (dialect == "anthropic")
                # A connection that were kept would be cut when the ledger opens, under whoever is just sending on it.
                assert told.headers["Connection"] == "close"
        await until_it_serves(house)
        assert {told.status for told in await house.ask_all()} == {200}
        house.process.send_signal(signal.SIGTERM)
        assert await house.process.wait() == 0
        assert "Traceback" not in house.log
        await house.check()


async def test_a_daemon_that_waits_can_be_stopped(tmp_path, server):
    ledger = server.make_database("never")
    async with stopped(server), open_waiting(tmp_path, ledger) as house:
        house.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND_S):
            assert await house.process.wait() == 0
        assert "Traceback" not in house.log

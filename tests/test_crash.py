"""
kill -9: every answer that a caller has whole stands in the ledger, once; what was under way is assumed, once.
"""

import asyncio
import random
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from caller_kit import INPUT_NUSD, LAST_EVENTS, OUTPUT_NUSD, ask, budget_toml, model_toml, open_http
from daemon_kit import START_TIMEOUT_S, Process, environ, get, provider_toml, write_config
from heavy_kit import IS_SMALL
from sqlalchemy.ext.asyncio import create_async_engine

from quota_router.simulator import Account, Reply, Simulator
from quota_router.store.chain import verify_chains

SEED = 20_261_120
CALLERS = 32
ROUNDS = 8
MANY_ROUNDS = 25 if IS_SMALL else 100
DIALECTS = ("openai", "anthropic")
PACED = Reply(input_tokens=10, output_tokens=5, chunks=4, chunk_delay_s=0.002, first_byte_delay_s=0.002, times=None)
COST_NUSD = 10 * INPUT_NUSD + 5 * OUTPUT_NUSD
"""Of each answer."""


@dataclass(slots=True, kw_only=True)
class House:
    """One ledger, and the daemons that one after the other own it."""

    folder: Path
    catalog: str
    sim: Simulator
    daemon: Process | None = None
    acknowledged: list[str] = field(default_factory=list)
    """calls whose whole answer a caller has"""
    assumed: list[str] = field(default_factory=list)
    """holds that were open when their daemon died"""

    @property
    def env(self) -> dict[str, str]:
        return environ(self.folder, **{f"KEY_{dialect.upper()}": dialect for dialect in DIALECTS})

    async def start(self) -> None:
        self.daemon = await Process.start(write_config(self.folder, self.catalog), self.env)

    async def kill(self) -> None:
        """Kill the daemon, and note which holds are open: from a copy, so that the file stays as the crash left it."""
        assert self.daemon is not None
        assert await self.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        self.assumed += [hold for (hold,) in self.read("SELECT id FROM holds WHERE state = 'held'")]

    def copy(self) -> Path:
        there = self.folder / "copy"
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir()
        for file in (self.folder / "state").glob("ledger.db*"):
            shutil.copy(file, there)
        return there / "ledger.db"

    def read(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.copy())) as conn:
            return conn.execute(sql).fetchall()

    async def load(self, until: int) -> None:
        """Let the callers call until so many more answers are whole; then kill, with all of them under way."""
        assert self.daemon is not None
        enough, wanted = asyncio.Event(), len(self.acknowledged) + until
        async with open_http() as http, asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                dialect, stream = DIALECTS[number % 2], number % 4 < 2
                callers.create_task(self._call_for_ever(http, dialect, stream, enough, wanted))
            await enough.wait()
            await self.kill()

    async def _call_for_ever(
        self, http: aiohttp.ClientSession, dialect: str, stream: bool, enough: asyncio.Event, wanted: int
    ) -> None:
        assert self.daemon is not None
        while True:
            try:
                told = await ask(http, self.daemon.url, dialect, dialect, stream=stream)
            except (aiohttp.ClientError, ConnectionError):
                assert enough.is_set(), "the daemon broke a call before it was killed"
                return
            assert (told.status, told.body.endswith(LAST_EVENTS[dialect])) == (200, stream)
            self.acknowledged.append(told.call_id)
            if len(self.acknowledged) >= wanted:
                enough.set()

    async def check(self) -> None:
        """Compare what callers and crashes left behind with what the daemon that runs now says."""
        assert self.daemon is not None
        booked = Counter(self.read("SELECT hold_id, kind, quality FROM entries"))
        posted = Counter(call for (call,) in self.read("SELECT call_id FROM entries WHERE kind = 'post'"))
        assert set(booked.values()) <= {1}
        assert len(set(self.acknowledged)) == len(self.acknowledged)
        assert [call for call in self.acknowledged if posted[call] != 1] == []
        assert {(hold, quality) for hold, kind, quality in booked if kind == "expire"} == {
            (hold, "assumed") for hold in self.assumed
        }
        ended = dict(self.read("SELECT call_id, outcome FROM holds ORDER BY attempt"))
        assert {ended[call] for call in self.acknowledged} <= {"ok"}

        ((calls, spent, requests),) = self.read("SELECT count(DISTINCT call_id), sum(cost_nusd), count(*) FROM entries")
        total = (await get(self.daemon.url, "/api/v1/usage"))["total"]
        assert (total["calls"], total["cost_nusd"], total["unpriced"]) == (calls, spent, 0)
        ((reported,),) = self.read("SELECT sum(cost_nusd) FROM entries WHERE kind = 'post' AND quality = 'reported'")
        assert reported >= len(self.acknowledged) * COST_NUSD
        limits = {limit["name"]: limit for limit in (await get(self.daemon.url, "/api/v1/limits"))["items"]}
        assert {name: (limit["posted"], limit["held"]) for name, limit in limits.items()} == {
            "usd": (spent, 0),
            "requests": (requests, 0),
            "places": (0, 0),
        }
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.copy()}")
        async with engine.connect() as conn:
            (chain,) = await verify_chains(conn)
        await engine.dispose()
        assert (chain.broken_at, chain.entries, chain.cost_nusd) == (None, requests, spent)

    async def close(self) -> None:
        if self.daemon is not None and self.daemon.process.returncode is None:
            await self.daemon.stop(signal.SIGKILL)


@pytest_asyncio.fixture
async def house(tmp_path):
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key=dialect) for dialect in DIALECTS]))
        sim.script(None, PACED)
        urls = {"openai": sim.openai_base_url, "anthropic": sim.anthropic_base_url}
        catalog = "".join(provider_toml(name, urls[name], vendor=name) + model_toml(name, name) for name in DIALECTS)
        catalog += budget_toml("usd", "everyone", "usd", "1000")
        catalog += budget_toml("requests", "everyone", "requests", "1000000", enforcement="bounded")
        catalog += budget_toml("places", "everyone", "concurrency", "1000", window="forever")
        opened = House(folder=tmp_path, catalog=catalog, sim=sim)
        stack.push_async_callback(opened.close)
        yield opened


async def crash_and_check(house: House, rounds: int) -> None:
    """Each round ends a daemon under load and begins the next one on what is left."""
    chance = random.Random(SEED)  # noqa: S311 -- the moments are to be the same ones in every run
    await house.start()
    for _ in range(rounds):
        await house.load(until=chance.randrange(1, 150))
        await house.start()
        await house.check()
    assert len(house.acknowledged) > rounds
    assert house.assumed, "no crash met a call under way: the load is too light"


async def test_no_crash_under_load_loses_or_doubles_an_answer(house):
    """
    And a start after a start books nothing more; neither does one that is killed as soon as it listens.
    """
    await crash_and_check(house, ROUNDS)
    before = house.read("SELECT * FROM entries ORDER BY seq")
    for _ in range(2):
        await house.kill()
        await house.start()
    assert house.read("SELECT * FROM entries ORDER BY seq") == before
    await house.check()


@pytest.mark.slow
async def test_a_hundred_crashes_lose_and_double_nothing(house):
    await crash_and_check(house, MANY_ROUNDS)


async def start_and_kill(house: House, is_time: Callable[[], bool]) -> None:
    """Kill a daemon that is starting, as soon as something is seen of it."""
    command = (sys.executable, "-m", "quota_router.cli", "serve", "--config", str(house.folder / "quota-router.toml"))
    with (house.folder / "start.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=house.env, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await asyncio.to_thread(is_time):
                assert process.returncode is None, (house.folder / "start.log").read_text()
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("has_crashed", [False, True], ids=["new ledger", "after a crash"])
async def test_a_crash_during_start_leaves_a_ledger_that_starts(house, has_crashed):
    """
    As the file appears, while it is migrated, while the catalog is applied and old holds are booked, and as it listens.
    """
    write_config(house.folder, house.catalog)
    if has_crashed:
        await house.start()
        await house.load(until=10)
    ledger, log = house.folder / "state" / "ledger.db", house.folder / "start.log"
    listens = b"http://"
    has_written: list[Callable[[], bool]] = [ledger.exists, ledger.with_name("ledger.db-wal").exists]
    has_said: list[Callable[[], bool]] = [
        lambda: log.stat().st_size > 0,
        lambda: any(said in log.read_bytes() for said in (b"catalog_changed", b"holds_reconciled", listens)),
        lambda: listens in log.read_bytes(),
    ]
    moments = has_said if has_crashed else has_written + has_said
    for is_time in moments:
        await start_and_kill(house, is_time)
    await house.start()
    if has_crashed:
        await house.check()
    assert house.daemon is not None
    async with open_http() as http:
        told = await ask(http, house.daemon.url, "openai", "openai")
    assert told.status == 200
    house.acknowledged.append(told.call_id)
    await house.check()

"""A ledger that is crashed on, again and again: daemons that own it one after the other, the calls they get, what they owe."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from books_kit import Books, read_books
from caller_kit import LAST_EVENTS, ask, budget_toml, model_toml, open_http
from daemon_kit import Process, environ, open_here, provider_toml, write_config
from database_kit import url_of
from faults_kit import BOUND_S, wait_alone
from ledger_kit import ForgetCooldowns

from quota_router.crashpoints import EXIT_CODE, VARIABLE, CrashPoint
from quota_router.daemon import Daemon
from quota_router.simulator import Account, Fault, FaultKind, Reply, Simulator

DIALECTS = ("openai", "anthropic")
ACCOUNTS = (*DIALECTS, "breaks", "stands")
"""The first rung of the model `falls` breaks every call, after the upstream has received it."""
PACED = Reply(input_tokens=10, output_tokens=5, chunks=3, chunk_delay_s=0.002, first_byte_delay_s=0.002, times=None)
SERVER = 'durability = "process"\n'
"""What dies here is the daemon, never the machine."""
KINDS = (*((dialect, dialect, stream) for dialect in DIALECTS for stream in (False, True)), ("openai", "falls", True))
"""Dialect, model, whether it streams: each dialect whole and streaming, and one call whose first rung hangs up."""


@dataclass(slots=True, kw_only=True)
class Crashed:
    """What a crash left behind."""

    books: Books
    spilled: frozenset[str]
    """holds whose end stands in a spill file"""


@dataclass(slots=True, kw_only=True)
class House:
    """One ledger, and what was acknowledged by the daemons that owned it."""

    folder: Path
    url: str
    catalog: str
    sim: Simulator
    acknowledged: list[str] = field(default_factory=list)
    """calls whose whole answer a caller has"""

    @property
    def variables(self) -> dict[str, str]:
        return {f"KEY_{account.upper().replace('-', '_')}": account for account in ACCOUNTS}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Daemon]:
        """A daemon in this process, which nothing makes crash."""
        async with open_here(self.folder, self.catalog, server=SERVER, **self.variables) as daemon:
            yield daemon

    async def serve_all(self) -> None:
        """Let a daemon answer every kind of call, and stop in peace."""
        async with self.open() as daemon:
            await self.call_all(daemon.url)
            await daemon.lane.run(ForgetCooldowns())

    async def call_all(self, url: str, first: int = 0) -> bool:
        """
        Send every kind of call at once, beginning with number *first*, and note which were acknowledged.

        Returns:
            whether all of them were answered, be it with an error.
        """
        kinds = (*KINDS[first % len(KINDS) :], *KINDS[: first % len(KINDS)])
        async with open_http() as http:
            return all(await asyncio.gather(*(self._call(http, url, *kind) for kind in kinds)))

    async def _call(self, http: aiohttp.ClientSession, url: str, dialect: str, model: str, stream: bool) -> bool:
        try:
            told = await ask(http, url, dialect, model, stream=stream)
        except (aiohttp.ClientError, ConnectionError):
            return False
        if told.status == 200 and (not stream or told.body.endswith(LAST_EVENTS[dialect])):
            self.acknowledged.append(told.call_id)
        return True

    async def start(self, point: CrashPoint) -> Process | None:
        """Start a daemon process that dies at *point*; `None`: it has done so before it listened."""
        env = environ(self.folder, **self.variables, **{VARIABLE: point.value})
        process, line = await Process.launch(write_config(self.folder, self.catalog, SERVER), env)
        if line:
            return Process(process=process, url=line.removeprefix("quota_router listens on "))
        async with asyncio.timeout(BOUND_S):
            assert await process.wait() == EXIT_CODE, (self.folder / "daemon.log").read_text()[-2000:]
        return None

    async def crashed(self) -> Crashed:
        """Look at what is there when nobody owns it."""
        await wait_alone(self.url)
        spills = [path.read_bytes() for path in self.folder.rglob("settlements-*.spill")]
        spilled = frozenset(hold.decode() for text in spills for hold in re.findall(rb'"hold_id":"([^"]+)"', text))
        return Crashed(books=await read_books(self.url), spilled=spilled)

    async def check(self, crashes: Sequence[Crashed] = ()) -> Books:
        """Compare the ledger with what callers have, and with what *crashes* left open."""
        books = await read_books(self.url)
        books.check()
        assert books.open_holds == set()
        assert len(set(self.acknowledged)) == len(self.acknowledged)
        for call_id in self.acknowledged:
            last = max((hold for hold in books.holds if hold.call_id == call_id), key=lambda hold: hold.attempt)
            assert (last.state, last.outcome, books.booked(last.id)) == ("posted", "ok", [("post", "reported")])
        for crash in crashes:
            assert set(crash.books.lines) <= set(books.lines)
            for hold in crash.books.open_holds:
                wanted = [("post", "reported")] if hold in crash.spilled else [("expire", "assumed")]
                assert books.booked(hold) == wanted
        sent = Counter(request.key for request in self.sim.requests)
        assert sent <= Counter(hold.provider for hold in books.holds), "a call was sent that nothing was held for"
        return books


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    async with Simulator([Account(key=account) for account in ACCOUNTS]) as sim:
        sim.script("breaks", Fault(kind=FaultKind.CLOSE_BEFORE_ANSWER, times=None))
        sim.script(None, PACED)
        urls = {"anthropic": sim.anthropic_base_url}
        catalog = "".join(
            provider_toml(name, urls.get(name, sim.openai_base_url), vendor="anthropic" if name == "anthropic" else "openai")
            for name in ACCOUNTS
        )
        catalog += "".join(model_toml(name, name) for name in DIALECTS) + model_toml("falls", "breaks", "stands")
        catalog += budget_toml("usd", "everyone", "usd", "1000", window="forever")
        catalog += budget_toml("requests", "everyone", "requests", "1000000", window="forever", enforcement="bounded")
        catalog += budget_toml("places", "everyone", "concurrency", "1000", window="forever")
        yield House(folder=folder, url=url_of(folder), catalog=catalog, sim=sim)

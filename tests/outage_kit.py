"""A daemon before a gated upstream, whose ledger is taken away and given back while calls are under way."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from books_kit import Books, read_books
from caller_kit import LAST_EVENTS, Told, ask, budget_toml, model_toml, open_http, post
from daemon_kit import environ, open_here, provider_toml, write_config
from database_kit import url_of
from faults_kit import BOUND_S
from gate_kit import FIRST_WORDS, Gate, open_gate

from quota_router.daemon import Daemon
from quota_router.store.ledger_file import read_path

DIALECTS = ("openai", "anthropic")
SERVER = "sweep_s = 0.2\n"
KEYS = {f"KEY_{name.upper()}": name for name in (*DIALECTS, "openrouter", "nowhere", "busy")}
_WITHOUT_OVERRIDE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Root may write what is read-only: a daemon that is started so may not. 24 is PR_CAPBSET_DROP, 1 CAP_DAC_OVERRIDE (prctl(2) and
capabilities(7), read 2026-11-25); whoever is not root is refused, and needs it not."""


@dataclass(slots=True, kw_only=True)
class House:
    """The daemon at *url*, and its ledger at *ledger*."""

    folder: Path
    ledger: str
    url: str
    gate: Gate
    http: aiohttp.ClientSession
    daemon: Daemon | None = None
    """`None`: it is a process of its own"""
    process: asyncio.subprocess.Process | None = None
    acknowledged: list[str] = field(default_factory=list)
    """calls whose whole answer a caller has"""
    _streams: dict[str, aiohttp.ClientResponse] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return read_path(self.ledger)

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    async def begin(self) -> None:
        """Begin a stream in each dialect; its first words are here."""
        for dialect in DIALECTS:
            answer = self._streams[dialect] = await post(self.http, self.url, dialect, dialect, stream=True)
            words = b""
            while FIRST_WORDS not in words:
                words += await answer.content.readany()

    async def finish(self) -> None:
        """Let the streams that were begun end; they are whole."""
        self.gate.is_open.set()
        async with asyncio.timeout(BOUND_S):
            for dialect, answer in self._streams.items():
                assert (await answer.content.read()).endswith(LAST_EVENTS[dialect])
                self.acknowledged.append(answer.headers["x-quota-router-call"])

    async def ask(self, dialect: str, **how: Any) -> Told:
        async with asyncio.timeout(BOUND_S):
            told = await ask(self.http, self.url, dialect, dialect, **how)
        if told.status == 200:
            self.acknowledged.append(told.call_id)
        return told

    async def ask_all(self) -> list[Told]:
        """One call of each dialect and delivery."""
        return await asyncio.gather(*(self.ask(dialect, stream=stream) for dialect in DIALECTS for stream in (False, True)))

    async def call_until(self, enough: asyncio.Event) -> Counter[int]:
        """Let each kind of caller call again and again. Returns how often which status was told."""
        told: Counter[int] = Counter()
        while not enough.is_set():
            told.update(answer.status for answer in await self.ask_all())
        return told

    async def ask_all_at_once(self) -> list[Told]:
        """Likewise, of an upstream that answers at once."""
        self.gate.is_open.set()
        answers = await self.ask_all()
        self.gate.is_open.clear()
        return answers

    async def readiness(self) -> tuple[int, list[str]]:
        async with self.http.get(f"{self.url}/readyz") as answer:
            return answer.status, json.loads(await answer.read())["reasons"]

    async def until_ready(self) -> None:
        async with asyncio.timeout(BOUND_S):
            while await self.readiness() != (200, []):
                pass

    async def until_unready(self, reason: str) -> None:
        """Wait until it says by itself that it cannot serve, and why; nobody calls."""
        said: tuple[int, list[str]] = (0, [])
        try:
            async with asyncio.timeout(BOUND_S):
                while said[0] != 503 or reason not in said[1][0]:
                    said = await self.readiness()
        except TimeoutError:
            raise AssertionError(f"it says {said}, not {reason!r}") from None

    async def check(self) -> Books:
        """Everything that was acknowledged is booked once, as the upstream reported it, and nothing else is."""
        books = await read_books(self.ledger)
        books.check()
        assert books.open_holds == set()
        booked = [(entry.call_id, entry.kind, entry.quality) for entry in books.entries]
        assert sorted(booked) == sorted((call, "post", "reported") for call in self.acknowledged)
        return books


def catalog_of(gate: Gate) -> str:
    """
    A model of each dialect, and three more.

    `drained`, where hanging up does not stop the bill; `falls`, whose first rung cannot be reached; `moves`, whose first refuses.
    """
    urls = {"openai": gate.openai_base_url, "anthropic": gate.anthropic_base_url}
    catalog = "".join(provider_toml(name, urls[name], vendor=name) + model_toml(name, name) for name in DIALECTS)
    catalog += provider_toml("openrouter", gate.openai_base_url, vendor="openrouter") + model_toml("drained", "openrouter")
    catalog += provider_toml("nowhere", "http://127.0.0.1:1/v1") + model_toml("falls", "nowhere", "openai")
    catalog += provider_toml("busy", gate.busy_base_url) + model_toml("moves", "busy", "openai")
    catalog += budget_toml("usd", "everyone", "usd", "1000", window="forever")
    return catalog + budget_toml("places", "everyone", "concurrency", "1000", window="forever")


@asynccontextmanager
async def open_house(
    folder: Path, server: str = SERVER, *, ledger: str | None = None, clock: Callable[[], datetime] | None = None
) -> AsyncIterator[House]:
    """With the daemon in this process."""
    async with AsyncExitStack() as stack:
        gate, http = await stack.enter_async_context(open_gate()), await stack.enter_async_context(open_http())
        how: dict[str, Any] = {"server": server, "ledger": ledger, "clock": clock}
        daemon = await stack.enter_async_context(open_here(folder, catalog_of(gate), **how, **KEYS))
        yield House(folder=folder, ledger=ledger or url_of(folder), url=daemon.url, gate=gate, http=http, daemon=daemon)


@asynccontextmanager
async def open_house_apart(folder: Path, server: str = SERVER, log: Path | None = None) -> AsyncIterator[House]:
    """With the daemon as a process, which may not write what is read-only; it is gone when the block ends."""
    async with AsyncExitStack() as stack:
        gate, http = await stack.enter_async_context(open_gate()), await stack.enter_async_context(open_http())
        path = write_config(folder, catalog_of(gate), server)
        process = await launch(path, environ(folder, **KEYS), log)
        stack.push_async_callback(end, process)
        url = await address_of(process)
        assert url, "it has ended: daemon.log may say why"
        yield House(folder=folder, ledger=url_of(folder), url=url, gate=gate, http=http, process=process)


async def launch(path: Path, env: Mapping[str, str], log: Path | None = None) -> asyncio.subprocess.Process:
    """Start a daemon. *log*: where its stderr goes; `None`: into `daemon.log` beside its file."""
    serve = (sys.executable, "-m", "quota_router.cli", "serve", "--config", str(path))
    with (log or path.parent / "daemon.log").open("ab") as stderr:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WITHOUT_OVERRIDE, *serve), env=dict(env), stdout=asyncio.subprocess.PIPE, stderr=stderr
        )


async def address_of(process: asyncio.subprocess.Process) -> str:
    """Where it listens; empty: it has ended instead."""
    assert process.stdout is not None
    async with asyncio.timeout(BOUND_S):
        line = (await process.stdout.readline()).decode().strip()
    return line.removeprefix("quota_router listens on ")


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()

"""
kill -9 under load, again and again: how many acknowledged settlements are lost, how many are booked twice?

Law: the daemon is a process of its own, as `serve` starts it, and is killed while all of its callers are under way. What counts as
acknowledged is what a caller has in hand: a whole answer, `[DONE]` or `message_stop` included, or a settlement that was answered.
Never: asks the daemon what was booked: entries and holds are read from the database beside it.

    python benchmarks/kill.py [--rounds 200] [--database sqlite|postgres|URL] [--quick]

Each round starts a daemon on what the last one left, lets the callers of decisions say again what was never answered, waits until
nothing is held, reads the books, verifies the ledger, and then kills under load at a moment left to chance. Exits 1 when anything
was lost or doubled, stayed held, or is not whole.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import aiohttp
from ledgers import HELP, new_ledger
from machine import BenchmarkError, clean_environment
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import select

from quota_router.simulator import Account, Reply, Simulator
from quota_router.store.audit import verify
from quota_router.store.open import is_postgres, reading_beside
from quota_router.store.tables import entries, holds

QUICK_ROUNDS = 5
ROWS = 10
"""Of the table, at most."""
CALLERS = 16
"""Of calls; each third of them streams."""
DECIDERS = 4
"""Callers who make the call themselves, and settle it."""
ANSWERS = 120
"""At most so many are acknowledged before the kill."""
START_S = STILL_S = 60.0
"""How long a start may take, and the end of the last hold."""
LOOK_S = 0.02

INPUT_TOKENS, OUTPUT_TOKENS = 10, 5
COST_NUSD = INPUT_TOKENS * 3_000 + OUTPUT_TOKENS * 15_000
"""Of each call."""
PACED = Reply(
    input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, chunks=4, chunk_delay_s=0.002, first_byte_delay_s=0.002, times=None
)
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
LAST_EVENTS = {"openai": b"data: [DONE]\n\n", "anthropic": b'data: {"type":"message_stop"}\n\n'}

CATALOG = """
[server]
listen = "127.0.0.1:0"
database = "{database}"
durability = "{durability}"
sweep_s = 0.5
retries_lone = 0

[providers.openai]
vendor = "openai"
base_url = "{openai}"
network = "loopback"
credential = "env:KEY_OPENAI"

[providers.anthropic]
vendor = "anthropic"
base_url = "{anthropic}"
network = "loopback"
credential = "env:KEY_ANTHROPIC"

[[models]]
name = "openai"
attachments = ["openai"]
cost_per_million_input = "3"
cost_per_million_output = "15"

[[models]]
name = "anthropic"
attachments = ["anthropic"]
cost_per_million_input = "3"
cost_per_million_output = "15"

[[budgets]]
name = "usd"
subject = "everyone"
unit = "usd"
limit = "1000000"
window = "month"
enforcement = "strict"

[[budgets]]
name = "places"
subject = "everyone"
unit = "concurrency"
limit = "1000"
window = "forever"
"""


@dataclass(slots=True, kw_only=True)
class Figures:
    """What one round showed, or all of them."""

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    cut: int = 0
    """holds that were open when the daemon died"""
    left: int = 0
    """holds that stayed open"""
    findings: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every law was kept."""
        return (self.lost, self.doubled, self.left, self.findings) == (0, 0, 0, 0)


@dataclass(slots=True, kw_only=True)
class Decision:
    """A call that its caller makes himself, until its settlement is acknowledged."""

    key: str
    hold_id: str | None = None


@dataclass(slots=True, kw_only=True)
class House:
    """One ledger, the daemons that own it one after the other, and what was acknowledged by them."""

    folder: Path
    url: str
    """of the database"""
    chance: random.Random
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    process: asyncio.subprocess.Process | None = None
    base_url: str = ""
    acknowledged: set[str] = field(default_factory=set)
    """calls"""
    unanswered: list[Decision] = field(default_factory=list)
    said_again: int = 0
    restarts_s: list[float] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, str]:
        """The headers of an admin."""
        return {"Authorization": f"Bearer {self.token}"}

    async def start(self) -> None:
        """Start a daemon and wait for the line that says where it listens."""
        command = (Path(sys.executable).with_name("quota-router"), "serve", "--config", self.folder / "quota-router.toml")
        env = {
            **clean_environment(),
            "QUOTA_ROUTER_ADMIN_TOKEN": self.token,
            "XDG_STATE_HOME": str(self.folder),
            "KEY_OPENAI": "openai",
            "KEY_ANTHROPIC": "anthropic",
        }
        log_path, began = self.folder / "daemon.log", time.perf_counter()
        with log_path.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await self.process.stdout.readline()).decode().strip()
        if "http://" not in line:
            raise BenchmarkError(f"The daemon did not start. Its log ends:\n{log_path.read_text()[-2000:]}")
        self.restarts_s.append(time.perf_counter() - began)
        self.base_url = "http://" + line.split("http://", 1)[1]

    async def kill(self) -> None:
        """End the daemon as nothing can prevent; twice is once."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def load(self) -> int:
        """
        Let every caller call again and again, and kill the daemon in the midst of it.

        Returns:
            how many holds were open then.
        """
        enough, wanted = asyncio.Event(), len(self.acknowledged) + self.chance.randint(1, ANSWERS)
        async with open_http() as http, asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                dialect, stream = ("openai", "anthropic")[number % 2], number % 3 == 0
                callers.create_task(self._call(http, dialect, enough, wanted, stream=stream))
            for _ in range(DECIDERS):
                callers.create_task(self._decide(http, enough, wanted))
            await enough.wait()
            await self.kill()
        return await asyncio.to_thread(self._count_open)

    async def _call(self, http: aiohttp.ClientSession, dialect: str, enough: asyncio.Event, wanted: int, *, stream: bool) -> None:
        asked = {"model": dialect, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": stream}
        while True:
            try:
                async with http.post(self.base_url + PATHS[dialect], json=asked, headers=self.auth) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, ConnectionError) as exc:
                self._expect_death(enough, exc)
                return
            if answer.status != 200 or (stream and not body.endswith(LAST_EVENTS[dialect])):
                raise BenchmarkError(f"A call was answered with {answer.status}: {body[:500]!r}")
            self._note(answer.headers["x-quota-router-call"], enough, wanted)

    async def _decide(self, http: aiohttp.ClientSession, enough: asyncio.Event, wanted: int) -> None:
        while True:
            decision = Decision(key=secrets.token_hex(16))
            try:
                call_id = await self._settle(http, decision)
            except (aiohttp.ClientError, ConnectionError) as exc:
                self._expect_death(enough, exc)
                self.unanswered.append(decision)
                return
            self._note(call_id, enough, wanted)

    async def _settle(self, http: aiohttp.ClientSession, decision: Decision) -> str:
        """Take a hold and settle it; said again it is the same one. Returns the call's id."""
        asked = {"model": "openai", "input_tokens": INPUT_TOKENS, "max_output_tokens": 50}
        told = await self._say(http, "/api/v1/route", asked, {**self.auth, "Idempotency-Key": decision.key})
        decision.hold_id = told["hold"]["id"]
        used = {"usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}}
        await self._say(http, f"/api/v1/holds/{decision.hold_id}/settle", used, self.auth)
        return str(told["call_id"])

    async def _say(self, http: aiohttp.ClientSession, path: str, asked: object, headers: dict[str, str]) -> dict:
        async with http.post(self.base_url + path, json=asked, headers=headers) as answer:
            body = await answer.read()
        if answer.status not in {200, 201}:
            raise BenchmarkError(f"{path} was answered with {answer.status}: {body[:500]!r}")
        return json.loads(body)

    def _expect_death(self, enough: asyncio.Event, exc: Exception) -> None:
        if not enough.is_set():
            raise BenchmarkError(f"The daemon broke a call before it was killed: {exc!r}") from exc

    def _note(self, call_id: str, enough: asyncio.Event, wanted: int) -> None:
        self.acknowledged.add(call_id)
        if len(self.acknowledged) >= wanted:
            enough.set()

    async def say_again(self) -> None:
        """Whoever had no answer says all of it again: under his key it is one call, and one settlement."""
        async with open_http() as http:
            while self.unanswered:
                self.acknowledged.add(await self._settle(http, self.unanswered[-1]))
                self.unanswered.pop()
                self.said_again += 1

    async def come_to_rest(self) -> int:
        """Wait until nothing is held any more. Returns how many holds stayed."""
        until = time.monotonic() + STILL_S
        # A sweep in another process sets no event here.
        while (left := await asyncio.to_thread(self._count_open)) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return left

    def _count_open(self) -> int:
        with reading_beside(self.url) as conn:
            return len(conn.execute(select(holds.c.id).where(holds.c.state == "held")).all())

    def read(self) -> Figures:
        """Compare the books with what was acknowledged, and verify them."""
        with reading_beside(self.url) as conn:
            lines = conn.execute(select(entries.c.call_id, entries.c.kind, entries.c.quality, entries.c.cost_nusd)).all()
            verdict = verify(conn, datetime.now(UTC))
        for finding in verdict.findings:
            print(finding.text, file=sys.stderr)
        # Each call has one rung and one attempt: one line of money, and that of an acknowledged one is what it cost.
        counted = Counter(line.call_id for line in lines)
        exact = {line.call_id for line in lines if (line.kind, line.quality, line.cost_nusd) == ("post", "reported", COST_NUSD)}
        return Figures(
            acknowledged=len(self.acknowledged),
            lost=len(self.acknowledged - exact),
            doubled=sum(count > 1 for count in counted.values()),
            findings=verdict.found,
        )


@asynccontextmanager
async def open_http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


async def play(house: House, rounds: int, progress: Progress) -> Figures:
    """Kill *rounds* times, print the table, and return the sums; what a round lost stays lost in those after it."""
    total, rows = Figures(), {rounds * row // ROWS for row in range(1, ROWS + 1)}
    task = progress.add_task("killing", total=rounds)
    print(
        f"{'kills':>6} {'acknowledged':>13} {'cut short':>10} {'lost':>6} {'doubled':>8} {'left held':>10} {'findings':>9}"
        f" {'restart s':>10}"
    )
    await house.start()
    for number in range(1, rounds + 1):
        total.cut += await house.load()
        await house.start()
        await house.say_again()
        total.left += await house.come_to_rest()
        now = await asyncio.to_thread(house.read)
        total.acknowledged, total.lost, total.doubled, total.findings = now.acknowledged, now.lost, now.doubled, now.findings
        progress.update(task, completed=number, description=f"killing: {now.lost} lost, {now.doubled} doubled")
        if number in rows:
            print(
                f"{number:>6} {total.acknowledged:>13,} {total.cut:>10,} {total.lost:>6} {total.doubled:>8} {total.left:>10}"
                f" {total.findings:>9} {median(house.restarts_s):>10.2f}",
                flush=True,
            )
    return total


async def run(options: argparse.Namespace, folder: Path, progress: Progress) -> int:
    with new_ledger(options.database, folder) as url:
        async with Simulator([Account(key="openai"), Account(key="anthropic")]) as upstream:
            upstream.script(None, PACED)
            house = House(folder=folder, url=url, chance=random.Random(options.seed))  # noqa: S311 -- moments, not secrets
            written = CATALOG.format(
                database=url, durability=options.durability, openai=upstream.openai_base_url, anthropic=upstream.anthropic_base_url
            )
            (folder / "quota-router.toml").write_text(written)
            print(
                f"{os.cpu_count()} cores; {'PostgreSQL' if is_postgres(url) else 'SQLite'};"
                f" durability {options.durability}; {CALLERS} callers and {DECIDERS} who settle themselves; seed {options.seed}"
            )
            try:
                total = await play(house, options.rounds, progress)
            finally:
                await house.kill()
    print(
        f"\n{total.acknowledged:,} settlements were acknowledged over {options.rounds} kills:"
        f" {total.lost} lost, {total.doubled} doubled. {total.cut:,} calls were cut short; {total.left} of their holds stayed."
        f" {house.said_again} decisions were said again. The ledger is {'whole' if total.findings == 0 else 'not whole'}."
    )
    return 0 if total.is_good else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill a daemon under load, again and again, and look for what was lost or doubled."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=200, help="how often it is killed (default 200)")
    add("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds: does it work?")
    add("--database", default="sqlite", metavar="WHICH", help=HELP)
    add("--durability", choices=("power", "process"), default="power", help="as [server] durability (default power)")
    add("--seed", type=int, default=0, help="of the moments")
    add("--state", type=Path, metavar="DIR", help="where a ledger that is a file lies meanwhile (default: the temporary directory)")
    options = parser.parse_args()
    if options.quick:
        options.rounds = QUICK_ROUNDS
    if options.rounds < 1:
        parser.error("at least one round")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="quota-router-kill-", dir=options.state) as folder,
            Progress(console=Console(stderr=True), transient=True) as progress,
        ):
            return asyncio.run(run(options, Path(folder), progress))
    except* BenchmarkError as broken:
        print(f"\n{broken.exceptions[0]}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

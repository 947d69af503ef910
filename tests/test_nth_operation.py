"""
Whatever single operation of the lane's database fails, and however: answers were refused or are true, money is booked once, nothing
stays held, and the lane comes back by itself.
"""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import database_kit
import pytest
from books_kit import read_books
from database_kit import POSTGRES, SQLITE, url_of
from faults_kit import BOUND_S, until
from ledger_kit import Clock, admit, call, catalog, limit, new_id, post, provider, void
from msgspec.structs import replace
from nth_kit import (
    Fuse,
    open_fused,
    postgres_hangs_up,
    postgres_hangs_up_after_it,
    postgres_says,
    recovered,
    sqlite_is_closed,
    sqlite_says,
    sqlite_says_no_and_does_it,
)
from structlog.testing import capture_logs

from quota_router.core.calls import Plane
from quota_router.core.holds import Outcome
from quota_router.core.limits import Unit
from quota_router.errors import LedgerUnavailable
from quota_router.store import lane as lane_room
from quota_router.store.holding import Extend, Renew, Sweep
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Setback, Settle
from quota_router.store.writer import CONTENTION

FAILURES = ("53100", "58030", "25006", "57014")
"""Disk full, I/O error, read-only transaction, statement cancelled (PostgreSQL's appendix A, read 2026-11-25)."""
FAULTS = {
    "sqlite is locked": (SQLITE, Fuse(sqlite_says("database is locked", undoes=False))),
    "sqlite is full": (SQLITE, Fuse(sqlite_says("database or disk is full", undoes=True))),
    "sqlite cannot write": (SQLITE, Fuse(sqlite_says("disk I/O error", undoes=True))),
    "sqlite is closed": (SQLITE, Fuse(sqlite_is_closed)),
    "sqlite commits and says no": (SQLITE, Fuse(sqlite_says_no_and_does_it, counts_commits_alone=True)),
    "sqlite stays away": (SQLITE, Fuse(sqlite_says("unable to open database file", undoes=True), stays=True)),
    "postgres hangs up": (POSTGRES, Fuse(postgres_hangs_up)),
    "postgres cannot write": (POSTGRES, Fuse(postgres_says(*FAILURES))),
    "postgres is busy": (POSTGRES, Fuse(postgres_says(*sorted(CONTENTION)))),
    "postgres commits and hangs up": (POSTGRES, Fuse(postgres_hangs_up_after_it, counts_commits_alone=True)),
    "postgres stays away": (POSTGRES, Fuse(postgres_hangs_up, stays=True)),
}
TTL_S = 60
LEAST_OPERATIONS = 10
"""A story that has fewer was not told to its end."""


@dataclass(slots=True, kw_only=True)
class Story:
    """Some of everything that is asked of a lane, and what must be in its books afterwards."""

    lane: Lane
    clock: Clock
    fuse: Fuse
    owed: dict[str, list[str]] = field(default_factory=dict)
    """the kinds of the lines of each hold that somebody was told of"""
    ends: dict[str, Any] = field(default_factory=dict)
    """hold -> when it ends, as was answered last"""

    async def ask(self, answer: Any) -> Any:
        """What is answered; `None`: it was refused."""
        try:
            async with asyncio.timeout(BOUND_S):
                return await answer
        except LedgerUnavailable:
            return None

    async def admit(self, *, plane: Plane = Plane.DATA, **how: Any) -> Any:
        """A hold, whose call is not known yet to have cost anything; `None`: refused."""
        asked = admit(self.lane.catalog, call(plane=plane), ttl_s=TTL_S, **how)
        admitted = await self.ask(self.lane.run(asked))
        if admitted is None:
            return None
        assert isinstance(admitted, Admission)
        self.owed[admitted.hold.id] = []
        return asked, admitted

    async def run(self) -> None:
        await self.fall_back()
        await self.give_back()
        await self.decide()
        await self.edit()
        await self.expire()

    async def fall_back(self) -> None:
        """A call whose first rung fails after it has cost something, and whose second is posted."""
        first = await self.admit()
        if first is None:
            return
        asked, admitted = first
        setback = Setback(hold_id=admitted.hold.id, settlement=post(7, outcome=Outcome.UNKNOWN))
        again = replace(asked, hold_id=new_id(), attempt=2, after=setback, _answer=None)
        second = await self.ask(self.lane.submit(again, settles=True, spills=True))
        # Refused or not, what the first rung has cost is safe.
        self.owed[admitted.hold.id] = ["post"]
        if second is not None:
            await self.ask_settled(Settle(hold_id=second.hold.id, settlement=post()))
            self.owed[second.hold.id] = ["post"]

    async def give_back(self) -> None:
        """A call that was never sent."""
        if admitted := await self.admit():
            await self.ask_settled(Settle(hold_id=admitted[1].hold.id, settlement=void()))

    async def ask_settled(self, settle: Settle) -> None:
        """As the router settles: a spilled settlement is a settlement."""
        async with asyncio.timeout(BOUND_S):
            await self.lane.settle(settle)

    async def decide(self) -> None:
        """A decision whose caller wants more time, and then tells what it has cost."""
        if not (admitted := await self.admit(plane=Plane.DECISION)):
            return
        hold = admitted[1].hold
        if longer := await self.ask(self.lane.run(Extend(hold_id=hold.id, ttl_s=2 * TTL_S, estimate=hold.estimate))):
            self.ends[hold.id] = longer.expires_at
        booked = await self.ask(self.lane.run(Settle(hold_id=hold.id, settlement=post()), settles=True))
        assert booked is not None, "the caller of a decision was not heard, although the database was back in time"
        assert (booked.state, booked.cost_nusd) == ("posted", 60_000)
        self.owed[hold.id] = ["post"]

    async def edit(self) -> None:
        """The operator raises a limit; a refused edit may be made again."""
        usd, requests = self.lane.catalog.limits
        wanted = catalog(replace_limit(usd), requests, providers=tuple(self.lane.catalog.providers.values()))
        while await self.ask(self.lane.edit_catalog(wanted)) is None:
            self.fuse.mend()
            await recovered(self.lane)
        assert self.lane.catalog.limits[0] == wanted.limits[0]

    async def expire(self) -> None:
        """A call that grows, gets more time, and is never heard of again."""
        if not (admitted := await self.admit()):
            return
        hold = admitted[1].hold
        if longer := await self.ask(self.lane.run(Renew(hold_id=hold.id, ttl_s=2 * TTL_S, estimate=hold.estimate))):
            self.ends[hold.id] = longer.expires_at
        self.clock.forward(seconds=3 * TTL_S)
        while await self.ask(self.lane.run(Sweep())) is None:
            await recovered(self.lane)
        self.owed[hold.id] = ["expire"]

    def check(self, lines: dict[str, list[str]], ends: dict[str, Any]) -> None:
        """Compare it with the lines and the end of every hold in the books."""
        assert {hold: lines[hold] for hold in self.owed} == self.owed
        assert {hold: ends[hold] for hold in self.ends} == self.ends


def replace_limit(cap: Any) -> Any:
    return dataclasses.replace(cap, limit=cap.limit + 1)


@pytest.fixture(autouse=True)
def _quiet():
    """Hundreds of failures are logged, and drawing each one's traceback takes longer than all else."""
    with capture_logs():
        yield
    database_kit.use(SQLITE)


@pytest.mark.parametrize("fault", FAULTS)
async def test_any_one_operation_may_fail(tmp_path, monkeypatch, fault):
    """
    Whoever was told of a hold finds it as he was told, and nobody pays for one that he was not told of.
    """
    monkeypatch.setattr(lane_room, "RETRY_PAUSE_S", 0.001)
    database, fuse = FAULTS[fault]
    database_kit.use(database)
    clock = Clock()
    of = catalog(limit("a", unit=Unit.USD, limit=10**12), limit("b", limit=10**6), providers=(provider("one"), provider("two")))
    stories = []
    async with open_fused(tmp_path, clock, of, fuse) as lane:
        for number in count(1):
            stories.append(Story(lane=lane, clock=clock, fuse=fuse))
            fuse.arm(number)
            lifting = asyncio.create_task(lift(lane, fuse))
            await stories[-1].run()
            lifting.cancel()
            fuse.mend()
            await recovered(lane)
            if not fuse.has_blown:
                break
    assert len(stories) > LEAST_OPERATIONS
    books = await read_books(url_of(tmp_path), clock())
    books.check()
    assert books.open_holds == set()
    lines = {hold.id: [kind for kind, _ in books.booked(hold.id)] for hold in books.holds}
    for number, story in enumerate(stories, start=1):
        with failing_at(number):
            story.check(lines, {hold.id: hold.expires_at for hold in books.holds})
    told = {hold for story in stories for hold in story.owed}
    assert {hold for hold, kinds in lines.items() if kinds} <= told, "somebody pays for a hold that nobody was told of"


@contextmanager
def failing_at(number: int) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.add_note(f"after operation {number} had failed")
        raise


async def lift(lane: Lane, fuse: Fuse) -> None:
    """End a fault that stays, once it was noticed."""
    await until(lambda: lane.trouble is not None)
    fuse.mend()


@pytest.mark.parametrize("fault", ["sqlite commits and says no", "postgres commits and hangs up"])
async def test_a_hold_whose_caller_was_refused_is_given_back(tmp_path, monkeypatch, fault):
    """
    COMMIT may fail and be durable: a refused admission had left a hold that nobody knew of, and that was paid for when it expired.
    """
    monkeypatch.setattr(lane_room, "RETRY_PAUSE_S", 0.001)
    monkeypatch.setattr(lane_room, "ADMIT_WAIT_S", 0.05)
    database, broken = FAULTS[fault]
    database_kit.use(database)
    clock, fuse = Clock(), dataclasses.replace(broken, stays=True)
    async with open_fused(tmp_path, clock, catalog(limit("a"), providers=(provider("one"),)), fuse) as lane:
        fuse.arm(1)
        with pytest.raises(LedgerUnavailable):
            await lane.run(admit(lane.catalog, ttl_s=TTL_S))
        fuse.mend()
        await recovered(lane)
        clock.forward(seconds=2 * TTL_S)
        assert await lane.run(Sweep()) == 0
    books = await read_books(url_of(tmp_path), clock())
    books.check()
    assert [(hold.state, hold.outcome) for hold in books.holds] == [("voided", "cancelled")]
    assert books.entries == []

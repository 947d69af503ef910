"""
Any words in any order: the ledger answers what a model of plain dicts answers, and keeps every law after every step.

Law: after each step everything on disk is read again and judged by `laws_kit` (alone), `model_kit` (against the model) and the
product's own `verify`: that one after each step of the heavy run, and after each tenth of the normal one, where it would take most
of the time. Words are hold, settle, void, expire, late, adjust, extend, renew, raise, lower or disable a limit, give it another
window, set the clock, restart, die, and any earlier word said again; on PostgreSQL there may be a second daemon, on SQLite it is
refused.
Never: waits for the clock; an edit of the catalog has an instant of its own, as it has everywhere but in a test.

The normal run makes some hundred steps on each database, the same ones every time. Others, and more of them, for a night:

    pytest -n 0 -m slow tests/test_ledger_machine.py                              ten thousand steps on each
    HYPOTHESIS_EXAMPLES=5000 pytest -n 0 -m slow tests/test_ledger_machine.py     as many as there is time for, fifty steps each
    HEAVY_RUNS=small pytest -n 0 -m slow tests/test_ledger_machine.py             the gate's part, the same ones every time
"""

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import database_kit
import psycopg
import pytest
from heavy_kit import IS_SMALL
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from laws_kit import Disk, check_laws, hold_to, instant, us
from ledger_kit import NOON, Clock
from model_kit import (
    CALLERS,
    Ask,
    Asks,
    Book,
    Correct,
    End,
    Expire,
    Grow,
    Held,
    Ledger,
    Moment,
    More,
    Say,
    TellTime,
    check_same,
    grown,
    tell,
)
from tamper_kit import judge
from waiting_kit import until

from quota_router.core.calls import Plane
from quota_router.errors import LedgerLocked
from quota_router.store.lane import Lane
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, open_engines
from quota_router.store.state import State
from quota_router.store.tables import epochs, metadata
from quota_router.store.triggers import _ON_POSTGRES

GONE_S = 10
"""The server has noticed by then that a daemon let go of its journal."""


def limit_row(name: str, subject: str, unit: str, amount: int, window: str, **more: Any) -> dict[str, Any]:
    values = {"anchor": None, "timezone": "UTC", "enforcement": "bounded", "enabled": True}
    return {"name": name, "subject": subject, "unit": unit, "amount": amount, "window": window, **values, **more}


def limits() -> dict[str, dict[str, Any]]:
    """Every unit, every kind of window, every kind of subject; each limit is met within a few holds."""
    rows = [
        limit_row("money", "everyone", "usd", 3_000_000, "day", enforcement="strict"),
        limit_row("calls", "account:of-one", "requests", 9, "1h"),
        limit_row("words", "model:m", "tokens", 1_800, "30m", anchor="first_use", enforcement="strict"),
        limit_row("reads", "label:x", "input_tokens", 400, "hour"),
        limit_row("writes", "caller:ci", "output_tokens", 900, "2h", anchor="2026-11-20T11:17:00+00:00", enforcement="strict"),
        limit_row("places", "attachment:m/one", "concurrency", 6, "forever", enforcement="strict"),
        limit_row("spare", "provider:two", "usd", 900_000, "10m", enforcement="strict", enabled=False),
        limit_row("seen", "everyone", "requests", 3, "month", enforcement="advisory"),
    ]
    return {row["name"]: row for row in rows}


CAPS = {"usd": (3_000_000, 900_000, 300_000, 0), "requests": (9, 5, 2, 0), "concurrency": (6, 3, 1, 0)}
TOKEN_CAPS = (1_800, 900, 400, 150, 0)
OTHER_WINDOWS = {"money": ("day", "hour", "1h"), "calls": ("1h", "10m", "day"), "reads": ("hour", "forever", "2h")}

counts = st.integers(0, 40) | st.integers(0, 150)
asks = st.builds(
    Asks,
    input_tokens=counts,
    output_tokens=counts,
    more=st.sampled_from([0, 5, 20, 60, 0, 5, 20, None]),
    is_priced=st.sampled_from([True] * 9 + [False]),
)
questions = st.builds(
    Ask,
    rungs=st.tuples(asks, asks),
    labels=st.sampled_from([(), ("x",), ("x", "y")]),
    caller=st.sampled_from(list(CALLERS)),
    plane=st.sampled_from(Plane),
    ttl_s=st.sampled_from([60, 600, 86_400]),
    key=st.sampled_from([None, None, None, None, "k", "l"]),
    asked=st.sampled_from(["a", "b"]),
)
several = st.lists(questions, min_size=2, max_size=6)
places = st.integers(0, 99)
"""Which of what is there, counted from the last."""
usages = st.sampled_from([True, True, False]).flatmap(
    lambda is_post: st.tuples(st.integers(0, 200), st.integers(0, 200)) if is_post else st.none()
)
spans = st.sampled_from([1, 59, 61, 600, 1_801, 3_600, 6 * 3_600, 30 * 3_600])


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One lane that is open, and what the model has to know of it."""

    lane: Lane
    stack: AsyncExitStack
    journal: str
    last_us: int = 0
    """its time never goes back"""


@dataclass(slots=True)
class Bench:
    """A folder in which one ledger after the other is made, from one that is empty."""

    folder: Path
    made: int = 0
    empty: Path | None = field(default=None, init=False)

    def new(self) -> Path:
        """Make an empty ledger, and return its folder."""
        if self.empty is None:
            self.empty = self.folder / "empty"
            self.empty.mkdir()
            asyncio.run(self._migrate(self.empty))
        if database_kit.is_postgres():
            self._clear(self.empty)
            return self.empty
        self.made += 1
        there = self.folder / f"{self.made}"
        (there / "state").mkdir(parents=True, mode=0o700)
        shutil.copy(self.empty / "state" / "ledger.db", there / "state" / "ledger.db")
        return there

    def remove(self, there: Path) -> None:
        """It is no longer needed."""
        if there != self.empty:
            shutil.rmtree(there)

    @staticmethod
    async def _migrate(folder: Path) -> None:
        async with open_engines(database_kit.url_of(folder), Durability.PROCESS, Clock()) as engines:
            await upgrade(engines.write)

    @staticmethod
    def _clear(folder: Path) -> None:
        """Making a database takes as long as a hundred steps: this one is emptied, which its triggers would not allow."""
        guarded = {table for table, _ in _ON_POSTGRES.values()}
        emptied = [table.name for table in reversed(metadata.sorted_tables) if table is not epochs]
        statements = [
            *(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in guarded),
            *(f"DELETE FROM {name}" for name in emptied),  # noqa: S608 -- names of ours
            "UPDATE epochs SET value = 0",
            *(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for name, (table, _) in _ON_POSTGRES.items()),
        ]
        with psycopg.connect(database_kit.plain_url_of(folder)) as conn:
            conn.execute("; ".join(statements))


class LedgerMachine(RuleBasedStateMachine):
    """The words, and the laws after each."""

    bench: ClassVar[Bench]
    ledger_kind: ClassVar[type[Ledger]] = Ledger
    verified_every: ClassVar[int] = 10
    """so many steps"""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock(NOON)
        self.book = Book(limits=limits())
        self.said: list[Say] = []
        self.named = self.looked = 0
        self.latest = self.clock()
        self.daemons: list[Daemon] = []
        self.ledger = self.ledger_kind()
        self.folder = self.bench.new()
        self.open()
        self.disk = Disk(self.folder)
        self.edit(0, "money")

    def teardown(self) -> None:
        for daemon in list(self.daemons):
            self.close(daemon)
        self.runner.close()
        self.disk.close()
        self.bench.remove(self.folder)

    # --- daemons ----------------------------------------------------------------------------------------------------------

    def open(self) -> Daemon:
        daemon = self.runner.run(self._open())
        self.daemons.append(daemon)
        return daemon

    async def _open(self) -> Daemon:
        async with AsyncExitStack() as stack:
            url = database_kit.url_of(self.folder)
            engines = await stack.enter_async_context(open_engines(url, Durability.PROCESS, self.clock))
            lane = await stack.enter_async_context(Lane(engines.lane, engines.tenure, settle_wait_s=1))
            return Daemon(lane=lane, journal=lane.state.journal, stack=stack.pop_all())

    def close(self, daemon: Daemon) -> None:
        """As a death leaves it: what is held stays held. Returns when nobody holds its journal any more."""
        self.daemons.remove(daemon)
        self.runner.run(self._close(daemon))

    async def _close(self, daemon: Daemon) -> None:
        await self.ledger.die()
        await daemon.stack.aclose()
        if database_kit.is_postgres():
            with psycopg.connect(database_kit.plain_url_of(self.folder), autocommit=True) as conn:
                taken = (
                    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
                    " WHERE locktype = 'advisory' AND datname = current_database()"
                )

                async def is_gone() -> bool:
                    ((count,),) = (await asyncio.to_thread(conn.execute, taken)).fetchall()
                    return count <= len(self.daemons)

                await until(is_gone, GONE_S)

    @property
    def unheld(self) -> set[str]:
        """Journals with open holds that no daemon writes into any more."""
        return {held.journal for held in self.book.holds.values()} - {daemon.journal for daemon in self.daemons}

    # --- saying -----------------------------------------------------------------------------------------------------------

    def take_time(self, daemon: Daemon, at: datetime) -> int:
        """A batch's own now: not before the clock, the batch before, or the daemon's last line of money."""
        lines = self.book.entries.get(daemon.journal, [])
        least = max(us(self.clock()), daemon.last_us, lines[-1]["at"] if lines else 0)
        hold_to("I13", us(at) >= least, f"it is {at}, after {instant(least)}")
        daemon.last_us = us(at)
        return daemon.last_us

    def tick(self) -> None:
        self.clock.forward(microseconds=1)
        self.latest = max(self.latest, self.clock())

    def which(self, place: int) -> Daemon:
        return self.daemons[place % len(self.daemons)]

    def name(self, question: Ask) -> Ask:
        """Give a question its ids: in order, and the same ones whenever the same words are said."""
        self.named += 1
        return replace(question, call_id=f"call-{self.named:06d}", hold_id=f"hold-{self.named:06d}")

    def say(self, place: int, *said: Say) -> None:
        """Say words at once to one daemon, and compare its answers with the model's."""
        daemon, words = self.which(place), [self.name(word) if isinstance(word, Ask) else word for word in said]
        self.tick()
        at, *answered = self.runner.run(self.ledger.say(daemon.lane, [TellTime(), *(word.job() for word in words)]))
        answers, now = [tell(answer) for answer in answered], self.take_time(daemon, at)
        self.book.outcomes = {held.id: held.outcome for held in self.book.holds.values()}
        moment = Moment(now=now, journal=daemon.journal, unheld=self.unheld)
        expected = [word.expect(self.book, moment) for word in words]
        self.said += words
        hold_to("I3", answers == expected, f"{answers} instead of {expected}")

    def edit(self, place: int, name: str, **changes: Any) -> None:
        """Edit the catalog through one daemon."""
        daemon = self.which(place)
        self.clock.now = max(self.clock(), *(instant(each.last_us) for each in self.daemons))
        self.tick()
        self.book.edit(us(self.clock()), name, **changes)
        self.runner.run(daemon.lane.edit_catalog(self.book.catalog))

    def hold_at(self, place: int) -> str:
        """One of the holds, counted from the last."""
        held = list(self.book.holds)
        return held[-1 - place % len(held)]

    # --- the words --------------------------------------------------------------------------------------------------------

    @rule(place=places, question=questions)
    def ask(self, place: int, question: Ask) -> None:
        self.say(place, question)

    @initialize(asked=several)
    def begin(self, asked: list[Ask]) -> None:
        self.say(0, *asked)

    @rule(place=places, asked=several)
    def ask_for_several(self, place: int, asked: list[Ask]) -> None:
        self.say(place, *asked)

    @precondition(lambda self: self.book.holds)
    @rule(place=places, hold=places, usage=usages, is_priced=st.sampled_from([True, True, False]))
    def settle_or_void(self, place: int, hold: int, usage: tuple[int, int] | None, is_priced: bool) -> None:
        self.say(place, End(hold_id=self.hold_at(hold), usage=usage, is_priced=is_priced))

    @rule(place=places)
    def expire(self, place: int) -> None:
        self.say(place, Expire())

    @property
    def open_holds(self) -> list[Held]:
        return [held for held in self.book.holds.values() if held.state == "held"]

    @precondition(lambda self: self.open_holds)
    @rule(place=places, hold=places, usage=usages, is_priced=st.sampled_from([True, True, False]), span_s=st.just(0) | spans)
    def settle_in_time(self, place: int, hold: int, usage: tuple[int, int] | None, is_priced: bool, span_s: int) -> None:
        """A hold that is open, perhaps in a window that is over."""
        self.clock.forward(seconds=span_s)
        self.say(place, End(hold_id=self.open_holds[hold % len(self.open_holds)].id, usage=usage, is_priced=is_priced))

    @precondition(lambda self: self.open_holds)
    @rule(place=places, hold=places, usage=usages)
    def speak_late(self, place: int, hold: int, usage: tuple[int, int] | None) -> None:
        """Of a hold that has just expired."""
        late = self.open_holds[hold % len(self.open_holds)]
        self.clock.now = max(self.clock(), instant(late.expires_at))
        self.say(place, Expire())
        self.say(place, End(hold_id=late.id, usage=usage))

    @precondition(lambda self: self.book.holds)
    @rule(place=places, hold=places, ttl_s=st.sampled_from([1, 600, 9_000]), wants=st.none() | asks)
    def extend(self, place: int, hold: int, ttl_s: int, wants: Asks | None) -> None:
        self.say(place, More(hold_id=self.hold_at(hold), ttl_s=ttl_s, asks=wants))

    @precondition(lambda self: self.book.holds)
    @rule(place=places, hold=places, ttl_s=st.sampled_from([1, 900]), output_tokens=st.none() | st.integers(0, 300))
    def renew(self, place: int, hold: int, ttl_s: int, output_tokens: int | None) -> None:
        self.say(place, self.growth(self.hold_at(hold), ttl_s, output_tokens))

    def growth(self, hold_id: str, ttl_s: int, output_tokens: int | None) -> Grow:
        estimate = self.book.holds[hold_id].estimate
        return Grow(hold_id=hold_id, ttl_s=ttl_s, estimate=None if output_tokens is None else grown(estimate, output_tokens))

    @precondition(lambda self: self.book.holds)
    @rule(place=places, hold=places, cost_nusd=st.sampled_from([-400_000, -70_000, 1, 90_000, 600_000]), is_now=st.booleans())
    def adjust(self, place: int, hold: int, cost_nusd: int, is_now: bool) -> None:
        """An admin's word, in the window of the moment or in that of the hold."""
        self.named += 1
        held = self.book.holds[self.hold_at(hold)]
        held_at = None if is_now else held.held_at
        self.say(place, Correct(id=f"adjust-{self.named:06d}", hold_id=held.id, cost_nusd=cost_nusd, held_at=held_at))

    @precondition(lambda self: any(isinstance(word, End) for word in self.said))
    @rule(place=places, back=st.integers(0, 3))
    def settle_again(self, place: int, back: int) -> None:
        """One of the last settlements, in the same words."""
        ends = [word for word in self.said if isinstance(word, End)]
        self.say(place, ends[-1 - back % len(ends)])

    @precondition(lambda self: self.said)
    @rule(place=places, word=places)
    def say_again(self, place: int, word: int) -> None:
        """Any earlier word, at any daemon; a question keeps its key and is a call of its own."""
        again = self.said[-1 - word % len(self.said)]
        self.say(place, again)

    @precondition(lambda self: self.book.holds)
    @rule(
        place=places,
        words=st.lists(st.tuples(st.sampled_from(["ask", "end", "end", "sweep", "more", "grow"]), places), min_size=2, max_size=5),
        question=questions,
        usage=usages,
        wants=asks,
    )
    def say_together(
        self, place: int, words: list[tuple[str, int]], question: Ask, usage: tuple[int, int] | None, wants: Asks
    ) -> None:
        """Several words in one batch see each other in turn."""
        said: list[Say] = []
        for kind, hold in words:
            hold_id = self.hold_at(hold)
            match kind:
                case "ask":
                    said.append(Ask(rungs=question.rungs, labels=question.labels, caller=question.caller, key=question.key))
                case "end":
                    said.append(End(hold_id=hold_id, usage=usage))
                case "sweep":
                    said.append(Expire())
                case "more":
                    said.append(More(hold_id=hold_id, ttl_s=600, asks=wants))
                case "grow":
                    said.append(self.growth(hold_id, 600, wants.output_tokens * 2))
        self.say(place, *said)

    @rule(wants=asks, many=st.integers(3, 9), labels=st.sampled_from([(), ("x",)]))
    def ask_at_once(self, wants: Asks, many: int, labels: tuple[str, ...]) -> None:
        """The same question many times, at every daemon at once: as many are let in as the limits let in one after the other."""
        self.tick()
        question = Ask(rungs=(wants, wants), labels=labels)
        words = [(self.which(n), self.name(question)) for n in range(many * len(self.daemons))]
        asked = [(daemon.lane, [word.job() for each, word in words if each is daemon]) for daemon in self.daemons]

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(self.ledger.say(lane, [TellTime(), *jobs]) for lane, jobs in asked))

        batches = self.runner.run(at_once())
        moments = {
            daemon.journal: Moment(now=self.take_time(daemon, batch[0]), journal=daemon.journal, unheld=set())
            for daemon, batch in zip(self.daemons, batches, strict=True)
        }
        answers = {told[2]: told for batch in batches for told in map(tell, batch[1:]) if told[0] == "held"}
        order = {"one": 0, "two": 1}
        words.sort(key=lambda pair: order[answers[pair[1].hold_id][1]] if pair[1].hold_id in answers else 2)
        expected = [word.expect(self.book, moments[daemon.journal]) for daemon, word in words]
        told = [answers.get(word.hold_id, ("none usable",)) for _, word in words]
        hold_to("I4", told == expected, f"{told} instead of {expected}")
        self.said.append(words[0][1])

    # --- what the operator and the world do -------------------------------------------------------------------------------

    @rule(place=places, name=st.sampled_from(list(limits())), cap=places)
    def set_cap(self, place: int, name: str, cap: int) -> None:
        caps = CAPS.get(self.book.limits[name]["unit"], TOKEN_CAPS)
        self.edit(place, name, amount=caps[cap % len(caps)])

    @rule(place=places, name=st.sampled_from(list(limits())))
    def disable_or_enable(self, place: int, name: str) -> None:
        self.edit(place, name, enabled=not self.book.limits[name]["enabled"])

    @rule(place=places, name=st.sampled_from(list(limits())), enforcement=st.sampled_from(["strict", "bounded", "advisory"]))
    def enforce(self, place: int, name: str, enforcement: str) -> None:
        self.edit(place, name, enforcement=enforcement)

    @rule(place=places, name=st.sampled_from(list(OTHER_WINDOWS)), window=places)
    def give_another_window(self, place: int, name: str, window: int) -> None:
        self.edit(place, name, window=OTHER_WINDOWS[name][window % len(OTHER_WINDOWS[name])])

    @rule(span_s=spans)
    def let_time_pass(self, span_s: int) -> None:
        self.clock.forward(seconds=span_s)

    @rule(span_s=st.sampled_from([1, 60, 600, 3_000]))
    def set_the_clock_back(self, span_s: int) -> None:
        """As far as a start tolerates it."""
        self.clock.now = max(self.clock() - timedelta(seconds=span_s), self.latest - timedelta(seconds=3_000))

    @rule(place=places, reconciles=st.booleans())
    def restart(self, place: int, reconciles: bool) -> None:
        """One daemon dies, and another takes its place."""
        self.close(self.which(place))
        self.open()
        if reconciles:
            self.say(-1, Expire(orphans=True))

    @rule()
    def a_second_daemon_comes(self) -> None:
        if not database_kit.is_postgres():
            with pytest.raises(LedgerLocked):
                self.runner.run(self._open())
        elif len(self.daemons) < 2:
            self.open()

    @precondition(lambda self: len(self.daemons) > 1)
    @rule(place=places)
    def one_of_two_dies(self, place: int) -> None:
        self.close(self.which(place))

    # --- the laws ---------------------------------------------------------------------------------------------------------

    @invariant()
    def every_law_is_kept(self) -> None:
        now = max(us(self.clock()), *(daemon.last_us for daemon in self.daemons))
        found = self.disk.read()
        check_same(self.book, found)
        check_laws(found, now)
        for limit in self.book.limits.values():
            if limit["enabled"] and limit["enforcement"] == "strict":
                hold_to("I5", self.book.is_within(limit, now), f"{limit} took {self.book.taken(limit, now)}")
        self.looked += 1
        self.check_present(self.which(self.looked))
        if self.looked % self.verified_every == 0:
            verdict = judge(self.folder, instant(now))
            hold_to("I16", verdict.is_whole, [finding.text for finding in verdict.findings])

    def check_present(self, daemon: Daemon) -> None:
        """What a daemon decides by is what the model counts."""
        state, at = self.runner.run(self.look(daemon))
        now = self.take_time(daemon, at)
        for limit in state.catalog.limits:
            gauge = state.gauge(limit, instant(now))
            taken = self.book.taken(self.book.limits[limit.name], now)
            hold_to("I1", (gauge.posted, gauge.held) == taken, f"{limit.name}: {(gauge.posted, gauge.held)} instead of {taken}")
            least = self.book.least(self.book.limits[limit.name], now)
            hold_to("I19", gauge.posted + gauge.held >= least, f"{limit.name} counts {taken}, less than {least}")
        names = {limit["name"] for limit in self.book.limits.values() if limit["enabled"]}
        hold_to("I20", {limit.name for limit in state.catalog.limits} == names, "another catalog than was applied")
        still_held = {held.id for held in self.book.holds.values() if held.state == "held"}
        hold_to("I2", set(state.holds) == still_held, "other holds than are open")

    async def look(self, daemon: Daemon) -> tuple[State, datetime]:
        return await asyncio.gather(daemon.lane.snapshot(), daemon.lane.run(TellTime()))


class VerifiedMachine(LedgerMachine):
    """Likewise, and the ledger is verified after each step."""

    verified_every = 1 if not IS_SMALL else 4


def run_machine(folder: Path, *, examples: int, steps: int, kind: type[LedgerMachine] = LedgerMachine, **more: Any) -> None:
    """As the profile of the run says, unless *more* says otherwise."""
    machine = type(kind.__name__, (kind,), {"bench": Bench(folder)})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck), **more),
    )


UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failure is told as it was found: to look for a shorter one takes minutes."""


def test_any_words_in_any_order_keep_every_law(tmp_path, database):
    run_machine(tmp_path, examples=15 if database_kit.is_postgres() else 40, steps=30, phases=UNSHRUNK)


@pytest.mark.slow
def test_ten_thousand_words_keep_every_law(tmp_path, database):
    night = settings.get_profile("night")
    run_machine(
        tmp_path,
        kind=VerifiedMachine,
        examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "24" if IS_SMALL else "200")),
        steps=50,
        derandomize=IS_SMALL,
        database=None if IS_SMALL else night.database,
        phases=UNSHRUNK if IS_SMALL else tuple(Phase),
    )

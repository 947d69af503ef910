"""
The checks see what they are there to see: a ledger with one mistake is found by the law that names it, and a sound one is not.
"""

from contextlib import asynccontextmanager
from dataclasses import replace

import laws_kit
import pytest
from broken_ledgers import BROKEN, AnswersFirst, KeepsItsBatchInMemory, ReadsThenWrites
from hypothesis import Phase
from laws_kit import Disk, LawBroken, check_acknowledged, check_caps, check_laws, hold_to, us
from ledger_kit import NOON, Clock, catalog, limit, new_id, open_ledger
from model_kit import Ask, Asks, End, Expire, Ledger, tell
from test_ledger_machine import LedgerMachine, run_machine

from quota_router.core.limits import Enforcement, Unit

LIMITS = (
    limit("money", unit=Unit.USD, limit=1_500_000),
    limit("calls", window="day", limit=50),
    limit("places", unit=Unit.CONCURRENCY, window="forever", limit=40),
    limit("seen", unit=Unit.USD, window="hour", limit=0, enforcement=Enforcement.ADVISORY),
)
FREE = (limit("calls", window="day", limit=50),)
ASKS = Asks(input_tokens=80, output_tokens=10)
"""100,000 nano-USD: fifteen fit."""


class Story:
    """One ledger's life, word by word, and a check after each."""

    def __init__(self, ledger, lane, clock, disk):
        self.ledger, self.lane, self.clock, self.disk = ledger, lane, clock, disk

    async def hold(self, many=1, asks=ASKS):
        words = [Ask(rungs=(asks,), hold_id=new_id(), call_id=new_id()) for _ in range(many)]
        told = [tell(answer) for answer in await self.ledger.say(self.lane, [word.job() for word in words])]
        self.check()
        return [answer[2] for answer in told if answer[0] == "held"]

    async def end(self, hold_id, usage):
        (answer,) = await self.ledger.say(self.lane, [End(hold_id=hold_id, usage=usage, is_priced=usage != (7, 7)).job()])
        return tell(answer)

    def check(self):
        found = self.disk.read()
        check_laws(found, us(self.clock()))
        check_caps(found, us(self.clock()))
        return found


@asynccontextmanager
async def telling(ledger, folder, clock, of):
    async with open_ledger(folder, clock, of) as lane:
        disk = Disk(folder)
        try:
            yield Story(ledger, lane, clock, disk)
        finally:
            disk.close()
            await ledger.die()


async def live(ledger, folder):
    """Everything that one of the broken ledgers gets wrong, in one life. Raises `LawBroken`."""
    clock = Clock(NOON)
    async with telling(ledger, folder, clock, catalog(*LIMITS)) as story:
        held = await story.hold(many=30)
        acknowledged = held[:3]
        for hold_id in acknowledged:
            hold_to("I3", (await story.end(hold_id, (50, 5)))[0] == "posted", "not posted")
            check_acknowledged(story.check(), acknowledged[: acknowledged.index(hold_id) + 1])
        await story.end(held[0], (50, 5))
        story.check()
        await story.end(held[3], None)
        story.check()
        clock.forward(hours=13)
        await story.end(held[4], (50, 5))
        story.check()
        await ledger.say(story.lane, [Expire().job()])
        before = sum(row["cost_nusd"] for row in story.disk.read().entries)
        await story.end(held[5], (50, 5))
        after = sum(row["cost_nusd"] for row in story.check().entries)
        hold_to("I10", after - before == 60_000 - 100_000, f"a late word made {before} {after}")
    async with telling(ledger, folder, clock, catalog(*FREE)) as story:
        (unpriced,) = await story.hold(asks=replace(ASKS, is_priced=False))
        await story.end(unpriced, (7, 7))
        check_acknowledged(story.check(), [*acknowledged, unpriced])


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_ledger_is_found_by_its_law(tmp_path, database, kind):
    with pytest.raises(LawBroken) as found:
        await live(kind(), tmp_path)
    assert found.value.law == BROKEN[kind]


async def test_a_sound_ledger_lives_the_same_life_within_every_law(tmp_path, database):
    await live(Ledger(), tmp_path)


@pytest.mark.parametrize("kind", [KeepsItsBatchInMemory, AnswersFirst], ids=lambda kind: kind.__name__)
async def test_only_what_was_never_written_is_lost_in_a_crash(tmp_path, kind):
    """
    Between the two stands the crash: one has written by then what it had acknowledged, the other has not.
    """
    clock, ledger = Clock(NOON), kind()
    async with telling(ledger, tmp_path, clock, catalog(*FREE)) as story:
        (hold_id,) = await story.hold()
        await story.end(hold_id, (50, 5))
        with pytest.raises(LawBroken, match="I6"):
            check_acknowledged(story.disk.read(), [hold_id])
        await ledger.die()
        is_lost = {KeepsItsBatchInMemory: True, AnswersFirst: False}[kind]
        assert (story.disk.read().entries == []) is is_lost


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_the_state_machine_finds_every_broken_ledger(tmp_path, kind):
    """
    Without being told where to look, within a few lives.
    """
    machine = type(kind.__name__, (LedgerMachine,), {"ledger_kind": kind})
    with pytest.raises(LawBroken):
        run_machine(
            tmp_path,
            examples=200,
            steps=40,
            kind=machine,
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
        )


# --- each check of the disk alone ---------------------------------------------------------------------------------------


def without(rows, place):
    return [row for n, row in enumerate(rows) if n != place]


def reopened(rows):
    """One hold that was posted is open again."""
    place = next(n for n, row in enumerate(rows) if row["state"] == "posted")
    return changed(rows, place, state="held")


def changed(rows, place, **fields):
    return [{**row, **fields} if n == place else row for n, row in enumerate(rows)]


WRONG = {
    "a line is gone": ("I13", lambda f: replace(f, entries=without(f.entries, 1))),
    "the last line is gone": ("I15", lambda f: replace(f, entries=f.entries[:-1])),
    "two lines changed places": ("I13", lambda f: replace(f, entries=[f.entries[1], f.entries[0], *f.entries[2:]])),
    "a line says another cost": ("I15", lambda f: replace(f, entries=changed(f.entries, 0, cost_nusd=1))),
    "a line was booked before the one before it": ("I13", lambda f: replace(f, entries=changed(f.entries, 1, at=0))),
    "the head is another": ("I15", lambda f: replace(f, journals=changed(f.journals, 0, seq=1))),
    "there is no head": ("I15", lambda f: replace(f, journals=[])),
    "a hold is open and was posted": ("I2", lambda f: replace(f, holds=reopened(f.holds))),
    "all holds are gone": ("I2", lambda f: replace(f, holds=[])),
    "a balance is too low": ("I1", lambda f: replace(f, balances=changed(f.balances, 0, posted=0))),
    "a balance holds too much": ("I1", lambda f: replace(f, balances=changed(f.balances, 0, held=10**6))),
    "a balance holds less than nothing": ("I22", lambda f: replace(f, balances=changed(f.balances, 0, held=-1))),
    "a balance is gone": ("I1", lambda f: replace(f, balances=without(f.balances, 0))),
    "an account has posted more": ("I1", lambda f: replace(f, totals=changed(f.totals, 0, posted_requests=99))),
    "an account has no totals": ("I1", lambda f: replace(f, totals=[])),
    "two windows overlap": ("I19", lambda f: replace(f, windows=[*f.windows, {**f.windows[0], "start": f.windows[0]["end"] - 1}])),
    "a limit counts somebody else": ("I1", lambda f: replace(f, limits=changed(f.limits, 0, subject="caller:nobody"))),
}


@pytest.fixture
async def found(tmp_path):
    clock = Clock(NOON)
    limits = (limit("calls", window="5h", anchor="first_use", limit=50), limit("usd", unit=Unit.USD, limit=10**9))
    async with telling(Ledger(), tmp_path, clock, catalog(*limits)) as story:
        for hold_id in (await story.hold(many=4))[:3]:
            await story.end(hold_id, (50, 5))
        return story.check()


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_on_disk_is_named(found, wrong):
    law, spoil = WRONG[wrong]
    with pytest.raises(LawBroken) as seen:
        check_laws(spoil(found), us(NOON))
    assert seen.value.law == law


def test_an_unknown_cost_that_became_nothing_is_named(found):
    unpriced = replace(found, entries=changed(found.entries, 0, estimate_nusd=None, price_source=None, cost_nusd=0))
    with pytest.raises(LawBroken, match="I23"):
        laws_kit.check_prices(unpriced)


def test_a_cap_that_was_passed_is_named(found):
    with pytest.raises(LawBroken, match="I5"):
        check_caps(replace(found, limits=changed(found.limits, 0, amount=3)), us(NOON))


async def test_a_ledger_that_reads_then_writes_is_only_found_at_once(tmp_path):
    """
    Asked one after the other it lets in what fits: a check that does not ask at once would never see its mistake.
    """
    async with telling(ReadsThenWrites(), tmp_path, Clock(NOON), catalog(*LIMITS)) as story:
        assert sum([len(await story.hold()) for _ in range(30)]) == 15

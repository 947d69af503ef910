"""The lane and its jobs on a real SQLite file: the laws of the ledger."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import NOON, Clock, admit, call, catalog, limit, new_id, open_ledger, post, provider, void
from msgspec.structs import replace
from sqlalchemy import select

from quota_router.core.calls import Plane
from quota_router.core.catalog import Billing
from quota_router.core.decision import NoneUsable, Reason
from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.core.holds import Event, Outcome, Settlement
from quota_router.core.limits import Unit
from quota_router.core.usage import Usage
from quota_router.errors import Conflict, HoldResolved, UnknownHold
from quota_router.store.holding import Extend, Sweep
from quota_router.store.ledger import Admission, Setback, Settle
from quota_router.store.lines import chain
from quota_router.store.reports import Reports
from quota_router.store.tables import balances, entries, holds, microseconds
from quota_router.store.tenure import Job

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def clock():
    return Clock()


async def rows(lane, table):
    async with lane.reader.connect() as conn:
        return (await conn.execute(select(table))).all()


async def gauge(lane, clock, name="cap"):
    (found,) = (cap for cap in lane.catalog.limits if cap.name == name)
    return (await lane.snapshot()).gauge(found, clock())


async def test_120_concurrent_calls_against_37_get_37_holds(tmp_path, clock):
    """
    Admission is exact under any concurrency: what is held counts at once.
    """
    of = catalog(limit(limit=37))
    async with open_ledger(tmp_path, clock, of) as lane:
        answers = await asyncio.gather(*(lane.run(admit(of)) for _ in range(120)))
        assert sum(isinstance(answer, Admission) for answer in answers) == 37
        refused = [answer for answer in answers if isinstance(answer, NoneUsable)]
        assert {rung.reason for answer in refused for rung in answer.rungs} == {Reason.OVER_BUDGET}
        assert (await gauge(lane, clock)).held == 37


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actual=st.lists(st.integers(0, 150), min_size=1, max_size=20), cap=st.integers(0, 2_000_000))
async def test_posted_and_held_never_pass_a_strict_cap(tmp_path_factory, actual, cap):
    """
    In strict mode the hold is the upper bound: whatever within it is posted, the cap stands.
    """
    clock, of = Clock(), catalog(limit(unit=Unit.USD, limit=cap))
    async with open_ledger(tmp_path_factory.mktemp("ledger"), clock, of) as lane:

        async def one(tokens):
            admitted = await lane.run(admit(of))
            found = await gauge(lane, clock)
            assert found.posted + found.held <= cap
            if isinstance(admitted, Admission):
                await lane.run(Settle(hold_id=admitted.hold.id, settlement=post(min(tokens, 100), 10)), settles=True)

        await asyncio.gather(*(one(tokens) for tokens in actual))
        assert (await gauge(lane, clock)).held == 0


async def test_a_settlement_said_twice_books_once(tmp_path, clock):
    of = catalog(limit(unit=Unit.USD, limit=10**9))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        first = await lane.run(Settle(hold_id=hold.id, settlement=post()))
        together = await asyncio.gather(*(lane.run(Settle(hold_id=hold.id, settlement=post())) for _ in range(5)))
        assert (first.state, first.cost_nusd, first.replayed) == ("posted", 60_000, False)
        assert {(b.state, b.cost_nusd, b.replayed) for b in together} == {("posted", 60_000, True)}
        assert [entry.cost_nusd for entry in await rows(lane, entries)] == [60_000]
        assert (await gauge(lane, clock)).posted == 60_000


async def test_two_settlements_of_one_batch_book_once(tmp_path, clock):
    """
    The second word is compared with the first even when neither is written yet.
    """
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        both = await asyncio.gather(*(lane.run(Settle(hold_id=hold.id, settlement=post())) for _ in range(2)))
        assert [b.replayed for b in both] == [False, True]
        assert len(await rows(lane, entries)) == 1


async def test_a_contradicting_settlement_is_refused_also_after_a_restart(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
    async with open_ledger(tmp_path, clock, of) as lane:
        again = await lane.run(Settle(hold_id=hold.id, settlement=post()))
        assert again.replayed
        assert again.cost_nusd == 60_000
        with pytest.raises(HoldResolved, match="already posted"):
            await lane.run(Settle(hold_id=hold.id, settlement=post(51)))
        with pytest.raises(HoldResolved):
            await lane.run(Settle(hold_id=hold.id, settlement=void()))


async def test_a_void_gives_back_what_was_held_and_may_be_repeated(tmp_path, clock):
    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        assert (await gauge(lane, clock)).held == 1
        assert (await lane.run(Settle(hold_id=hold.id, settlement=void()))).state == "voided"
        assert (await lane.run(Settle(hold_id=hold.id, settlement=void()))).replayed
        assert (await gauge(lane, clock)).held == 0
        assert await rows(lane, entries) == []


async def test_unknown_holds_are_said_to_be_unknown(tmp_path, clock):
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        with pytest.raises(UnknownHold):
            await lane.run(Settle(hold_id="nobody", settlement=post()))


async def test_an_overrun_is_booked_in_full(tmp_path, clock):
    of = catalog(limit(unit=Unit.USD, limit=120_000))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        booked = await lane.run(Settle(hold_id=hold.id, settlement=post(500, 0)))
        assert booked.overrun_nusd == 500_000 - 120_000
        assert (await gauge(lane, clock)).posted == 500_000


async def test_an_expired_hold_is_assumed_and_late_truth_corrects_it_once(tmp_path, clock):
    """
    Unknown is not free; money spent is booked even if the report comes after the hold expired.
    """
    of = catalog(limit(unit=Unit.USD, limit=10**9), limit("count", unit=Unit.REQUESTS))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of, ttl_s=60))).hold
        clock.forward(seconds=61)
        assert await lane.run(Sweep()) == 1
        assert (await gauge(lane, clock)).posted == 120_000
        late = await lane.run(Settle(hold_id=hold.id, settlement=post()))
        assert (late.state, late.cost_nusd) == ("late", 60_000 - 120_000)
        assert (await lane.run(Settle(hold_id=hold.id, settlement=post()))).replayed
        with pytest.raises(HoldResolved):
            await lane.run(Settle(hold_id=hold.id, settlement=post(1)))
        assert (await gauge(lane, clock)).posted == 60_000
        assert (await gauge(lane, clock, "count")).posted == 1
        assert [(e.kind, e.cost_nusd) for e in await rows(lane, entries)] == [("expire", 120_000), ("late", -60_000)]
        assert sum(e.input for e in await rows(lane, entries)) == 50


async def test_a_restart_reads_the_same_present(tmp_path, clock):
    """
    Memory is a projection of the rows: what a reload finds equals what was there.
    """
    of = catalog(
        limit(unit=Unit.USD, limit=10**9),
        limit("five", window="5h", anchor="first_use"),
        limit("roll", window="5h"),
        limit("now", unit=Unit.CONCURRENCY, window="forever"),
    )
    failure = Failure(kind=FailureKind.RATE_LIMITED, scope=Scope.ATTACHMENT, until=NOON + timedelta(minutes=5), status=429)
    async with open_ledger(tmp_path, clock, of) as lane:
        first, second, third = [(await lane.run(admit(of))).hold for _ in range(3)]
        await lane.run(Settle(hold_id=first.id, settlement=post(body_bytes=500)))
        await lane.run(Settle(hold_id=second.id, settlement=replace(void(), failure=failure)))
        await lane.run(Sweep())
        before = await lane.snapshot()
        gauges = [await gauge(lane, clock, name) for name in ("cap", "five", "roll", "now")]
        assert [g.held for g in gauges] == [120_000, 1, 1, 1]
    async with open_ledger(tmp_path, clock, of) as lane:
        after = await lane.snapshot()
        assert [await gauge(lane, clock, name) for name in ("cap", "five", "roll", "now")] == gauges
        assert (after.head, after.cooldowns, after.opened, after.learned) == (
            before.head,
            before.cooldowns,
            before.opened,
            before.learned,
        )
        assert set(after.holds) == {third.id}
        assert {c.limit.name: (c.bucket, c.held) for c in after.holds[third.id].charges} == {
            c.limit.name: (c.bucket, c.held) for c in before.holds[third.id].charges
        }


async def test_relayed_orphans_expire_at_start_and_decisions_wait_for_their_time(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        relayed = (await lane.run(admit(of))).hold
        decided = (await lane.run(admit(of, call(plane=Plane.DECISION)))).hold
    async with open_ledger(tmp_path, clock, of) as lane:
        assert await lane.run(Sweep(orphans=True)) == 1
        assert await lane.run(Sweep(orphans=True)) == 0
        assert set((await lane.snapshot()).holds) == {decided.id}
        assert [(e.kind, e.hold_id, e.quality) for e in await rows(lane, entries)] == [("expire", relayed.id, "assumed")]
        told = [(await Reports(lane.reader).call(hold.call_id))["state"] for hold in (relayed, decided)]
        assert told == ["unknown", "running"]


async def test_a_limit_made_in_mid_window_starts_with_what_was_already_spent(tmp_path, clock):
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        of = lane.catalog
        spent, open_one = [(await lane.run(admit(of))).hold for _ in range(2)]
        await lane.run(Settle(hold_id=spent.id, settlement=post()))
        await lane.edit_catalog(
            catalog(limit(unit=Unit.USD, limit=10**9), limit("day", window="day"), limit("other", subject="caller:x"))
        )
        usd, day, other = [await gauge(lane, clock, name) for name in ("cap", "day", "other")]
        assert (usd.posted, usd.held) == (60_000, 120_000)
        assert (day.posted, day.held) == (1, 1)
        assert (other.posted, other.held) == (0, 0)
        await lane.run(Settle(hold_id=open_one.id, settlement=post()))
        assert ((await gauge(lane, clock)).posted, (await gauge(lane, clock)).held) == (120_000, 0)


async def test_balances_equal_their_projection_after_any_history(tmp_path, clock):
    of = catalog(limit(unit=Unit.USD, limit=10**9), limit("roll", unit=Unit.TOKENS, limit=10**6, window="5h"))
    async with open_ledger(tmp_path, clock, of) as lane:
        for step in range(12):
            hold = (await lane.run(admit(of, ttl_s=600))).hold
            clock.forward(minutes=7)
            if step % 3:
                await lane.run(Settle(hold_id=hold.id, settlement=post(step, step) if step % 2 else void()))
            if step % 4 == 0:
                await lane.run(Sweep())
        kept = {(b.limit_name, b.bucket): (b.posted, b.held) for b in await rows(lane, balances) if b.posted or b.held}
        renamed = catalog(*(dataclasses.replace(cap, limit=cap.limit + 1) for cap in of.limits))
        await lane.edit_catalog(renamed)  # every limit changed: all are projected anew
        anew = {(b.limit_name, b.bucket): (b.posted, b.held) for b in await rows(lane, balances) if b.posted or b.held}
        assert anew == kept


async def test_a_call_across_midnight_counts_on_the_day_it_was_held(tmp_path):
    clock = Clock(datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC))
    of = catalog(limit(window="day"))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        clock.forward(minutes=1)
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        assert (await gauge(lane, clock)).posted == 0
        assert [(b.bucket.day, b.posted, b.held) for b in await rows(lane, balances)] == [(20, 1, 0)]


async def test_extending_a_hold_moves_its_end_later_only(tmp_path, clock):
    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of, ttl_s=100))).hold
        assert (await lane.run(Extend(hold_id=hold.id, ttl_s=10))).expires_at == hold.expires_at
        later = await lane.run(Extend(hold_id=hold.id, ttl_s=500))
        assert later.expires_at == NOON + timedelta(seconds=500)
        clock.forward(seconds=101)
        assert await lane.run(Sweep()) == 0


async def test_an_idempotency_key_names_one_call(tmp_path, clock):
    of = catalog(limit(limit=1))
    async with open_ledger(tmp_path, clock, of) as lane:
        first = call(idempotency_key="k", fingerprint="a")
        held = (await lane.run(admit(of, first))).hold
        with pytest.raises(Conflict, match="is running") as conflict:
            await lane.run(admit(of, call(idempotency_key="k", fingerprint="a")))
        assert (conflict.value.call_id, conflict.value.state) == (first.id, "running")
        await lane.run(Settle(hold_id=held.id, settlement=post()))
        with pytest.raises(Conflict, match="is done"):
            await lane.run(admit(of, call(idempotency_key="k", fingerprint="a")))
        with pytest.raises(Conflict, match="another request"):
            await lane.run(admit(of, call(idempotency_key="k", fingerprint="b")))
        refused = await lane.run(admit(of, call(idempotency_key="new", fingerprint="c")))
        assert isinstance(refused, NoneUsable)
        await lane.edit_catalog(catalog(limit(limit=2)))
        assert isinstance(await lane.run(admit(of, call(idempotency_key="new", fingerprint="c"))), Admission)


async def test_fifty_calls_under_one_key_are_one_call(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        jobs = [admit(of, call(idempotency_key="k", fingerprint="a")) for _ in range(50)]
        answers = await asyncio.gather(*(lane.run(job) for job in jobs), return_exceptions=True)
        assert sum(isinstance(answer, Admission) for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 49


async def test_a_failed_rung_is_settled_and_the_next_is_held_in_one_step(tmp_path, clock):
    of = catalog(limit(limit=1), providers=(provider("one"), provider("two")))
    failure = Failure(kind=FailureKind.OVERLOADED, scope=Scope.ATTACHMENT, status=503)
    async with open_ledger(tmp_path, clock, of) as lane:
        asked = call()
        first = admit(of, asked)
        one = (await lane.run(first)).hold
        tried = tuple(replace(c, tried=failure) if c.provider.name == "one" else c for c in first.candidates)
        setback = Setback(hold_id=one.id, settlement=Settlement(event=Event.VOID, outcome=Outcome.FAILED, failure=failure))
        second = await lane.run(replace(first, candidates=tried, hold_id=new_id(), attempt=2, after=setback))
        assert second.hold.provider == "two"
        assert [rung.reason for rung in second.decision.rungs] == [Reason.ALREADY_TRIED, None]
        assert {(h.attempt, h.provider, h.state) for h in await rows(lane, holds)} == {(1, "one", "voided"), (2, "two", "held")}
        story = await Reports(lane.reader).call(asked.id)
        assert (story["state"], [attempt["outcome"] for attempt in story["attempts"]]) == ("running", ["failed", None])
        later = await lane.run(admit(catalog(providers=of_providers(of))))
        assert later.rungs[0].reason == Reason.COOLDOWN


def of_providers(of):
    return tuple(of.providers.values())


async def test_the_chain_links_every_entry_to_the_one_before(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        for _ in range(5):
            hold = (await lane.run(admit(of))).hold
            await lane.run(Settle(hold_id=hold.id, settlement=post()))
        previous = bytes(32)
        found = sorted(await rows(lane, entries), key=lambda entry: entry.seq)
        assert [entry.seq for entry in found] == [1, 2, 3, 4, 5]
        for entry in found:
            *stored, digest = (microseconds(value) if isinstance(value, datetime) else value for value in entry)
            assert digest == chain(previous, stored)
            previous = digest
        assert (await lane.snapshot()).head.hash == previous


async def test_a_job_that_breaks_hurts_nobody_else(tmp_path, clock):
    """
    A mistake in one job fails that job; the others of its batch are written.
    """

    class Broken(Job[None]):
        def run(self, state, now):  # noqa: ARG002 -- a job's shape
            raise ZeroDivisionError

    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of) as lane:
        answers = await asyncio.gather(lane.run(admit(of)), lane.run(Broken()), lane.run(admit(of)), return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == ["Admission", "QuotaRouterError", "Admission"]
        assert (await gauge(lane, clock)).held == 2
        assert len(await rows(lane, holds)) == 2


async def test_a_cancelled_caller_leaves_his_settlement_to_the_lane(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        task = asyncio.ensure_future(lane.run(Settle(hold_id=hold.id, settlement=post())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with open_ledger(tmp_path, clock, of) as lane:
        assert len(await rows(lane, entries)) == 1


async def test_a_changed_limit_binds_the_next_hold(tmp_path, clock):
    of = catalog(limit(limit=1))
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(admit(of)), Admission)
        assert isinstance(await lane.run(admit(of)), NoneUsable)
        await lane.edit_catalog(catalog(limit(limit=2)))
        assert isinstance(await lane.run(admit(of)), Admission)
        await lane.edit_catalog(catalog(limit(limit=0)))
        assert isinstance(await lane.run(admit(of)), NoneUsable)


async def test_a_dry_run_of_an_edit_changes_nothing(tmp_path, clock):
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        changes = await lane.edit_catalog(catalog(limit()), dry_run=True)
        assert [(change.kind, change.name) for change in changes] == [("limit", "cap")]
        assert lane.catalog.limits == ()
        assert await rows(lane, balances) == []


async def test_what_a_label_is_limited_to_counts_only_calls_that_carry_it(tmp_path, clock):
    of = catalog(limit(subject="label:docs", limit=1))
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(admit(of, call(labels=("docs", "x")))), Admission)
        assert isinstance(await lane.run(admit(of, call(labels=("docs",)))), NoneUsable)
        assert isinstance(await lane.run(admit(of, call(labels=("x",)))), Admission)


async def test_flat_providers_ask_nothing_of_a_usd_limit(tmp_path, clock):
    flat = provider("one", billing=Billing.FLAT)
    of = catalog(limit(unit=Unit.USD, limit=0), providers=(flat,))
    async with open_ledger(tmp_path, clock, of) as lane:
        admitted = await lane.run(admit(of))
        assert isinstance(admitted, Admission)
        usage = Usage(input=1, output=1)
        settlement = Settlement(event=Event.POST, outcome=Outcome.OK, usage=usage, cost_nusd=0, shadow_cost_nusd=3000)
        booked = await lane.run(Settle(hold_id=admitted.hold.id, settlement=settlement))
        assert booked.cost_nusd == 0
        assert [e.shadow_cost_nusd for e in await rows(lane, entries)] == [3000]

"""Adjustments: what an admin says beside what was booked, on each database."""

import asyncio
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from database_kit import is_postgres
from ledger_kit import NOON, Clock, admit, call, catalog, limit, new_id, open_ledger, post, provider
from msgspec.structs import replace
from sqlalchemy import select

from quota_router.core.adjustments import Adjustment, Place, id_of_key, id_of_uuid, place_in
from quota_router.core.catalog import Caller
from quota_router.core.limits import Unit
from quota_router.errors import Conflict, InvalidRequest, UnknownCall, UnknownHold
from quota_router.store.adjusting import Adjust
from quota_router.store.chain import verify_chains
from quota_router.store.holding import Sweep
from quota_router.store.ledger import Admission, Settle
from quota_router.store.reports import Reports
from quota_router.store.tables import balances, entries, totals

pytestmark = pytest.mark.usefixtures("database")
USD = {"unit": Unit.USD, "limit": 10**9}


@pytest.fixture
def clock():
    return Clock()


def place(**changes):
    values = {"provider": "one", "account": "one", "model": "m", "upstream_model": "m-up", "caller": "ci"}
    return Place(**{**values, **changes})


def said(cost_nusd, of=None, **changes):
    values = {"id": id_of_uuid(new_id()), "reason": "the invoice says so", "admin": "admin", "of": of or place()}
    return Adjustment(cost_nusd=cost_nusd, **{**values, **changes})


def adjust(cost_nusd, of=None, **changes):
    return Adjust(said=said(cost_nusd, of, **changes))


async def rows(lane, table):
    async with lane.reader.connect() as conn:
        return (await conn.execute(select(table))).all()


async def posted(lane, clock):
    """What each limit has posted in its window now."""
    state = await lane.snapshot()
    return {cap.name: state.gauge(cap, clock()).posted for cap in lane.catalog.limits}


async def kept(lane):
    """Every balance that is not nothing, by limit and bucket."""
    return {(row.limit_name, row.bucket): row.posted for row in await rows(lane, balances) if row.posted}


# --- what it books ------------------------------------------------------------------------------------------------------


async def test_it_moves_exactly_the_limits_in_usd_of_its_subjects(tmp_path, clock):
    matching = {
        "all": "everyone",
        "of-one": "provider:one",
        "acc": "account:one",
        "of-m": "model:m",
        "rung": "attachment:m/one",
        "ci": "caller:ci",
        "docs": "label:docs",
    }
    others = {"of-two": "provider:two", "of-n": "model:n", "else": "caller:x", "nightly": "label:nightly", "r2": "attachment:m/two"}
    of = catalog(
        *(limit(name, subject=subject, **USD) for name, subject in (matching | others).items()),
        *(limit(unit.value, unit=unit, limit=10**6) for unit in Unit if unit not in {Unit.USD, Unit.CONCURRENCY}),
        limit("at-once", unit=Unit.CONCURRENCY, window="forever"),
    )
    async with open_ledger(tmp_path, clock, of) as lane:
        recorded = await lane.run(adjust(500, place(labels=("docs",))))
        assert set(recorded.limits) == set(matching)
        assert await posted(lane, clock) == {cap.name: 500 if cap.name in matching else 0 for cap in of.limits}
        await lane.run(adjust(-200, place(labels=("docs",))))
        assert await posted(lane, clock) == {cap.name: 300 if cap.name in matching else 0 for cap in of.limits}


async def test_it_is_a_line_on_the_chain_like_every_other(tmp_path, clock):
    of = catalog(limit(**USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of, call(labels=("docs",), workflow="w", stage="s")))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        clock.forward(minutes=1)
        adjustment = said(-10_000, hold.id)
        recorded = await lane.run(Adjust(said=adjustment))
        assert (recorded.journal, recorded.seq, recorded.limits, recorded.replayed) == ("main", 2, ("cap",), False)
        first, second = sorted(await rows(lane, entries), key=lambda entry: entry.seq)
        of_call = ("call_id", "provider", "account", "model", "upstream_model", "caller", "labels", "workflow", "stage")
        assert [getattr(second, name) for name in of_call] == [getattr(first, name) for name in of_call]
        assert (second.kind, second.cost_nusd, second.reason, second.admin) == ("adjust", -10_000, "the invoice says so", "admin")
        assert (second.hold_id, second.price_source, second.estimate_nusd) == (adjustment.id, "admin", None)
        assert (second.held_at, second.at) == (clock(), clock())
        assert (second.input, second.output, second.quality) == (0, 0, "reported")
        async with lane.reader.connect() as conn:
            (chain,) = await verify_chains(conn)
        assert (chain.entries, chain.cost_nusd, chain.broken_at) == (2, 50_000, None)


async def test_the_totals_of_its_account_move_with_it(tmp_path, clock):
    """
    They are what entries sum to, like every balance; a reading of the account is believed beside them.
    """
    of = catalog(limit(**USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        adjustment = adjust(-10_000, hold.id)
        await lane.run(adjustment)
        await lane.run(adjustment)
        await lane.run(adjust(7, place(account="two")))
        told = {row.account: (row.posted_nusd, row.posted_requests, row.held_nusd) for row in await rows(lane, totals)}
        assert told == {"one": (50_000, 1, 0), "two": (7, 0, 0)}
        state = await lane.snapshot()
        assert {name: total.posted.cost_nusd for name, total in state.totals.items()} == {"one": 50_000, "two": 7}


async def test_a_hold_that_is_still_open_lends_its_place_and_stays_open(tmp_path, clock):
    of = catalog(limit(**USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(adjust(7, hold.id))
        assert await posted(lane, clock) == {"cap": 7}
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        assert await posted(lane, clock) == {"cap": 60_007}


async def test_entries_usage_and_balances_come_to_the_same_sum(tmp_path, clock):
    of = catalog(limit(**USD), limit("ever", window="forever", **USD), limit("roll", window="5h", **USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        for step in range(6):
            hold = (await lane.run(admit(of, ttl_s=60))).hold
            clock.forward(seconds=90)
            await lane.run(Settle(hold_id=hold.id, settlement=post(step)) if step % 2 else Sweep())
            await lane.run(adjust((-1) ** step * 1_000 * step + 1, hold.id))
            await lane.run(adjust(5, held_at=clock() - timedelta(minutes=2)))
        spent = sum(entry.cost_nusd for entry in await rows(lane, entries))
        usage = await Reports(lane.reader).usage((), None, None, ZoneInfo("UTC"))
        assert usage["total"]["cost_nusd"] == spent
        assert await posted(lane, clock) == {"cap": spent, "ever": spent, "roll": spent}


async def test_more_may_be_taken_back_than_was_spent_and_the_balance_says_so(tmp_path, clock):
    """
    A balance is what the entries sum to, also below nothing: a credit leaves more than the limit.
    """
    of = catalog(limit(unit=Unit.USD, limit=100_000))
    async with open_ledger(tmp_path, clock, of) as lane:
        assert not isinstance(await lane.run(admit(of)), Admission)
        await lane.run(adjust(-50_000))
        assert isinstance(await lane.run(admit(of)), Admission)
        assert await posted(lane, clock) == {"cap": -50_000}


# --- in which window ----------------------------------------------------------------------------------------------------


async def test_it_counts_in_the_window_of_the_moment_it_names(tmp_path, clock):
    day = timedelta(days=1)
    of = catalog(limit("day", window="day", **USD), limit("month", window="month", **USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        clock.forward(days=1)
        recorded = await lane.run(adjust(-1_000, hold.id, held_at=NOON))
        assert recorded.limits == ("day", "month")
        midnight = NOON.replace(hour=0)
        assert await kept(lane) == {("day", midnight): 59_000, ("month", midnight.replace(day=1)): 59_000}
        await lane.run(adjust(2_000, hold.id))
        assert await kept(lane) == {
            ("day", midnight): 59_000,
            ("day", midnight + day): 2_000,
            ("month", midnight.replace(day=1)): 61_000,
        }


async def test_it_moves_a_window_that_is_over_in_the_batch_of_a_sweep_too(tmp_path, clock):
    """
    The sweep dropped the balance that had been read for it, and it was taken for one that is not kept.
    """
    of = catalog(limit(**USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        clock.forward(days=60)
        _, recorded = await asyncio.gather(lane.run(Sweep()), lane.run(adjust(-10_000, held_at=hold.held_at)))
        assert recorded.limits == ("cap",)
        assert list((await kept(lane)).values()) == [50_000]


async def test_a_window_that_was_over_before_its_limit_was_made_gets_no_part_of_a_balance(tmp_path, clock):
    """
    A row is whole or not there: one made of the adjustment alone would not be what was spent in that window.
    """
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        hold = (await lane.run(admit(catalog()))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        clock.forward(days=1)
        await lane.edit_catalog(catalog(limit("day", window="day", **USD)))
        assert (await lane.run(adjust(-1_000, hold.id, held_at=NOON))).limits == ()
        assert await kept(lane) == {}


async def test_a_first_use_window_counts_what_lies_in_it_and_is_not_opened(tmp_path, clock):
    of = catalog(limit("five", window="5h", anchor="first_use", **USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        assert (await lane.run(adjust(1))).limits == ()
        clock.forward(minutes=1)
        await lane.run(admit(of, ttl_s=60))
        opened = clock()
        clock.forward(minutes=1)
        await lane.run(Sweep())
        assert (await lane.run(adjust(10))).limits == ("five",)
        assert await kept(lane) == {("five", opened): 120_010}
        clock.forward(hours=6)
        assert (await lane.run(adjust(100))).limits == ()
        assert (await lane.run(adjust(1_000, held_at=opened + timedelta(hours=1)))).limits == ("five",)
        assert await kept(lane) == {("five", opened): 121_010}


async def test_a_window_that_opens_at_the_very_instant_counts_what_was_booked_at_it(tmp_path, clock):
    """
    Jobs of one batch share their moment: an instant lies in the window that begins with it, whatever came first.
    """
    of = catalog(limit("five", window="5h", anchor="first_use", **USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        await asyncio.gather(lane.run(adjust(3)), lane.run(adjust(4)), lane.run(admit(of)), lane.run(adjust(5)))
        assert await kept(lane) == {("five", (await rows(lane, entries))[0].held_at): 12}


# --- said twice ---------------------------------------------------------------------------------------------------------


async def test_said_twice_it_is_booked_once_also_in_one_batch_and_after_a_restart(tmp_path, clock):
    of, once = catalog(limit(**USD)), said(500, id=id_of_key("admin", "k"))
    async with open_ledger(tmp_path, clock, of) as lane:
        together = await asyncio.gather(*(lane.run(Adjust(said=once)) for _ in range(5)))
        assert sorted(recorded.replayed for recorded in together) == [False, True, True, True, True]
        assert {recorded.seq for recorded in together} == {1}
    clock.forward(days=3)
    async with open_ledger(tmp_path, clock, of) as lane:
        again = await lane.run(Adjust(said=once))
        assert (again.seq, again.replayed) == (1, True)
        assert await posted(lane, clock) == {"cap": 500}


@pytest.mark.parametrize(
    "changes",
    [
        {"cost_nusd": 501},
        {"reason": "another"},
        {"admin": "somebody"},
        {"of": place(provider="two", account="two")},
        {"of": place(labels=("docs",))},
        {"held_at": NOON - timedelta(hours=1)},
    ],
    ids=str,
)
async def test_something_else_under_the_same_id_is_a_conflict(tmp_path, clock, changes):
    of, once = catalog(limit(**USD)), said(500, id=id_of_key("admin", "k"))
    async with open_ledger(tmp_path, clock, of) as lane:
        await lane.run(Adjust(said=once))
        with pytest.raises(Conflict, match="already names entry 1 of journal main"):
            await lane.run(Adjust(said=replace(once, **changes)))
        assert len(await rows(lane, entries)) == 1


async def test_two_daemons_that_are_told_at_once_book_it_once(tmp_path, clock):
    """
    The unique key decides: whoever comes second finds the line of the first.
    """
    if not is_postgres():
        pytest.skip("a file has one daemon")
    of = catalog(limit(**USD))
    async with open_ledger(tmp_path, clock, of) as one, open_ledger(tmp_path, clock) as two:
        for number in range(20):
            once = said(1, id=id_of_key("admin", str(number)))
            both = await asyncio.gather(one.run(Adjust(said=once)), two.run(Adjust(said=once)))
            assert sorted(recorded.replayed for recorded in both) == [False, True]
            assert len({(recorded.journal, recorded.seq) for recorded in both}) == 1
        assert await posted(one, clock) == await posted(two, clock) == {"cap": 20}
        assert len(await rows(one, entries)) == 20


def test_two_admins_may_use_one_key():
    assert id_of_key("a", "k") != id_of_key("b", "k") != id_of_key("a", "j")
    assert len(id_of_key("a", "k")) == len(id_of_uuid(new_id())) == 38


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"reason": " "}, "reason"),
        ({"cost_nusd": 0}, "cost_usd"),
        ({"cost_nusd": 2**53}, "cost_usd"),
        ({"cost_nusd": -(2**53)}, "cost_usd"),
        ({"held_at": NOON + timedelta(seconds=1)}, "held_at"),
        ({"held_at": NOON - timedelta(days=60 * 365)}, "held_at"),
    ],
    ids=str,
)
async def test_what_would_be_no_line_of_money_is_refused_and_nothing_is_written(tmp_path, clock, changes, param):
    async with open_ledger(tmp_path, clock, catalog(limit(**USD))) as lane:
        clock.now = NOON
        with pytest.raises(InvalidRequest) as refused:
            await lane.run(Adjust(said=replace(said(1), **changes)))
        assert refused.value.param == param
        assert (await rows(lane, entries), await rows(lane, balances)) == ([], [])


async def test_a_hold_that_nobody_knows_is_refused(tmp_path, clock):
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        with pytest.raises(UnknownHold):
            await lane.run(adjust(1, new_id()))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"provider": "tow"}, "no provider 'tow': did you mean 'two'"),
        ({"provider": "one", "account": "shard"}, "no account 'shard': did you mean 'shared'"),
        ({"provider": "one", "model": "n"}, "no model 'n'"),
        ({"provider": "one", "caller": "cii"}, "no caller 'cii': did you mean 'ci'"),
    ],
)
def test_a_name_that_is_in_no_catalog_is_refused(names, says):
    of = catalog(providers=(provider("one"), provider("two", account="shared")))
    of = type(of)(providers=of.providers, models=of.models, callers={"ci": Caller(name="ci", token_sha256="0" * 64)})
    with pytest.raises(InvalidRequest, match=says) as refused:
        place_in(of, **names)
    assert refused.value.param == list(names)[-1]


def test_what_is_not_said_of_a_place_follows_from_the_catalog_or_is_nobodys():
    of = catalog(providers=(provider("one"), provider("two", account="shared")))
    assert place_in(of, provider="two", model="m", labels=("a", "a")) == Place(
        provider="two", account="shared", model="m", upstream_model="m-up", caller="", labels=("a",)
    )
    assert place_in(of, provider="one", account="shared", caller="admin").subjects[:4] == (
        "everyone",
        "provider:one",
        "account:shared",
        "attachment:/one",
    )


# --- finding it again ---------------------------------------------------------------------------------------------------


async def test_the_story_of_a_call_tells_its_adjustments(tmp_path, clock):
    of = catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        hold, other = [(await lane.run(admit(of))).hold for _ in range(2)]
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        clock.forward(seconds=1)
        await lane.run(adjust(-10_000, hold.id, reason="a refund"))
        await lane.run(adjust(1, other.id))
        reports = Reports(lane.reader)
        story = await reports.call(hold.call_id)
        assert [(line["kind"], line["cost_nusd"]) for line in story["entries"]] == [("post", 60_000), ("adjust", -10_000)]
        assert (story["entries"][1]["reason"], story["entries"][1]["admin"]) == ("a refund", "admin")
        assert (story["cost_nusd"], story["attempts"][0]["cost_nusd"]) == (50_000, 60_000)
        page = await reports.entries(limit=10, matching={"call_id": hold.call_id})
        assert page["items"] == story["entries"]
        assert await reports.attempt_of(hold.call_id) == hold.id


async def test_a_call_that_nobody_knows_or_that_was_refused_has_no_attempt_to_adjust(tmp_path, clock):
    of = catalog(limit(limit=0))
    async with open_ledger(tmp_path, clock, of) as lane:
        refused = call()
        await lane.run(admit(of, refused))
        reports = Reports(lane.reader)
        with pytest.raises(UnknownCall):
            await reports.attempt_of(new_id())
        with pytest.raises(InvalidRequest, match="nothing was attempted"):
            await reports.attempt_of(refused.id)

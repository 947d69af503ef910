"""What the ledger tells, over a real ledger that the lane has written."""

from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from database_kit import url_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import NOON, Clock, admit, call, catalog, new_id, post, provider, void

from quota_router.core.catalog import Billing, Caller
from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.core.holds import Outcome
from quota_router.core.usage import Quality, Usage
from quota_router.errors import InvalidRequest, LedgerUnavailable, UnknownCall
from quota_router.store import usage_report
from quota_router.store.holding import Sweep
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Setback, Settle
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, open_engines
from quota_router.store.reports import Reports

LONG_AGO = datetime(2011, 1, 1, tzinfo=UTC)
"""The lane's time never goes back, so it begins before the first example."""
UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
TWO = catalog(providers=(provider("one"), provider("two", account="shared")))


class Book:
    """A ledger under a moved clock, and its reports."""

    def __init__(self, lane, reports, clock, of, engines):
        self.lane, self.reports, self.clock, self.of, self.engines = lane, reports, clock, of, engines

    async def hold(self, at=None, **changes):
        self.clock.now = at or self.clock.now
        admitted = await self.lane.run(admit(self.of, call(**changes)))
        assert isinstance(admitted, Admission)
        return admitted.hold

    async def settle(self, hold, settlement):
        return await self.lane.run(Settle(hold_id=hold.id, settlement=settlement))

    async def spend(self, at=None, settlement=None, **changes):
        hold = await self.hold(at, **changes)
        await self.settle(hold, settlement or post())
        return hold

    async def usage(self, *group_by, since=None, until=None, tz=UTC_ZONE):
        return await self.reports.usage(group_by, since, until, tz)


@asynccontextmanager
async def open_book(folder, of=TWO):
    clock = Clock(LONG_AGO)
    async with open_engines(url_of(folder), Durability.PROCESS, clock) as engines:
        await upgrade(engines.write)
        async with Lane(engines.lane, engines.tenure, settle_wait_s=1) as lane:
            await lane.edit_catalog(of)
            clock.now = NOON
            yield Book(lane, Reports(engines.read), clock, lane.catalog, engines)


pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def book(tmp_path):
    async with open_book(tmp_path) as book:
        yield book


def caller(name):
    return Caller(name=name, token_sha256="1" * 64)


# --- usage --------------------------------------------------------------------------------------------------------------


async def test_an_empty_ledger_used_nothing(book):
    assert await book.usage("provider", "day") == {
        "groups": [],
        "total": {
            "calls": 0,
            "attempts": 0,
            "failures": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "cost_nusd": 0,
            "shadow_cost_nusd": 0,
            "unpriced": 0,
            "latency_p50_ms": None,
            "latency_p95_ms": None,
        },
    }


async def test_tokens_of_all_buckets_and_attempts_of_all_rungs_are_summed(book):
    """
    One call, two attempts: the failed one is told beside the one that paid.
    """
    asked = call(labels=("nightly",), workflow="standard", stage="plan")
    first = await book.lane.run(admit(book.of, asked))
    failure = Failure(kind=FailureKind.OVERLOADED, scope=Scope.ATTACHMENT, status=529)
    again = admit(book.of, asked, after=Setback(hold_id=first.hold.id, settlement=void_for(failure)))
    again.attempt = 2
    second = await book.lane.run(again)
    buckets = Usage(input=1, cache_read=10, cache_write_5m=100, cache_write_1h=1_000, output=7, reasoning=30)
    await book.settle(second.hold, post(usage=buckets, cost_nusd=5, latency_ms=80))

    told = await book.usage("provider", "account", "model", "caller", "label", "workflow", "stage", "day")
    same = {
        "model": "m",
        "caller": "ci",
        "label": "nightly",
        "workflow": "standard",
        "stage": "plan",
        "day": "2026-11-20",
        "calls": 1,
        "attempts": 1,
        "shadow_cost_nusd": 0,
        "unpriced": 0,
    }
    idle = {"failures": 1, "input_tokens": 0, "output_tokens": 0, "cost_nusd": 0, "latency_p50_ms": None, "latency_p95_ms": None}
    busy = {"failures": 0, "input_tokens": 1_111, "output_tokens": 37, "cost_nusd": 5, "latency_p50_ms": 80, "latency_p95_ms": 80}
    assert told["groups"] == [
        {"provider": "one", "account": "one", **same, **idle},
        {"provider": "two", "account": "shared", **same, **busy},
    ]
    assert (told["total"]["calls"], told["total"]["attempts"], told["total"]["failures"]) == (1, 2, 1)


def void_for(failure):
    settlement = void()
    return type(settlement)(event=settlement.event, outcome=Outcome.FAILED, failure=failure, fingerprint="failed")


async def test_groups_by_label_overlap_and_the_total_does_not(book):
    await book.spend(labels=("a", "b"))
    await book.spend(labels=("b",))
    await book.spend()
    told = await book.usage("label")
    assert [(group["label"], group["calls"], group["cost_nusd"]) for group in told["groups"]] == [
        (None, 1, 60_000),
        ("a", 1, 60_000),
        ("b", 2, 120_000),
    ]
    assert (told["total"]["calls"], told["total"]["cost_nusd"]) == (3, 180_000)


async def test_an_unknown_price_is_counted_and_is_not_zero_dollars(book):
    await book.spend(settlement=post(cost_nusd=None))
    await book.spend()
    total = (await book.usage())["total"]
    assert (total["cost_nusd"], total["unpriced"], total["calls"]) == (60_000, 1, 2)


async def test_a_flat_provider_costs_nothing_and_keeps_its_shadow(tmp_path):
    async with open_book(tmp_path, catalog(providers=(provider("sub", billing=Billing.FLAT),))) as book:
        await book.spend(settlement=post(cost_nusd=0, shadow_cost_nusd=77))
        total = (await book.usage())["total"]
    assert (total["cost_nusd"], total["shadow_cost_nusd"], total["unpriced"]) == (0, 77, 0)


async def test_an_open_hold_is_an_attempt_without_cost(book):
    await book.hold()
    total = (await book.usage())["total"]
    assert (total["calls"], total["attempts"], total["failures"], total["cost_nusd"]) == (1, 1, 0, 0)


async def test_a_late_word_corrects_the_sum(book):
    """
    What was assumed at expiry and the difference booked late add up to the truth.
    """
    hold = await book.hold()
    book.clock.forward(hours=1)
    await book.lane.run(Sweep())
    assert (await book.usage())["total"]["cost_nusd"] == 120_000
    await book.settle(hold, post(3, 4))
    total = (await book.usage())["total"]
    assert (total["cost_nusd"], total["input_tokens"], total["output_tokens"]) == (11_000, 3, 4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(latencies=st.lists(st.integers(0, 9), min_size=1, max_size=12))
async def test_quantiles_are_of_nearest_rank(tmp_path_factory, latencies):
    """
    The 50th of a hundred is the smallest that half of them do not exceed.
    """
    async with open_book(tmp_path_factory.mktemp("ledger")) as book:
        for latency_ms in latencies:
            await book.spend(settlement=post(latency_ms=latency_ms))
        (told,) = (await book.usage("provider"))["groups"]
    ranked = sorted(latencies)
    assert told["latency_p50_ms"] == ranked[-(-len(ranked) // 2) - 1]
    assert told["latency_p95_ms"] == ranked[-(-len(ranked) * 95 // 100) - 1]


async def test_a_time_is_half_open(book):
    for minutes in (0, 10, 20):
        await book.spend(NOON + timedelta(minutes=minutes))
    told = await book.usage(since=NOON, until=NOON + timedelta(minutes=20))
    assert told["total"]["calls"] == 2
    assert told["groups"] == []


async def test_a_call_counts_in_the_day_of_its_hold(book):
    """
    Settled after midnight, it still belongs to the day on which it was held.
    """
    hold = await book.hold(datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC))
    book.clock.forward(minutes=5)
    await book.settle(hold, post())
    (told,) = (await book.usage("day"))["groups"]
    assert (told["day"], told["calls"], told["cost_nusd"]) == ("2026-11-20", 1, 60_000)


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 27, 12, tzinfo=UTC), 96),  # a day of 23 hours
        ("Europe/Berlin", datetime(2026, 10, 23, 12, tzinfo=UTC), 96),  # and one of 25
        ("Australia/Lord_Howe", datetime(2026, 4, 3, 6, tzinfo=UTC), 72),  # half an hour
        ("America/New_York", datetime(2026, 10, 30, 12, tzinfo=UTC), 72),
        ("Pacific/Apia", datetime(2011, 12, 29, 0, tzinfo=UTC), 72),  # a day that never was
        ("UTC", datetime(2026, 12, 30, 12, tzinfo=UTC), 72),
    ],
)
async def test_days_are_those_of_the_zone_across_changes_of_its_clock(book, zone, first, hours):
    tz, expected = ZoneInfo(zone), {}
    for half_hour in range(0, hours * 2, 3):
        at = first + timedelta(minutes=30 * half_hour)
        await book.spend(at)
        day = at.astimezone(tz).date().isoformat()
        expected[day] = expected.get(day, 0) + 1
    told = await book.usage("day", tz=tz)
    assert {group["day"]: group["calls"] for group in told["groups"]} == expected
    assert [group["day"] for group in told["groups"]] == sorted(expected)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spent=st.lists(
        st.tuples(st.integers(0, 26 * 365 * 86_400 * 10**6), st.integers(0, 10**6), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    zone=st.sampled_from(sorted(available_timezones())),
    bounds=st.none() | st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
async def test_the_days_of_any_zone_sum_up_to_the_period(tmp_path_factory, spent, zone, bounds):
    """
    Whatever zone is asked for, and whenever something was spent: each call counts in one day, and that is the zone's own.
    """
    tz = ZoneInfo(zone)
    moments = sorted((LONG_AGO + timedelta(microseconds=at), cost_nusd, is_settled) for at, cost_nusd, is_settled in spent)
    first, last = (moments[place % len(moments)][0] for place in bounds) if bounds else (None, None)
    async with open_book(tmp_path_factory.mktemp("ledger")) as book:
        for at, cost_nusd, is_settled in moments:
            hold = await book.hold(at)
            await book.settle(hold, post(cost_nusd=cost_nusd) if is_settled else void())
        told = await book.usage("day", since=first, until=last, tz=tz)
    within = [moment for moment in moments if (first is None or moment[0] >= first) and (last is None or moment[0] < last)]
    for number in ("calls", "attempts", "failures", "input_tokens", "output_tokens", "cost_nusd", "unpriced"):
        assert sum(group[number] for group in told["groups"]) == told["total"][number], number
    assert told["total"]["calls"] == len(within)
    assert told["total"]["cost_nusd"] == sum(cost_nusd for _, cost_nusd, is_settled in within if is_settled)
    days = Counter(at.astimezone(tz).date().isoformat() for at, _, _ in within)
    assert {group["day"]: group["calls"] for group in told["groups"]} == days


async def test_the_instant_at_which_a_clock_changes_is_found_exactly(book):
    """
    Midnight after the change is an hour later in UTC than midnight before it: the microsecond before still is the day before.
    """
    midnight = datetime(2026, 10, 25, 23, tzinfo=UTC)  # 2026-10-26 00:00 in Berlin, winter time since that morning
    for at in (datetime(2026, 10, 24, 21, 59, 59, 999_999, tzinfo=UTC), midnight - timedelta(microseconds=1), midnight):
        await book.spend(at)
    told = await book.usage("day", tz=BERLIN)
    assert [(group["day"], group["calls"]) for group in told["groups"]] == [("2026-10-24", 1), ("2026-10-25", 1), ("2026-10-26", 1)]


@pytest.mark.parametrize(
    ("group_by", "said"),
    [
        (("providr",), "did you mean 'provider'"),
        (("day", "day"), "twice"),
        (("'; DROP TABLE entries; --",), "not known"),
    ],
)
async def test_a_key_nobody_knows_is_refused(book, group_by, said):
    with pytest.raises(InvalidRequest, match=said) as refused:
        await book.usage(*group_by)
    assert refused.value.param == "group_by"


async def test_more_groups_than_can_be_told_are_refused_not_cut(book, monkeypatch):
    monkeypatch.setattr(usage_report, "GROUPS_MAX", 2)
    for name in ("a", "b", "c"):
        await book.spend(caller=caller(name))
    with pytest.raises(InvalidRequest, match="more than 2 groups"):
        await book.usage("caller")


# --- entries ------------------------------------------------------------------------------------------------------------


async def test_an_entry_is_told_in_the_shape_of_the_contract(book):
    hold = await book.hold(labels=("a",))
    book.clock.forward(seconds=1)
    await book.settle(hold, post(price_source="file"))
    (item,) = (await book.reports.entries(limit=10))["items"]
    assert item == {
        "seq": 1,
        "journal": "main",
        "kind": "post",
        "call_id": hold.call_id,
        "hold_id": hold.id,
        "provider": "one",
        "account": "one",
        "model": "m",
        "caller": "ci",
        "labels": ["a"],
        "cost_nusd": 60_000,
        "estimate_nusd": 120_000,
        "shadow_cost_nusd": None,
        "usage": {
            "input_tokens": 50,
            "cache_read_tokens": 0,
            "cache_write_5m_tokens": 0,
            "cache_write_1h_tokens": 0,
            "output_tokens": 5,
            "reasoning_tokens": 0,
        },
        "quality": "reported",
        "price_source": "file",
        "held_at": "2026-11-20T12:00:00.000000Z",
        "at": "2026-11-20T12:00:01.000000Z",
        "hash": book.lane.state.head.hash.hex(),
    }


async def test_pages_hold_every_entry_once_also_while_more_are_written(book):
    for _ in range(5):
        await book.spend()
    seen, cursor = [], None
    while True:
        page = await book.reports.entries(limit=2, cursor=cursor)
        seen += [item["seq"] for item in page["items"]]
        if len(seen) == 2:
            await book.spend()
        cursor = page["next"]
        if cursor is None:
            break
        assert cursor.replace("-", "").replace("_", "").isalnum()
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "bnVsbA", "WyJtYWluIiwtMV0x", "WzEsMl0", "W1tbW1tb", "é", "A" * 5000])
async def test_a_cursor_that_is_not_ours_is_refused(book, cursor):
    with pytest.raises(InvalidRequest) as refused:
        await book.reports.entries(limit=1, cursor=cursor)
    assert refused.value.param == "cursor"


async def test_entries_of_a_time_add_up_to_its_usage(book):
    """
    Both count by `held_at`, whenever the money was booked.
    """
    late = await book.hold(NOON - timedelta(minutes=1))
    await book.spend(NOON)
    await book.spend(NOON + timedelta(minutes=1))
    await book.settle(late, post(1, 1))
    times = {"since": NOON - timedelta(minutes=2), "until": NOON + timedelta(minutes=1)}
    items = (await book.reports.entries(limit=10, **times))["items"]
    assert sum(item["cost_nusd"] for item in items) == (await book.usage(**times))["total"]["cost_nusd"] == 63_000


async def test_filters_keep_what_equals_them(book):
    await book.spend(caller=caller("a"))
    hold = await book.spend(caller=caller("b"))
    for matching, expected in (
        ({"caller": "b"}, [2]),
        ({"provider": "one"}, [1, 2]),
        ({"provider": "one", "hold_id": hold.id}, [2]),
        ({"kind": "late"}, []),
        ({"caller": "' OR 1=1 --"}, []),
    ):
        items = (await book.reports.entries(limit=10, matching=matching))["items"]
        assert [item["seq"] for item in items] == expected


# --- the story of a call ------------------------------------------------------------------------------------------------


async def test_the_story_of_a_call_has_every_attempt_and_its_money(book):
    hold = await book.hold(labels=("a",))
    running = await book.reports.call(hold.call_id)
    assert (running["state"], running["cost_nusd"], running["entries"]) == ("running", 0, [])
    assert running["attempts"][0]["outcome"] is None
    assert running["attempts"][0]["cost_nusd"] is None

    await book.settle(hold, post(latency_ms=9, first_byte_ms=4))
    story = await book.reports.call(hold.call_id)
    assert (story["id"], story["caller"], story["model"], story["labels"]) == (hold.call_id, "ci", "m", ["a"])
    assert (story["state"], story["cost_nusd"], len(story["entries"])) == ("done", 60_000, 1)
    assert [(rung["provider"], rung["status"]) for rung in story["decision"]["rungs"]] == [("one", "chosen"), ("two", "eligible")]
    (attempt,) = story["attempts"]
    assert attempt == {
        "provider": "one",
        "upstream_model": "m-up",
        "outcome": "ok",
        "failure": None,
        "status": None,
        "cost_nusd": 60_000,
        "usage": story["entries"][0]["usage"],
        "quality": "reported",
        "latency_ms": 9,
        "first_byte_ms": 4,
    }


async def test_the_story_of_a_late_word_tells_the_truth_as_known_last(book):
    hold = await book.hold()
    book.clock.forward(hours=1)
    await book.lane.run(Sweep())
    await book.settle(hold, post(3, 4))
    story = await book.reports.call(hold.call_id)
    assert [entry["kind"] for entry in story["entries"]] == ["expire", "late"]
    assert story["attempts"][0]["cost_nusd"] == story["cost_nusd"] == 11_000
    assert story["attempts"][0]["usage"]["input_tokens"] == 3
    assert story["attempts"][0]["quality"] == Quality.REPORTED


async def test_a_call_without_a_price_has_no_cost_and_a_voided_one_cost_nothing(book):
    unpriced, voided = await book.spend(settlement=post(cost_nusd=None)), await book.spend(settlement=void())
    assert (await book.reports.call(unpriced.call_id))["cost_nusd"] is None
    assert (await book.reports.call(voided.call_id))["cost_nusd"] == 0
    assert (await book.reports.call(voided.call_id))["attempts"][0]["cost_nusd"] == 0


async def test_an_unknown_call_is_not_found(book):
    with pytest.raises(UnknownCall):
        await book.reports.call(new_id())
    assert await book.reports.routed(new_id()) is None


async def test_what_was_routed_can_be_told_again(book):
    hold = await book.hold(fingerprint="f")
    told = await book.reports.routed(hold.call_id)
    assert (told.fingerprint, told.hold_id, told.provider, told.upstream_model) == ("f", hold.id, "one", "m-up")
    assert (told.expires_at, told.estimate_nusd) == (hold.expires_at, 120_000)
    assert [rung["status"] for rung in told.decision["rungs"]] == ["chosen", "eligible"]


async def test_a_database_that_cannot_be_read_is_said_in_our_words(tmp_path):
    async with open_book(tmp_path) as book:
        async with book.engines.write.begin() as conn:
            await conn.exec_driver_sql("ALTER TABLE calls RENAME TO gone")
        with pytest.raises(LedgerUnavailable, match="cannot be read"):
            await book.reports.call("x")

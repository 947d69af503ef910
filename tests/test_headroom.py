"""What is left of live windows, what is kept back of them, and when a call that is held back may come again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quota_router.core.calibration import Worth
from quota_router.core.headroom import amount_in, binding, effective_use, headroom, used_at
from quota_router.core.limits import Amounts
from quota_router.core.live_windows import next_day, next_month, next_week, window_length, window_name, window_start
from quota_router.core.readings import PPM, Reading, ReadingUnit, Seen, Status
from quota_router.core.restraints import (
    PACE_HEAD_START_PPM,
    Caution,
    Why,
    due_ppm,
    exhausted,
    paced,
    paused,
    reserved,
    restrain,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
END = NOW + 3 * HOUR
STALE_AFTER_S = 900
WORTH = Worth(window_tokens=1_000_000, window_nusd=None, error_ppm=0, others_ppm=0, intervals=99)
"""One token is one millionth of the window."""
NOTHING = Amounts(cost_nusd=0, requests=0, input_tokens=0, output_tokens=0)
MODEL = "claude-opus-4-1"

totals = st.integers(0, 10**12)


def tokens(number):
    return replace(NOTHING, input_tokens=number)


def reading(**fields):
    fields = {"window": "5h", "unit": ReadingUnit.TOKENS, "resets_at": END, "observed_at": NOW, "posted_then": NOTHING} | fields
    return Reading(provider="p", account="a", source="headers", **fields)


def left_of(said=None, *, posted=NOTHING, held=NOTHING, worth=WORTH, now=NOW, needed=None, **fields):
    seen = Seen((said if said is not None else reading(**fields),))
    return headroom(seen, posted_now=posted, held_now=held, worth=worth, now=now, stale_after_s=STALE_AFTER_S, needed=needed)


def share(percent, **fields):
    return left_of(unit=ReadingUnit.SHARE, share_ppm=percent * PPM // 100, **fields)


# --- effective use ------------------------------------------------------------------------------------------------------


@given(used=st.none() | totals, then=totals, now=totals, held=totals, more=totals)
def test_use_never_falls_by_what_we_post_or_hold(used, then, now, held, more):
    before = effective_use(used, posted_then=then, posted_now=now, held_now=held)
    for posted_now, held_now in ((now + more, held), (now, held + more)):
        after = effective_use(used, posted_then=then, posted_now=posted_now, held_now=held_now)
        assert (before is None) == (after is None) == (used is None)
        assert before is None or after >= before >= used


@given(
    posted=totals, held=totals, unit=st.sampled_from(ReadingUnit), status=st.sampled_from([None, Status.ALLOWED, Status.WARNING])
)
def test_the_unknown_stays_unknown_whatever_we_do(posted, held, unit, status):
    """It restrains nothing and is nobody's binding window."""
    found = left_of(unit=unit, status=status, posted=tokens(posted), held=tokens(held), needed=tokens(held))
    assert (found.used, found.left, found.share_used_ppm, found.is_known) == (None, None, None, False)
    assert binding([found, None], MODEL) is None
    assert restrain([found, None], MODEL, Caution(reserve_ppm=PPM, pause_at_ppm=0, pace=True), NOW) is None


def test_what_was_posted_since_and_what_is_held_is_used_too():
    found = left_of(used=500, limit=1_000, posted_then=tokens(10), posted=tokens(110), held=tokens(50))
    assert (found.used, found.left, found.share_used_ppm) == (650, 350, 650_000)


def test_totals_that_shrank_give_nothing_back():
    assert left_of(used=500, limit=1_000, posted_then=tokens(110), posted=tokens(10)).left == 500


def test_without_the_totals_of_that_moment_nothing_was_posted_since():
    assert left_of(used=500, limit=1_000, posted_then=None, posted=tokens(10**9)).left == 500


def test_a_share_is_told_in_parts_and_our_tokens_by_what_they_are_worth():
    assert share(46, posted=tokens(100_000), held=tokens(50_000)).share_used_ppm == 610_000
    assert share(46, posted=tokens(100_000), worth=None).share_used_ppm == 460_000


@pytest.mark.parametrize(
    ("unit", "amount"),
    [
        (ReadingUnit.USD, 5),
        (ReadingUnit.REQUESTS, 7),
        (ReadingUnit.CONCURRENCY, 7),
        (ReadingUnit.TOKENS, 30),
        (ReadingUnit.INPUT_TOKENS, 10),
        (ReadingUnit.OUTPUT_TOKENS, 20),
        (ReadingUnit.SHARE, 30),
    ],
)
def test_amounts_are_counted_in_the_unit_of_the_window(unit, amount):
    assert amount_in(unit, Amounts(cost_nusd=5, requests=7, input_tokens=10, output_tokens=20), WORTH) == amount


def test_calls_that_ended_hold_no_place():
    done = replace(NOTHING, requests=100)
    assert left_of(unit=ReadingUnit.CONCURRENCY, used=2, limit=8, posted=done, held=replace(NOTHING, requests=1)).left == 5


def test_a_refused_window_is_empty_whatever_its_numbers():
    found = left_of(used=1, limit=10, status=Status.REJECTED)
    assert (found.left, found.share_used_ppm) == (0, PPM)


def test_nothing_is_known_of_a_window_that_is_over_or_was_never_seen():
    assert left_of(used=1, limit=10, now=END) is None
    assert headroom(Seen(), posted_now=NOTHING, held_now=NOTHING, worth=None, now=NOW, stale_after_s=1) is None


def test_a_stale_reading_is_counted_while_its_window_runs_and_says_that_it_is_stale():
    later = NOW + 901 * SECOND
    found = left_of(used=9, limit=10, now=later)
    assert (found.left, found.is_stale) == (1, True)
    assert not left_of(used=9, limit=10, now=later - SECOND).is_stale


def test_a_stale_balance_is_unknown():
    """It may have been topped up, and nobody will say when."""
    found = left_of(used=0, limit=0, resets_at=None, now=NOW + 901 * SECOND)
    assert (found.left, found.is_stale) == (None, True)
    assert left_of(used=0, limit=0, resets_at=None).left == 0


# --- buckets ------------------------------------------------------------------------------------------------------------


def bucket(**fields):
    return reading(refills=True, **fields)


@pytest.mark.parametrize(("after_s", "used"), [(0, 100), (15, 75), (59, 2), (60, 0), (61, 0), (-5, 100)])
def test_a_bucket_fills_evenly_until_it_is_full(after_s, used):
    said = bucket(used=100, limit=100, resets_at=NOW + 60 * SECOND)
    assert used_at(said, NOW + after_s * SECOND) == used
    assert used_at(replace(said, refills=False), NOW + after_s * SECOND) == 100


def test_an_empty_bucket_holds_back_only_until_the_next_drop():
    """Groq's day: full again in 24 hours, but every six seconds a request is free."""
    said = bucket(unit=ReadingUnit.REQUESTS, window="day", used=14_400, limit=14_400, resets_at=NOW + 24 * HOUR)
    held_back = exhausted(left_of(said))
    assert held_back.usable_at == NOW + 6 * SECOND
    assert exhausted(left_of(said, now=NOW + 7 * SECOND)) is None


def test_however_much_we_posted_since_a_bucket_is_full_after_its_length():
    """One token was used when it was read, so that its filling looks slow."""
    said = bucket(window="minute", used=1, limit=100, resets_at=NOW + 60 * SECOND)
    assert exhausted(left_of(said, posted=tokens(10**12))).usable_at == NOW + 60 * SECOND


def test_a_call_is_not_held_back_because_it_could_fill_a_bucket():
    """Vendors judge tokens that are really used: a call with a generous cap would never fit."""
    said = bucket(used=90, limit=100, resets_at=NOW + 60 * SECOND)
    assert exhausted(left_of(said, needed=tokens(64_000))) is None


def test_a_refused_bucket_holds_back_until_it_is_full():
    said = bucket(used=1, limit=100, status=Status.REJECTED, resets_at=NOW + 60 * SECOND)
    assert exhausted(left_of(said)).usable_at == NOW + 60 * SECOND


# --- the binding window -------------------------------------------------------------------------------------------------


def test_the_window_with_the_least_share_left_binds():
    five_hours, week = share(95), share(40, window="7d")
    assert binding([week, five_hours], MODEL) is five_hours


def test_windows_of_the_model_count_and_those_of_other_models_do_not():
    opus, sonnet, week = share(99, window="7d", model="*opus*"), share(100, window="7d", model="*sonnet*"), share(40, window="7d")
    assert binding([week, sonnet, opus], MODEL) is opus
    assert binding([week, sonnet, opus], "claude-haiku-4") is week


def test_ways_to_pay_beyond_the_windows_never_bind():
    overage = left_of(unit=ReadingUnit.SHARE, status=Status.REJECTED, is_extra=True)
    assert binding([overage, share(10)], MODEL).reading.window == "5h"
    assert restrain([overage], MODEL, Caution(), NOW) is None


def test_of_two_empty_windows_the_one_that_resets_last_binds():
    soon, late = share(100), share(100, window="7d", resets_at=END + HOUR)
    assert binding([soon, late], MODEL) is late


# --- what is kept back --------------------------------------------------------------------------------------------------

KEPT_BACK = [
    (exhausted, {"used": 10, "limit": 10}, Why.EXHAUSTED, END),
    (exhausted, {"used": 9, "limit": 10, "needed": tokens(2)}, Why.EXHAUSTED, END),
    (exhausted, {"used": 9, "limit": 10, "needed": tokens(1)}, None, None),
    (exhausted, {"used": 0, "limit": 10, "needed": tokens(11)}, Why.EXHAUSTED, None),
    (exhausted, {"used": 0, "limit": 0, "resets_at": None}, Why.EXHAUSTED, None),
    (exhausted, {"used": 0, "limit": 0}, Why.EXHAUSTED, END),
    (exhausted, {"status": Status.REJECTED}, Why.EXHAUSTED, END),
    (lambda found: reserved(found, 20_000), {"used": 979, "limit": 1_000, "needed": tokens(1)}, None, None),
    (lambda found: reserved(found, 20_000), {"used": 979, "limit": 1_000, "needed": tokens(2)}, Why.RESERVE, END),
    (lambda found: reserved(found, 20_000), {"used": 0, "limit": 1_000, "needed": tokens(981)}, Why.RESERVE, None),
    (lambda found: reserved(found, 0), {"used": 2_000, "limit": 1_000}, None, None),
    (lambda found: paused(found, 900_000), {"used": 899, "limit": 1_000}, None, None),
    (lambda found: paused(found, 900_000), {"used": 900, "limit": 1_000}, Why.PAUSE_AT, END),
]


@pytest.mark.parametrize(("judge", "fields", "why", "usable_at"), KEPT_BACK)
def test_what_is_kept_back_and_until_when(judge, fields, why, usable_at):
    found = judge(left_of(**fields))
    assert (found.why if found else None, found.usable_at if found else None) == (why, usable_at)


def test_one_token_more_crosses_the_reserve():
    at = {"used": 979, "limit": 1_000}
    caution = Caution(reserve_ppm=20_000)
    assert restrain([left_of(**at, needed=tokens(1))], MODEL, caution, NOW) is None
    held_back = restrain([left_of(**at, needed=tokens(1), held=tokens(1))], MODEL, caution, NOW)
    assert (held_back.why, held_back.why.reason) == (Why.RESERVE, "quota_reserved")


def test_a_pause_ends_by_itself_when_the_window_resets_or_falls():
    caution = Caution(pause_at_ppm=900_000)
    assert restrain([share(95)], MODEL, caution, NOW).why is Why.PAUSE_AT
    assert restrain([share(95, now=END)], MODEL, caution, END) is None
    assert restrain([share(50)], MODEL, caution, NOW) is None


def test_the_reason_is_the_first_of_all_windows_and_the_moment_the_last():
    pausing, empty = share(95, window="7d", resets_at=END + 99 * HOUR), share(100)
    held_back = restrain([pausing, empty], MODEL, Caution(pause_at_ppm=900_000), NOW)
    assert (held_back.why, held_back.headroom) == (Why.EXHAUSTED, empty)
    assert held_back.usable_at == END + 99 * HOUR


def test_when_one_window_does_not_say_when_it_gives_way_nobody_knows():
    assert restrain([share(100), share(100, window="credits", resets_at=None)], MODEL, Caution(), NOW).usable_at is None


def test_a_restraint_shows_its_numbers():
    detail = restrain([share(100, model="*opus*", posted=tokens(5))], MODEL, Caution(), NOW).detail()
    assert detail == {
        "why": "exhausted",
        "window": "5h",
        "window_model": "*opus*",
        "unit": "share",
        "used": 1_000_005,
        "cap": PPM,
        "needed": 0,
        "used_ppm": 1_000_005,
        "bound_ppm": PPM,
        "status": None,
        "observed_at": NOW,
        "source": "headers",
        "stale": False,
    }


# --- pacing -------------------------------------------------------------------------------------------------------------

START = END - 5 * HOUR
moments = st.integers(0, 5 * 3_600 * 10**6).map(lambda us: START + timedelta(microseconds=us))


def test_a_window_is_spread_over_its_time_after_a_head_start():
    assert due_ppm(START, END, START) == PACE_HEAD_START_PPM
    assert due_ppm(START, END, START + 2.5 * HOUR) == (PPM + PACE_HEAD_START_PPM) // 2
    assert due_ppm(START, END, START - HOUR) == PACE_HEAD_START_PPM


@given(st.integers(0, PPM))
def test_at_its_end_a_window_may_be_used_up(used_ppm):
    assert due_ppm(START, END, END) == PPM
    last = left_of(unit=ReadingUnit.SHARE, share_ppm=used_ppm, now=END - timedelta(microseconds=1))
    assert used_ppm == PPM or paced(replace(last, at=END), END) is None


@given(st.integers(0, PPM), moments)
def test_a_paced_call_may_come_when_it_is_told_to_and_not_before(used_ppm, now):
    found = share(0)
    found = replace(found, share_used_ppm=used_ppm)
    held_back = paced(found, now)
    assert (held_back is None) == (used_ppm <= due_ppm(START, END, now))
    if held_back is not None:
        assert now < held_back.usable_at <= END
        assert paced(found, held_back.usable_at) is None
        assert paced(found, held_back.usable_at - timedelta(microseconds=1)) is not None


@given(moments, moments)
def test_more_is_due_later(one, other):
    early, late = sorted((one, other))
    assert due_ppm(START, END, early) <= due_ppm(START, END, late)


@pytest.mark.parametrize("fields", [{"window": "credits"}, {"refills": True}, {"resets_at": None}])
def test_a_window_without_a_known_beginning_is_not_paced(fields):
    assert paced(share(99, **fields), NOW) is None


# --- lengths and beginnings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "length"),
    [
        ("5h", 5 * HOUR),
        ("7d", timedelta(days=7)),
        ("90m", 1.5 * HOUR),
        ("2w", timedelta(days=14)),
        ("minute", 60 * SECOND),
        ("day", 24 * HOUR),
        ("month", None),
        ("credits", None),
        ("0h", None),
        ("401d", None),
        ("99999999w", None),
        ("5H", None),
        ("", None),
    ],
)
def test_a_window_is_as_long_as_its_name_says(window, length):
    assert window_length(window) == length


@given(st.integers(1, 400 * 86_400))
def test_a_name_given_for_a_length_says_that_length(length_s):
    length = timedelta(seconds=length_s)
    assert window_length(window_name(length)) == length


@pytest.mark.parametrize(
    ("end", "start"),
    [
        ((2026, 12, 1), (2026, 11, 1)),
        ((2026, 1, 15), (2025, 12, 15)),
        ((2026, 3, 31), (2026, 2, 28)),
        ((2028, 3, 30), (2028, 2, 29)),
    ],
)
def test_a_month_began_a_calendar_month_before_it_ends(end, start):
    said = reading(window="month", resets_at=datetime(*end, tzinfo=UTC))
    assert window_start(said) == datetime(*start, tzinfo=UTC)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 -- hypothesis adds the zone
def test_calendar_windows_in_utc_end_at_the_next_midnight_that_begins_one(now):
    for end, days in ((next_day(now), 1), (next_week(now), 7), (next_month(now), 31)):
        assert timedelta(0) < end - now <= timedelta(days=days)
        assert (end.hour, end.minute, end.second, end.microsecond) == (0, 0, 0, 0)
    assert next_week(now).weekday() == 0
    assert next_month(now).day == 1

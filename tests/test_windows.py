"""Windows and limits: what counts when."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quota_router.core.limits import (
    Amounts,
    Gauge,
    Kind,
    Limit,
    Unit,
    Window,
    WindowKind,
    parse_window,
    subjects_of,
)
from quota_router.core.windows import EPOCH, ROLLING_BUCKETS, coverage, next_relief

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)

ZONES = (
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Asuncion",
    "America/Caracas",
    "America/Havana",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
)
"""Shifts of 30 minutes and of two hours, at midnight and across it, and one over the date line."""

CALENDAR = (
    ("hour", None),
    ("day", None),
    ("week", None),
    ("week", "saturday"),
    ("month", None),
    ("month", "15"),
    ("month", "31"),
    ("year", None),
)

instants = st.datetimes(datetime(1975, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis adds the zone


def limit_of(window, anchor=None, timezone="UTC", unit=Unit.TOKENS, limit=100):
    return Limit(
        name="l",
        kind=Kind.BUDGET,
        subject="everyone",
        unit=unit,
        limit=limit,
        window=window,
        anchor=anchor,
        timezone=timezone,
    )


@cache
def shifts_of(timezone, first_year=2005, last_year=2031):
    """The instants at which a zone changes its offset, found by bisection between days."""
    zone = ZoneInfo(timezone)
    days = [datetime(first_year, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range((last_year - first_year) * 366)]

    def offset(at):
        return at.astimezone(zone).utcoffset()

    found = []
    for before, after in pairwise(days):
        low, high = before, after
        if offset(low) == offset(high):
            continue
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) // 2
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        found.append(high.replace(microsecond=0))
    return found


def assert_tiles(limit, at):
    """One window holds *at*, all of its instants agree, and the next one begins where it ends."""
    found = coverage(limit, at, None)
    assert found.end is not None
    assert found.start <= at < found.end
    assert found.bucket == found.first_bucket == found.start
    assert coverage(limit, found.start, None) == found
    assert coverage(limit, found.end - MICROSECOND, None) == found
    assert coverage(limit, found.end, None).start == found.end


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), instants)
def test_each_instant_lies_in_exactly_one_calendar_window(calendar, timezone, at):
    assert_tiles(limit_of(*calendar, timezone=timezone), at)


@pytest.mark.parametrize("timezone", ZONES[1:])
def test_calendar_windows_tile_where_the_clock_shifts(timezone):
    """Around every shift of twenty-six years no instant is lost and none counts twice."""
    shifts = shifts_of(timezone)
    assert shifts or timezone == "Asia/Kathmandu"
    for shift in shifts:
        for minutes in (-91, -61, -31, -1, 0, 1, 29, 31, 61, 91):
            for window in ("hour", "day"):
                assert_tiles(limit_of(window, timezone=timezone), shift + timedelta(minutes=minutes))


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_CALENDAR = (
    *(("hour", None), ("day", None), ("year", None)),
    *(("week", day) for day in WEEKDAYS),
    *(("month", str(day)) for day in (1, 15, 28, 29, 30, 31)),
)
LONGEST = {
    "hour": 2 * HOUR,
    "day": timedelta(days=2, hours=2),  # a day may be skipped, and goes to the one before
    "week": timedelta(days=8, hours=2),
    "month": timedelta(days=32, hours=2),
    "year": timedelta(days=367, hours=2),
}
HOURS_REPEATED = 3 * HOUR
"""No zone sets its clock back by more: so long after its beginning a window is at no midnight that comes twice."""


def name_on_the_calendar(window, anchor, local):
    """What a person in the zone calls the day, week, month or year of a wall clock."""
    match window:
        case "day":
            return local.date()
        case "week":
            return (local.date() - timedelta(days=(local.weekday() - WEEKDAYS.index(anchor)) % 7)).isoformat()
        case "month":
            begins_on = min(int(anchor), monthrange(local.year, local.month)[1])
            return local.year * 12 + local.month - (local.day < begins_on)
        case _:
            return local.year


@st.composite
def instants_near_shifts(draw):
    """A zone, and an instant within a few hours of one at which its clock was set, in sixty years."""
    timezone = draw(st.sampled_from(ZONES[1:]).filter(lambda zone: shifts_of(zone, 1975, 2037)))
    shift = draw(st.sampled_from(shifts_of(timezone, 1975, 2037)))
    return timezone, shift + timedelta(seconds=draw(st.integers(-5 * 3_600, 5 * 3_600)))


@settings(max_examples=1_000)
@given(st.sampled_from(EVERY_CALENDAR), instants_near_shifts())
def test_every_calendar_window_tiles_where_the_clock_shifts(calendar, place):
    """
    Hours, days, weeks from each weekday, months from each billing day, years: at every shift that twenty zones made or will make.
    """
    timezone, at = place
    limit = limit_of(*calendar, timezone=timezone)
    assert_tiles(limit, at)
    found = coverage(limit, at, None)
    assert timedelta(minutes=30) <= found.end - found.start <= LONGEST[calendar[0]]


@settings(max_examples=1_000)
@given(st.sampled_from(EVERY_CALENDAR[1:]), st.sampled_from(ZONES), instants | instants_near_shifts())
def test_a_calendar_window_holds_what_a_person_in_its_zone_would_call_so(calendar, timezone, at):
    """
    All that bears one name on the wall calendar of the zone, but for the hours that a clock set back at midnight gives twice.
    """
    timezone, at = at if isinstance(at, tuple) else (timezone, at)
    found, zone = coverage(limit_of(*calendar, timezone=timezone), at, None), ZoneInfo(timezone)
    assume(at - found.start > HOURS_REPEATED and found.end - at > HOURS_REPEATED)
    names = {name_on_the_calendar(*calendar, moment.astimezone(zone)) for moment in (found.start + HOURS_REPEATED, at)}
    others = [found.start - HOURS_REPEATED, found.end + HOURS_REPEATED]

    assert len(names) == 1
    assert names.isdisjoint(name_on_the_calendar(*calendar, moment.astimezone(zone)) for moment in others)


@pytest.mark.parametrize("timezone", ZONES)
def test_from_window_to_window_no_year_is_too_long_or_too_short(timezone):
    """
    Walked from end to start: as many days, weeks and months as the zone's calendar has; one day less on the date line.
    """
    zone = ZoneInfo(timezone)
    for calendar, step in ((("day", None), 1), (("week", "sunday"), 7), (("month", "31"), None)):
        limit, walked = limit_of(*calendar, timezone=timezone), 0
        at = end = coverage(limit, datetime(2004, 12, 31, 12, tzinfo=zone).astimezone(UTC), None).start
        while end < datetime(2032, 1, 1, tzinfo=UTC):
            found = coverage(limit, end, None)
            assert found.start == end
            end, walked = found.end, walked + 1
        first, last = at.astimezone(zone).date(), (end + HOURS_REPEATED).astimezone(zone).date()
        skipped = timezone == "Pacific/Apia" and step == 1
        expected = (last - first).days // step - skipped if step else (last.year - first.year) * 12 + last.month - first.month
        assert walked == expected, calendar


@pytest.mark.parametrize(
    ("window", "anchor", "timezone", "at", "start", "end"),
    [
        ("day", None, "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("day", None, "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("hour", None, "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T00:00Z", "2026-10-25T01:00Z"),
        ("hour", None, "Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T01:00Z", "2026-10-25T02:00Z"),
        ("hour", None, "Asia/Kathmandu", "2026-06-01T00:00Z", "2026-05-31T23:15Z", "2026-06-01T00:15Z"),
        ("hour", None, "Australia/Lord_Howe", "2026-04-04T14:45Z", "2026-04-04T14:00Z", "2026-04-04T15:30Z"),
        ("hour", None, "Australia/Lord_Howe", "2026-10-03T15:45Z", "2026-10-03T15:30Z", "2026-10-03T16:00Z"),
        ("day", None, "America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        ("day", None, "America/Sao_Paulo", "2018-02-17T12:00Z", "2018-02-17T02:00Z", "2018-02-18T03:00Z"),
        ("day", None, "America/Caracas", "2016-05-01T12:00Z", "2016-05-01T04:30Z", "2016-05-02T04:00Z"),
        ("day", None, "Asia/Tehran", "2022-03-22T12:00Z", "2022-03-21T20:30Z", "2022-03-22T19:30Z"),
        ("day", None, "Africa/Casablanca", "2026-02-15T12:00Z", "2026-02-14T23:00Z", "2026-02-16T00:00Z"),
        ("hour", None, "Pacific/Chatham", "2026-04-04T13:50Z", "2026-04-04T13:15Z", "2026-04-04T14:15Z"),
        ("month", "29", "Asia/Kathmandu", "2027-02-28T12:00Z", "2027-02-27T18:15Z", "2027-03-28T18:15Z"),
        ("day", None, "Pacific/Apia", "2011-12-30T09:00Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z"),
        ("day", None, "Pacific/Apia", "2011-12-30T11:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("week", None, "UTC", "2026-11-20T12:00Z", "2026-11-16T00:00Z", "2026-11-23T00:00Z"),
        ("week", "Friday", "UTC", "2026-11-20T00:00Z", "2026-11-20T00:00Z", "2026-11-27T00:00Z"),
        ("month", None, "Europe/Berlin", "2026-11-20T12:00Z", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
        ("month", "31", "UTC", "2026-02-27T12:00Z", "2026-01-31T00:00Z", "2026-02-28T00:00Z"),
        ("month", "31", "UTC", "2028-02-29T12:00Z", "2028-02-29T00:00Z", "2028-03-31T00:00Z"),
        ("month", "15", "UTC", "2026-01-03T12:00Z", "2025-12-15T00:00Z", "2026-01-15T00:00Z"),
        ("year", None, "America/New_York", "2026-01-01T04:59Z", "2025-01-01T05:00Z", "2026-01-01T05:00Z"),
        ("5h", "2026-11-20T03:00:00Z", "UTC", "2026-11-20T12:30Z", "2026-11-20T08:00Z", "2026-11-20T13:00Z"),
        ("5h", "2026-11-20T04:00:00+01:00", "UTC", "2026-11-19T22:00Z", "2026-11-19T22:00Z", "2026-11-20T03:00Z"),
    ],
)
def test_a_window_begins_and_ends_where_the_calendar_says(window, anchor, timezone, at, start, end):
    found = coverage(limit_of(window, anchor, timezone), datetime.fromisoformat(at), None)

    assert (found.start, found.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


@given(st.integers(1, 400), st.sampled_from("smhd"), instants, instants)
def test_each_instant_lies_in_exactly_one_fixed_window(count, unit, origin, at):
    assert_tiles(limit_of(f"{count}{unit}", origin.isoformat()), at)


@given(
    st.sampled_from(["1s", "7s", "59m", "5h", "24h", "7d"]),
    instants,
    st.lists(st.tuples(st.floats(0, 1.2), st.integers(1, 50)), max_size=30),
)
def test_a_rolling_window_never_counts_too_little(window, now, charges):
    """What it counts lies between the exact sum and that of a window longer by one bucket."""
    limit = limit_of(window)
    duration = parse_window(window, None, "UTC").duration
    booked = [(now - duration * age, amount) for age, amount in charges]
    stored = {}
    for at, amount in booked:
        bucket = coverage(limit, at, None).bucket
        stored[bucket] = stored.get(bucket, 0) + amount

    covered = coverage(limit, now, None)
    counted = sum(amount for bucket, amount in stored.items() if covered.first_bucket <= bucket <= covered.bucket)

    longer = duration + duration / ROLLING_BUCKETS + MICROSECOND
    assert counted >= sum(amount for at, amount in booked if at > now - duration)
    assert counted <= sum(amount for at, amount in booked if at > now - longer)


@given(st.sampled_from(["1s", "7s", "59m", "5h", "7d"]), instants, st.floats(0, 0.99))
def test_a_rolling_window_says_when_its_oldest_bucket_leaves(window, now, age):
    """At the moment named the bucket no longer counts; a microsecond before it still does."""
    limit = limit_of(window)
    oldest = coverage(limit, now - parse_window(window, None, "UTC").duration * age, None).bucket

    relief_at = next_relief(limit, coverage(limit, now, None), oldest)

    assert relief_at is not None
    assert relief_at > now
    assert coverage(limit, relief_at, None).first_bucket > oldest
    assert coverage(limit, relief_at - MICROSECOND, None).first_bucket <= oldest


def test_a_rolling_window_has_few_buckets_and_no_end():
    limit = limit_of("5h")
    covered = coverage(limit, NOW, None)

    assert (covered.bucket - covered.first_bucket) / timedelta(minutes=5) == ROLLING_BUCKETS
    assert covered.end is None
    assert next_relief(limit, covered, None) is None


def test_a_first_use_window_opens_with_the_hold_and_lasts():
    limit = limit_of("5h", "first_use")

    before = coverage(limit, NOW, None)
    opened = Window(start=before.start, end=before.end)
    during = coverage(limit, NOW + 5 * HOUR - MICROSECOND, opened)
    after = coverage(limit, NOW + 5 * HOUR, opened)

    assert (before.start, before.end, before.opens) == (NOW, NOW + 5 * HOUR, True)
    assert (during.bucket, during.end, during.opens) == (NOW, NOW + 5 * HOUR, False)
    assert (after.start, after.opens) == (NOW + 5 * HOUR, True)
    assert next_relief(limit, before, None) is None
    assert next_relief(limit, during, NOW) == NOW + 5 * HOUR


def test_a_first_use_window_that_does_not_hold_the_instant_is_not_used():
    later = Window(start=NOW, end=NOW + 5 * HOUR)

    assert coverage(limit_of("5h", "first_use"), NOW - HOUR, later).opens


@pytest.mark.parametrize("limit", [limit_of("forever"), limit_of("hour", unit=Unit.CONCURRENCY)])
def test_forever_and_concurrency_have_one_bucket_and_no_relief(limit):
    covered = coverage(limit, NOW, None)

    assert covered == coverage(limit, NOW + 10_000 * HOUR, None)
    assert (covered.bucket, covered.first_bucket, covered.end) == (EPOCH, EPOCH, None)
    assert next_relief(limit, covered, EPOCH) is None


def test_a_calendar_window_relieves_at_its_end():
    limit = limit_of("day")

    assert next_relief(limit, coverage(limit, NOW, None), None) == datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "anchor", "kind"),
    [
        ("hour", None, WindowKind.CALENDAR),
        ("month", "31", WindowKind.CALENDAR),
        ("90m", None, WindowKind.ROLLING),
        ("90m", "rolling", WindowKind.ROLLING),
        ("5h", "first_use", WindowKind.FIRST_USE),
        ("7d", "2026-01-01T00:00:00+02:00", WindowKind.FIXED),
        ("forever", None, WindowKind.FOREVER),
    ],
)
def test_the_anchor_decides_the_kind_of_window(window, anchor, kind):
    assert parse_window(window, anchor, "UTC").kind is kind


@pytest.mark.parametrize(
    ("window", "anchor", "timezone", "remedy"),
    [
        ("fortnight", None, "UTC", "hour, day, week, month, year, forever"),
        ("", None, "UTC", "hour, day, week"),
        ("5 h", None, "UTC", "such as '5h'"),
        ("0h", None, "UTC", "longer than nothing"),
        ("999999999d", None, "UTC", "at most 3660 days"),
        ("\u0665h", None, "UTC", "such as '5h'"),
        ("forever", "rolling", "UTC", "takes no anchor"),
        ("day", "first_use", "UTC", "such as '24h'"),
        ("week", "caturday", "UTC", "a weekday such as 'monday'"),
        ("month", "0", "UTC", "a day from 1 to 31"),
        ("month", "32", "UTC", "a day from 1 to 31"),
        ("5h", "yesterday", "UTC", "'rolling', 'first_use' or an instant"),
        ("5h", "2026-01-01T00:00:00", "UTC", "has no offset"),
        ("day", None, "Europe/Atlantis", "an IANA name"),
        ("day", None, "Europe", "an IANA name"),
        ("day", None, "../../etc/passwd", "an IANA name"),
        ("day", None, "", "an IANA name"),
    ],
)
def test_a_window_that_cannot_be_read_is_refused_with_what_is_allowed(window, anchor, timezone, remedy):
    with pytest.raises(ValueError, match=remedy):
        parse_window(window, anchor, timezone)


def test_amounts_answer_in_each_unit():
    amounts = Amounts(cost_nusd=7, requests=1, input_tokens=20, output_tokens=300)

    assert [amounts.of(unit) for unit in Unit] == [7, 1, 320, 20, 300, 1]


@pytest.mark.parametrize(
    ("posted", "held", "amount", "fits", "remaining"),
    [
        (0, 0, 100, True, 100),
        (60, 30, 10, True, 10),
        (60, 30, 11, False, 10),
        (120, 0, 0, True, 0),
        (120, 0, 1, False, 0),
    ],
)
def test_a_gauge_lets_in_what_fits_and_who_asks_for_nothing(posted, held, amount, fits, remaining):
    gauge = Gauge(
        limit=limit_of("forever"), posted=posted, held=held, bucket=EPOCH, window_start=EPOCH, window_end=None, relief_at=None
    )

    assert gauge.fits(amount) is fits
    assert gauge.remaining == remaining


def test_an_attempt_is_the_subject_of_every_limit_that_names_it():
    assert subjects_of("p", "a", "org/m", "c", ("x", "team:y")) == (
        "everyone",
        "provider:p",
        "account:a",
        "attachment:org/m/p",
        "model:org/m",
        "caller:c",
        "label:x",
        "label:team:y",
    )

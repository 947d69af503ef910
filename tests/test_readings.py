"""What is believed of what upstreams say: laws of merging, and each way to say something wrong."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quota_router.core.limits import Amounts, Unit
from quota_router.core.readings import (
    CLOCK_SLACK,
    NUMBER_MAX,
    PPM,
    READINGS_KEPT,
    SHARE_MAX_PPM,
    WINDOW_MAX,
    Reading,
    ReadingUnit,
    Said,
    Seen,
    Status,
    refused,
    sound,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
END = NOW + 3 * HOUR


def reading(at_s=0, share=None, *, unit=ReadingUnit.SHARE, source="poller:x", resets_at=END, **fields):
    """A reading observed that many seconds after noon; *share* in percent."""
    return Reading(
        provider="p",
        account="a",
        source=source,
        window="5h",
        unit=unit,
        share_ppm=None if share is None else share * PPM // 100,
        resets_at=resets_at,
        observed_at=NOW + at_s * SECOND,
        **fields,
    )


def merged(*readings, now=NOW + HOUR):
    return reduce(lambda seen, one: seen.merge(one, now), readings, Seen())


def percent(*shares, now=NOW + HOUR):
    """What is believed after polls a minute apart; `None`: nothing."""
    believed = merged(*(reading(60 * number, share) for number, share in enumerate(shares))).believed(now)
    return None if believed is None else believed.share_ppm * 100 // PPM


numbers = st.none() | st.integers(-10, 200)
readings = st.builds(
    Reading,
    provider=st.sampled_from(["p", "q"]),
    account=st.just("a"),
    source=st.sampled_from(["headers", "poller:x"]),
    window=st.just("5h"),
    unit=st.just(ReadingUnit.REQUESTS),
    used=numbers,
    limit=numbers,
    share_ppm=st.none() | st.integers(-PPM, 2 * SHARE_MAX_PPM),
    status=st.none() | st.sampled_from(Status),
    resets_at=st.none() | st.integers(-3, 9).map(lambda hours: NOW + hours * HOUR),
    observed_at=st.integers(-4, 4).map(lambda minutes: NOW + minutes * 60 * SECOND),
    posted_then=st.none() | st.just(Amounts(cost_nusd=1, requests=2, input_tokens=3, output_tokens=4)),
)
buckets = readings.map(lambda one: replace(one, refills=True))

# --- merging ------------------------------------------------------------------------------------------------------------


@given(readings, readings)
def test_two_readings_merge_to_the_same_whichever_came_first(one, other):
    assert merged(one, other, now=NOW) == merged(other, one, now=NOW)


@given(st.lists(readings, max_size=5) | st.lists(buckets, max_size=5))
def test_any_number_of_readings_merge_to_the_same_in_every_order(said):
    """So neither a slow daemon nor a retried job can change what is believed."""
    assert len({merged(*order, now=NOW) for order in permutations(said)}) == 1


@given(st.lists(readings, max_size=6))
def test_saying_a_thing_twice_adds_nothing(said):
    assert merged(*said, *said, now=NOW) == merged(*said, now=NOW)


@given(st.lists(readings, max_size=12))
def test_few_are_kept_and_those_are_the_last_observed(said):
    kept = merged(*said, now=NOW).readings
    assert len(kept) <= READINGS_KEPT
    assert list(kept) == sorted(kept, key=lambda one: one.observed_at)
    heard = [one.observed_at for one in said if sound(one, NOW) is not None]
    assert not heard or merged(*said, now=NOW).newest.observed_at == max(heard)


def test_an_older_reading_never_replaces_a_newer_one():
    assert merged(reading(60, 80), reading(0, 95)).newest.share_ppm == 800_000


def test_readings_of_several_windows_are_not_mixed():
    with pytest.raises(AssertionError, match="another window"):
        merged(reading(0, 1), replace(reading(1, 2), model="m"))


def test_two_providers_of_an_account_see_one_window():
    assert replace(reading(0, 1), provider="q").key == reading(0, 1).key


# --- who is believed ----------------------------------------------------------------------------------------------------

BELIEVED = [
    ((), None),
    ((40,), 40),
    ((40, 41, 42), 42),
    # lowering acts at once
    ((10, 100), 100),
    # a rise needs two confirmations
    ((80, 20), 80),
    ((80, 20, 20), 80),
    ((80, 20, 20, 20), 20),
    # and then the most careful of the three
    ((80, 20, 50, 30), 50),
    # a flip and back
    ((80, 20, 80, 20, 80), 80),
    ((80, 0, 0, 80, 0, 0), 80),
]


@pytest.mark.parametrize(("shares", "believed"), BELIEVED)
def test_headroom_falls_at_once_and_rises_when_three_agree(shares, believed):
    """Fault F28: an endpoint that lies in our favour has to lie three times, one that corrects itself is believed then."""
    assert percent(*shares) == believed


def test_a_new_window_is_believed_at_once():
    full, fresh = reading(0, 100, resets_at=NOW + 60 * SECOND), reading(90, 1)
    assert merged(full, fresh).believed(NOW + 90 * SECOND).share_ppm == 10_000


def test_an_early_reset_is_believed_when_three_say_so():
    full = reading(0, 100)
    fresh = [reading(60 * number, 1, resets_at=END + HOUR) for number in (1, 2, 3)]
    assert merged(full, *fresh[:2]).believed(NOW + HOUR).share_ppm == PPM
    assert merged(full, *fresh).believed(NOW + HOUR).share_ppm == 10_000


def test_past_its_reset_nothing_is_known():
    seen = merged(reading(0, 100))
    assert seen.believed(END - SECOND).share_ppm == PPM
    assert seen.believed(END) is None


def test_a_bucket_is_what_it_was_last_said_to_be():
    full, empty = reading(0, 0, refills=True), reading(1, 100, refills=True)
    assert merged(empty, full).believed(NOW + SECOND).share_ppm == PPM
    assert merged(empty, reading(2, 30, refills=True)).believed(NOW + 2 * SECOND).share_ppm == 300_000


def test_the_cap_of_one_endpoint_completes_the_use_of_another():
    spent = reading(0, unit=ReadingUnit.USD, used=30)
    cap = reading(60, unit=ReadingUnit.USD, limit=100)
    for said in ((spent, cap), (cap, spent), (cap, reading(60, unit=ReadingUnit.USD, used=10), spent)):
        believed = merged(*said).believed(NOW + HOUR)
        assert (believed.used, believed.limit) == (30, 100)


def test_what_says_nothing_of_the_use_hides_nothing():
    status = reading(60, status=Status.ALLOWED)
    assert merged(reading(0, 80), status).believed(NOW + HOUR).share_ppm == 800_000


def test_of_two_alike_the_later_is_believed():
    """Less was posted since."""
    assert merged(reading(0, 80), reading(60, 80)).believed(NOW + HOUR).observed_at == NOW + 60 * SECOND


# --- what is wrong on its face ------------------------------------------------------------------------------------------

TOKENS = ReadingUnit.TOKENS
SOUND = [
    ("as it should be", {"used": 1, "limit": 2}, {}),
    ("negative use", {"used": -1, "limit": 2}, {"used": None}),
    ("negative limit", {"used": 1, "limit": -1}, {"limit": None}),
    ("negative share", {"used": 1, "share_ppm": -1}, {"share_ppm": None}),
    ("a share of a thousand per cent", {"share_ppm": SHARE_MAX_PPM}, {}),
    ("and more", {"used": 1, "share_ppm": SHARE_MAX_PPM + 1}, {"share_ppm": None}),
    ("more used than there is", {"used": 3, "limit": 2}, {}),
    ("nobody's number", {"used": NUMBER_MAX + 1, "limit": 2}, {"used": None}),
    ("only a word", {"status": Status.REJECTED}, {}),
    ("nothing", {}, None),
    ("nothing but nonsense", {"used": -1, "share_ppm": -1}, None),
    ("a reset in the past", {"used": 1, "resets_at": NOW}, None),
    ("a bucket that is full", {"used": 0, "limit": 9, "resets_at": NOW, "refills": True}, {}),
    ("a reset in a hundred years", {"used": 1, "resets_at": NOW + 100 * WINDOW_MAX}, {"resets_at": None}),
    ("the longest window", {"used": 1, "resets_at": NOW + WINDOW_MAX}, {}),
    ("observed a little later than now", {"used": 1, "observed_at": NOW + CLOCK_SLACK}, {}),
    ("observed tomorrow", {"used": 1, "observed_at": NOW + timedelta(days=1)}, None),
]


@pytest.mark.parametrize(("fields", "changes"), [row[1:] for row in SOUND], ids=[row[0] for row in SOUND])
def test_what_cannot_be_true_was_not_said(fields, changes):
    said = replace(reading(unit=TOKENS), **fields)
    assert sound(said, NOW) == (None if changes is None else replace(said, **changes))


def test_a_reading_from_the_future_does_not_outlive_what_is_observed_next():
    """Our own clock was an hour ahead and is set right."""
    seen = merged(reading(3_600, 10), now=NOW + HOUR)
    assert [one.share_ppm for one in seen.merge(reading(0, 70), NOW).readings] == [700_000]


@given(readings, st.none() | st.just(END))
def test_a_429_overrules_whatever_was_read(said, until):
    """Until three later readings, or the window's end."""
    said = replace(said, observed_at=NOW, resets_at=END)
    seen = merged(said, refused(said, NOW + SECOND, until), now=NOW + HOUR)
    assert seen.believed(NOW + HOUR).left == 0
    promise = [replace(said, used=0, limit=10, status=None, observed_at=NOW + after * SECOND) for after in (2, 3, 4)]
    assert merged(*seen.readings, *promise[:2]).believed(NOW + HOUR).left == 0
    assert merged(*seen.readings, *promise).believed(NOW + HOUR).left == 10


# --- one reading by itself ----------------------------------------------------------------------------------------------

LEFT = [
    ({"used": 3, "limit": 10}, 7),
    ({"used": 13, "limit": 10}, 0),
    ({"used": 0, "limit": 0}, 0),
    ({"limit": 10}, None),
    ({"used": 3}, None),
    ({"limit": 10, "share_ppm": 250_001}, 7),
    ({"limit": 10, "share_ppm": 2 * PPM}, 0),
    ({"used": 3, "limit": 10, "status": Status.REJECTED}, 0),
    ({"unit": ReadingUnit.SHARE, "share_ppm": 460_000}, 540_000),
    ({"unit": ReadingUnit.SHARE, "share_ppm": 1_010_000}, 0),
    ({"unit": ReadingUnit.SHARE, "used": 3, "limit": 10}, None),
    ({"status": Status.ALLOWED}, None),
]


@pytest.mark.parametrize(("fields", "left"), LEFT)
def test_what_is_left_is_known_or_unknown_and_never_negative(fields, left):
    assert replace(reading(unit=TOKENS), **fields).left == left


@pytest.mark.parametrize(
    ("model", "asked", "covered"),
    [
        ("", "anything", True),
        ("gpt-4o", "gpt-4o", True),
        ("gpt-5.3-codex-spark", "GPT-5.3-Codex-Spark", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("*opus*", "claude-opus-4-1", True),
        ("*opus*", "claude-sonnet-4-5", False),
        ("*sonnet*4*5*", "claude-sonnet-4-5-20250929", True),
        ("*:free", "meta/llama:free", True),
        ("*:free", "meta/llama", False),
        ("a[b]", "a[b]", True),
    ],
)
def test_a_window_of_some_models_counts_no_others(model, asked, covered):
    assert replace(reading(), model=model).covers(asked) is covered


def test_what_was_said_becomes_a_reading_once_it_is_known_whose():
    said = Said(window="5h", unit=ReadingUnit.SHARE, share_ppm=1, observed_at=NOW, refills=True)
    made = said.by(provider="p", account="a", source="headers")
    assert (made.share_ppm, made.refills, made.source, made.posted_then) == (1, True, "headers", None)


def test_units_are_those_of_limits_and_the_share():
    assert {unit.value for unit in ReadingUnit} == {unit.value for unit in Unit} | {"share"}


def test_what_we_know_is_as_old_as_the_last_word():
    """Also where an earlier and more careful reading is the one believed."""
    seen = merged(reading(0, 80), reading(600, 20))
    assert not seen.is_stale(NOW + 1_200 * SECOND, 900)
    assert seen.is_stale(NOW + 1_501 * SECOND, 900)
    assert Seen().is_stale(NOW, 900)


def test_whoever_does_not_mind_the_age_of_a_reading_may_say_so():
    """A 429 looks for the end of the window whatever its age: it was answered with 500 where a reading was known."""
    assert not merged(reading(0, 40)).is_stale(NOW + 300 * HOUR, inf)

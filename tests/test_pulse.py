"""When a quota endpoint is asked again: never too soon, whatever happens and whatever chance draws."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import NOON

from quota_router.core.pulse import BACKOFF_MAX_S, JITTER, RATE_LIMITED, START_SPREAD_S, begin, fail, hasten, put_off, succeed
from quota_router.core.readings import CLOCK_SLACK

draws = st.floats(0, 1)
intervals = st.integers(10, 100_000)


def seconds(pulse, since=NOON):
    return (pulse.due_at - since).total_seconds()


def failed(times, *, interval_s=60, draw=0.0, **how):
    pulse = begin(NOON, draw=0)
    for _ in range(times):
        pulse = fail(pulse, "refused", interval_s=interval_s, now=NOON, draw=draw, **how)
    return pulse


@given(draws)
def test_a_new_endpoint_is_asked_within_seconds_but_not_all_of_them_at_once(draw):
    pulse = begin(NOON, draw=draw)
    assert seconds(pulse) == round(START_SPREAD_S * draw, 6)
    assert pulse.is_due(pulse.due_at)
    assert pulse.due_at == NOON or not pulse.is_due(NOON)


@given(intervals, draws)
def test_chance_only_lengthens_a_wait_and_by_a_tenth_at_most(interval_s, draw):
    wait_s = seconds(succeed(interval_s=interval_s, now=NOON, draw=draw))
    assert interval_s <= wait_s <= interval_s * (1 + JITTER) + 1e-6


@given(intervals, st.integers(1, 40), draws)
def test_waits_double_up_to_an_hour_and_never_fall_below_the_interval(interval_s, times, draw):
    wait_s = seconds(failed(times, interval_s=interval_s, draw=draw))
    least_s = max(interval_s, min(interval_s * 2 ** (times - 1), BACKOFF_MAX_S))
    assert least_s <= wait_s <= least_s + JITTER * interval_s + 1e-6


def test_the_first_waits_of_an_endpoint_that_fails():
    assert [seconds(failed(times)) for times in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


@given(st.integers(0, 3_000_000), draws)
def test_a_wait_that_is_asked_for_is_believed_whole_and_never_shortens_the_interval(wait_s, draw):
    pulse = failed(3, draw=draw, until=NOON + timedelta(seconds=wait_s))
    least_s = max(60, wait_s)
    assert least_s <= seconds(pulse) <= least_s + 6 + 1e-6


def test_a_success_ends_the_row_of_failures():
    pulse = succeed(interval_s=60, now=NOON, draw=0)
    assert (pulse.failures, pulse.cause, pulse.heard_at) == (0, None, NOON)
    assert (failed(1).failures, failed(1).heard_at) == (1, None)


def test_a_failure_keeps_when_it_was_last_heard():
    heard = succeed(interval_s=60, now=NOON, draw=0)
    assert fail(heard, "closed", interval_s=60, now=NOON + timedelta(minutes=1), draw=0).heard_at == NOON


def test_what_another_daemon_was_told_puts_off_our_own_question():
    """The interval counts from the last answer, whoever got it."""
    pulse = put_off(begin(NOON, draw=0), NOON - timedelta(seconds=40), interval_s=60, now=NOON, draw=0)
    assert seconds(pulse) == 20


def test_a_clock_that_is_set_back_does_not_silence_an_endpoint():
    pulse = succeed(interval_s=60, now=NOON, draw=0)
    assert not pulse.is_due(NOON - CLOCK_SLACK)
    assert pulse.is_due(NOON - CLOCK_SLACK - timedelta(seconds=1))


def test_an_edit_ends_a_wait_but_not_one_that_the_endpoint_asked_for():
    at = NOON + timedelta(seconds=1)
    assert seconds(hasten(failed(8), interval_s=60, now=at)) == 60
    assert seconds(hasten(failed(8), interval_s=30, now=NOON + timedelta(seconds=100))) == 100
    told = fail(begin(NOON, draw=0), RATE_LIMITED, interval_s=60, now=NOON, draw=0, until=NOON + timedelta(hours=2))
    assert hasten(told, interval_s=60, now=at) == told

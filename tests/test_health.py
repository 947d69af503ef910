"""How long a rung is left alone: laws of `cool` and `reached`. Who may try it then: `test_breaker.py`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.health import (
    ASSUMED_COOLDOWN_MAX_S,
    ASSUMED_COOLDOWN_MIN_S,
    BREAKER_FAILURES,
    FORGET_AFTER_S,
    SAID_COOLDOWN_MAX_S,
    Action,
    Cooldown,
    CooldownSource,
    Failure,
    FailureKind,
    Probe,
    Scope,
    broken,
    cool,
    reached,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAID_AT_MOST = timedelta(seconds=SAID_COOLDOWN_MAX_S)
OURS = frozenset({FailureKind.CONTEXT_TOO_LONG, FailureKind.CONTENT_POLICY, FailureKind.CLIENT_ERROR, FailureKind.CANCELLED})
"""What the caller did, or what says nothing about the rung."""
THEIRS = tuple(kind for kind in FailureKind if kind not in OURS)
LASTING = (Scope.ATTACHMENT, Scope.PROVIDER, Scope.ACCOUNT)
OF_A_WINDOW = (FailureKind.RATE_LIMITED, FailureKind.QUOTA_WINDOW)
DOWN = (FailureKind.TRANSIENT, FailureKind.OVERLOADED)
"""What opens a breaker: the rest is the answer of an upstream that is up."""
GROWING = (FailureKind.RATE_LIMITED, FailureKind.IN_FLIGHT_BUDGET, *DOWN)
LONGEST_ASSUMED_S = 900

moments = st.timedeltas(timedelta(days=-60), timedelta(days=60)).map(lambda offset: NOW + offset)
failures = st.builds(
    Failure,
    kind=st.sampled_from(FailureKind),
    scope=st.sampled_from(Scope),
    until=st.none() | moments,
)
standing = st.builds(
    Cooldown,
    provider=st.just("work"),
    model=st.just("m"),
    until=moments,
    source=st.sampled_from(CooldownSource),
    cause=st.sampled_from(THEIRS),
    failures=st.integers(0, 10**6),
    strikes=st.integers(0, 10**6),
    probe=st.none() | st.builds(Probe, hold_id=st.sampled_from("ab"), until=moments),
)
draws = st.floats(0, 1)


def after(failure, before=None, now=NOW, **more):
    return cool(failure, provider="work", model="m", before=before, now=now, **more)


def wait_s(cooldown, now=NOW):
    return (cooldown.until - now).total_seconds()


def rate_limited(wait_s=None):
    until = None if wait_s is None else NOW + timedelta(seconds=wait_s)
    return Failure(kind=FailureKind.RATE_LIMITED, scope=Scope.PROVIDER, until=until)


# --- who is cooled --------------------------------------------------------------------------------------------------------


@given(failures, st.none() | standing)
def test_only_lasting_failures_of_the_upstream_cool(failure, before):
    """
    What the caller did never touches health, nor does what concerns this one call or attempt.
    """
    is_cooled = failure.kind not in OURS and failure.scope in LASTING
    assert (after(failure, before) is not None) == is_cooled


def test_the_kinds_that_move_on_are_the_first_eight():
    assert [kind for kind in FailureKind if kind.moves_on] == list(FailureKind)[:8]
    assert [kind for kind in FailureKind if kind.action is Action.NEXT_RUNG] == list(FailureKind)[:8]
    assert list(THEIRS) == list(FailureKind)[:8]


def test_only_a_context_that_is_too_short_asks_for_a_longer_one():
    assert [kind for kind in FailureKind if kind.action is Action.LONGER_CONTEXT] == [FailureKind.CONTEXT_TOO_LONG]


def test_a_call_refused_for_quota_is_told_from_one_refused_for_trouble():
    about_quota = {kind for kind in FailureKind if kind.is_about_quota}
    assert about_quota == {
        FailureKind.RATE_LIMITED,
        FailureKind.QUOTA_WINDOW,
        FailureKind.BILLING,
        FailureKind.IN_FLIGHT_BUDGET,
    }


@pytest.mark.parametrize(("scope", "model"), [(Scope.ATTACHMENT, "m"), (Scope.PROVIDER, ""), (Scope.ACCOUNT, "")])
def test_the_scope_says_whether_a_model_or_the_whole_provider_cools(scope, model):
    cooldown = after(Failure(kind=FailureKind.OVERLOADED, scope=scope))
    assert (cooldown.provider, cooldown.model) == ("work", model)


@given(failures)
def test_a_failure_reaches_what_its_scope_says_and_nothing_twice(failure):
    touched = reached(failure, provider="work", model="m", siblings=["other", "work"])
    expected = {
        Scope.ATTACHMENT: (("work", "m"),),
        Scope.PROVIDER: (("work", ""),),
        Scope.ACCOUNT: (("work", ""), ("other", "")),
    }
    assert touched == (expected.get(failure.scope, ()) if failure.kind in THEIRS else ())


@given(failures)
def test_the_rung_that_failed_is_among_what_is_reached(failure):
    cooldown = after(failure)
    assert (cooldown is None) == (reached(failure, provider="work", model="m") == ())
    assert cooldown is None or (cooldown.provider, cooldown.model) == reached(failure, provider="work", model="m")[0]


def test_an_answer_that_broke_off_is_the_whole_providers():
    assert broken("dns") == Failure(kind=FailureKind.TRANSIENT, scope=Scope.PROVIDER, cause="dns")


# --- how long -------------------------------------------------------------------------------------------------------------


@given(failures, standing, st.none() | moments, draws)
def test_a_cooldown_only_grows(failure, before, window_end, jitter):
    cooldown = after(failure, before, window_end=window_end, jitter=jitter)
    assert cooldown is None or cooldown.until >= before.until


@given(failures, st.none() | standing)
def test_it_ends_after_now_and_says_who_said_so(failure, before):
    """
    The source and cause are those of the end that won, and nothing lasts beyond what the upstream may say.
    """
    cooldown = after(failure, before)
    if cooldown is None:
        return
    assert cooldown.until >= NOW
    longest = max(NOW + SAID_AT_MOST, before.until if before else NOW)
    assert cooldown.until <= longest
    kept = before is not None and cooldown.until == before.until
    said = failure.until is not None and cooldown.until == min(failure.until, NOW + SAID_AT_MOST)
    assert kept or cooldown.cause is failure.kind
    assert kept or (cooldown.source is CooldownSource.SAID) == said


@given(failures, standing)
def test_every_failure_in_a_row_is_counted(failure, before):
    """
    What lies a day behind the end of its cooldown is no longer in a row.
    """
    cooldown = after(failure, before)
    if cooldown is None:
        return
    is_new = before.is_stale(NOW)
    assert cooldown.failures == (0 if is_new else before.failures) + 1
    assert cooldown.strikes == (0 if is_new else before.strikes) + (failure.kind in DOWN)


def test_the_first_failure_counts_one():
    assert after(rate_limited()).failures == 1


def test_what_the_upstream_says_is_believed_to_the_second():
    cooldown = after(rate_limited(wait_s=7))
    assert (wait_s(cooldown), cooldown.source) == (7, CooldownSource.SAID)


def test_a_long_wait_that_was_said_is_not_cut_to_what_we_would_assume():
    """
    Weekly quotas reset days ahead: a clamp there would ask a provider that has said no.
    """
    week_s = 7 * 24 * 3600
    assert wait_s(after(rate_limited(wait_s=week_s))) == week_s


def test_a_wait_beyond_any_window_is_cut():
    assert wait_s(after(rate_limited(wait_s=10**8))) == SAID_COOLDOWN_MAX_S


def test_a_moment_in_the_past_says_nothing():
    """
    A reset that has passed, or a clock that is behind, must not send the next call straight back into the same refusal.
    """
    cooldown = after(rate_limited(wait_s=-1))
    assert (wait_s(cooldown), cooldown.source) == (wait_s(after(rate_limited())), CooldownSource.ASSUMED)


def test_said_beats_assumed_when_it_is_longer_and_gives_way_when_it_is_shorter():
    assumed = after(rate_limited())
    longer = after(rate_limited(wait_s=wait_s(assumed) + 1), assumed)
    shorter = after(rate_limited(wait_s=wait_s(assumed) - 1), assumed)
    assert (longer.source, wait_s(longer)) == (CooldownSource.SAID, wait_s(assumed) + 1)
    assert (shorter.source, shorter.until) == (CooldownSource.ASSUMED, assumed.until)


def test_a_shorter_failure_keeps_the_cause_that_stands():
    billing = after(Failure(kind=FailureKind.BILLING, scope=Scope.PROVIDER))
    cooldown = after(Failure(kind=FailureKind.TRANSIENT, scope=Scope.PROVIDER), billing)
    assert (cooldown.cause, cooldown.until, cooldown.failures) == (FailureKind.BILLING, billing.until, 2)


@pytest.mark.parametrize("kind", THEIRS)
def test_where_nothing_was_said_the_wait_doubles_up_to_its_bound(kind):
    """
    Each failure comes when the last cooldown has just ended.
    """
    failure, before, now, waits = Failure(kind=kind, scope=Scope.PROVIDER), None, NOW, []
    for _ in range(40):
        before = after(failure, before, now)
        waits.append(wait_s(before, now))
        now = before.until
    longest = waits[-1]
    assert waits == [min(waits[0] * 2**times, longest) for times in range(40)]
    assert longest <= LONGEST_ASSUMED_S
    assert (longest > waits[0]) == (kind in GROWING)
    assert kind not in GROWING or longest <= ASSUMED_COOLDOWN_MAX_S


def test_a_rung_in_trouble_is_left_alone_for_five_seconds_and_at_last_for_five_minutes():
    failure, before, now, waits = broken("refused"), None, NOW, []
    for _ in range(8):
        before = after(failure, before, now)
        waits.append(wait_s(before, now))
        now = before.until
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


@given(st.sampled_from(THEIRS), draws, st.integers(0, 40), st.integers(0, 40))
def test_a_draw_shortens_only_waits_that_grow_and_stays_inside_its_bounds(kind, jitter, count, strikes):
    """
    Between a second and the bound; once the breaker is open, between half the bound and the bound.
    """
    failure = Failure(kind=kind, scope=Scope.PROVIDER)
    before = replace(after(failure), failures=count, strikes=strikes, until=NOW)
    whole, drawn = after(failure, before), after(failure, before, jitter=jitter)
    least_s = wait_s(whole) / 2 if drawn.is_open else ASSUMED_COOLDOWN_MIN_S
    if kind in GROWING:
        assert least_s - 1e-5 <= wait_s(drawn) <= wait_s(whole)
        assert wait_s(after(failure, before, jitter=0.0)) == pytest.approx(least_s)
    else:
        assert drawn == whole


@given(st.floats(allow_nan=False, allow_infinity=True))
def test_a_draw_out_of_range_is_taken_for_the_nearest(jitter):
    wait = wait_s(after(broken("dns"), jitter=jitter))
    assert ASSUMED_COOLDOWN_MIN_S <= wait <= wait_s(after(broken("dns")))


@given(draws)
def test_what_was_said_is_not_drawn(jitter):
    assert after(rate_limited(wait_s=77), jitter=jitter) == after(rate_limited(wait_s=77))


# --- where a window ends ------------------------------------------------------------------------------------------------


def test_seven_days_said_on_a_five_hour_window_end_with_the_window():
    """
    A hint that is off by a week must not keep a subscription out that is full again in an hour.
    """
    end = NOW + timedelta(hours=1)
    for kind in OF_A_WINDOW:
        failure = Failure(kind=kind, scope=Scope.ACCOUNT, until=NOW + timedelta(days=7))
        cooldown = after(failure, window_end=end)
        assert (cooldown.until, cooldown.source) == (end, CooldownSource.SAID)


@given(failures, st.none() | standing, moments, draws)
def test_nothing_new_reaches_beyond_the_known_end_of_its_window(failure, before, window_end, jitter):
    """
    A window that has ended already says nothing, and neither does a window about money or keys.
    """
    cooldown = after(failure, before, window_end=window_end, jitter=jitter)
    if cooldown is None:
        return
    stood = before.until if before is not None else NOW
    if window_end >= NOW and failure.kind in OF_A_WINDOW:
        assert cooldown.until <= max(window_end, stood)
    else:
        assert cooldown == after(failure, before, jitter=jitter)


# --- when it is a breaker, and when it is forgotten ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", THEIRS)
def test_five_failures_in_a_row_open_a_breaker_if_they_say_that_the_upstream_is_down(kind):
    cooldown = None
    for count in range(1, BREAKER_FAILURES + 3):
        cooldown = after(Failure(kind=kind, scope=Scope.ATTACHMENT), cooldown)
        assert cooldown.is_open == (kind in DOWN and count >= BREAKER_FAILURES)


def test_a_busy_minute_between_two_outages_neither_counts_nor_ends_the_row():
    cooldown = None
    for failure in [*[broken("closed")] * 4, rate_limited(), broken("closed")]:
        cooldown = after(failure, cooldown)
    assert (cooldown.failures, cooldown.strikes, cooldown.is_open) == (6, 5, True)


@given(failures, standing, st.sampled_from(["a", "b", None]))
def test_the_probes_own_failure_ends_its_lease_and_nobody_elses_does(failure, before, hold_id):
    cooldown = after(failure, before, hold_id=hold_id)
    if cooldown is None:
        return
    is_over = before.probe is None or before.probe.hold_id == hold_id or before.is_stale(NOW)
    assert cooldown.probe == (None if is_over else before.probe)


@given(standing)
def test_what_is_forgotten_is_a_day_past_and_nobody_tries_it(cooldown):
    """
    So that memory holds what stands, not what ever stood.
    """
    is_past = cooldown.until + timedelta(seconds=FORGET_AFTER_S) <= NOW
    is_tried = cooldown.probe is not None and cooldown.probe.until > NOW
    assert cooldown.is_stale(NOW) == (is_past and not is_tried)
    assert cooldown.is_stale(max(cooldown.until, NOW) + timedelta(days=61))


@given(st.sampled_from(THEIRS), st.integers(0, 10**9))
def test_any_number_of_failures_can_be_borne(kind, count):
    before = replace(after(Failure(kind=kind, scope=Scope.PROVIDER)), failures=count, until=NOW)
    assert 0 < wait_s(after(Failure(kind=kind, scope=Scope.PROVIDER), before)) <= LONGEST_ASSUMED_S

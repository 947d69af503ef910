"""How long a rung is left alone: laws of `cool`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.health import (
    ASSUMED_COOLDOWN_MAX_S,
    SAID_COOLDOWN_MAX_S,
    Cooldown,
    CooldownSource,
    Failure,
    FailureKind,
    Scope,
    cool,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAID_AT_MOST = timedelta(seconds=SAID_COOLDOWN_MAX_S)
OURS = frozenset({FailureKind.CONTEXT_TOO_LONG, FailureKind.CONTENT_POLICY, FailureKind.CLIENT_ERROR, FailureKind.CANCELLED})
"""What the caller did, or what says nothing about the rung."""
THEIRS = tuple(kind for kind in FailureKind if kind not in OURS)
LASTING = (Scope.ATTACHMENT, Scope.PROVIDER, Scope.ACCOUNT)
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
)


def after(failure, before=None, now=NOW):
    return cool(failure, provider="work", model="m", before=before, now=now)


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
    assert list(THEIRS) == list(FailureKind)[:8]


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


# --- how long -------------------------------------------------------------------------------------------------------------


@given(failures, standing)
def test_a_cooldown_only_grows(failure, before):
    cooldown = after(failure, before)
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
    cooldown = after(failure, before)
    assert cooldown is None or cooldown.failures == before.failures + 1


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
    longest = max(waits[0], ASSUMED_COOLDOWN_MAX_S)
    assert waits == [min(waits[0] * 2**times, longest) for times in range(40)]
    assert longest <= LONGEST_ASSUMED_S


@given(st.sampled_from(THEIRS), st.integers(0, 10**9))
def test_any_number_of_failures_can_be_borne(kind, count):
    before = replace(after(Failure(kind=kind, scope=Scope.PROVIDER)), failures=count, until=NOW)
    assert 0 < wait_s(after(Failure(kind=kind, scope=Scope.PROVIDER), before)) <= LONGEST_ASSUMED_S

"""Who may try a rung again: laws of the probe and of the breaker it closes."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quota_router.core.breaker import claim, due_soonest, free_at, may_try, on_success, release
from quota_router.core.health import BREAKER_FAILURES, Cooldown, CooldownSource, Failure, FailureKind, Probe, Scope, broken, cool

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
EVERY_S = 0.1
"""How often a caller comes, where one comes after another."""


def fail(cooldown, now=NOW, *, failure=None, jitter=1.0, hold_id=None):
    failure = failure or broken("refused")
    return cool(failure, provider="work", model="m", before=cooldown, now=now, jitter=jitter, hold_id=hold_id)


def cooling(until=NOW, strikes=1, probe=None):
    return Cooldown(
        provider="work",
        model="m",
        until=until,
        source=CooldownSource.ASSUMED,
        cause=FailureKind.TRANSIENT,
        failures=max(strikes, 1),
        strikes=strikes,
        probe=probe,
    )


def opened(until=NOW, probe=None):
    return cooling(until, BREAKER_FAILURES, probe)


def leased(hold_id="a", until=NOW + LEASE):
    return Probe(hold_id=hold_id, until=until)


SECOND = timedelta(seconds=1)

# --- who may try --------------------------------------------------------------------------------------------------------


def test_where_nothing_stands_anybody_may_try():
    assert may_try(None, NOW)


@pytest.mark.parametrize(
    ("cooldown", "may", "free"),
    [
        (cooling(NOW + SECOND), False, NOW + SECOND),
        (cooling(NOW), True, NOW),
        (cooling(NOW - SECOND, probe=leased()), False, NOW + LEASE),
        (cooling(NOW - SECOND, probe=leased(until=NOW)), True, NOW - SECOND),
        (opened(NOW + 2 * LEASE, probe=leased()), False, NOW + 2 * LEASE),
    ],
)
def test_a_rung_is_free_when_its_time_is_over_and_nobody_probes(cooldown, may, free):
    assert (may_try(cooldown, NOW), free_at(cooldown, NOW)) == (may, free)


def test_a_hundred_that_waited_become_one_call():
    """
    The cooldown is read and claimed in one transaction, so each sees what the one before him wrote.
    """
    cooldown, sent = cooling(), []
    for waiter in map(str, range(100)):
        if may_try(cooldown, NOW):
            cooldown = claim(cooldown, hold_id=waiter, until=NOW + LEASE, now=NOW)
            sent.append(waiter)
    assert sent == ["0"]


def test_somebody_elses_lease_cannot_be_taken():
    with pytest.raises(AssertionError):
        claim(cooling(probe=leased("a")), hold_id="b", until=NOW + LEASE, now=NOW)


def test_a_lease_ends_with_its_hold_so_that_a_crash_blocks_nobody_for_long():
    crashed = claim(cooling(), hold_id="a", until=NOW + LEASE, now=NOW)
    assert not may_try(crashed, NOW + LEASE - SECOND)
    assert may_try(crashed, NOW + LEASE)
    assert claim(crashed, hold_id="b", until=NOW + 2 * LEASE, now=NOW + LEASE).probe.hold_id == "b"


@pytest.mark.parametrize(("hold_id", "probe"), [("a", None), ("b", leased("a"))])
def test_a_probe_that_says_nothing_of_the_rung_is_given_back_by_its_holder_alone(hold_id, probe):
    """
    The caller left, or his request was wrong: no penalty, and the next one may try at once.
    """
    cooldown = opened(probe=leased("a"))
    assert release(cooldown, hold_id) == replace(cooldown, probe=probe)


# --- what a success does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cooldown", [cooling(), opened(), opened(probe=leased("a")), opened(probe=leased("b", until=NOW))])
def test_a_success_closes_what_is_due(cooldown):
    assert on_success(cooldown, hold_id="a", now=NOW) is None


def test_a_success_that_began_before_the_failure_ends_the_row_and_not_the_wait():
    later = NOW + timedelta(days=1)
    left = on_success(cooling(later, strikes=4), hold_id="old", now=NOW)
    assert (left.until, left.failures, left.strikes) == (later, 0, 0)
    assert not fail(left).is_open


@pytest.mark.parametrize("cooldown", [opened(NOW + SECOND), opened(NOW + SECOND, leased("a")), opened(NOW, leased("a"))])
def test_an_open_breaker_is_not_closed_by_a_stream_from_before_the_outage(cooldown):
    assert on_success(cooldown, hold_id="old", now=NOW) is cooldown


def test_the_probe_closes_the_breaker_even_if_an_older_call_failed_meanwhile():
    failed_meanwhile = fail(opened(probe=leased("a")), hold_id="old")
    left = on_success(failed_meanwhile, hold_id="a", now=NOW)
    assert (left.is_open, left.probe, left.until) == (False, None, failed_meanwhile.until)


# --- one at a time, whatever happens ---------------------------------------------------------------------------------------


class Rung(RuleBasedStateMachine):
    """Calls come, end in every way, and crash; time passes. The model: who holds an unfinished lease."""

    def __init__(self):
        super().__init__()
        self.now = NOW
        self.cooldown = None
        self.holders: dict[str, datetime] = {}
        self.running: list[str] = []
        self.count = 0

    def live(self):
        return [hold for hold, until in self.holders.items() if until > self.now]

    @rule()
    def ask(self):
        if not may_try(self.cooldown, self.now):
            return
        self.count += 1
        hold = str(self.count)
        self.running.append(hold)
        if self.cooldown is not None:
            assert self.live() == []
            self.holders[hold] = self.now + LEASE
            self.cooldown = claim(self.cooldown, hold_id=hold, until=self.now + LEASE, now=self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), kind=st.sampled_from(FailureKind), scope=st.sampled_from(Scope), said_s=st.none() | st.integers(0, 500))
    def end_badly(self, data, kind, scope, said_s):
        hold = self.take(data)
        until = None if said_s is None else self.now + timedelta(seconds=said_s)
        failure = Failure(kind=kind, scope=scope, until=until)
        cooled = fail(self.cooldown, self.now, failure=failure, hold_id=hold, jitter=data.draw(st.floats(0, 1)))
        before, self.cooldown = self.cooldown, cooled or (self.cooldown and release(self.cooldown, hold))
        assert before is None or self.cooldown.until >= before.until

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end_well(self, data):
        hold = self.take(data)
        if self.cooldown is not None:
            self.cooldown = on_success(self.cooldown, hold_id=hold, now=self.now)
            if self.cooldown is None:
                self.holders.clear()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data):
        hold = self.take(data)
        self.cooldown = self.cooldown and release(self.cooldown, hold)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def crash(self, data):
        self.running.remove(data.draw(st.sampled_from(self.running)))

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def take(self, data):
        hold = data.draw(st.sampled_from(self.running))
        self.running.remove(hold)
        self.holders.pop(hold, None)
        return hold

    @invariant()
    def at_most_one_probes(self):
        probe = self.cooldown.probe_at(self.now) if self.cooldown is not None else None
        assert self.live() == ([probe.hold_id] if probe is not None else [])


TestAtMostOneProbe = Rung.TestCase


# --- what a dead rung costs -------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=60, max_size=60))
def test_a_hard_down_rung_costs_five_calls_and_then_one_in_an_interval(draws):
    """
    A caller comes every tenth of a second for ten minutes; every call that reaches the rung fails at once. Five fail before the
    breaker opens, and from then on none within half the interval of the one before.
    """
    cooldown, now, failed, draw = None, NOW, [], iter(draws)
    while now < NOW + timedelta(minutes=10):
        if may_try(cooldown, now):
            hold = str(len(failed))
            cooldown = cooldown and claim(cooldown, hold_id=hold, until=now + LEASE, now=now)
            cooldown = fail(cooldown, now, jitter=next(draw), hold_id=hold)
            failed.append((now, cooldown.is_open))
        now = max(now + timedelta(seconds=EVERY_S), cooldown.until)
    assert [is_open for _, is_open in failed[:BREAKER_FAILURES]] == [False] * (BREAKER_FAILURES - 1) + [True]
    after_it_opened = [at for at, is_open in failed if is_open]
    gaps = [later - at for at, later in itertools.pairwise(after_it_opened)]
    assert all(gap >= timedelta(seconds=40) for gap in gaps)
    assert len(failed) <= BREAKER_FAILURES + 600 / 40


def test_a_rung_that_is_down_for_an_hour_is_back_within_five_minutes():
    cooldown, now = None, NOW
    while now < NOW + timedelta(hours=1):
        cooldown = fail(cooldown, now)
        now = cooldown.until
    assert now - (NOW + timedelta(hours=1)) <= timedelta(minutes=5)


# --- when every breaker of a ladder is open ------------------------------------------------------------------------------------

LATER = NOW + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("ladder", "chosen"),
    [
        ([opened(LATER + SECOND), opened(LATER)], 1),
        ([opened(LATER)], 0),
        ([], None),
        ([opened(LATER), None], None),
        ([opened(LATER), cooling(LATER, strikes=1)], None),
        ([opened(LATER), opened(NOW)], None),
        ([opened(LATER), opened(LATER + SECOND, leased("a"))], None),
    ],
)
def test_where_every_breaker_is_open_one_call_may_probe_the_rung_due_soonest(ladder, chosen):
    """
    The others are refused, and nobody probes early while a rung may be tried, only cools, or is probed already.
    """
    assert due_soonest(ladder, NOW) is (None if chosen is None else ladder[chosen])


def test_an_early_probe_is_claimed_like_any_other_and_refuses_the_next():
    ladder = [opened(LATER), opened(LATER + SECOND)]
    ladder[0] = claim(due_soonest(ladder, NOW), hold_id="a", until=NOW + LEASE, now=NOW)
    assert due_soonest(ladder, NOW) is None
    assert not may_try(ladder[0], NOW)

"""
Deciding, and saying that nobody can pay: every reason, their order, every status, and the true soonest moment.
"""

import itertools
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import NOON, attachment, limit, provider
from msgspec.structs import replace

from quota_router.core.catalog import Billing, Family
from quota_router.core.decision import ABOUT_QUOTA, ABOUT_THE_CALL, Candidate, Chosen, NoneUsable, Question, Reason, Rung, decide
from quota_router.core.estimates import Estimate
from quota_router.core.health import Cooldown, CooldownSource, Failure, FailureKind, Scope
from quota_router.core.limits import Amounts, Enforcement, Gauge, Kind, Unit
from quota_router.core.verdict import say_none_usable, skipped_header

LIKELY = Amounts(cost_nusd=60, requests=1, input_tokens=40, output_tokens=10)
UPPER = Amounts(cost_nusd=100, requests=1, input_tokens=70, output_tokens=30)
FREE = Amounts(cost_nusd=0, requests=1, input_tokens=70, output_tokens=30)
SOON, LATER, LAST = (NOON + timedelta(minutes=minutes) for minutes in (1, 10, 60))
QUESTION = Question(family=Family.OPENAI)


def rung(name: str = "one", **changes: object) -> Candidate:
    values = {
        "provider": provider(name),
        "attachment": attachment(name),
        "has_credential": True,
        "estimate": Estimate(likely=LIKELY, upper=UPPER, is_priced=True),
    }
    return Candidate(**{**values, **changes})


def gauge(posted: int = 0, held: int = 0, relief_at: datetime | None = LATER, **changes: object) -> Gauge:
    return Gauge(
        limit=limit(**changes),
        posted=posted,
        held=held,
        bucket=NOON - timedelta(1),
        window_start=NOON - timedelta(1),
        window_end=relief_at,
        relief_at=relief_at,
    )


def cooldown(cause: FailureKind, until: datetime = SOON, **changes: object) -> Cooldown:
    values = {"provider": "one", "model": "m", "until": until, "source": CooldownSource.ASSUMED, "cause": cause, "failures": 1}
    return Cooldown(**{**values, **changes})


def failure(kind: FailureKind = FailureKind.RATE_LIMITED, until: datetime | None = None) -> Failure:
    return Failure(kind=kind, scope=Scope.PROVIDER, until=until, status=429)


def with_gauge(candidate: Candidate, *more: Gauge) -> Candidate:
    return replace(candidate, gauges=candidate.gauges + more)


def unbounded(candidate: Candidate) -> Candidate:
    return with_gauge(replace(candidate, estimate=replace(candidate.estimate, upper=None)), gauge(unit=Unit.TOKENS, limit=10**9))


def unpriced(candidate: Candidate) -> Candidate:
    return with_gauge(replace(candidate, estimate=replace(candidate.estimate, is_priced=False)), gauge(unit=Unit.USD, limit=10**9))


SPOILT = {
    Reason.DISABLED: lambda c: replace(c, provider=provider(c.provider.name, enabled=False, paused=c.provider.paused)),
    Reason.PAUSED: lambda c: replace(c, provider=provider(c.provider.name, paused=True, family=c.provider.family)),
    Reason.NO_CREDENTIAL: lambda c: replace(c, has_credential=False),
    Reason.AUTH_FAILED: lambda c: replace(c, cooldowns=(cooldown(FailureKind.AUTH),)),
    Reason.PINNED_ELSEWHERE: lambda c: replace(c, provider=provider("other", family=c.provider.family)),
    Reason.ALREADY_TRIED: lambda c: replace(c, tried=failure()),
    Reason.DIALECT_MISMATCH: lambda c: replace(c, provider=provider(c.provider.name, family=Family.ANTHROPIC)),
    Reason.COOLDOWN: lambda c: replace(c, cooldowns=(cooldown(FailureKind.OVERLOADED),)),
    Reason.QUOTA_EXHAUSTED: lambda c: with_gauge(c, gauge(10, kind=Kind.QUOTA)),
    Reason.UNPRICED: unpriced,
    Reason.UNBOUNDED: unbounded,
    Reason.OVER_BUDGET: lambda c: with_gauge(c, gauge(4, 6)),
    Reason.CONCURRENCY_FULL: lambda c: with_gauge(c, gauge(0, 10, None, kind=Kind.QUOTA, unit=Unit.CONCURRENCY)),
}
"""A rung, made unusable for one reason, in the order of the law."""
PINNED = Question(family=Family.OPENAI, pinned_provider="one")


def judge(candidate: Candidate, question: Question = QUESTION) -> Rung:
    return decide([candidate], question, NOON).rungs[0]


@pytest.mark.parametrize("reason", SPOILT)
def test_each_reason_alone_speaks_against_a_rung_and_moves_the_call_on(reason):
    decision = decide([SPOILT[reason](rung()), rung("one", attachment=attachment("two"))], PINNED, NOON)
    assert isinstance(decision, Chosen)
    assert decision.candidate.attachment.provider == "two"
    assert [(told.status, told.reason) for told in decision.rungs] == [("skipped", reason), ("chosen", None)]
    assert skipped_header(decision.rungs) == f"one={reason}"


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SPOILT, 2)))
def test_of_two_reasons_the_first_of_the_list_is_told(first, second):
    assert judge(SPOILT[first](SPOILT[second](rung())), PINNED).reason is first


def test_the_order_of_judging_is_the_order_of_the_list():
    assert list(SPOILT) == [reason for reason in Reason if reason in SPOILT]


def test_row_2_6_the_first_usable_rung_pays_and_those_behind_it_were_eligible():
    decision = decide([rung("a", attachment=attachment(name)) for name in "abc"], QUESTION, NOON)
    assert [told.status for told in decision.rungs] == ["chosen", "eligible", "eligible"]
    assert skipped_header(decision.rungs) == ""


def test_a_call_that_its_caller_makes_himself_speaks_any_dialect():
    strange = SPOILT[Reason.DIALECT_MISMATCH](rung())
    assert judge(strange, Question(family=None)).status == "chosen"


def test_an_attachment_is_disabled_alone():
    assert judge(rung(attachment=attachment("one", enabled=False))).reason is Reason.DISABLED


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_cooldown_ends_at_its_moment(seconds):
    over = cooldown(FailureKind.RATE_LIMITED, NOON + timedelta(seconds=seconds))
    assert judge(rung(cooldowns=(over,))).status == "chosen"


# --- money --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "enforcement", "needed"),
    [
        (Unit.USD, Enforcement.STRICT, 100),
        (Unit.USD, Enforcement.BOUNDED, 60),
        (Unit.TOKENS, Enforcement.STRICT, 100),
        (Unit.TOKENS, Enforcement.BOUNDED, 50),
        (Unit.INPUT_TOKENS, Enforcement.STRICT, 70),
        (Unit.OUTPUT_TOKENS, Enforcement.BOUNDED, 10),
        (Unit.REQUESTS, Enforcement.STRICT, 1),
        (Unit.CONCURRENCY, Enforcement.BOUNDED, 1),
    ],
)
def test_strict_asks_for_the_upper_bound_and_bounded_for_the_likely_amount(unit, enforcement, needed):
    for left, status in ((needed, "chosen"), (needed - 1, "skipped")):
        told = judge(with_gauge(rung(), gauge(300, 700 - left, unit=unit, limit=1000, enforcement=enforcement)))
        assert told.status == status
    assert told.detail == {"limit": "cap", "unit": unit, "cap": 1000, "posted": 300, "held": 700 - needed + 1, "needed": needed}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("unit", Unit)
def test_advisory_never_refuses(unit, kind):
    overrun = gauge(10**9, 10**9, unit=unit, kind=kind, limit=0, enforcement=Enforcement.ADVISORY)
    nobody_knows = Estimate(likely=LIKELY, upper=None, is_priced=False)
    assert judge(with_gauge(rung(estimate=nobody_knows), overrun)).status == "chosen"


def test_an_unknown_price_is_not_zero_unless_the_attachment_is_unmetered():
    capped = unpriced(rung())
    assert judge(capped).detail["limit"] == "cap"
    assert "`unmetered = true`" in judge(capped).detail["remedy"]
    assert judge(replace(capped, attachment=attachment("one", unmetered=True))).status == "chosen"
    assert judge(replace(capped, gauges=(gauge(unit=Unit.TOKENS, limit=1000),))).status == "chosen"
    assert judge(replace(capped, gauges=()), Question(family=None, max_cost_nusd=10**9)).detail["limit"] == "max-cost"


@pytest.mark.parametrize("unit", [Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS])
def test_without_a_bound_strict_refuses_and_says_what_to_send(unit):
    endless = rung(estimate=Estimate(likely=LIKELY, upper=None, is_priced=True), remedy="Send `max_tokens`.")
    told = judge(with_gauge(endless, gauge(unit=unit, limit=10**9)))
    assert (told.reason, told.detail) == (Reason.UNBOUNDED, {"limit": "cap", "remedy": "Send `max_tokens`."})
    assert str(say_none_usable(NoneUsable(rungs=(told, told)), NOON)).endswith(
        "(one: unbounded (cap), one: unbounded (cap)). Send `max_tokens`."
    )
    assert judge(with_gauge(endless, gauge(unit=unit, limit=10**9, enforcement=Enforcement.BOUNDED))).status == "chosen"
    assert judge(with_gauge(endless, gauge(unit=Unit.REQUESTS))).status == "chosen"


def test_a_flat_rung_needs_no_bound_under_a_usd_limit_but_does_under_one_on_tokens():
    flat = rung(provider=provider("one", billing=Billing.FLAT), estimate=Estimate(likely=FREE, upper=None, is_priced=True))
    assert judge(with_gauge(flat, gauge(unit=Unit.USD, limit=10))).status == "chosen"
    assert judge(with_gauge(flat, gauge(unit=Unit.TOKENS, limit=10))).reason is Reason.UNBOUNDED


def test_a_flat_rung_asks_nothing_of_a_usd_limit_even_of_an_overrun_one():
    flat = rung(estimate=Estimate(likely=FREE, upper=FREE, is_priced=True))
    overrun = gauge(11, unit=Unit.USD, limit=10)
    assert judge(with_gauge(flat, overrun)).status == "chosen"
    assert judge(with_gauge(flat, overrun), Question(family=None, max_cost_nusd=0)).status == "chosen"
    assert judge(with_gauge(rung(), overrun)).reason is Reason.OVER_BUDGET


def test_what_has_no_bound_does_not_pass_the_callers_own_cap_unless_it_is_a_subscriptions():
    """A cap that is judged by what is likely is none."""
    endless, asked = Estimate(likely=LIKELY, upper=None, is_priced=True), Question(family=None, max_cost_nusd=10**9)
    told = judge(rung(estimate=endless, remedy="Send it."), asked)
    assert (told.reason, told.detail) == (Reason.UNBOUNDED, {"limit": "max-cost", "remedy": "Send it."})
    assert judge(rung(estimate=endless), Question(family=None, max_cost_nusd=LIKELY.cost_nusd - 1)).reason is Reason.OVER_BUDGET
    assert (
        judge(rung(provider=provider("one", billing=Billing.FLAT), estimate=replace(endless, likely=FREE)), asked).status
        == "chosen"
    )


@pytest.mark.parametrize(("most_nusd", "status"), [(100, "chosen"), (99, "skipped"), (0, "skipped")])
def test_the_callers_own_cap_is_judged_by_the_upper_bound(most_nusd, status):
    told = judge(rung(), Question(family=None, max_cost_nusd=most_nusd))
    assert told.status == status
    if status == "skipped":
        assert (told.reason, told.usable_at) == (Reason.OVER_BUDGET, None)
        assert told.detail == {"limit": "max-cost", "left": most_nusd, "needed": 100}


def test_of_several_full_limits_the_one_with_the_least_left_is_named():
    full = (gauge(5, name="half", limit=5, relief_at=LAST), gauge(99, unit=Unit.USD, name="dry", limit=100, relief_at=SOON))
    told = judge(with_gauge(rung(), *full))
    assert (told.detail["limit"], told.usable_at) == ("half", LAST)


# --- when ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "usable_at"),
    [
        (rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED, SOON),)), SOON),
        (with_gauge(rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED, SOON),)), gauge(10)), LATER),
        (with_gauge(rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED, LAST),)), gauge(10)), LAST),
        (with_gauge(rung(), gauge(10, kind=Kind.QUOTA), gauge(10, relief_at=LAST)), LAST),
        (with_gauge(rung(), gauge(10), gauge(10, relief_at=None, window="forever")), None),
        (with_gauge(rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED),)), gauge(0, 10, None, unit=Unit.CONCURRENCY)), None),
        (with_gauge(rung(), gauge(unit=Unit.USD, limit=99)), None),
        (rung(tried=failure(until=SOON)), SOON),
        (rung(tried=failure(until=SOON), cooldowns=(cooldown(FailureKind.RATE_LIMITED, LATER),)), LATER),
        (rung(tried=failure()), None),
        (unpriced(rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED),))), None),
        (rung(has_credential=False, cooldowns=(cooldown(FailureKind.RATE_LIMITED),)), None),
    ],
)
def test_a_rung_is_usable_when_the_last_reason_against_it_is_gone(candidate, usable_at):
    """
    A cooldown of a minute is not the moment of a rung whose budget is used up for the hour; no end of all is `None`.
    """
    assert judge(candidate).usable_at == usable_at


def said(*rungs: Rung) -> tuple[int, str, float | None]:
    error = say_none_usable(NoneUsable(rungs=rungs), NOON)
    return error.status, error.code, error.retry_after_s


def skipped(reason: Reason, usable_at: datetime | None = None, cause: FailureKind | None = None) -> Rung:
    values = {"provider": "one", "model": "m", "upstream_model": "m", "priority": 0, "status": "skipped"}
    return Rung(**values, reason=reason, usable_at=usable_at, cause=cause)


@pytest.mark.parametrize(
    ("moments", "retry_after_s"), [([LATER, SOON, None], 60), ([None, None], None), ([LAST], 3600), ([NOON - timedelta(1)], 0)]
)
def test_the_soonest_rung_says_when_to_come_back_never_clamped(moments, retry_after_s):
    assert said(*(skipped(Reason.OVER_BUDGET, moment) for moment in moments))[2] == retry_after_s
    a_year_away = NOON + timedelta(days=365)
    assert said(skipped(Reason.QUOTA_EXHAUSTED, a_year_away))[2] == 365 * 86_400


# --- the last rung --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [FailureKind.TRANSIENT, FailureKind.OVERLOADED])
def test_a_pause_that_nobody_asked_for_keeps_nobody_out_of_the_last_rung(cause):
    """
    A single provider that broke once is still the best there is; with another at hand it rests.
    """
    paused = rung(cooldowns=(cooldown(cause),))
    assert (judge(paused).status, judge(paused).detail) == ("chosen", {"despite": Reason.COOLDOWN})
    full = with_gauge(rung("full"), gauge(10))
    decision = decide([paused, full], QUESTION, NOON)
    assert [told.status for told in decision.rungs] == ["chosen", "skipped"]
    decision = decide([paused, rung("two", attachment=attachment("two"))], QUESTION, NOON)
    assert [told.status for told in decision.rungs] == ["skipped", "chosen"]


@pytest.mark.parametrize(
    "pause",
    [
        cooldown(FailureKind.RATE_LIMITED),
        cooldown(FailureKind.AUTH),
        cooldown(FailureKind.OVERLOADED, source=CooldownSource.SAID),
    ],
)
def test_a_pause_that_was_asked_for_does(pause):
    assert judge(rung(cooldowns=(pause,))).status == "skipped"


@pytest.mark.parametrize("repeats", [0, 1])
def test_a_rung_that_failed_this_call_is_tried_again_only_while_repeats_are_left(repeats):
    broken = rung(tried=failure(FailureKind.TRANSIENT), cooldowns=(cooldown(FailureKind.TRANSIENT),))
    told = judge(broken, replace(QUESTION, repeats=repeats))
    assert (told.status, told.detail.get("repeated")) == (("chosen", True) if repeats else ("skipped", None))
    refused = rung(tried=failure(FailureKind.RATE_LIMITED, SOON))
    assert judge(refused, replace(QUESTION, repeats=repeats)).reason is Reason.ALREADY_TRIED


# --- the status table -----------------------------------------------------------------------------------------------------

BY_CAUSE = (Reason.ALREADY_TRIED, Reason.COOLDOWN, Reason.BREAKER_OPEN)
QUOTA_CAUSES = {FailureKind.RATE_LIMITED, FailureKind.QUOTA_WINDOW, FailureKind.BILLING, FailureKind.IN_FLIGHT_BUDGET}


def expected(rungs: list[tuple[Reason, FailureKind | None]]) -> int:
    """Design 7, in its words."""
    call = {"dialect_mismatch", "capability_missing", "context_too_small", "pinned_elsewhere", "unbounded"}
    quota = {"quota_exhausted", "quota_reserved", "over_budget", "concurrency_full"}
    if all(reason in call for reason, _ in rungs):
        return 400
    if all(reason == "caller_not_allowed" for reason, _ in rungs):
        return 403
    return 429 if any(reason in quota or cause in QUOTA_CAUSES for reason, cause in rungs) else 503


TOLD = [(reason, None) for reason in Reason if reason not in BY_CAUSE] + list(itertools.product(BY_CAUSE, FailureKind))


@pytest.mark.parametrize("told", TOLD)
def test_one_reason_alone_has_the_status_of_the_table(told):
    code = {400: "no_usable_provider", 403: "forbidden", 429: "insufficient_quota", 503: "no_usable_provider"}
    status = expected([told])
    assert said(skipped(told[0], SOON, told[1])) == (status, code[status], 60 if status in {429, 503} else None)


@given(st.lists(st.sampled_from(TOLD), min_size=1, max_size=5))
def test_any_mixture_of_reasons_has_the_status_of_the_table(rungs):
    assert said(*(skipped(reason, None, cause) for reason, cause in rungs))[0] == expected(rungs)


def test_every_reason_about_the_call_or_about_quota_is_one_the_table_names():
    assert {expected([(reason, None)]) for reason in ABOUT_THE_CALL} == {400}
    assert {expected([(reason, None)]) for reason in ABOUT_QUOTA} == {429}


def test_the_error_tells_every_rung_with_its_numbers_and_the_last_cause():
    limited = rung(cooldowns=(cooldown(FailureKind.RATE_LIMITED),))
    decision = decide([limited, with_gauge(rung(attachment=attachment("two")), gauge(10))], QUESTION, NOON)
    assert isinstance(decision, NoneUsable)
    error = say_none_usable(decision, NOON)
    assert (error.status, error.retry_after_s) == (429, 60)
    assert "(one: cooldown (rate_limited), two: over_budget (cap))" in error.message
    assert [told["reason"] for told in error.rungs] == ["cooldown", "over_budget"]
    assert [told["usable_at"] for told in error.rungs] == [SOON, LATER]
    assert error.rungs[1]["detail"]["posted"] == 10

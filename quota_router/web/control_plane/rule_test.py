"""
What the rules would do with a call that nobody makes.

Law: the rules are those of the catalog, asked as for a call; nothing is held or written.
Never: guesses a fact: what is not known here is not known to the condition either.

Decision 2026-11 -- headroom is told from the limits that we count for a provider or its account, and is unknown without any.
    Look again when readings of upstreams are at hand here.
"""

from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from http import HTTPMethod
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from msgspec.structs import replace

from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import Caller, Catalog, Family
from quota_router.core.conditions import WEEKDAYS, Facts, ProviderStatus
from quota_router.core.decision import Chosen, NoneUsable
from quota_router.core.rules import OnUnusable, Rule, RuleTrace
from quota_router.core.verdict import say_none_usable
from quota_router.errors import UnknownModel
from quota_router.store.survey import Status, Survey
from quota_router.web.control_plane.shapes import RuleTested
from quota_router.web.decision_answers import show_chosen
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Route, Scope, Services
from quota_router.web.strict import answer, read_query, read_shape

_STATUS = {
    Status.DISABLED: ProviderStatus.DISABLED,
    Status.PAUSED: ProviderStatus.DISABLED,
    Status.NO_CREDENTIAL: ProviderStatus.DISABLED,
    Status.AUTH_FAILED: ProviderStatus.DOWN,
    Status.DOWN: ProviderStatus.DOWN,
    Status.EXHAUSTED: ProviderStatus.LIMITED,
    Status.LIMITED: ProviderStatus.LIMITED,
    Status.OK: ProviderStatus.OK,
}


def routes() -> list[Route]:
    """List the path that tries the rules out."""
    return [Route(method=HTTPMethod.POST, path="/api/v1/rules/test", handler=_test_rules, scope=Scope.READ)]


async def _test_rules(request: web.Request) -> web.Response:
    """Answer in the shape of a route, with what became of each rule; that nobody is usable is an answer as well."""
    read_query(request, {})
    asked, services = await read_shape(request, RuleTested), request.app[SERVICES]
    survey = Survey(state=await services.lane.snapshot(), now=services.clock(), has_credential=services.has_credential)
    catalog = services.lane.catalog
    facts = _facts(asked, catalog, survey)
    call_id = request[CALL_ID]
    traces = catalog.rule_book.trace(facts, call_id=call_id)
    caller = catalog.callers.get(asked.caller or "", request[CALLER])
    told = await _decide(services, asked, caller, [trace.rule for trace in traces if trace.is_match], call_id)
    return answer({**told, "rules": [_show_trace(trace) for trace in traces]})


async def _decide(services: Services, asked: RuleTested, caller: Caller, matching: list[Rule], call_id: str) -> Mapping[str, Any]:
    """Try the matching rules in their order, then what holds without any."""
    nobody: Mapping[str, Any] = {}
    for rule in (*matching, None):
        shown_rule = None if rule is None else {"condition": rule.condition.text, "reason": rule.reason}
        call = _call(asked, caller, rule, call_id)
        try:
            decision = await services.decisions.explain(call)
        except UnknownModel as unknown:
            nobody = {"outcome": "none_usable", "detail": unknown.message, "rungs": [], "retry_after_s": None}
        else:
            if isinstance(decision, Chosen):
                return {**show_chosen(decision, services.lane.catalog), "rule": shown_rule}
            nobody = _show_nobody(decision, services.clock())
        nobody = {**nobody, "rule": shown_rule}
        if rule is not None and rule.on_unusable is OnUnusable.REFUSE:
            break
    return nobody


def _show_nobody(decision: NoneUsable, now: datetime) -> Mapping[str, Any]:
    said = say_none_usable(decision, now)
    return {"outcome": "none_usable", "detail": said.message, "rungs": said.rungs, "retry_after_s": said.retry_after_s}


def _call(asked: RuleTested, caller: Caller, rule: Rule | None, call_id: str) -> Call:
    model = asked.model if rule is None else rule.model_for(asked.model)
    call = Call(
        id=call_id,
        caller=caller,
        family=Family.OPENAI,
        operation=Operation.ROUTE,
        plane=Plane.DECISION,
        facts=CallFacts(model=model, input_tokens=asked.input_tokens, max_output_tokens=asked.max_output_tokens),
        model=model,
        labels=tuple(dict.fromkeys(asked.labels)),
        priority=asked.priority,
        task_id=None if asked.task is None else asked.task.id,
        retry_count=asked.retry_count,
        requires=frozenset(asked.requires),
        workflow=asked.workflow,
        stage=asked.stage,
    )
    return call if rule is None or rule.provider is None else replace(call, pinned_provider=rule.provider)


# --- facts --------------------------------------------------------------------------------------------------------------


def _facts(asked: RuleTested, catalog: Catalog, survey: Survey) -> Facts:
    local = survey.now.astimezone(ZoneInfo(catalog.timezone))
    providers = catalog.providers.values()
    return Facts(
        priority=asked.priority,
        labels=asked.labels,
        retry_count=asked.retry_count,
        hour=local.hour,
        weekday=WEEKDAYS[local.weekday()],
        task_id=None if asked.task is None else asked.task.id,
        provider_status={provider.name: _STATUS[survey.status_of(provider)] for provider in providers},
        model=asked.model,
        caller=asked.caller,
        stream=asked.stream,
        input_tokens=asked.input_tokens,
        requires=asked.requires,
        headroom={provider.name: _headroom(provider.name, provider.account, catalog, survey) for provider in providers},
        budget_used={limit.name: 1 - left for limit in catalog.limits if (left := survey.left_of(limit)) is not None},
        workflow=asked.workflow,
        stage=asked.stage,
    )


def _headroom(provider: str, account: str, catalog: Catalog, survey: Survey) -> Fraction | None:
    """The share that is left where the least is left; `None`: nobody counts anything for this provider."""
    limits = catalog.limits_of((f"provider:{provider}", f"account:{account}"))
    left = [share for limit in limits if (share := survey.left_of(limit)) is not None]
    return max(Fraction(0), min(left)) if left else None


def _show_trace(trace: RuleTrace) -> Mapping[str, Any]:
    rule = trace.rule
    return {
        "position": trace.position,
        "condition": rule.condition.text,
        "model": rule.model,
        "provider": rule.provider,
        "strategy": rule.strategy,
        "reason": rule.reason,
        "standing": trace.standing,
        "because": trace.because,
    }

"""
What the rules would do with a call that nobody makes.

Law: the call goes the way of any other as far as its decision; nothing is held or written.
Never: guesses a fact: what is not known here is not known to the condition either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPMethod
from typing import Any

from aiohttp import web

from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import Caller, Family
from quota_router.core.rules import OnUnusable, RuleTrace
from quota_router.errors import NoUsableProvider, UnknownModel
from quota_router.web.control_plane.shapes import RuleTested
from quota_router.web.decision_answers import explain, show_rule
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Route, Scope, Services
from quota_router.web.strict import answer, read_query, read_shape


def routes() -> list[Route]:
    """List the path that tries the rules out."""
    return [Route(method=HTTPMethod.POST, path="/api/v1/rules/test", handler=_test_rules, scope=Scope.READ)]


async def _test_rules(request: web.Request) -> web.Response:
    """Answer in the shape of a route, with what became of each rule; that nobody is usable is an answer as well."""
    read_query(request, {})
    asked, services = await read_shape(request, RuleTested), request.app[SERVICES]
    call = _call(asked, _caller(asked.caller, request), request[CALL_ID])
    traces = await services.decisions.routing.trace(call)
    return answer({**await _decide(services, call, traces), "rules": [_show_trace(trace) for trace in traces]})


async def _decide(services: Services, call: Call, traces: Sequence[RuleTrace]) -> Mapping[str, Any]:
    try:
        return await explain(services, call)
    except UnknownModel as unknown:
        nobody: dict[str, Any] = {"detail": unknown.message, "rungs": [], "retry_after_s": None}
    except NoUsableProvider as said:
        nobody = {"detail": said.message, "rungs": said.rungs, "retry_after_s": said.retry_after_s}
    refusing = (trace.rule for trace in traces if trace.is_match and trace.rule.on_unusable is OnUnusable.REFUSE)
    rule = next(refusing, None)
    return {"outcome": "none_usable", **nobody, "rule": None if rule is None else show_rule(rule)}


def _caller(name: str | None, request: web.Request) -> Caller:
    """Whose call it would be: a stranger's is as ours, but for the name."""
    known = request.app[SERVICES].lane.catalog.callers
    return request[CALLER] if name is None else known.get(name) or replace(request[CALLER], name=name)


def _call(asked: RuleTested, caller: Caller, call_id: str) -> Call:
    return Call(
        id=call_id,
        caller=caller,
        family=Family.OPENAI,
        operation=Operation.ROUTE,
        plane=Plane.DECISION,
        facts=CallFacts(
            model=asked.model, stream=bool(asked.stream), input_tokens=asked.input_tokens, max_output_tokens=asked.max_output_tokens
        ),
        model=asked.model,
        labels=tuple(dict.fromkeys(asked.labels)),
        priority=asked.priority,
        task_id=None if asked.task is None else asked.task.id,
        retry_count=asked.retry_count,
        requires=frozenset(asked.requires),
        workflow=asked.workflow,
        stage=asked.stage,
    )


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

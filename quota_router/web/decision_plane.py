"""
Decisions for callers that make the call themselves.

Law: what is answered was decided and held as a relayed call would be; a caller sees its own calls and holds, and of others not even
that they exist.
Never: makes the call, or answers a decision without its hold unless `dry_run` asked for that.
"""

import hashlib
from http import HTTPMethod, HTTPStatus
from typing import Any

from aiohttp import web

from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import Family
from quota_router.core.decision import NoneUsable
from quota_router.core.estimates import Bound
from quota_router.core.holds import HoldState
from quota_router.core.pricing import charged_usd_nusd
from quota_router.core.usage import Usage
from quota_router.core.verdict import say_none_usable
from quota_router.decisions import FailureWord
from quota_router.errors import Conflict, InvalidRequest, ShuttingDown, UnknownCall
from quota_router.store.booking import Booked
from quota_router.store.reports import show_instant
from quota_router.web.auth import is_admin
from quota_router.web.decision_answers import explain, show_chosen, show_decision, show_hold
from quota_router.web.decision_shapes import ExtendAsked, RouteAsked, SettleAsked
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Route, Scope
from quota_router.web.strict import answer, read_key, read_shape

COST_MAX_NUSD = 2**53 - 1
"""Nine million dollars: what an entry takes, and what every JSON reader reads exactly."""


def routes() -> list[Route]:
    """List the paths of the decision plane."""
    paths = {
        "/api/v1/route": _route,
        "/api/v1/holds/{id}/settle": _settle,
        "/api/v1/holds/{id}/void": _void,
        "/api/v1/holds/{id}/extend": _extend,
    }
    told = Route(method=HTTPMethod.GET, path="/api/v1/calls/{id}", handler=_tell_call, scope=Scope.CALL)
    return [
        *(Route(method=HTTPMethod.POST, path=path, handler=handler, scope=Scope.CALL) for path, handler in paths.items()),
        told,
    ]


# --- route --------------------------------------------------------------------------------------------------------------


async def _route(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    asked = await read_shape(request, RouteAsked)
    if services.is_draining:
        raise ShuttingDown
    call = _call(request, asked)
    if asked.dry_run:
        return answer(await explain(services, call))
    try:
        admitted = await services.decisions.route(call, ttl_s=asked.ttl_s)
    except Conflict as conflict:
        return await _answer_again(request, call, conflict)
    if isinstance(admitted, NoneUsable):
        raise say_none_usable(admitted, services.clock())
    hold = admitted.hold
    held = show_hold(hold.id, show_instant(hold.expires_at), hold.estimate.likely_nusd)
    return answer(show_chosen(admitted.decision, services.lane.catalog, call.id, held), HTTPStatus.CREATED)


def _call(request: web.Request, asked: RouteAsked) -> Call:
    return Call(
        id=request[CALL_ID],
        caller=request[CALLER],
        # The decision plane speaks no dialect: for this operation the family is never asked.
        family=Family.OPENAI,
        operation=Operation.ROUTE,
        plane=Plane.DECISION,
        facts=CallFacts(model=asked.model, input_tokens=asked.input_tokens, max_output_tokens=asked.max_output_tokens),
        model=asked.model,
        labels=tuple(dict.fromkeys(asked.labels)),
        session=asked.session,
        priority=asked.priority,
        task_id=asked.task.id if asked.task else None,
        retry_count=asked.retry_count,
        requires=frozenset(asked.requires),
        pinned_provider=asked.provider,
        workflow=asked.workflow,
        stage=asked.stage,
        idempotency_key=read_key(request),
        fingerprint=hashlib.sha256(f"route\0{asked.model_dump_json()}".encode()).hexdigest(),
    )


async def _answer_again(request: web.Request, call: Call, conflict: Conflict) -> web.Response:
    """
    Answer what was answered before under this key, from the rows.

    Raises:
        Conflict: the key named another request.
    """
    services = request.app[SERVICES]
    before = await services.reports.routed(conflict.call_id) if conflict.call_id else None
    if before is None or before.fingerprint != call.fingerprint:
        raise conflict
    held = show_hold(before.hold_id, show_instant(before.expires_at), before.estimate_nusd)
    place = (before.model, before.provider, before.upstream_model)
    return answer(show_decision(before.call_id, place, services.lane.catalog, held, before.decision), HTTPStatus.CREATED)


# --- holds and calls ----------------------------------------------------------------------------------------------------


async def _settle(request: web.Request) -> web.Response:
    decisions, asked = request.app[SERVICES].decisions, await read_shape(request, SettleAsked)
    hold_id, whose = request.match_info["id"], _whose(request)
    said_by_head = asked.headers or (asked.failure.headers if asked.failure is not None else {})
    if said_by_head:
        await decisions.hear(hold_id, whose, said_by_head)
    if asked.usage is not None:
        said = asked.usage.model_dump()
        usage = Usage(**{name.removesuffix("_tokens"): count for name, count in said.items()})
        return answer(_show_booked(await decisions.settle_usage(hold_id, whose, usage)))
    if asked.cost_usd is not None:
        return answer(_show_booked(await decisions.settle_cost(hold_id, whose, _cost_nusd(asked.cost_usd))))
    assert asked.failure is not None
    failure = asked.failure
    headers = {name.lower(): value for name, value in failure.headers.items()}
    word = FailureWord(status=failure.status, headers=headers, body=failure.body)
    return answer(_show_booked(await decisions.settle_failure(hold_id, whose, word)))


def _cost_nusd(text: str) -> int:
    try:
        cost_nusd = charged_usd_nusd(text)
    except ValueError as exc:
        raise InvalidRequest(f"`cost_usd`: {exc}", param="cost_usd") from exc
    if cost_nusd > COST_MAX_NUSD:
        raise InvalidRequest("`cost_usd` is more than any call costs.", param="cost_usd")
    return cost_nusd


async def _void(request: web.Request) -> web.Response:
    booked = await request.app[SERVICES].decisions.void(request.match_info["id"], _whose(request))
    return answer(_show_booked(booked))


async def _extend(request: web.Request) -> web.Response:
    asked = await read_shape(request, ExtendAsked)
    said = asked.estimate
    tokens = None if said is None else Bound(input_tokens=said.input_tokens, output_tokens=said.output_tokens)
    decisions, hold_id = request.app[SERVICES].decisions, request.match_info["id"]
    hold = await decisions.extend(hold_id, _whose(request), asked.ttl_s, tokens)
    shown = {"expires_at": show_instant(hold.expires_at), "estimate_nusd": hold.estimate.likely_nusd}
    return answer({"hold_id": hold.id, "state": HoldState.HELD, **shown})


async def _tell_call(request: web.Request) -> web.Response:
    story = await request.app[SERVICES].reports.call(request.match_info["id"])
    if _whose(request) not in {None, story["caller"]}:
        raise UnknownCall
    return answer(story)


def _whose(request: web.Request) -> str | None:
    """Whose holds and calls may be spoken of; `None`: everybody's."""
    caller = request[CALLER]
    return None if is_admin(caller) else caller.name


def _show_booked(booked: Booked) -> dict[str, Any]:
    return {
        "hold_id": booked.hold.id,
        "state": booked.state,
        "cost_nusd": booked.cost_nusd,
        "overrun_nusd": booked.overrun_nusd,
        "replayed": booked.replayed,
    }

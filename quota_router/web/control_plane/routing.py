"""
Rules and workflows: read, made, moved, changed, deleted.

Law: rules are listed in the order in which they are asked, whoever manages them.
"""

from collections.abc import Mapping
from functools import partial
from http import HTTPMethod
from typing import Any

from aiohttp import web

from quota_router.core.catalog import Catalog, RoutingRule, Workflow
from quota_router.core.edits import rules
from quota_router.core.edits.common import find
from quota_router.core.shares import show_decimal
from quota_router.web.control_plane.editing import Shown, edit, read_if_match, tell_created, tell_row
from quota_router.web.control_plane.pages import show_page
from quota_router.web.control_plane.shapes import RuleChanged, WorkflowChanged, WorkflowCreated, said
from quota_router.web.routes import SERVICES, Handler, Route, Scope
from quota_router.web.strict import answer, read_query, read_shape

RULES, WORKFLOWS = "/api/v1/rules", "/api/v1/workflows"


def routes() -> list[Route]:
    """List the paths of rules and workflows."""
    reads: list[tuple[str, Handler]] = [
        (RULES, _list_rules),
        (f"{RULES}/{{name}}", _tell_rule),
        (WORKFLOWS, _list_workflows),
        (f"{WORKFLOWS}/{{name}}", _tell_workflow),
    ]
    edits: list[tuple[HTTPMethod, str, Handler]] = [
        (HTTPMethod.POST, RULES, _create_rule),
        (HTTPMethod.PATCH, f"{RULES}/{{name}}", _change_rule),
        (HTTPMethod.DELETE, f"{RULES}/{{name}}", _delete_rule),
        (HTTPMethod.POST, WORKFLOWS, _create_workflow),
        (HTTPMethod.PATCH, f"{WORKFLOWS}/{{name}}", _change_workflow),
        (HTTPMethod.DELETE, f"{WORKFLOWS}/{{name}}", _delete_workflow),
    ]
    return [
        *(Route(method=HTTPMethod.GET, path=path, handler=handler, scope=Scope.READ) for path, handler in reads),
        *(Route(method=method, path=path, handler=handler, scope=Scope.ADMIN) for method, path, handler in edits),
    ]


# --- rules ------------------------------------------------------------------------------------------------------------


async def _list_rules(request: web.Request) -> web.Response:
    catalog = request.app[SERVICES].lane.catalog
    # Pages go by name; these names go by rank.
    in_order = {f"{rule.rank:012d} {rule.name}": place for place, rule in enumerate(catalog.rules)}
    return answer(show_page(request, in_order, lambda place: _show_rule(catalog.rules[place], place + 1)))


async def _tell_rule(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(_show_rule_of(request.app[SERVICES].lane.catalog, request.match_info["name"]))


async def _create_rule(request: web.Request) -> web.Response:
    read_query(request, {})
    asked, services = await read_shape(request, RuleChanged), request.app[SERVICES]
    name = services.new_id()
    table = {key: value for key, value in said(asked, "position").items() if value != ""}
    edited = await edit(request, partial(rules.create_rule, name=name, table=table, position=asked.position))
    name = edited.replayed or name
    return tell_created(RULES, name, _show_rule_of(services.lane.catalog, name), edited)


async def _change_rule(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    asked = await read_shape(request, RuleChanged)
    patch = said(asked, "position")
    await edit(request, partial(rules.change_rule, name=name, patch=patch, expected=expected, position=asked.position))
    return tell_row(_show_rule_of(request.app[SERVICES].lane.catalog, name))


async def _delete_rule(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    await edit(request, partial(rules.delete_rule, name=name, expected=expected))
    return answer({"deleted": name})


def _show_rule_of(catalog: Catalog, name: str) -> Shown:
    places = {rule.name: place for place, rule in enumerate(catalog.rules)}
    rule = find("rule", name, {rule.name: rule for rule in catalog.rules})
    return _show_rule(rule, places[name] + 1), rule.version


def _show_rule(rule: RoutingRule, position: int) -> Mapping[str, Any]:
    return {
        "id": rule.name,
        "position": position,
        "condition": rule.condition,
        "model": rule.model,
        "provider": rule.provider,
        "strategy": rule.strategy,
        "share": None if rule.share is None else show_decimal(rule.share),
        "on_unusable": rule.on_unusable,
        "reason": rule.reason,
        "enabled": rule.enabled,
        "managed_by": rule.managed_by,
        "version": rule.version,
    }


# --- workflows --------------------------------------------------------------------------------------------------------


async def _list_workflows(request: web.Request) -> web.Response:
    return answer(show_page(request, request.app[SERVICES].lane.catalog.workflows, _show_workflow))


async def _tell_workflow(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(_show_workflow_of(request.app[SERVICES].lane.catalog, request.match_info["name"]))


async def _create_workflow(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, WorkflowCreated)
    stages = said(asked)["stages"]
    edited = await edit(request, partial(rules.create_workflow, name=asked.name, stages=stages))
    shown = _show_workflow_of(request.app[SERVICES].lane.catalog, asked.name)
    return tell_created(WORKFLOWS, asked.name, shown, edited)


async def _change_workflow(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    patch = said(await read_shape(request, WorkflowChanged))
    await edit(request, partial(rules.change_workflow, name=name, patch=patch, expected=expected))
    return tell_row(_show_workflow_of(request.app[SERVICES].lane.catalog, name))


async def _delete_workflow(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    await edit(request, partial(rules.delete_workflow, name=name, expected=expected))
    return answer({"deleted": name})


def _show_workflow_of(catalog: Catalog, name: str) -> Shown:
    workflow = find("workflow", name, catalog.workflows)
    return _show_workflow(workflow), workflow.version


def _show_workflow(workflow: Workflow) -> Mapping[str, Any]:
    return {
        "name": workflow.name,
        "stages": [{"name": stage.name, "model": stage.model} for stage in workflow.stages],
        "enabled": workflow.enabled,
        "managed_by": workflow.managed_by,
        "version": workflow.version,
    }

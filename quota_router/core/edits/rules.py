"""
Rules and workflows: made, moved, changed, deleted.

Law: rules of the file keep their ranks; those of the API stand between them, behind as many as they were put behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quota_router.core.catalog import Catalog, ManagedBy, RoutingRule
from quota_router.core.desired_rules import RANKS_PER_RULE, build_rule, build_workflow
from quota_router.core.edits.common import Expected, as_request, find_editable, refuse_taken
from quota_router.core.exported import rule_table, workflow_table
from quota_router.core.rules import RULES_MAX
from quota_router.errors import Conflict, InvalidRequest

_RULE = "rule"
_WORKFLOW = "workflow"
_DEPTH = 2
_STEPS = 8
"""A rule that is added takes this part of the room that is left."""


def create_rule(catalog: Catalog, name: str, table: Mapping[str, Any], position: int | None = None) -> Catalog:
    """
    Add a rule.

    Args:
        catalog: as it is.
        name: its id.
        table: as `[[routing.rules]]`.
        position: counted from 1; `None`: behind all others.

    Raises:
        Conflict: there are too many. InvalidRequest: it cannot be, or there is no such position.
    """
    if len(catalog.rules) >= RULES_MAX:
        raise Conflict(f"There are {RULES_MAX} rules already, and no more are asked for each call: join some.")
    return _insert(catalog, _build(catalog, name, table), len(catalog.rules) + 1 if position is None else position)


def change_rule(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected, position: int | None = None) -> Catalog:
    """
    Change what *patch* says, and nothing else. An empty text takes a word away.

    Raises:
        NotFound, Conflict, Stale, InvalidRequest: as for every edit.
    """
    before = find_editable(_RULE, name, _by_name(catalog), expected)
    table = {key: value for key, value in {**rule_table(before), **patch}.items() if value != ""}
    after = replace(_build(catalog, name, table), managed_by=before.managed_by, version=before.version, rank=before.rank)
    if position is None:
        return replace(catalog, rules=tuple(after if rule.name == name else rule for rule in catalog.rules))
    others = replace(catalog, rules=tuple(rule for rule in catalog.rules if rule.name != name))
    return _insert(others, after, position)


def delete_rule(catalog: Catalog, name: str, expected: Expected) -> Catalog:
    """Delete a rule. Raises `NotFound`, `Conflict` and `Stale` as every edit."""
    find_editable(_RULE, name, _by_name(catalog), expected)
    return replace(catalog, rules=tuple(rule for rule in catalog.rules if rule.name != name))


def _build(catalog: Catalog, name: str, table: Mapping[str, Any]) -> RoutingRule:
    limits = [limit.name for limit in catalog.limits]
    with as_request(_DEPTH):
        if "condition" not in table:
            raise InvalidRequest("The field `condition` is missing.", param="condition")
        rule = build_rule(name, table, catalog.providers, catalog.models, limits, path=("rules", name), title="the rule", rank=0)
    return replace(rule, managed_by=ManagedBy.API)


def _insert(catalog: Catalog, rule: RoutingRule, position: int) -> Catalog:
    if not 1 <= position <= len(catalog.rules) + 1:
        raise InvalidRequest(f"`position` must be from 1 to {len(catalog.rules) + 1}.", param="position")
    before, behind = catalog.rules[: position - 1], catalog.rules[position - 1 :]
    low = before[-1].rank if before else 0
    high = behind[0].rank if behind else None
    rank = low + _append_step(low) if high is None else (low + high) // 2
    if rank > low:
        return replace(catalog, rules=(*before, replace(rule, rank=rank), *behind))
    return replace(catalog, rules=_spread((*before, rule, *behind)))


def _append_step(low: int) -> int:
    """How far behind the last rule the next one stands: with room between them, and before where a rule of the file would be."""
    return max(1, (RANKS_PER_RULE - low % RANKS_PER_RULE) // _STEPS)


def _spread(rules: Sequence[RoutingRule]) -> tuple[RoutingRule, ...]:
    """The rules in this order, those of the API evenly between those of the file."""
    spread: list[RoutingRule] = []
    for place, rule in enumerate(rules):
        if rule.managed_by is ManagedBy.FILE:
            spread.append(rule)
            continue
        run_start = next((i + 1 for i in range(place - 1, -1, -1) if rules[i].managed_by is ManagedBy.FILE), 0)
        run_end = next((i for i in range(place, len(rules)) if rules[i].managed_by is ManagedBy.FILE), len(rules))
        low = rules[run_start - 1].rank if run_start else 0
        high = rules[run_end].rank if run_end < len(rules) else low + RANKS_PER_RULE
        step = (high - low) // (run_end - run_start + 1)
        spread.append(replace(rule, rank=low + step * (place - run_start + 1)))
    return tuple(spread)


def _by_name(catalog: Catalog) -> dict[str, RoutingRule]:
    return {rule.name: rule for rule in catalog.rules}


# --- workflows --------------------------------------------------------------------------------------------------------


def create_workflow(catalog: Catalog, name: str, stages: Sequence[Mapping[str, Any]]) -> Catalog:
    """Add a workflow. Raises `Conflict`: there is one of that name; `InvalidRequest`: it cannot be."""
    refuse_taken(_WORKFLOW, name, catalog.workflows)
    with as_request(_DEPTH):
        workflow = build_workflow(name, stages, catalog.models)
    return replace(catalog, workflows={**catalog.workflows, name: replace(workflow, managed_by=ManagedBy.API)})


def change_workflow(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected) -> Catalog:
    """Give a workflow other stages. Raises as every edit."""
    before = find_editable(_WORKFLOW, name, catalog.workflows, expected)
    stages = {**workflow_table(before), **patch}["stages"]
    with as_request(_DEPTH):
        after = build_workflow(name, stages, catalog.models)
    after = replace(after, managed_by=before.managed_by, version=before.version)
    return replace(catalog, workflows={**catalog.workflows, name: after})


def delete_workflow(catalog: Catalog, name: str, expected: Expected) -> Catalog:
    """Delete a workflow. Raises `NotFound`, `Conflict` and `Stale` as every edit."""
    find_editable(_WORKFLOW, name, catalog.workflows, expected)
    return replace(catalog, workflows={other: known for other, known in catalog.workflows.items() if other != name})

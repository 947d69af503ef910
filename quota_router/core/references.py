"""
Which rows of the catalog name which others, attachments and limits apart.

Law: what another row names cannot be taken away from under it: the other one would say something else, or nothing.
Never: follows an attachment (it goes with its provider), or a limit (it stays, and counts nothing any more).
"""

from collections.abc import Iterator

from quota_router.core.catalog import Caller, Catalog, Model, Provider, RoutingRule, Workflow
from quota_router.core.conditions import compile_kept
from quota_router.core.limits import Limit

Value = Provider | Model | Limit | Caller | RoutingRule | Workflow
"""One row of the catalog."""
Reference = tuple[str, str]
"""(`provider`, `model` or `limit`, its name); a model may be named by an alias."""

_BY_PROVIDER = ("provider_status", "headroom")
"""Fields of conditions that are asked of a provider."""
_BY_LIMIT = "budget_used"


def names_in(value: Value) -> set[Reference]:
    """The rows that a value names."""
    match value:
        case Model():
            return {("model", name) for name in value.fallbacks}
        case RoutingRule():
            named = {("provider", value.provider), ("model", value.model)}
            looked_at = compile_kept(value.condition).fields
            asked = {("provider", name) for field in _BY_PROVIDER for name in looked_at.get(field, ())}
            asked |= {("limit", name) for name in looked_at.get(_BY_LIMIT, ())}
            return {(kind, name) for kind, name in named if name is not None} | asked
        case Workflow():
            return {("model", stage.model) for stage in value.stages}
        case _:
            return set()


def find_users(catalog: Catalog, kind: str, *names: str) -> list[str]:
    """Who names any of *names*, in words; those that are disabled do not count."""
    wanted = {(kind, name) for name in names}
    return [who for who, value in _who_names(catalog) if wanted & names_in(value)]


def _who_names(catalog: Catalog) -> Iterator[tuple[str, Value]]:
    for model in catalog.models.values():
        if model.enabled:
            yield f"model {model.name!r}", model
    for position, rule in enumerate(catalog.rules, start=1):
        if rule.enabled:
            yield f"rule {position} ({rule.condition[:60]})", rule
    for workflow in catalog.workflows.values():
        if workflow.enabled:
            yield f"workflow {workflow.name!r}", workflow

"""
Models and their ladders: made, changed, deleted.

Law: a model has at least one attachment, all in its dialect, each provider once; a list of attachments that is sent replaces the
old one whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quota_router.core.catalog import Catalog, ManagedBy, Model
from quota_router.core.desired_models import build_model
from quota_router.core.edits.common import Expected, as_request, find_editable, find_users, refuse_named, refuse_taken
from quota_router.core.exported import model_table
from quota_router.errors import Conflict

_MODEL = "model"
_DEPTH = 2
"""`("models", name)`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What went with a model."""

    catalog: Catalog
    idle_limits: tuple[str, ...] = ()
    """limits that are set on what is gone, and count nothing any more"""


def create_model(catalog: Catalog, name: str, table: Mapping[str, Any]) -> Catalog:
    """
    Add a model.

    Args:
        catalog: as it is.
        name: what callers will ask for.
        table: as `[[models]]`.

    Raises:
        Conflict: there is one of that name. InvalidRequest: it cannot be, or has no attachment.
    """
    refuse_taken(_MODEL, name, catalog.models)
    with as_request(_DEPTH):
        model = build_model(name, table, catalog.providers, catalog.models)
    return _with(catalog, replace(model, managed_by=ManagedBy.API))


def change_model(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected) -> Catalog:
    """
    Change what *patch* says, and nothing else. Attachments bring a model back that had lost all.

    Raises:
        NotFound, Conflict, Stale, InvalidRequest: as for every edit; Conflict also when its family would leave its attachments
            behind.
    """
    before = find_editable(_MODEL, name, catalog.models, expected)
    if patch.get("family", before.family) != before.family and "attachments" not in patch:
        raise Conflict(
            f"The model {name!r} is attached to providers that speak {before.family}:"
            f" send attachments that speak {patch['family']} with it."
        )
    with as_request(_DEPTH):
        after = build_model(name, {**model_table(before), **patch}, catalog.providers, catalog.models)
    return _with(catalog, replace(after, managed_by=before.managed_by, version=before.version))


def delete_model(catalog: Catalog, name: str, expected: Expected) -> Deleted:
    """
    Delete a model.

    Raises:
        NotFound, Conflict, Stale: as for every edit; Conflict also when a fallback, a rule, a workflow or the default names it.
    """
    model = find_editable(_MODEL, name, catalog.models, expected)
    users = find_users(catalog, _MODEL, name, *model.aliases)
    refuse_named(f"model {name!r}", [*users, *(["default_model of the file"] if catalog.default_model == name else [])])
    gone = {f"model:{name}", *(rung.subject for rung in model.attachments)}
    return Deleted(
        catalog=replace(catalog, models={other: known for other, known in catalog.models.items() if other != name}),
        idle_limits=tuple(limit.name for limit in catalog.limits if limit.subject in gone),
    )


def _with(catalog: Catalog, model: Model) -> Catalog:
    return replace(catalog, models={**catalog.models, model.name: model})

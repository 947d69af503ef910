"""
Callers: made, changed, deleted.

Law: a token is known by its digest alone, and one digest has one caller.
Never: sees a token.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quota_router.core.catalog import ADMIN, Caller, Catalog, ManagedBy
from quota_router.core.desired import build_caller
from quota_router.core.edits.common import Expected, as_request, find_editable, refuse_taken
from quota_router.core.exported import caller_table
from quota_router.errors import Conflict

_CALLER = "caller"


def create_caller(catalog: Catalog, name: str, table: Mapping[str, Any]) -> Catalog:
    """
    Add a caller.

    Args:
        catalog: as it is.
        name: what limits and `usage` will call it.
        table: as `[[callers]]`.

    Raises:
        Conflict: there is one of that name. InvalidRequest: it cannot be.
    """
    if name == ADMIN:
        raise Conflict(f"The caller {ADMIN!r} is the one that the admin token stands for: choose another name.")
    refuse_taken(_CALLER, name, catalog.callers)
    with as_request(1):
        caller = build_caller(name, table, catalog.callers.values(), (_CALLER,))
    return _with(catalog, replace(caller, managed_by=ManagedBy.API))


def change_caller(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected) -> Catalog:
    """Change what *patch* says, and nothing else: scopes, or the token's digest. Raises as every edit."""
    before = find_editable(_CALLER, name, catalog.callers, expected)
    with as_request(1):
        after = build_caller(name, {**caller_table(before), **patch}, catalog.callers.values(), (_CALLER,))
    return _with(catalog, replace(after, managed_by=before.managed_by, version=before.version))


def delete_caller(catalog: Catalog, name: str, expected: Expected) -> Catalog:
    """Delete a caller: its token is worth nothing from now on. Raises `NotFound`, `Conflict` and `Stale` as every edit."""
    find_editable(_CALLER, name, catalog.callers, expected)
    return replace(catalog, callers={other: known for other, known in catalog.callers.items() if other != name})


def _with(catalog: Catalog, caller: Caller) -> Catalog:
    return replace(catalog, callers={**catalog.callers, caller.name: caller})

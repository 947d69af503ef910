"""
Limits: budgets, and quotas that we count for an account.

Law: a limit names a subject that exists when it is set; a quota is named by its account, unit and window, so that those stay.
Never: counts: whoever writes the rows projects the balances.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quota_router.core.catalog import ADMIN, Catalog, ManagedBy
from quota_router.core.desired_limits import build_budget, build_quota, known_subjects
from quota_router.core.edits.common import Expected, as_request, find_editable, find_users, refuse_named, refuse_taken
from quota_router.core.exported import limit_table
from quota_router.core.limits import Kind, Limit
from quota_router.core.naming import check_known
from quota_router.errors import InvalidRequest

_LIMIT = "limit"
_ACCOUNT = "account:"
_FIXED_OF_QUOTAS = ("subject", "unit", "window")


def create_limit(catalog: Catalog, kind: Kind, name: str | None, table: Mapping[str, Any]) -> tuple[Catalog, str]:
    """
    Add a limit.

    Args:
        catalog: as it is.
        kind: a budget has a name, a quota makes its own.
        name: of a budget.
        table: as `[[budgets]]`.

    Returns:
        the catalog, and the limit's name.

    Raises:
        Conflict: there is one of that name. InvalidRequest: it cannot be.
    """
    with as_request(1):
        limit = _quota(catalog, name, table) if kind is Kind.QUOTA else _budget(catalog, name, table)
    refuse_taken(_LIMIT, limit.name, _by_name(catalog))
    limit = replace(limit, managed_by=ManagedBy.API)
    return replace(catalog, limits=(*catalog.limits, limit)), limit.name


def change_limit(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected) -> Catalog:
    """
    Change what *patch* says, and nothing else.

    Raises:
        NotFound, Conflict, Stale, InvalidRequest: as for every edit.
    """
    before = find_editable(_LIMIT, name, _by_name(catalog), expected)
    table = {**limit_table(before), **patch}
    if "window" in patch and "anchor" not in patch:
        table.pop("anchor", None)  # it was the old window's
    fixed = next((key for key in _FIXED_OF_QUOTAS if key in patch), None)
    if before.kind is Kind.QUOTA and fixed is not None:
        raise InvalidRequest(f"A quota is named by its {fixed}: delete this one, and add another.", param=fixed)
    with as_request(1):
        after = (
            build_quota(before.subject.removeprefix(_ACCOUNT), table, (_LIMIT,))
            if before.kind is Kind.QUOTA
            else _budget(catalog, name, table)
        )
    after = replace(after, managed_by=before.managed_by, version=before.version)
    return replace(catalog, limits=tuple(after if limit.name == name else limit for limit in catalog.limits))


def delete_limit(catalog: Catalog, name: str, expected: Expected) -> Catalog:
    """
    Delete a limit. What was booked stays booked.

    Raises:
        NotFound, Conflict, Stale: as for every edit; Conflict also when a rule asks how far it is used.
    """
    find_editable(_LIMIT, name, _by_name(catalog), expected)
    refuse_named(f"limit {name!r}", find_users(catalog, _LIMIT, name))
    return replace(catalog, limits=tuple(limit for limit in catalog.limits if limit.name != name))


def _budget(catalog: Catalog, name: str | None, table: Mapping[str, Any]) -> Limit:
    if name is None:
        raise InvalidRequest("The field `name` is missing: a budget has one.", param="name")
    if "subject" not in table:
        raise InvalidRequest("The field `subject` is missing: write `everyone`, or one such as `model:NAME`.", param="subject")
    known = known_subjects(catalog.providers, catalog.models, {ADMIN, *catalog.callers})
    return build_budget(name, table, known, (_LIMIT,))


def _quota(catalog: Catalog, name: str | None, table: Mapping[str, Any]) -> Limit:
    if name is not None:
        raise InvalidRequest("A quota makes its own name, of account, unit and window: leave `name` out.", param="name")
    subject = str(table.get("subject", ""))
    if not subject.startswith(_ACCOUNT):
        raise InvalidRequest("A quota belongs to an account: write `account:NAME`.", param="subject")
    account = subject.removeprefix(_ACCOUNT)
    check_known("account", account, {provider.account for provider in catalog.providers.values()}, (_LIMIT, "subject"))
    return build_quota(account, table, (_LIMIT,))


def _by_name(catalog: Catalog) -> dict[str, Limit]:
    return {limit.name: limit for limit in catalog.limits}

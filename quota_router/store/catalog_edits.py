"""
Edits of the catalog, as the lane writes them: the whole file, or single rows.

Law: read, plan, compare, write, in one transaction that keeps every other writer away; the rows that differ, the trail, the epoch
and the balances of changed limits are written together or not at all.
Never: decides what may be edited: the plan does (`core/edits`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from quota_router.core.catalog import Catalog
from quota_router.errors import Conflict
from quota_router.store.catalog import apply_catalog, catalog_of, read_epoch, read_shelf, write_changes
from quota_router.store.catalog_changes import Change, RowKind, by_kind, compare_edited
from quota_router.store.catalog_rows import in_stored_order
from quota_router.store.projection import project
from quota_router.store.trail import Signature, find_signed
from quota_router.store.writer import RolledBack

Plan = Callable[[Catalog], Catalog]
"""From the catalog as it is to the one that is wanted; raises what `core/edits` raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What an edit did."""

    changes: tuple[Change, ...] = ()
    replayed: str | None = None
    """the name of the row that was edited under this idempotency key before; nothing was done now"""


def apply_file(
    desired: Catalog, *, prune: bool = False, dry_run: bool = False, signature: Signature | None = None
) -> Callable[[Connection, datetime], list[Change]]:
    """
    Make an edit for `Lane.edit` that makes the catalog what the file says, and projects the balances of every limit that changed.

    Args:
        desired: what the file says.
        prune: delete rows that the file no longer names, instead of disabling them.
        dry_run: work the changes out and roll back.
        signature: who asked for it; `None`: nobody, the daemon read its own file.

    Returns:
        the edit. It raises `ConfigError` where the file contradicts rows that it does not own.
    """

    def edit(conn: Connection, now: datetime) -> list[Change]:
        changes = apply_catalog(conn, desired, now, prune=prune, signature=signature)
        if dry_run:
            raise RolledBack(changes)
        moved = {change.name for change in changes if change.kind is RowKind.LIMIT}
        project(conn, [limit for limit in desired.limits if limit.name in moved], now)
        return changes

    return edit


def edit_rows(plan: Plan, signature: Signature) -> Callable[[Connection, datetime], Edited]:
    """
    Make an edit for `Lane.edit`. It raises `Conflict` where the idempotency key named another edit, and what *plan* raises.

    A plan that changes nothing writes nothing.
    """

    def edit(conn: Connection, now: datetime) -> Edited:
        signed = find_signed(conn, signature)
        if signed is not None:
            _, name, fingerprint = signed
            if fingerprint != signature.fingerprint:
                raise Conflict("This Idempotency-Key named another edit: draw a new one.")
            return Edited(replayed=name)
        shelf = read_shelf(conn)
        before = catalog_of(shelf, read_epoch(conn))
        after = plan(before)
        wanted = by_kind(after) | {RowKind.MODEL: {name: in_stored_order(model) for name, model in after.models.items()}}
        changes = list(compare_edited(wanted, shelf, by_kind(before)))
        # From here on it must succeed.
        if changes:
            write_changes(conn, changes, wanted, shelf, now, signature)
            moved = {change.name for change in changes if change.kind is RowKind.LIMIT}
            project(conn, [limit for limit in after.limits if limit.name in moved], now)
        return Edited(changes=tuple(changes))

    return edit


__all__ = ["Edited", "Plan", "Signature", "apply_file", "edit_rows"]

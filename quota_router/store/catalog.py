"""
The catalog in its tables: read as one snapshot, and made to be what the operator's file says.

Law: read, compare, write: what the comparison finds is all that is written. Rows managed through the API are never touched;
`epochs.catalog` grows exactly when something changed.
Never: begins or commits a transaction, projects balances (the lane does, for the limits named here), or keeps the default
model, which is the file's own and joins the snapshot in the daemon.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, assert_never

from sqlalchemy import Connection, Table, delete, insert, select, update

from quota_router.core.catalog import DEFAULT_MODEL, Catalog, ManagedBy, Model, Provider
from quota_router.core.limits import Limit
from quota_router.errors import LedgerUnavailable
from quota_router.store import catalog_rows as rows
from quota_router.store.catalog_changes import (
    Action,
    Change,
    RowKind,
    Shelf,
    Stored,
    Wanted,
    by_kind,
    compare,
    refuse_conflicts,
)
from quota_router.store.tables import (
    attachments,
    callers,
    epochs,
    limits,
    model_aliases,
    models,
    providers,
    rules,
    workflows,
)
from quota_router.store.trail import FILE, Line, Signature, last_version, write_trail

__all__ = [
    "Action",
    "Change",
    "RowKind",
    "apply_catalog",
    "catalog_of",
    "load_catalog",
    "read_epoch",
    "read_shelf",
    "write_changes",
]

_TABLES: dict[RowKind, Table] = {
    RowKind.PROVIDER: providers,
    RowKind.MODEL: models,
    RowKind.LIMIT: limits,
    RowKind.CALLER: callers,
    RowKind.RULE: rules,
    RowKind.WORKFLOW: workflows,
}


def load_catalog(conn: Connection) -> Catalog:
    """
    The whole catalog as of *conn*'s transaction, disabled providers, models and callers included, disabled limits not.

    `default_model` is `default` where a pool made such a model, else `None`: what the file says overrides it.
    """
    return catalog_of(read_shelf(conn), read_epoch(conn))


def read_epoch(conn: Connection) -> int:
    """How many edits there were."""
    epoch: int = conn.execute(select(epochs.c.value).where(epochs.c.name == "catalog")).scalar_one()
    return epoch


def catalog_of(shelf: Shelf, epoch: int) -> Catalog:
    """The snapshot of what was read."""

    def of(kind: RowKind) -> dict[str, Any]:
        return {name: stored.value for name, stored in shelf[kind].items()}

    try:
        return Catalog(
            epoch=epoch,
            providers=of(RowKind.PROVIDER),
            models=of(RowKind.MODEL),
            limits=tuple(s.value for s in shelf[RowKind.LIMIT].values() if s.enabled and isinstance(s.value, Limit)),
            callers=of(RowKind.CALLER),
            rules=tuple(sorted(of(RowKind.RULE).values(), key=lambda rule: (rule.rank, rule.name))),
            workflows=of(RowKind.WORKFLOW),
            default_model=DEFAULT_MODEL if DEFAULT_MODEL in shelf[RowKind.MODEL] else None,
        )
    except ValueError as exc:  # rows that another program wrote: better no routing than another one
        raise LedgerUnavailable(f"The routing rules in the ledger cannot be read: {exc}") from exc


def apply_catalog(
    conn: Connection, desired: Catalog, now: datetime, *, prune: bool = False, signature: Signature | None = None
) -> list[Change]:
    """
    Make the rows managed by the file what *desired* says. The caller owns the one write transaction this runs in.

    What the file no longer names is disabled, or deleted with *prune*; a provider that a model of the API still needs is
    disabled even then. A model that is gone loses its aliases at once, so that another may take them.

    Returns:
        what changed, providers before models before limits before callers; empty when nothing did.

    Raises:
        ConfigError: the file names a row, or takes an alias or a token, that is managed through the API, or attaches a model
            to a provider that does not exist. Nothing was written.
    """
    shelf = read_shelf(conn)
    wanted = by_kind(desired) | {
        RowKind.MODEL: {name: rows.in_stored_order(model) for name, model in desired.models.items()},
        RowKind.PROVIDER: {name: _still_paused(provider, shelf) for name, provider in desired.providers.items()},
    }
    refuse_conflicts(wanted, shelf)
    changes = list(compare(wanted, shelf, prune=prune))
    # From here on it must succeed.
    if changes:
        write_changes(conn, changes, wanted, shelf, now, signature or Signature(admin=FILE))
    return changes


def _still_paused(provider: Provider, shelf: Shelf) -> Provider:
    """The provider as the file says it: pausing is the operator's word at run time, and outlives an apply."""
    stored = shelf[RowKind.PROVIDER].get(provider.name)
    if stored is None or not isinstance(stored.value, Provider):
        return provider
    return replace(provider, paused=stored.value.paused, paused_reason=stored.value.paused_reason)


def read_shelf(conn: Connection) -> Shelf:
    """Read every row of the catalog."""
    found = {
        table: conn.execute(select(table).order_by(*table.primary_key)).all()
        for table in (*_TABLES.values(), model_aliases, attachments)
    }
    readers: dict[RowKind, rows.Reader] = {
        RowKind.PROVIDER: rows.read_provider,
        RowKind.MODEL: rows.model_reader(found[model_aliases], found[attachments]),
        RowKind.LIMIT: rows.read_limit,
        RowKind.CALLER: rows.read_caller,
        RowKind.RULE: rows.read_rule,
        RowKind.WORKFLOW: rows.read_workflow,
    }
    return {
        kind: {
            row.name: Stored(
                value=readers[kind](row),
                enabled=bool(row.enabled),
                managed_by=ManagedBy(row.managed_by),
                version=row.version,
                created_at=row.created_at,
            )
            for row in found[table]
        }
        for kind, table in _TABLES.items()
    }


def write_changes(
    conn: Connection, changes: list[Change], wanted: Wanted, shelf: Shelf, now: datetime, signature: Signature
) -> None:
    """Write *changes*, which are not none, let the epoch grow, and put it all on the trail."""
    _make_room(conn, changes)
    lines = []
    for change in changes:
        stored, value = shelf[change.kind].get(change.name), wanted[change.kind].get(change.name)
        version = None if stored is None else stored.version
        match change.action:
            case Action.ADDED | Action.CHANGED:
                assert value is not None
                row = rows.row_of(value) | {"managed_by": value.managed_by}
                version = _put(conn, change, row, stored, now)
                if isinstance(value, Model):
                    _put_parts(conn, value, change, now)
            case Action.DISABLED:
                version = _put(conn, change, {"enabled": 0}, stored, now)
            case Action.PRUNED | Action.DELETED:
                pass
            case _:
                assert_never(change.action)
        lines.append(Line.of_change(change, None if stored is None else stored.value, value, version))
    conn.execute(update(epochs).where(epochs.c.name == "catalog").values(value=epochs.c.value + 1))
    write_trail(conn, lines, signature, now)


def _make_room(conn: Connection, changes: list[Change]) -> None:
    """
    Delete what goes, before anything comes that could need its name, place, alias or token.

    Changed callers are made anew: two of them may have swapped their tokens.
    """

    def names(kind: RowKind, *actions: Action) -> list[str]:
        return [change.name for change in changes if change.kind is kind and change.action in actions]

    deleted = (Action.PRUNED, Action.DELETED)
    pruned = {kind: names(kind, *deleted) for kind in RowKind}
    touched = names(RowKind.MODEL, Action.CHANGED, Action.DISABLED, *deleted)
    moved = [c.name for c in changes if c.kind is RowKind.MODEL and "attachments" in c.fields]
    conn.execute(delete(model_aliases).where(model_aliases.c.model.in_(touched)))
    conn.execute(delete(attachments).where(attachments.c.model.in_(moved + pruned[RowKind.MODEL])))
    # Models before the providers they were attached to.
    conn.execute(delete(models).where(models.c.name.in_(pruned[RowKind.MODEL])))
    conn.execute(delete(providers).where(providers.c.name.in_(pruned[RowKind.PROVIDER])))
    conn.execute(delete(callers).where(callers.c.name.in_(names(RowKind.CALLER, *deleted, Action.CHANGED))))
    for kind in (RowKind.LIMIT, RowKind.RULE, RowKind.WORKFLOW):
        conn.execute(delete(_TABLES[kind]).where(_TABLES[kind].c.name.in_(pruned[kind])))


def _put(conn: Connection, change: Change, row: dict[str, Any], stored: Stored | None, now: datetime) -> int:
    """Write one row, and return its version: never one that a row of this name had before."""
    table = _TABLES[change.kind]
    if stored is None:
        version = last_version(conn, change.kind, change.name) + 1
        conn.execute(insert(table).values(**row, version=version, created_at=now, updated_at=now))
        return version
    version = stored.version + 1
    if change.kind is RowKind.CALLER and change.action is Action.CHANGED:
        conn.execute(insert(table).values(**row, version=version, created_at=stored.created_at, updated_at=now))
    else:
        conn.execute(update(table).where(table.c.name == change.name).values(**row, version=version, updated_at=now))
    return version


def _put_parts(conn: Connection, model: Model, change: Change, now: datetime) -> None:
    if model.aliases:
        conn.execute(insert(model_aliases), [{"alias": alias, "model": model.name} for alias in model.aliases])
    is_new_ladder = change.action is Action.ADDED or "attachments" in change.fields
    if is_new_ladder and model.attachments:
        times = {"created_at": now, "updated_at": now}
        conn.execute(insert(attachments), [rows.attachment_row_of(rung) | times for rung in model.attachments])

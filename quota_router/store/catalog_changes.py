"""
What an apply will change: the file's catalog beside the stored one, compared as values.

Law: pure; a conflict with what the file does not own is found here, before the first row is written.
Never: reads or writes a table.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from quota_router.core.catalog import Caller, Catalog, ManagedBy, Model
from quota_router.core.limits import Limit
from quota_router.core.references import Reference, Value, names_in
from quota_router.errors import ConfigError, Conflict


class Action(StrEnum):
    """What happened to a row."""

    ADDED = "added"
    CHANGED = "changed"
    DISABLED = "disabled"
    """gone from the file, or still needed by a row that is not the file's to delete"""
    PRUNED = "pruned"
    DELETED = "deleted"
    """over the API"""


class RowKind(StrEnum):
    """What the row is; in the order in which they are compared and shown."""

    PROVIDER = "provider"
    MODEL = "model"
    LIMIT = "limit"
    CALLER = "caller"
    RULE = "rule"
    WORKFLOW = "workflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row that the file changed. A limit that was added or changed needs its balances projected anew."""

    action: Action
    kind: RowKind
    name: str
    fields: tuple[str, ...] = ()
    """which fields, when changed"""

    def describe(self) -> str:
        """One line of the printed diff."""
        why = {Action.CHANGED: f" ({', '.join(self.fields)})", Action.DISABLED: ": no longer in the file"}
        return f"{self.action} {self.kind} {self.name}{why.get(self.action, '')}"

    def show(self) -> dict[str, Any]:
        """In the shape of the API."""
        return {"action": self.action, "kind": self.kind, "name": self.name, "fields": self.fields, "text": self.describe()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A row as a value, and what only the row knows."""

    value: Value
    enabled: bool
    managed_by: ManagedBy
    version: int
    created_at: datetime


_OF_THE_ROW = frozenset({"managed_by", "version"})
"""Fields that a row keeps for itself."""


Shelf = dict[RowKind, dict[str, Stored]]
"""What is stored, by kind and name."""
Wanted = Mapping[RowKind, Mapping[str, Value]]
"""What the file says, by kind and name."""


def by_kind(catalog: Catalog) -> dict[RowKind, Mapping[str, Value]]:
    """A catalog's values as rows are kept."""
    return {
        RowKind.PROVIDER: catalog.providers,
        RowKind.MODEL: catalog.models,
        RowKind.LIMIT: {limit.name: limit for limit in catalog.limits},
        RowKind.CALLER: catalog.callers,
        RowKind.RULE: {rule.name: rule for rule in catalog.rules},
        RowKind.WORKFLOW: catalog.workflows,
    }


def refuse_conflicts(wanted: Wanted, shelf: Shelf) -> None:
    """
    Refuse a file that contradicts what it does not own.

    Raises:
        ConfigError: it names a row, or takes an alias or a token, that is managed through the API, or attaches a model to a
            provider that does not exist.
    """
    for kind, values in wanted.items():
        for name in values:
            if name in shelf[kind] and not is_files(shelf[kind][name]):
                raise ConfigError(
                    f"The {kind} {name} is managed through the API. Take it out of the file, or delete it there first.",
                    key_path=_key_path(kind, name),
                )
    theirs = {
        mark: stored.value.name
        for stored in (*shelf[RowKind.MODEL].values(), *shelf[RowKind.CALLER].values())
        if not is_files(stored)
        for mark in _unique_marks(stored.value)
    }
    for kind in (RowKind.MODEL, RowKind.CALLER):
        for name, value in wanted[kind].items():
            for mark in sorted(_unique_marks(value) & theirs.keys()):
                raise ConfigError(
                    f"The {kind} {name} has the {mark[0]} of {theirs[mark]}, which is managed through the API."
                    " Give it another, or delete that one there first.",
                    key_path=_key_path(kind, name),
                )
    apis = {name for name, stored in shelf[RowKind.PROVIDER].items() if not is_files(stored)}
    known = wanted[RowKind.PROVIDER].keys() | apis
    for name, provider in _attached(wanted[RowKind.MODEL].values()):
        if provider not in known:
            raise ConfigError(
                f"The model {name} is attached to the provider {provider}, which does not exist. Add it, or fix the name.",
                key_path=(*_key_path(RowKind.MODEL, name), "attachments"),
            )


def compare(wanted: Wanted, shelf: Shelf, *, prune: bool) -> Iterator[Change]:
    """Every row that must change, by kind; of the rows no longer in the file those that are not disabled yet."""
    tokens = {mark for caller in wanted[RowKind.CALLER].values() for mark in _unique_marks(caller)}
    needed = _needed(wanted, shelf, prune=prune)
    for kind, values in wanted.items():
        for name, value in values.items():
            stored = shelf[kind].get(name)
            if stored is None:
                yield Change(action=Action.ADDED, kind=kind, name=name)
            elif different := _differences(value, stored):
                yield Change(action=Action.CHANGED, kind=kind, name=name, fields=different)
        for name, stored in shelf[kind].items():
            if name in values or not is_files(stored):
                continue
            may_go = prune and (kind, name) not in needed
            # A caller that was renamed keeps its token: the old row makes room for it.
            must_go = kind is RowKind.CALLER and not tokens.isdisjoint(_unique_marks(stored.value))
            if may_go or must_go:
                yield Change(action=Action.PRUNED, kind=kind, name=name)
            elif stored.enabled:
                yield Change(action=Action.DISABLED, kind=kind, name=name)


def compare_edited(wanted: Wanted, shelf: Shelf, before: Wanted) -> Iterator[Change]:
    """
    Every row in which an edited catalog differs from the one it was made of, which shows less than is stored.

    Raises:
        Conflict: a new row has the name of one that is stored and not shown: a limit that the file once had.
    """
    for kind, values in wanted.items():
        for name, value in values.items():
            stored = shelf[kind].get(name)
            if stored is None:
                yield Change(action=Action.ADDED, kind=kind, name=name)
            elif name not in before[kind]:
                raise Conflict(
                    f"There was a {kind} {name!r} in the configuration file, and its row is kept. Choose another name, or let"
                    " `quota-router apply --prune` delete it."
                )
            elif different := _differences(value, stored):
                yield Change(action=Action.CHANGED, kind=kind, name=name, fields=different)
        for name in before[kind]:
            if name not in values:
                yield Change(action=Action.DELETED, kind=kind, name=name)


def _needed(wanted: Wanted, shelf: Shelf, *, prune: bool) -> set[Reference]:
    """What rows that stay are made of: it may be disabled, but not deleted."""
    theirs = [stored.value for found in shelf.values() for stored in found.values() if not is_files(stored)]
    needed: set[Reference] = {named for value in theirs for named in names_in(value)}
    known = list(shelf[RowKind.MODEL].values())
    for stored in known:
        if any((RowKind.MODEL, alias) in needed for _, alias in _unique_marks(stored.value)):
            needed.add((RowKind.MODEL, stored.value.name))
    # A gone model is pruned with its attachments, so only the others keep a provider from being deleted.
    gone = {s.value.name for s in known if prune and is_files(s) and (RowKind.MODEL, s.value.name) not in needed}
    staying = [s.value for s in known if s.value.name not in wanted[RowKind.MODEL] and s.value.name not in gone]
    return needed | {(RowKind.PROVIDER, provider) for _, provider in _attached((*wanted[RowKind.MODEL].values(), *staying))}


def _differences(value: Value, stored: Stored) -> tuple[str, ...]:
    names = (field.name for field in fields(value) if field.name not in _OF_THE_ROW)
    different = tuple(name for name in names if getattr(value, name) != getattr(stored.value, name))
    # A limit has no flag of its own: to be in the file is to be enabled.
    return (*different, "enabled") if isinstance(value, Limit) and not stored.enabled else different


def is_files(stored: Stored) -> bool:
    """The file may edit it."""
    return stored.managed_by is ManagedBy.FILE


def _unique_marks(value: Value) -> set[tuple[str, str]]:
    match value:
        case Model():
            return {("alias", alias) for alias in value.aliases}
        case Caller():
            return {("token", value.token_sha256)}
        case _:
            return set()


def _attached(found: Iterable[Value]) -> Iterator[tuple[str, str]]:
    return ((m.name, a.provider) for m in found if isinstance(m, Model) for a in m.attachments)


def _key_path(kind: RowKind, name: str) -> tuple[str, ...]:
    return ("budgets" if kind is RowKind.LIMIT else f"{kind}s", name)

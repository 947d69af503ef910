"""
The audit trail: who edited which row of the catalog or cleared what stood on a rung, when, and what it was before.

Law: a line is written in the transaction that changes its row, one for each row, numbered without a gap; an idempotency key names
the edit that it was sent with, for ever.
Never: a secret, or a line for what changed nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from quota_router.core.exported import Table, show_row
from quota_router.core.references import Value
from quota_router.errors import LedgerUnavailable
from quota_router.store.catalog_changes import Action, Change
from quota_router.store.cursors import read_cursor, write_cursor
from quota_router.store.reports import PAGE_MAX, show_instant
from quota_router.store.tables import audit

FILE = "file"
"""Who edits when a daemon reads its own file without being asked."""
_SEQ_MAX = 2**63 - 1
FILTERS = ("admin", "action", "kind", "name")
"""Columns that may be asked to equal a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Who edits. `key`: his name for this edit; `fingerprint`: of what he asked for with it."""

    admin: str
    key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row that changed, as the API shows rows. `None`: it was not there, or is not any more."""

    action: str
    kind: str
    name: str
    before: Table | None
    after: Table | None = None
    version: int | None = None

    @classmethod
    def of_change(cls, change: Change, before: Value | None, after: Value | None, version: int | None) -> Self:
        """Tell of a row of the catalog."""
        return cls(
            action=change.action,
            kind=change.kind,
            name=change.name,
            before=None if before is None else show_row(before),
            after=None if after is None else show_row(after),
            version=version,
        )


def write_trail(conn: Connection, lines: Sequence[Line], signature: Signature, now: datetime) -> None:
    """Write down what changed. The row that was made carries the key, as others may have made room for it; else the first."""
    made = (place for place, line in enumerate(lines, start=1) if line.action == Action.ADDED)
    keyed = next(made, 1)
    seq: int = conn.execute(select(func.coalesce(func.max(audit.c.seq), 0))).scalar_one()
    rows = [
        {
            "seq": seq + place,
            "at": now,
            "admin": signature.admin,
            "action": line.action,
            "kind": line.kind,
            "name": line.name,
            "version": line.version,
            "before": _to_json(line.before),
            "after": _to_json(line.after),
            "idempotency_key": signature.key if place == keyed else None,
            "fingerprint": signature.fingerprint if place == keyed else None,
        }
        for place, line in enumerate(lines, start=1)
    ]
    if rows:
        conn.execute(insert(audit), rows)


def find_signed(conn: Connection, signature: Signature) -> tuple[str, str, str | None] | None:
    """What was edited under this key: kind, name and fingerprint; `None`: nothing."""
    if signature.key is None:
        return None
    is_signed = (audit.c.admin == signature.admin) & (audit.c.idempotency_key == signature.key)
    row = conn.execute(select(audit.c.kind, audit.c.name, audit.c.fingerprint).where(is_signed)).one_or_none()
    return None if row is None else (row.kind, row.name, row.fingerprint)


def last_version(conn: Connection, kind: str, name: str) -> int:
    """The highest version that a row of this name ever had; 0: there never was one."""
    is_row = (audit.c.kind == kind) & (audit.c.name == name)
    found: int = conn.execute(select(func.coalesce(func.max(audit.c.version), 0)).where(is_row)).scalar_one()
    return found


class Trail:
    """Reads the audit trail. Give it the read engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, *, limit: int, cursor: str | None = None, matching: dict[str, str] | None = None) -> dict[str, Any]:
        """
        One page, the newest first.

        Args:
            limit: 1 to `PAGE_MAX`.
            cursor: `next` of the page before.
            matching: values by column, of `FILTERS`.

        Raises:
            InvalidRequest: the cursor is none of ours.
            LedgerUnavailable: the database cannot be read.
        """
        assert 1 <= limit <= PAGE_MAX
        asked = select(audit).order_by(audit.c.seq.desc()).limit(limit + 1)
        asked = asked.where(*(audit.c[name] == value for name, value in (matching or {}).items()))
        if cursor is not None:
            (seq,) = read_cursor(cursor, tuple[int])
            asked = asked.where(audit.c.seq < max(0, min(seq, _SEQ_MAX)))
        try:
            async with self._engine.connect() as conn:
                rows = (await conn.execute(asked)).all()
        except SQLAlchemyError as exc:
            raise LedgerUnavailable("The audit trail cannot be read now.") from exc
        page = rows[:limit]
        return {
            "items": [
                {
                    "seq": row.seq,
                    "at": show_instant(row.at),
                    "admin": row.admin,
                    "action": row.action,
                    "kind": row.kind,
                    "name": row.name,
                    "version": row.version,
                    "before": _from_json(row.before),
                    "after": _from_json(row.after),
                }
                for row in page
            ],
            "next": write_cursor(page[-1].seq) if len(rows) > limit else None,
        }


def _to_json(row: Table | None) -> str | None:
    return None if row is None else msgspec.json.encode(row).decode()


def _from_json(text: str | None) -> Any:  # noqa: ANN401 -- the API's JSON
    return None if text is None else msgspec.json.decode(text)


__all__ = ["FILE", "FILTERS", "Line", "Signature", "Trail", "find_signed", "last_version", "write_trail"]

"""
Every balance worked out anew, and what that changed.

Law: one write transaction, with no batch between what is read and what is written; where nothing was wrong nothing changes.
Never: touches entries, holds or windows: they are what balances are worked out from.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select

from quota_router.core.limits import Limit, Unit
from quota_router.store.catalog import load_catalog
from quota_router.store.projection import project
from quota_router.store.shapes import show_instant
from quota_router.store.state import Balance
from quota_router.store.tables import balances


class Corrected(Struct, frozen=True, kw_only=True):
    """One balance that was not what it should have been. Amounts are in the limit's unit; a row that is not there is nothing."""

    limit: str
    unit: Unit
    bucket: datetime
    posted_before: int
    posted: int
    held_before: int
    held: int

    def show(self) -> dict[str, Any]:
        """Tell it in the API's shape."""
        return {
            "limit": self.limit,
            "unit": self.unit,
            "bucket": show_instant(self.bucket),
            "posted_before": self.posted_before,
            "posted": self.posted,
            "held_before": self.held_before,
            "held": self.held,
        }


def rebuild(conn: Connection, now: datetime) -> list[Corrected]:
    """
    Project every limit anew. An edit for the lane.

    Returns:
        what changed, by limit and bucket.
    """
    return [corrected for limit in load_catalog(conn).limits for corrected in _rebuild_one(conn, limit, now)]


def _rebuild_one(conn: Connection, limit: Limit, now: datetime) -> list[Corrected]:
    before = _read(conn, limit)
    project(conn, [limit], now, keeps_past=True)
    after = _read(conn, limit)
    changed = [bucket for bucket in sorted({*before, *after}) if before.get(bucket, Balance()) != after.get(bucket, Balance())]
    return [_compare(limit, bucket, before.get(bucket, Balance()), after.get(bucket, Balance())) for bucket in changed]


def _compare(limit: Limit, bucket: datetime, before: Balance, after: Balance) -> Corrected:
    return Corrected(
        limit=limit.name,
        unit=limit.unit,
        bucket=bucket,
        posted_before=before.posted,
        posted=after.posted,
        held_before=before.held,
        held=after.held,
    )


def _read(conn: Connection, limit: Limit) -> dict[datetime, Balance]:
    found = conn.execute(select(balances).where(balances.c.limit_name == limit.name))
    return {row.bucket: Balance(posted=row.posted, held=row.held) for row in found}

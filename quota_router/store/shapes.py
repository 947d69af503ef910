"""
Rows of the ledger in the shapes of the API.

Law: field names are part of the contract; an instant is RFC 3339 text in UTC, an amount a whole number of nano-USD.
Never: reads the database.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row

from quota_router.core.holds import EntryKind, HoldState
from quota_router.core.usage import BUCKETS
from quota_router.store.tables import EPOCH, MICROSECOND


def show_instant(at: datetime) -> str:
    """An instant as RFC 3339 text in UTC, to the microsecond: all have one length, so that they sort as text."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def show_stored(at: int) -> str:
    """Tell an instant as it is stored; one that no calendar has, which is none of ours, as its number."""
    try:
        return show_instant(EPOCH + at * MICROSECOND)
    except OverflowError:
        return str(at)


def show_entry(row: Row[Any]) -> dict[str, Any]:
    """Tell a line of money; an adjustment also says why and who."""
    shown = {
        "seq": row.seq,
        "journal": row.journal,
        "kind": row.kind,
        "call_id": row.call_id,
        "hold_id": row.hold_id,
        "provider": row.provider,
        "account": row.account,
        "model": row.model,
        "caller": row.caller,
        "labels": decode(row.labels),
        "cost_nusd": row.cost_nusd,
        "estimate_nusd": row.estimate_nusd,
        "shadow_cost_nusd": row.shadow_cost_nusd,
        "usage": show_usage([row]),
        "quality": row.quality,
        "price_source": row.price_source,
        "held_at": show_instant(row.held_at),
        "at": show_instant(row.at),
        "hash": row.hash.hex(),
    }
    return {**shown, "reason": row.reason, "admin": row.admin} if row.kind == EntryKind.ADJUST else shown


def show_head(row: Row[Any]) -> dict[str, Any]:
    """Where the chain of a journal ends: what `ledger verify --head` compares with."""
    return {"journal": row.name, "seq": row.seq, "hash": row.hash.hex(), "at": show_instant(row.at)}


def show_usage(lines: Sequence[Row[Any]]) -> dict[str, int]:
    """The buckets, under the names in which a caller settles them."""
    return {f"{bucket}_tokens": sum(getattr(line, bucket) for line in lines) for bucket in BUCKETS}


def show_attempt(hold: Row[Any], booked: Sequence[Row[Any]]) -> dict[str, Any]:
    """One attempt and what was booked for it: what came late is a difference, so that the sum is the truth as known last."""
    cost_nusd: int | None = 0 if hold.state == HoldState.VOIDED else None
    if booked and booked[-1].cost_nusd is not None:
        cost_nusd = sum(line.cost_nusd or 0 for line in booked)
    return {
        "provider": hold.provider,
        "upstream_model": hold.upstream_model,
        "outcome": hold.outcome,
        "failure": hold.failure,
        "status": hold.status,
        "cost_nusd": cost_nusd,
        "usage": show_usage(booked) if booked else None,
        "quality": booked[-1].quality if booked else None,
        "latency_ms": hold.latency_ms,
        "first_byte_ms": hold.first_byte_ms,
    }


def decode(text: str) -> Any:  # noqa: ANN401 -- whatever was stored
    """Read a column of JSON."""
    return msgspec.json.decode(text)

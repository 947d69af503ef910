"""
A line of money, and the hash chain that it joins.

Law: each entry extends its journal's chain by one, whoever books it and why.
Never: moves a balance; whoever books knows which.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import type_coerce

from quota_router.core.adjustments import Place
from quota_router.core.holds import EntryKind, Hold, Settlement
from quota_router.core.usage import Quality, Usage
from quota_router.store.rows import Entry
from quota_router.store.state import Head, Line, State, labels_text
from quota_router.store.tables import Instant, Whole, entries, microseconds

CHAIN_FORMAT = b"1"
"""Stands before every hashed row, so that a later format can be told from this one."""

STORED = tuple(type_coerce(column, Whole) if isinstance(column.type, Instant) else column for column in entries.columns)
"""The columns of an entry as they are stored and hashed; the hash itself stands last."""

_NOTHING_TOLD = Usage(quality=Quality.ASSUMED)

_encode = msgspec.json.Encoder().encode


def append(  # noqa: PLR0913 -- what a line of money says that its place does not
    state: State,
    now: datetime,
    kind: EntryKind,
    settlement: Settlement,
    *,
    of: Hold | Place,
    own_id: str,
    held_at: datetime,
    estimate_nusd: int | None = None,
    reason: str | None = None,
    admin: str | None = None,
) -> Line:
    """
    Add one line of money to the journal's chain.

    Args:
        state: of this batch; its head moves on.
        now: when it is booked.
        kind: of line.
        settlement: usage, cost and where the price is from.
        of: whose money it is.
        own_id: the hold's, or of an adjustment its own: no second line of this kind can bear it.
        held_at: the moment in whose windows it counts.
        estimate_nusd: what was held; `None`: nothing was, or its price is unknown.
        reason: why; adjustments only.
        admin: who answers for it; likewise.
    """
    usage = settlement.usage or _NOTHING_TOLD
    entry = Entry(
        journal=state.journal,
        seq=state.head.seq + 1,
        kind=kind.value,
        call_id=of.call_id,
        hold_id=own_id,
        provider=of.provider,
        account=of.account,
        model=of.model,
        upstream_model=of.upstream_model,
        caller=of.caller,
        labels=labels_text(of.labels),
        workflow=of.workflow,
        stage=of.stage,
        cost_nusd=settlement.cost_nusd,
        estimate_nusd=estimate_nusd,
        shadow_cost_nusd=settlement.shadow_cost_nusd,
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output,
        reasoning=usage.reasoning,
        quality=usage.quality.value,
        price_source=settlement.price_source,
        price_version=settlement.price_version,
        reason=reason,
        admin=admin,
        held_at=microseconds(held_at),
        at=microseconds(now),
    )
    digest = chain(state.head.hash, entry)
    state.head = Head(seq=entry.seq, hash=digest, at=now)
    state.write(entry, digest)
    return Line(entry=entry, hash=digest)


def chain(previous: bytes, entry: Entry | Sequence[Any]) -> bytes:
    """
    Hash one entry onto the chain.

    SHA-256 over the previous hash, `CHAIN_FORMAT`, and the row as a JSON array: its values as they are stored, in the order of the
    table, without the hash.
    """
    return hashlib.sha256(previous + CHAIN_FORMAT + _encode(entry)).digest()


def line_of(row: Sequence[Any]) -> Line:
    """A line of money, from its row of `STORED`."""
    *values, digest = row
    return Line(entry=Entry(**dict(zip(Entry.__struct_fields__, values, strict=True))), hash=digest)

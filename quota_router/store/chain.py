"""
Reading the ledger again, from the first line of money to the last.

Law: each entry's hash is worked out anew from the entry before it; what the journal's head says is compared, never believed.
Never: writes, or mends what it finds.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from quota_router.store.lines import STORED, chain
from quota_router.store.present import GENESIS
from quota_router.store.tables import entries, journals


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One journal, as it was found."""

    journal: str
    entries: int
    cost_nusd: int
    """the sum of its entries; those without a price count nothing"""
    broken_at: int | None
    """the first `seq` that does not follow from the one before; one past the last when the head is another; `None`: it is whole"""


async def verify_chains(conn: AsyncConnection) -> list[Chain]:
    """Walk every journal, whole. *conn* is a reading transaction."""
    heads = (await conn.execute(select(journals).order_by(journals.c.name))).all()
    return [await _walk(conn, head.name, head.seq, head.hash) for head in heads]


async def _walk(conn: AsyncConnection, journal: str, last_seq: int, last_hash: bytes) -> Chain:
    seq, digest, cost_nusd, broken_at = GENESIS.seq, GENESIS.hash, 0, None
    asked = select(*STORED).where(entries.c.journal == journal).order_by(entries.c.seq)
    async for row in await conn.stream(asked):
        *values, stored = row
        seq, digest = seq + 1, chain(digest, values)
        if broken_at is None and (row.seq, stored) != (seq, digest):
            broken_at = seq
        cost_nusd += row.cost_nusd or 0
    if broken_at is None and (seq, digest) != (last_seq, last_hash):
        broken_at = seq + 1
    return Chain(journal=journal, entries=seq, cost_nusd=cost_nusd, broken_at=broken_at)

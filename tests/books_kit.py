"""
A ledger read from outside, as another program would, and the laws that it keeps whatever happened to it.

A file is read from a copy that SQLite makes of it, so that what a crash left behind stays as it is; a server in a transaction that
is undone.
"""

import contextlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from quota_router.store.catalog import load_catalog
from quota_router.store.chain import Chain, verify_chains
from quota_router.store.ledger_file import read_path
from quota_router.store.open import is_postgres
from quota_router.store.projection import project
from quota_router.store.tables import balances, calls, entries, holds

KIND_OF = {"posted": "post", "expired": "expire"}
"""The entry that each end of a hold leaves, exactly once; a void leaves none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What stood in a ledger at one moment."""

    calls: Sequence[Row[Any]]
    holds: Sequence[Row[Any]]
    entries: Sequence[Row[Any]]
    balances: dict[tuple[str, datetime], tuple[int, int]]
    """(limit, bucket) -> (posted, held), where either is not 0"""
    projected: dict[tuple[str, datetime], tuple[int, int]]
    """likewise, worked out anew from entries and open holds"""
    chains: Sequence[Chain]

    @property
    def open_holds(self) -> set[str]:
        return {hold.id for hold in self.holds if hold.state == "held"}

    @property
    def lines(self) -> list[tuple[str, int, str, str | None, int | None]]:
        """Every line of money, to be compared with what stands there later."""
        return [(entry.journal, entry.seq, entry.kind, entry.hold_id, entry.cost_nusd) for entry in self.entries]

    def spent(self) -> int:
        return sum(entry.cost_nusd or 0 for entry in self.entries)

    def booked(self, hold_id: str) -> list[tuple[str, str]]:
        """Kind and quality of each line of one hold."""
        return [(entry.kind, entry.quality) for entry in self.entries if entry.hold_id == hold_id]

    def check(self) -> None:
        """Chains are whole, balances are their projection, each hold has left `held` at most once and has its one line of money."""
        assert [chain for chain in self.chains if chain.broken_at is not None] == []
        assert sum(chain.entries for chain in self.chains) == len(self.entries)
        assert self.balances == self.projected
        lines = Counter((entry.hold_id, entry.kind) for entry in self.entries)
        assert [line for line, count in lines.items() if count != 1] == []
        wanted = {(hold.id, KIND_OF[hold.state]) for hold in self.holds if hold.state in KIND_OF}
        assert {line for line in lines if line[1] != "late"} == wanted
        assert {hold for hold, kind in lines if kind == "late"} <= {hold.id for hold in self.holds if hold.state == "expired"}


async def read_books(url: str, now: datetime | None = None) -> Books:
    """Read the ledger at *url*. *now*: aware UTC, for the windows; `None`: this machine's."""
    async with _open(url) as conn:
        found = {table: await _all(conn, table) for table in (calls, holds, entries)}
        kept = _moved(await _all(conn, balances))
        chains = await verify_chains(conn)
        await conn.run_sync(lambda sync: project(sync, load_catalog(sync).limits, now or datetime.now(UTC)))
        projected = _moved(await _all(conn, balances))
        await conn.rollback()
    return Books(
        calls=found[calls],
        holds=found[holds],
        entries=found[entries],
        balances=kept,
        projected=projected,
        chains=chains,
    )


def copy_file(path: Path, there: Path) -> None:
    """Copy a SQLite file as of one moment, with what is in its WAL, and leave it as it is."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source:  # noqa: SIM117 -- one needs the other
        with contextlib.closing(sqlite3.connect(there)) as target:
            source.backup(target)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[AsyncConnection]:
    with tempfile.TemporaryDirectory(prefix="quota-router-books-") as folder:
        if not is_postgres(url):
            copy = Path(folder) / "ledger.db"
            copy_file(read_path(url), copy)
            url = f"sqlite+aiosqlite:///{copy}"
        engine = create_async_engine(url, pool_size=1)
        try:
            async with engine.connect() as conn:
                yield conn
        finally:
            await engine.dispose()


async def _all(conn: AsyncConnection, table: Table) -> Sequence[Row[Any]]:
    return (await conn.execute(select(table).order_by(*table.primary_key.columns))).all()


def _moved(rows: Sequence[Row[Any]]) -> dict[tuple[str, datetime], tuple[int, int]]:
    return {(row.limit_name, row.bucket): (row.posted, row.held) for row in rows if row.posted or row.held}

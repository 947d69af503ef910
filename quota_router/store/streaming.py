"""
The lines of money, from the first to the last, a batch at a time.

Law: by journal and seq, so that the order is the same each time; never more than one batch in memory, however long the ledger is.
Never: decides what a line means.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from quota_router.store.lines import STORED
from quota_router.store.tables import entries, journals

BATCH_ROWS = 2_000
"""About a megabyte."""


def stream_entries(conn: Connection, since: datetime | None = None, until: datetime | None = None) -> Iterator[Sequence[Row[Any]]]:
    """
    Read the entries that were held in `[since, until)`, as rows of `STORED`, in batches of at most `BATCH_ROWS`.

    Args:
        conn: in a reading transaction; nothing else is asked of it between two batches.
        since: aware; `None`: from the first.
        until: aware; `None`: to the last.
    """
    asked = select(*STORED).order_by(entries.c.journal, entries.c.seq)
    if since is not None:
        asked = asked.where(entries.c.held_at >= since)
    if until is not None:
        asked = asked.where(entries.c.held_at < until)
    # The server keeps the rest: without a cursor of its own it would send all of it at once.
    with conn.execute(asked, execution_options={"stream_results": True, "yield_per": BATCH_ROWS}) as found:
        yield from found.partitions()


def count_entries(conn: Connection) -> int:
    """About how many there are, for whoever shows how far he is: what the heads say."""
    return int(conn.execute(select(func.coalesce(func.sum(journals.c.seq), 0))).scalar_one())

"""
Reading the ledger again, from the first line of money to the last.

Law: each entry's hash is worked out anew from the entry before it; what the journal's head says is compared, never believed.
Never: writes, or mends what it finds.

Decision 2026-11 -- behind a line that was altered the walk goes on from the hash that stands there: each altered line is named, and
    not everything behind the first one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from quota_router.store.lines import chain
from quota_router.store.present import GENESIS
from quota_router.store.rows import Entry
from quota_router.store.streaming import stream_entries
from quota_router.store.tables import journals

BREAKS_KEPT = 100
"""Of one journal: who reads on has lost the ledger anyway."""
_JOURNAL, _SEQ, _COST, _AT = (Entry.__struct_fields__.index(name) for name in ("journal", "seq", "cost_nusd", "at"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One journal, as it was found."""

    journal: str
    entries: int
    cost_nusd: int
    """the sum of its entries; those without a price count nothing"""
    broken_at: int | None
    """the first `seq` that does not follow from the one before, or is missing; `None`: it is whole"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One place where a chain does not hold, and in what way."""

    seq: int
    text: str
    is_mark: bool = False
    """it holds in itself, but is not what was kept elsewhere"""


@dataclass(slots=True, kw_only=True)
class Walk:
    """Walks one journal, entry by entry, in the order of `seq`."""

    journal: str
    marks: Mapping[int, bytes] = field(default_factory=dict)
    """hashes that were kept elsewhere, by `seq`"""
    entries: int = 0
    cost_nusd: int = 0
    seq: int = GENESIS.seq
    digest: bytes = GENESIS.hash
    at: int = 0
    """when the last entry was booked, as it is stored"""
    breaks: list[Break] = field(default_factory=list)
    """the first `BREAKS_KEPT`"""
    broken: int = 0
    """how many there are"""
    _altered: bytes | None = None
    """what the last entry's hash should have been, where it is another"""

    def take(self, values: Sequence[Any], stored: bytes) -> None:
        """Take the next entry: its values in the order of the table, and its hash as it stands there."""
        seq: int = values[_SEQ]
        if seq != self.seq + 1:
            # What follows a gap cannot be judged: what it was hashed onto is gone.
            self._break(self.seq + 1, self._gap(seq))
            self._altered = None
        elif _hash(self.digest, values) == stored or (self._altered is not None and _hash(self._altered, values) == stored):
            self._altered = None
        else:
            self._break(seq, "was altered: its hash does not follow from it and the entry before.")
            self._altered = _hash(self.digest, values)
        if self.marks and self.marks.get(seq, stored) != stored:
            self._break(seq, "has another hash than was kept elsewhere: it, or what stands before it, was rewritten.", is_mark=True)
        cost_nusd = values[_COST]
        self.seq, self.digest, self.at, self.entries = seq, stored, values[_AT], self.entries + 1
        self.cost_nusd += cost_nusd if isinstance(cost_nusd, int) else 0

    def end(self, head: Row[Any] | None) -> None:
        """Compare with the journal's head; `None`: it has none."""
        if head is None:
            if self.entries:
                self._break(self.seq + 1, "may be missing: the journal has lost its head.")
        elif head.seq > self.seq:
            self._break(self.seq + 1, f"is missing{_up_to(self.seq + 1, head.seq)}: the journal's head says that it ends there.")
        elif head.seq < self.seq:
            self._break(head.seq + 1, f"was added behind the journal's head, which is {head.seq}.")
        elif head.hash != self.digest:
            self._break(self.seq, "has another hash than the journal's head.")
        for seq in sorted(seq for seq in self.marks if seq > self.seq):
            self._break(seq, f"is missing: its hash was kept elsewhere, and the journal ends at {self.seq}.", is_mark=True)

    def _gap(self, seq: int) -> str:
        if seq <= self.seq:
            return f"does not follow: {seq} stands there."
        return f"is missing{_up_to(self.seq + 1, seq - 1)}."

    def _break(self, seq: int, text: str, *, is_mark: bool = False) -> None:
        self.broken += 1
        if len(self.breaks) < BREAKS_KEPT:
            self.breaks.append(Break(seq=seq, text=f"Entry {seq} of journal {self.journal} {text}", is_mark=is_mark))


class Chains:
    """Walks every journal, in the order of their names."""

    def __init__(self, heads: Mapping[str, Row[Any]], marks: Mapping[str, Mapping[int, bytes]] | None = None) -> None:
        self._heads = heads
        self._marks = marks or {}
        self._walks: dict[str, Walk] = {}
        self._walk: Walk | None = None

    def take(self, row: Row[Any]) -> None:
        """Take the next row of `STORED`, by journal and seq."""
        walk = self._walk
        if walk is None or row[_JOURNAL] != walk.journal:
            walk = self._walk = self._begin(row[_JOURNAL])
        walk.take(row[:-1], row[-1])

    def end(self) -> list[Walk]:
        """Compare with the heads; a journal of which only a head is left is told as well."""
        for journal in {*self._heads, *self._marks} - set(self._walks):
            self._begin(journal)
        for journal, walk in self._walks.items():
            walk.end(self._heads.get(journal))
        return [self._walks[journal] for journal in sorted(self._walks)]

    def _begin(self, journal: str) -> Walk:
        return self._walks.setdefault(journal, Walk(journal=journal, marks=self._marks.get(journal, {})))


def read_heads(conn: Connection) -> dict[str, Row[Any]]:
    """Read the head of every journal: its name, seq and hash."""
    rows: Iterable[Any] = conn.execute(select(journals.c.name, journals.c.seq, journals.c.hash))
    return {row.name: row for row in rows}


async def verify_chains(conn: AsyncConnection) -> list[Chain]:
    """Walk every journal, whole. *conn* is a reading transaction."""
    return await conn.run_sync(_verify)


def _verify(conn: Connection) -> list[Chain]:
    chains = Chains(read_heads(conn))
    for batch in stream_entries(conn):
        for row in batch:
            chains.take(row)
    return [
        Chain(
            journal=walk.journal,
            entries=walk.entries,
            cost_nusd=walk.cost_nusd,
            broken_at=walk.breaks[0].seq if walk.breaks else None,
        )
        for walk in chains.end()
    ]


def _hash(previous: bytes, values: Sequence[Any]) -> bytes | None:
    """Hash one entry; `None`: it holds what no entry can, such as bytes that are no text."""
    try:
        return chain(previous, values)
    except (TypeError, ValueError):
        return None


def _up_to(first: int, last: int) -> str:
    return "" if first == last else f", and so is all up to {last}"

"""
What the ledger tells: sums, lines of money, and the story of one call, as plain values in the shapes of the API.

Law: each answer is read in one transaction of the read engine, so that it shows one moment; what it shows was committed.
Never: writes, decides who may see what (the web does), or shows a secret: there is none in these tables.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from quota_router.core.adjustments import FIRST_ID, LAST_ID
from quota_router.core.estimates import Estimate
from quota_router.core.holds import EntryKind, HoldState, Outcome, state_of_call
from quota_router.errors import InvalidRequest, LedgerUnavailable, UnknownCall
from quota_router.store.cursors import read_cursor, write_cursor
from quota_router.store.shapes import decode, show_attempt, show_entry, show_head, show_instant
from quota_router.store.tables import calls, entries, holds, journals
from quota_router.store.usage_report import read_usage

__all__ = ["ENTRY_FILTERS", "PAGE_MAX", "Reports", "Routed", "show_instant"]

PAGE_MAX = 1_000
"""Items of one page of any list."""
ENTRY_FILTERS = ("journal", "kind", "provider", "account", "model", "caller", "call_id", "hold_id")
"""Columns of `entries` that may be asked to equal a word."""
_SEQ_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A decision that was given and held: what is needed to give it again."""

    call_id: str
    fingerprint: str | None
    model: str
    provider: str
    upstream_model: str
    hold_id: str
    expires_at: datetime
    estimate_nusd: int | None
    """`None`: the price is unknown"""
    decision: dict[str, Any]
    """its rungs, and who led there"""


class Reports:
    """Reads the ledger. Give it the read engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def usage(self, group_by: Sequence[str], since: datetime | None, until: datetime | None, tz: ZoneInfo) -> dict[str, Any]:
        """
        Calls, tokens, cost and latency of what was held in `[since, until)`, in groups and in total.

        Raises:
            InvalidRequest: as `read_usage` says.
            LedgerUnavailable: the database cannot be read.
        """
        async with self._reading() as conn:
            return await read_usage(conn, group_by, since, until, tz)

    async def entries(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        matching: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """
        One page of the lines of money, by journal and seq.

        Args:
            limit: 1 to `PAGE_MAX`.
            cursor: `next` of the page before.
            since: by `held_at` as in `usage`, so that the lines of a time add up to its sums; aware.
            until: likewise; not included.
            matching: values by column, of `ENTRY_FILTERS`.

        Raises:
            InvalidRequest: the cursor is none of ours.
            LedgerUnavailable: the database cannot be read.
        """
        assert 1 <= limit <= PAGE_MAX
        place = tuple_(entries.c.journal, entries.c.seq)
        asked = select(entries).order_by(entries.c.journal, entries.c.seq).limit(limit + 1)
        asked = asked.where(*(_matches(name, value) for name, value in (matching or {}).items()))
        if cursor is not None:
            asked = asked.where(place > tuple_(*_read_place(cursor)))
        if since is not None:
            asked = asked.where(entries.c.held_at >= since)
        if until is not None:
            asked = asked.where(entries.c.held_at < until)
        async with self._reading() as conn:
            rows = (await conn.execute(asked)).all()
        page = rows[:limit]
        more = write_cursor(page[-1].journal, page[-1].seq) if len(rows) > limit else None
        return {"items": [show_entry(row) for row in page], "next": more}

    async def entry(self, journal: str, seq: int) -> dict[str, Any]:
        """Tell one line of money that is there. Raises `LedgerUnavailable`."""
        async with self._reading() as conn:
            asked = select(entries).where(entries.c.journal == journal, entries.c.seq == seq)
            return show_entry((await conn.execute(asked)).one())

    async def journals(self) -> dict[str, dict[str, Any]]:
        """
        Tell the head of every journal that holds an entry, by its name: where its chain ends. An empty one has no end to keep.

        Raises:
            LedgerUnavailable: the database cannot be read.
        """
        asked = select(journals).where(journals.c.seq > 0).order_by(journals.c.name)
        async with self._reading() as conn:
            return {row.name: show_head(row) for row in await conn.execute(asked)}

    async def attempt_of(self, call_id: str) -> str:
        """
        Find the hold of a call whose money may be adjusted: the one that was booked, else the last.

        Raises:
            UnknownCall: there is none of that id.
            InvalidRequest: nothing was attempted, or several attempts were booked.
            LedgerUnavailable: the database cannot be read.
        """
        async with self._reading() as conn:
            is_there = (await conn.execute(select(calls.c.id).where(calls.c.id == call_id))).one_or_none() is not None
            asked = select(holds.c.id, holds.c.state).where(holds.c.call_id == call_id).order_by(holds.c.attempt)
            attempts = (await conn.execute(asked)).all()
        if not is_there:
            raise UnknownCall
        if not attempts:
            raise InvalidRequest(
                "That call was refused: nothing was attempted. Say whose money it is by `provider`.", param="call_id"
            )
        booked: list[str] = [attempt.id for attempt in attempts if attempt.state in {HoldState.POSTED, HoldState.EXPIRED}]
        if len(booked) > 1:
            message = f"Several attempts of that call were booked. Name one as `hold_id`: {', '.join(booked)}."
            raise InvalidRequest(message, param="call_id")
        return booked[0] if booked else str(attempts[-1].id)

    async def call(self, call_id: str) -> dict[str, Any]:
        """
        The whole story of a call.

        Costs are what was booked; `None` where a price is unknown, or an attempt is not settled yet.

        Raises:
            UnknownCall: there is none of that id.
            LedgerUnavailable: the database cannot be read.
        """
        async with self._reading() as conn:
            call = (await conn.execute(select(calls).where(calls.c.id == call_id))).one_or_none()
            if call is None:
                raise UnknownCall
            attempts = (await conn.execute(select(holds).where(holds.c.call_id == call_id).order_by(holds.c.attempt))).all()
            lines = select(entries).where(_is_of_call(call_id)).order_by(entries.c.at, entries.c.journal, entries.c.seq)
            booked = (await conn.execute(lines)).all()
        last = attempts[-1].outcome if attempts else None
        tried = [show_attempt(hold, [line for line in booked if line.hold_id == hold.id]) for hold in attempts]
        is_unpriced = any(attempt["cost_nusd"] is None and attempt["usage"] is not None for attempt in tried)
        return {
            "id": call.id,
            "caller": call.caller,
            "model": call.model,
            "labels": decode(call.labels),
            "state": state_of_call(Outcome(last) if last else None, was_held=bool(attempts)),
            "decision": _read_decision(call.decision),
            "attempts": tried,
            "entries": [show_entry(line) for line in booked],
            "cost_nusd": None if is_unpriced else sum(line.cost_nusd or 0 for line in booked),
        }

    async def routed(self, call_id: str) -> Routed | None:
        """Find the decision and the hold that a call was given first; `None`: it was given none."""
        asked = select(holds, calls.c.fingerprint.label("asked"), calls.c.decision).join(calls, calls.c.id == holds.c.call_id)
        async with self._reading() as conn:
            row = (await conn.execute(asked.where(calls.c.id == call_id, holds.c.attempt == 1))).one_or_none()
        if row is None:
            return None
        return Routed(
            call_id=call_id,
            fingerprint=row.asked,
            model=row.model,
            provider=row.provider,
            upstream_model=row.upstream_model,
            hold_id=row.id,
            expires_at=row.expires_at,
            estimate_nusd=Estimate.from_json(row.estimate).likely_nusd,
            decision=_read_decision(row.decision),
        )

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """One snapshot. Foreign errors are translated here, at the rim."""
        try:
            async with self._engine.connect() as conn:
                yield conn
        except SQLAlchemyError as exc:
            raise LedgerUnavailable("The ledger's database cannot be read now.") from exc


def _read_place(cursor: str) -> tuple[str, int]:
    """After which entry a page begins. A seq beyond what the database counts is beyond its last."""
    journal, seq = read_cursor(cursor, tuple[str, int])
    return journal, min(seq, _SEQ_MAX)


def _matches(name: str, value: str) -> ColumnElement[bool]:
    """Compare one column; a call's entries have their own way."""
    return _is_of_call(value) if name == "call_id" else entries.c[name] == value


def _is_of_call(call_id: str) -> ColumnElement[bool]:
    """Find a call's entries through its holds, and its adjustments among all of them: both by the index on `hold_id`."""
    is_adjustment = and_(entries.c.hold_id.between(FIRST_ID, LAST_ID), entries.c.kind == EntryKind.ADJUST)
    return or_(
        entries.c.hold_id.in_(select(holds.c.id).where(holds.c.call_id == call_id)),
        and_(is_adjustment, entries.c.call_id == call_id),
    )


def _read_decision(text: str) -> dict[str, Any]:
    """A decision as it was stored; earlier ones tell of their rungs alone."""
    told = decode(text)
    return {"rungs": told} if isinstance(told, list) else told

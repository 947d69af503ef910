"""What the store does when its database does not: admission fails closed, and what was spent waits to be booked."""

import asyncio
import contextlib
import sqlite3

import pytest
from ledger_kit import Clock, admit, catalog, limit, open_ledger, post

from quota_router.errors import LedgerUnavailable
from quota_router.store.ledger import Settle


@pytest.fixture
def clock():
    return Clock()


async def gauge(lane, clock, name="cap"):
    (found,) = (cap for cap in lane.catalog.limits if cap.name == name)
    return (await lane.snapshot()).gauge(found, clock())


def alter(folder, *statements):
    """Change the ledger's file behind the daemon's back."""
    with contextlib.closing(sqlite3.connect(folder / "state" / "ledger.db")) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()


async def test_a_database_that_refuses_writes_refuses_admission_and_keeps_settlements(tmp_path, clock):
    """
    Admission fails closed; a settlement waits and is booked once the database takes writes again.
    """
    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of, settle_wait_s=30) as lane:
        hold = (await lane.run(admit(of))).hold
        full = "CREATE TRIGGER full_{0} BEFORE INSERT ON {0} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        await asyncio.to_thread(alter, tmp_path, full.format("entries"), full.format("calls"))
        settling = asyncio.ensure_future(lane.run(Settle(hold_id=hold.id, settlement=post()), settles=True))
        with pytest.raises(LedgerUnavailable):
            async with asyncio.timeout(10):
                await asyncio.gather(lane.run(admit(of)))
        await asyncio.to_thread(alter, tmp_path, "DROP TRIGGER full_entries", "DROP TRIGGER full_calls")
        async with asyncio.timeout(10):
            assert (await settling).state == "posted"
        assert lane.trouble is None
        assert (await gauge(lane, clock)).posted == 1


async def test_a_database_that_cannot_be_opened_for_a_while_keeps_settlements_and_the_lane(tmp_path, clock):
    """
    The connection was lost, and what stands at the ledger's place is no ledger: the lane refuses until it is back, and lives.
    """
    of = catalog(limit())
    state, gone = tmp_path / "state", tmp_path / "gone"
    async with open_ledger(tmp_path, clock, of, settle_wait_s=30) as lane:
        hold = (await lane.run(admit(of))).hold
        full = "CREATE TRIGGER full_entries BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        await asyncio.to_thread(alter, tmp_path, full)
        state.rename(gone)
        state.mkdir(mode=0o700)
        (state / "ledger.db").write_bytes(b"not a database, " * 256)
        settling = asyncio.ensure_future(lane.run(Settle(hold_id=hold.id, settlement=post()), settles=True))
        with pytest.raises(LedgerUnavailable):
            await asyncio.wait_for(lane.run(admit(of)), 10)
        (state / "ledger.db").unlink()
        state.rmdir()
        gone.rename(state)
        await asyncio.to_thread(alter, tmp_path, "DROP TRIGGER full_entries")
        async with asyncio.timeout(10):
            assert (await settling).state == "posted"
        assert lane.is_alive
        assert lane.trouble is None

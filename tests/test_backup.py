"""A copy of a ledger in use: whole, its owner's alone, and never over another file."""

import asyncio
import os
import sqlite3
import stat
from contextlib import closing

import pytest
from database_kit import url_of
from ledger_kit import Clock, admit, catalog, limit, open_ledger, post
from tamper_kit import tampering

from quota_router.core.limits import Unit
from quota_router.errors import LedgerUnavailable
from quota_router.store import backup as room
from quota_router.store.backup import BackupFailed, back_up
from quota_router.store.ledger import Settle
from quota_router.store.open import Durability, open_engines, reading_file
from quota_router.store.reports import Reports

OF = catalog(limit(unit=Unit.USD, limit=10**12))


async def spend(lane):
    hold = (await lane.run(admit(OF))).hold
    await lane.run(Settle(hold_id=hold.id, settlement=post()))


@pytest.fixture
async def ledger(tmp_path):
    async with open_ledger(tmp_path, Clock(), OF) as lane:
        for _ in range(3):
            await spend(lane)
    return tmp_path


def copy(folder, name="copy.db", **told):
    return back_up(url_of(folder), folder / name, Clock().now, **told)


async def test_a_copy_opens_as_a_ledger_and_is_whole(ledger):
    verdict = copy(ledger)
    assert (verdict.is_whole, verdict.walks[0].entries, verdict.balances) == (True, 3, 1)
    assert stat.S_IMODE((ledger / "copy.db").stat().st_mode) == 0o600
    assert sorted(file.name for file in ledger.iterdir()) == ["copy.db", "state"]
    async with open_engines(f"sqlite+aiosqlite:///{ledger}/copy.db", Durability.POWER, Clock()) as engines:
        items = (await Reports(engines.read).entries(limit=10))["items"]
    assert [item["cost_nusd"] for item in items] == [60_000] * 3


async def test_a_copy_is_made_while_the_ledger_is_written_and_shows_one_moment(tmp_path, monkeypatch):
    """
    What is committed while it copies is not in it, not even by half.
    """
    monkeypatch.setattr(room, "PAGES_AT_ONCE", 1)
    async with open_ledger(tmp_path, Clock(), OF) as lane:
        await spend(lane)
        steps = []

        def told(done, total):
            if len(steps) < 5:  # one step of the copy, then one more call that is settled
                asyncio.run_coroutine_threadsafe(spend(lane), loop).result()
            steps.append((done, total))

        loop = asyncio.get_running_loop()
        verdict = await asyncio.to_thread(copy, tmp_path, copied=told)
        assert (verdict.is_whole, verdict.walks[0].entries) == (True, 1)
        assert steps[-1][0] == steps[-1][1] == len(steps)
        assert copy(tmp_path, "later.db").walks[0].entries == 6


async def test_what_stands_in_the_log_alone_is_in_the_copy(ledger):
    """
    A crash leaves entries in the write-ahead log; a copy of the file would not have them.
    """
    async with open_ledger(ledger, Clock()) as lane:
        await spend(lane)
        assert (ledger / "state" / "ledger.db-wal").stat().st_size > 0
        assert copy(ledger).walks[0].entries == 4


@pytest.mark.parametrize("name", ["copy.db", "copy.db.partial"])
async def test_a_file_that_is_there_stays_as_it_is(ledger, name):
    (ledger / name).write_text("mine")
    with pytest.raises(BackupFailed, match=r"is there already|is left of a backup"):
        copy(ledger)
    assert (ledger / name).read_text() == "mine"
    (ledger / name).unlink()
    (ledger / name).symlink_to(ledger / "nowhere")
    with pytest.raises(BackupFailed):
        copy(ledger)
    assert not (ledger / "nowhere").exists()


async def test_a_copy_that_cannot_be_written_leaves_nothing_behind(ledger, monkeypatch):
    with pytest.raises(BackupFailed, match="cannot be written: No such file"):
        copy(ledger, "no/such/copy.db")

    def refuse(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(BackupFailed, match="could not be written: database or disk is full"):
        copy(ledger, copied=refuse)
    assert [file.name for file in ledger.iterdir()] == ["state"]
    with pytest.raises(LedgerUnavailable, match="unable to open"):
        back_up(f"sqlite+aiosqlite:///{ledger}/none.db", ledger / "copy.db", Clock().now)
    assert [file.name for file in ledger.iterdir()] == ["state"]


async def test_two_that_make_one_copy_make_one(ledger):
    """
    Whoever comes second finds the name taken, also when both began at once.
    """
    with pytest.raises(BackupFailed, match="is there already"):
        copy(ledger, copied=lambda *_: (ledger / "copy.db").write_text("the other's"))
    assert (ledger / "copy.db").read_text() == "the other's"


async def test_a_file_system_without_links_gets_its_copy_too(ledger, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert copy(ledger).is_whole
    assert sorted(file.name for file in ledger.iterdir()) == ["copy.db", "state"]


async def test_what_is_wrong_with_a_ledger_is_told_of_its_copy(ledger):
    with tampering(ledger) as run:
        run("UPDATE entries SET cost_nusd = 1 WHERE seq = 2")
    verdict = copy(ledger)
    assert "Entry 2 of journal main was altered" in verdict.findings[0].text
    with reading_file(ledger / "copy.db") as conn, closing(sqlite3.connect(ledger / "copy.db")) as other:
        assert conn.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "delete"
        assert other.execute("SELECT cost_nusd FROM entries WHERE seq = 2").fetchone() == (1,)

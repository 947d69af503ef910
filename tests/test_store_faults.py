"""What the store does when its database does not: admission fails closed, and what was spent waits to be booked."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import database_kit
import pytest
from books_kit import read_books
from daemon_kit import environ, get
from database_kit import POSTGRES, SQLITE
from faults_kit import refusing, session
from ledger_kit import Clock, admit, call, catalog, limit, open_ledger, post
from msgspec.structs import replace
from outage_kit import KEYS, House, address_of, launch, open_house, open_house_apart
from sqlalchemy.engine import make_url

from quota_router.core.catalog import Caller
from quota_router.errors import LedgerUnavailable, QuotaRouterError
from quota_router.store import lane as lane_room
from quota_router.store.ledger import Settle
from quota_router.store.spill import Spilled, claim_spill


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """An admission is refused after half a second rather than five."""
    monkeypatch.setattr(lane_room, "ADMIT_WAIT_S", 0.5)
    yield
    database_kit.use(SQLITE)


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
        full = "CREATE TRIGGER full_{0} BEFORE INSERT ON {0} BEGIN SELECT abs(-9223372036854775807 - 1); END"
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


POISON = "CREATE TRIGGER poison BEFORE INSERT ON entries WHEN NEW.caller = 'poison' BEGIN SELECT RAISE(ABORT, 'refused'); END"


async def test_a_row_that_the_database_refuses_stops_nobody_else(tmp_path, clock):
    """
    What it would have booked waits for a person; its hold stays open, and calls beside it and after it go on.
    """
    of = catalog(limit())
    with contextlib.closing(claim_spill(tmp_path)) as spill:
        async with open_ledger(tmp_path, clock, of, spill=spill) as lane:
            poisoned = replace(call(), caller=Caller(name="poison", token_sha256="0" * 64))
            bad, good = (await lane.run(admit(of, poisoned))).hold, (await lane.run(admit(of))).hold
            await asyncio.to_thread(alter, tmp_path, POISON)
            jobs = [Settle(hold_id=hold.id, settlement=post()) for hold in (bad, good)]
            told = await asyncio.gather(*(lane.run(job, settles=True) for job in jobs), return_exceptions=True)
            assert isinstance(told[0], QuotaRouterError)
            assert told[1].state == "posted"
            assert (await lane.run(admit(of))).hold.id not in {bad.id, good.id}
            assert lane.trouble is None
        assert not spill
    (line,) = (tmp_path / "settlements-1.refused").read_text().splitlines()
    assert bad.id in line


async def test_a_spilled_row_that_the_database_refuses_does_not_keep_a_ledger_from_opening(tmp_path, clock):
    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of) as lane:
        poisoned = replace(call(), caller=Caller(name="poison", token_sha256="0" * 64))
        bad, good = (await lane.run(admit(of, poisoned))).hold, (await lane.run(admit(of))).hold
    await asyncio.to_thread(alter, tmp_path, POISON)
    with contextlib.closing(claim_spill(tmp_path)) as spill:
        spill.keep([Spilled(hold_id=hold.id, settlement=post()) for hold in (bad, good)])
        async with open_ledger(tmp_path, clock, of, spill=spill) as lane:
            assert (await lane.run(Settle(hold_id=good.id, settlement=post()))).replayed
        assert not spill
    assert bad.id in (tmp_path / "settlements-1.refused").read_text()


async def test_a_database_that_cannot_be_opened_for_a_while_keeps_settlements_and_the_lane(tmp_path, clock):
    """
    The connection was lost, and what stands at the ledger's place is no ledger: the lane refuses until it is back, and lives.
    """
    of = catalog(limit())
    state, gone = tmp_path / "state", tmp_path / "gone"
    async with open_ledger(tmp_path, clock, of, settle_wait_s=30) as lane:
        hold = (await lane.run(admit(of))).hold
        full = "CREATE TRIGGER full_entries BEFORE INSERT ON entries BEGIN SELECT abs(-9223372036854775807 - 1); END"
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


# --- a whole daemon, whose ledger is taken away and given back --------------------------------------------------------------


@asynccontextmanager
async def locked(house: House) -> AsyncIterator[None]:
    """Another process has begun to write and does not end."""
    hold = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", hold, str(house.file), **pipes)
    assert await other.stdout.readline() == b"\n"
    yield
    other.stdin.close()
    await other.wait()


@asynccontextmanager
async def without_rows(house: House) -> AsyncIterator[None]:
    """It can be read, and takes no line of money and no call."""
    async with refusing(house.ledger, "entries", "calls", "journals"):
        yield


@asynccontextmanager
async def removed(house: House) -> AsyncIterator[None]:
    """Somebody has tidied up; what he removed was kept elsewhere."""
    kept = house.folder / "kept.db"
    kept.hardlink_to(house.file)
    house.file.unlink()
    yield
    for _ in range(2):
        await asyncio.gather(*(ask_for_usage(house) for _ in range(8)))
    assert not house.file.exists(), "it was made anew"
    kept.rename(house.file)


async def ask_for_usage(house: House) -> None:
    """Let a reader look; what it says meanwhile is another matter."""
    with contextlib.suppress(AssertionError):
        await get(house.url, "/api/v1/usage")


@asynccontextmanager
async def without_wal(house: House) -> AsyncIterator[None]:
    """What was written last stands in a file that has no name any more: a crash would lose it."""
    wal, kept = house.file.with_name("ledger.db-wal"), house.folder / "kept.db-wal"
    kept.hardlink_to(wal)
    wal.unlink()
    yield
    assert not wal.exists(), "it was made anew"
    kept.rename(wal)


@asynccontextmanager
async def replaced(house: House) -> AsyncIterator[None]:
    """Somebody has put a backup into its place."""
    kept, backup = house.folder / "kept.db", house.folder / "backup.db"
    shutil.copy(house.file, backup)
    before = backup.read_bytes()
    house.file.rename(kept)
    backup.rename(house.file)
    yield
    await asyncio.gather(*(ask_for_usage(house) for _ in range(8)))
    assert house.file.read_bytes() == before, "the backup was written into"
    kept.rename(house.file)


def truncated(size: float) -> Any:
    """It lost its end, and gets it back. *size*: what is left of it, as a part of the whole."""

    @asynccontextmanager
    async def fault(house: House) -> AsyncIterator[None]:
        content = house.file.read_bytes()
        os.truncate(house.file, int(len(content) * size))
        yield
        assert house.file.stat().st_size == int(len(content) * size), "it was written into"
        house.file.write_bytes(content)

    return fault


@asynccontextmanager
async def read_only_sessions(house: House) -> AsyncIterator[None]:
    """The server has become a replica of another."""
    name = make_url(house.ledger).database
    with session(house.ledger) as run:
        run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        end_sessions(run, name)
        yield
        run(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


@asynccontextmanager
async def renamed(house: House) -> AsyncIterator[None]:
    """Somebody restores a table."""
    with session(house.ledger) as run:
        run("ALTER TABLE journals RENAME TO journals_kept")
        yield
        run("ALTER TABLE journals_kept RENAME TO journals")


@asynccontextmanager
async def not_let_in(house: House) -> AsyncIterator[None]:
    """The server takes no sessions for this database."""
    url = make_url(house.ledger)
    with session(url.set(database="postgres").render_as_string(hide_password=False)) as run:
        run(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
        end_sessions(run, url.database)
        yield
        run(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true')


def end_sessions(run: Any, database: str) -> None:
    run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", database)


OUTAGES = {
    "sqlite, locked by another process": (SQLITE, locked, "database is locked"),
    "sqlite, without room for rows": (SQLITE, without_rows, "integer overflow"),
    "sqlite, removed": (SQLITE, removed, "is gone"),
    "sqlite, without its WAL": (SQLITE, without_wal, "is gone"),
    "sqlite, replaced by a backup": (SQLITE, replaced, "was replaced"),
    "sqlite, truncated to nothing": (SQLITE, truncated(0), "was cut"),
    "sqlite, truncated to a half": (SQLITE, truncated(0.5), "was cut"),
    "postgres, without room for rows": (POSTGRES, without_rows, "disk full"),
    "postgres, read-only": (POSTGRES, read_only_sessions, "read-only transaction"),
    "postgres, without a table": (POSTGRES, renamed, "journals"),
    "postgres, not letting us in": (POSTGRES, not_let_in, "not currently accepting connections"),
}


async def go_through(house: House, fault: Any, reason: str) -> None:
    """
    Take the ledger away under calls that run, and give it back.

    That it is away is said although nobody calls. Answers under way end whole: what they cost is safe. No other call is taken.
    """
    await house.begin()
    async with fault(house):
        await house.until_unready(reason)
        refused = asyncio.create_task(house.ask_all())
        await house.finish()
        for told in await refused:
            assert (told.status, told.error["code"]) == (503, "ledger_unavailable")
            assert reason in told.error["message"]
        assert (await house.readiness())[0] == 503
    await house.until_ready()
    assert {told.status for told in await house.ask_all()} == {200}
    await house.check()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_calls_under_way_end_whole_and_no_other_is_taken_until_the_ledger_is_back(tmp_path, outage):
    """
    The same daemon goes on when it is back; everything acknowledged is booked once.
    """
    database, fault, reason = OUTAGES[outage]
    database_kit.use(database)
    async with open_house(tmp_path) as house:
        await go_through(house, fault, reason)
    await house.check()


# --- a disk that is full, or cannot be written ------------------------------------------------------------------------------


@contextlib.contextmanager
def without_room(house: House) -> Iterator[None]:
    """No file of the daemon grows beyond where its WAL ends now; what was laid out before can be written."""
    assert house.process is not None
    pid, wal = house.process.pid, house.file.with_name("ledger.db-wal")
    before, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, most))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (before, most))


@asynccontextmanager
async def full(house: House) -> AsyncIterator[None]:
    with without_room(house):
        yield


@asynccontextmanager
async def read_only(house: House) -> AsyncIterator[None]:
    """A write failed, and what the system then did to the disk let nobody write any more: as ext4 does by default."""
    files = [house.file, *house.file.parent.glob("ledger.db-*")]
    for file in files:
        file.chmod(0o400)
    house.file.parent.chmod(0o500)
    with without_room(house):
        await house.until_unready("disk I/O error")
    yield
    house.file.parent.chmod(0o700)
    for file in files:
        file.chmod(0o600)


@pytest.mark.parametrize(("fault", "reason"), [(full, "disk I/O error"), (read_only, "readonly database")])
async def test_a_daemon_outlives_a_disk_that_takes_nothing(tmp_path, fault, reason):
    """
    The spill file has its whole size from the start: what running answers cost is written into it.
    """
    async with open_house_apart(tmp_path) as house:
        await house.ask_all_at_once()
        await go_through(house, fault, reason)
        house.process.send_signal(signal.SIGTERM)
        assert await house.process.wait() == 0
        assert "Traceback" not in house.log
    await house.check()


@pytest.mark.parametrize("what", ["file", "folder", "file and folder"])
async def test_a_daemon_that_may_not_write_its_ledger_does_not_start_and_says_why(tmp_path, what):
    async with open_house(tmp_path) as house:
        await house.ask_all_at_once()
    before = (await house.check()).lines
    for beside in house.file.parent.glob("ledger.db-*"):
        beside.unlink()  # whoever looked has left them, empty
    house.file.chmod(0o400 if "file" in what else 0o600)
    house.file.parent.chmod(0o500 if "folder" in what else 0o700)
    process = await launch(tmp_path / "quota-router.toml", environ(tmp_path, **KEYS))
    assert await address_of(process) == ""
    assert await process.wait() in (1, 3)
    assert "readonly database" in house.log.splitlines()[-1]
    assert "Traceback" not in house.log
    house.file.parent.chmod(0o700)
    house.file.chmod(0o600)
    async with open_house(tmp_path):
        assert (await read_books(house.ledger)).lines == before


STARTS = {
    "locked by another process": (locked, "database is locked"),
    "without room for rows": (without_rows, "integer overflow"),
    "truncated to a half": (truncated(0.5), "malformed"),
}


@pytest.mark.parametrize("fault", STARTS)
async def test_a_daemon_whose_ledger_takes_no_writes_does_not_start_and_says_why(tmp_path, fault):
    """
    Nothing is lost by the attempt.
    """
    async with open_house(tmp_path) as house:
        await house.ask_all_at_once()
    before = (await house.check()).lines
    spoil, reason = STARTS[fault]
    async with spoil(house):
        with pytest.raises(LedgerUnavailable, match=reason):
            async with open_house(tmp_path):
                pytest.fail("it started")
    async with open_house(tmp_path):
        assert (await read_books(house.ledger)).lines == before


async def test_a_ledger_cut_to_nothing_after_a_crash_is_not_begun_anew(tmp_path):
    """
    SQLite would drop the WAL that is left of it, and with it what was written last.
    """
    async with open_house_apart(tmp_path) as house:
        await house.ask_all_at_once()
        house.process.kill()
        await house.process.wait()
        assert house.file.with_name("ledger.db-wal").stat().st_size > 0
        async with truncated(0)(house):
            with pytest.raises(LedgerUnavailable, match="is empty"):
                async with open_house(tmp_path):
                    pytest.fail("it started")
        async with open_house(tmp_path):
            await house.check()


async def test_a_daemon_whose_log_cannot_be_written_serves_all_the_same(tmp_path):
    """
    The disk that is full is often that of the log too.
    """
    async with open_house_apart(tmp_path, log=Path("/dev/full")) as house:
        assert {told.status for told in await house.ask_all_at_once()} == {200}
        house.process.send_signal(signal.SIGHUP)
        house.process.send_signal(signal.SIGTERM)
        assert await house.process.wait() == 0
    await house.check()

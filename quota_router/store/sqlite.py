"""
A ledger in a SQLite file: the connections to it, one that writes and a few that read.

Law: migrations write, and after them the lane, each over its one connection; every write transaction takes the lock when it begins,
and no second process opens the file (`ledger_file` sees to that). What a PRAGMA sets is read back; a setting that did not take is
a refusal, not a warning.
Never: runs a statement of its own after the start, makes tables, retries.

Decision 2026-11 -- Python's driver never begins a transaction by itself (`isolation_level=None`): it begins none before a
    SELECT, so two jobs could read the same balance. SQLAlchemy's `begin` event sends BEGIN instead. Look again when Python
    3.12 is the oldest supported (its `autocommit=False` begins plain transactions only, which is not enough for the writer).
    Source: SQLAlchemy 2.1, "SQLite transactions and the sqlite3 driver", read 2026-11-20.
Decision 2026-11 -- `skip_autocommit_rollback` stays off: SQLAlchemy takes `isolation_level=None` for autocommit and would
    then skip real rollbacks.
Decision 2026-11 -- readers never checkpoint: SQLite before 3.51.3 may corrupt a file on which two connections checkpoint or
    write at the same instant. Source: SQLite's release notes of 3.51.3, read 2026-11-20.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from quota_router.errors import ConfigError, LedgerUnavailable
from quota_router.store.engines import Durability, Engines
from quota_router.store.ledger_file import SETTING, LedgerFile, make_private, read_path, take_lock
from quota_router.store.sole import Sole

APPLICATION_ID = 0x71727472
"""`qrtr`: how `file` and we know a ledger from another program's database."""
OLDEST_SQLITE = (3, 37, 0)
"""The first that knows STRICT tables."""
SOUND_SQLITE = (3, 51, 3)
"""The first without the WAL-reset bug."""
BUSY_TIMEOUT_MS = 5_000
CHECKPOINT_PAGES = 1_000
READ_CONNECTIONS = 4

_log = structlog.get_logger(__name__)


_ONE_CONNECTION: dict[str, Any] = {
    "poolclass": QueuePool,
    "pool_size": 1,
    "max_overflow": 0,
}


@asynccontextmanager
async def open_sqlite(url: str, durability: Durability, clock: Callable[[], datetime]) -> AsyncIterator[Engines]:
    """
    Open the file for this process alone, and make it if there is none.

    Args:
        url: `sqlite+aiosqlite:////absolute/path` (three slashes: relative to the working directory).
        durability: what a commit survives.
        clock: gives aware UTC.

    Raises:
        ConfigError: the URL, the file's mode or the SQLite library will not do; the sentence says what to change.
        LedgerLocked: another process has it open; names its pid.
        LedgerUnavailable: SQLite cannot open it, or did not take a setting.
    """
    path = read_path(url)
    _judge_version(sqlite3.sqlite_version_info)
    lock_fd = take_lock(path)
    file = LedgerFile(path)
    lane = _tuned(create_engine("sqlite://", creator=lambda: _connect(file), **_ONE_CONNECTION), path, durability, writes=True)
    write, read = (_make_engine(file, durability, writes=writes) for writes in (True, False))
    try:
        make_private(path)
        # The writer goes first: it makes the file a WAL database, which the readers only find.
        for engine in (write, read):
            async with engine.connect():
                pass
        file.remember()
        yield Engines(lane=lane, write=write, read=read, tenure=Sole(file, clock), name=str(path), spill_folder=path.parent)
    finally:
        try:
            # Readers first, so that the writer's close is the last and checkpoints; then the lock goes.
            await read.dispose()
            await write.dispose()
            lane.dispose()
        finally:
            os.close(lock_fd)


def read_file(path: Path) -> Engine:
    """
    An engine that reads a ledger beside whoever writes it, or while nobody does. It takes no lock of ours.

    SQLite opens the file read-only: such a connection can neither write nor checkpoint, not even when it is the last to close.
    """
    file = LedgerFile(path)
    engine = create_engine("sqlite://", creator=lambda: _connect(file, "ro"), **_ONE_CONNECTION)
    return _with_settings(engine, path, {"busy_timeout": BUSY_TIMEOUT_MS, "trusted_schema": 0, "mmap_size": 0}, writes=False)


def _connect(file: LedgerFile, mode: str = "rw") -> sqlite3.Connection:
    """Open the file that is there; one that is gone is not made anew. Opened and used in the lane's thread, closed in another."""
    file.refuse_another()
    return sqlite3.connect(f"{file.path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False)


def _judge_version(version: tuple[int, ...]) -> None:
    text = ".".join(map(str, version))
    if version < OLDEST_SQLITE:
        raise ConfigError(f"SQLite {text} is too old for the ledger. Use a Python built with 3.37 or newer.")
    if version < SOUND_SQLITE:
        _log.warning(
            "This SQLite has the WAL-reset bug; one writer keeps clear of it, so let no other program write the ledger.",
            action="sqlite_old",
            version=text,
            fixed_in=".".join(map(str, SOUND_SQLITE)),
        )


def _make_engine(file: LedgerFile, durability: Durability, *, writes: bool) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=file.path.as_uri(), query={"mode": "rw", "uri": "true"}),
        connect_args={"isolation_level": None},
        pool_size=1 if writes else READ_CONNECTIONS,
        max_overflow=0,
    )
    event.listen(engine.sync_engine, "do_connect", lambda *_: file.refuse_another())
    _tuned(engine.sync_engine, file.path, durability, writes=writes)
    return engine


def _tuned(engine: Engine, path: Path, durability: Durability, *, writes: bool) -> Engine:
    return _with_settings(engine, path, _list_settings(durability, writes=writes), writes=writes)


def _with_settings(engine: Engine, path: Path, settings: dict[str, int | str], *, writes: bool) -> Engine:
    """Let every connection of *engine* take these settings, and every transaction begin as it must."""
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    def on_connect(dbapi: DBAPIConnection, _record: object) -> None:
        try:
            _configure(dbapi, settings, path, writes=writes)
        except (sqlite3.Error, SQLAlchemyError) as exc:
            dbapi.close()
            raise LedgerUnavailable(f"SQLite cannot open the ledger {path}: {exc}.") from exc
        except BaseException:
            # The pool does not close a connection whose connect event failed.
            dbapi.close()
            raise

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _list_settings(durability: Durability, *, writes: bool) -> dict[str, int | str]:
    """Every PRAGMA that is pinned, in the order in which they are set; each reads back as it was set."""
    return {
        "busy_timeout": BUSY_TIMEOUT_MS,
        "journal_mode": "wal",
        "synchronous": 2 if durability is Durability.POWER else 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        # A REPLACE fires delete triggers only with this: the append-only law leans on it.
        "recursive_triggers": 1,
        "wal_autocheckpoint": CHECKPOINT_PAGES if writes else 0,
        "mmap_size": 0,
        "query_only": 0 if writes else 1,
    }


def _configure(dbapi: DBAPIConnection, settings: dict[str, int | str], path: Path, *, writes: bool) -> None:
    cursor = dbapi.cursor()

    def ask(sql: str) -> object:
        cursor.execute(sql)
        row = cursor.fetchone()
        # A PRAGMA that was compiled out answers nothing: it is off.
        return row[0] if row else 0

    application_id = ask("PRAGMA application_id")
    is_strange = ask("SELECT count(*) FROM sqlite_master") and not ask(
        "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    )
    if application_id not in (0, APPLICATION_ID) or (application_id == 0 and is_strange):
        raise ConfigError(f"{path} is another program's database. Give the ledger a file of its own.", key_path=SETTING)
    if writes and application_id == 0:
        settings = {**settings, "application_id": APPLICATION_ID}
    for name, wanted in settings.items():
        cursor.execute(f"PRAGMA {name} = {wanted}")
        taken = ask(f"PRAGMA {name}")
        if taken != wanted:
            raise LedgerUnavailable(f"SQLite did not take PRAGMA {name} = {wanted} on {path}: it says {taken}.")
    cursor.close()

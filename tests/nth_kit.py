"""
A lane whose n-th database operation fails, on either database.

What the driver is asked counts: each statement, each batch of rows, each commit. A fuse is armed for one of them, and its fault
tells what happens then: the operation does not run and the driver raises what it would raise, or it runs and nobody is told.

SQLite rolls a transaction back by itself when the disk is full or fails, and leaves it open when the file is locked; the stand-ins
do the same. On PostgreSQL the errors are the server's own: it raises them in a block that runs in the operation's place.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
from database_kit import url_of
from faults_kit import plain, until
from ledger_kit import Clock
from sqlalchemy import Engine, create_engine, event

from quota_router.core.catalog import Catalog
from quota_router.store.lane import Lane
from quota_router.store.ledger_file import read_path
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, is_postgres, open_engines
from quota_router.store.spill import claim_spill
from quota_router.store.sqlite import _ONE_CONNECTION, _tuned

Operation = Callable[[], Any]
Fault = Callable[["Fuse", Any, Operation], Any]
"""Takes the connection and the operation that it stands in the place of."""


@dataclass(slots=True)
class Fuse:
    """Lets one operation fail, or all from one on."""

    fault: Fault
    counts_commits_alone: bool = False
    stays: bool = False
    """everything fails from then on, until the fuse is mended"""
    left: int = 0
    """operations until it blows; 0: it is not armed"""
    has_blown: bool = False

    def arm(self, number: int) -> None:
        """Let operation *number* from here fail, counted from 1."""
        self.left, self.has_blown = number, False

    def mend(self) -> None:
        self.left = 0

    def run(self, connection: Any, operation: Operation, *, is_commit: bool = False) -> Any:
        if self.left == 0 or (self.counts_commits_alone and not is_commit):
            return operation()
        if self.left > 1:
            self.left -= 1
            return operation()
        self.has_blown = True
        if not self.stays:
            self.left = 0
        return self.fault(self, connection, operation)


# --- SQLite -----------------------------------------------------------------------------------------------------------


def sqlite_says(message: str, *, undoes: bool) -> Fault:
    """The error of that text. *undoes*: SQLite has rolled the transaction back."""

    def fault(_fuse: Fuse, connection: "FusedFile", _operation: Operation) -> Any:
        if undoes and connection.in_transaction:
            sqlite3.Connection.rollback(connection)
        raise sqlite3.OperationalError(message)

    return fault


def sqlite_is_closed(_fuse: Fuse, connection: "FusedFile", operation: Operation) -> Any:
    """The connection is gone, and its transaction with it; what the driver says of that it says itself."""
    if connection.in_transaction:  # else it would live on, and hold the lock, until the last cursor is forgotten
        sqlite3.Connection.rollback(connection)
    connection.close()
    return operation()


def sqlite_says_no_and_does_it(_fuse: Fuse, _connection: "FusedFile", operation: Operation) -> Any:
    operation()
    raise sqlite3.OperationalError("disk I/O error")


class FusedFile(sqlite3.Connection):
    """A connection whose operations go through a fuse."""

    fuse: Fuse

    def cursor(self, factory: Any = None) -> Any:  # noqa: ARG002 -- the driver's own shape
        cursor = super().cursor(FusedCursor)
        cursor.fuse = self.fuse
        return cursor

    def commit(self) -> None:
        self.fuse.run(self, super().commit, is_commit=True)


class FusedCursor(sqlite3.Cursor):
    fuse: Fuse

    def execute(self, *asked: Any) -> Any:
        return self.fuse.run(self.connection, partial(super().execute, *asked))

    def executemany(self, *asked: Any) -> Any:
        return self.fuse.run(self.connection, partial(super().executemany, *asked))


def _wire_file(url: str, fuse: Fuse) -> Engine:
    path = read_path(url)

    def connect() -> FusedFile:
        uri = f"{path.as_uri()}?mode=rw"
        opened = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=FusedFile)
        opened.fuse = fuse
        return opened

    return _tuned(create_engine("sqlite://", creator=connect, **_ONE_CONNECTION), path, Durability.PROCESS, writes=True)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_says(*sqlstates: str) -> Fault:
    """The server's own errors of these states, one after the other; the transaction is aborted."""
    in_turn = cycle(sqlstates)

    def fault(_fuse: Fuse, connection: "FusedServer", _operation: Operation) -> Any:
        block = f"DO $$ BEGIN RAISE EXCEPTION 'as the server would say' USING ERRCODE = '{next(in_turn)}'; END $$"
        return psycopg.Cursor(connection).execute(block)

    return fault


def postgres_hangs_up(_fuse: Fuse, connection: "FusedServer", operation: Operation) -> Any:
    """The server ends the session before the operation reaches it."""
    connection.operator.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    return operation()


def postgres_hangs_up_after_it(_fuse: Fuse, connection: "FusedServer", operation: Operation) -> Any:
    """The operation ran, and its answer is lost."""
    operation()
    connection.close()
    raise psycopg.OperationalError("server closed the connection unexpectedly")


class FusedServer(psycopg.Connection[Any]):
    """A connection whose operations go through a fuse."""

    fuse: Fuse
    operator: "psycopg.Connection[Any]"
    """another connection, of somebody who may end this one"""

    def commit(self) -> None:
        self.fuse.run(self, super().commit, is_commit=True)


class FusedServerCursor(psycopg.Cursor[Any]):
    def execute(self, *asked: Any, **how: Any) -> Any:
        return self.connection.fuse.run(self.connection, partial(super().execute, *asked, **how))

    def executemany(self, *asked: Any, **how: Any) -> Any:
        return self.connection.fuse.run(self.connection, partial(super().executemany, *asked, **how))


def _wire_server(engine: Engine, operator: "psycopg.Connection[Any]", fuse: Fuse) -> Engine:
    def connect(_dialect: Any, _record: Any, args: Any, how: Any) -> FusedServer:
        opened = FusedServer.connect(*args, **how)
        opened.fuse, opened.operator, opened.cursor_factory = fuse, operator, FusedServerCursor
        return opened

    event.listen(engine, "do_connect", connect)
    return engine


# --- the lane ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_fused(folder: Path, clock: Clock, of: Catalog, fuse: Fuse) -> AsyncIterator[Lane]:
    """A ledger as a daemon opens it, spill file and all, on the database of this test."""
    url = url_of(folder)
    async with AsyncExitStack() as stack:
        engines = await stack.enter_async_context(open_engines(url, Durability.PROCESS, clock))
        await upgrade(engines.write)
        if is_postgres(url):
            operator = stack.enter_context(psycopg.connect(plain(url), autocommit=True))
            engine = _wire_server(engines.lane, operator, fuse)
        else:
            engine = _wire_file(url, fuse)
            stack.callback(engine.dispose)
        spill = stack.enter_context(closing(claim_spill(folder)))
        async with Lane(engine, engines.tenure, settle_wait_s=5, spill=spill) as lane:
            await lane.edit_catalog(of)
            yield lane


async def recovered(lane: Lane) -> None:
    """Return once the lane takes writes, and has nothing left to do."""
    await until(lambda: lane.trouble is None and not lane._queue)
    assert lane.is_alive

"""
A ledger on a PostgreSQL server: the connections to it.

Law: the lane has one connection, whose journal is its own as long as it lives; readers cannot write and see one snapshot.
Never: keeps a pool that outlives the server: a connection that is gone is found out before it is used.

Decision 2026-11 -- the lane speaks through psycopg, whatever driver the URL names: it is a thread with a synchronous connection.
    Look again if a driver offers both.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from importlib.util import find_spec

from sqlalchemy import Engine, QueuePool, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from quota_router.errors import ConfigError, LedgerUnavailable
from quota_router.store.engines import Durability, Engines
from quota_router.store.ledger_file import SETTING
from quota_router.store.shared import CHANNEL, Shared

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 5_000
"""How long a transaction waits for another daemon's before it gives up and is tried again."""
STATEMENT_TIMEOUT_MS = 60_000
IDLE_TIMEOUT_MS = 60_000
"""A transaction that does nothing for so long has lost its daemon."""
READ_CONNECTIONS = 4


@asynccontextmanager
async def open_postgres(url: str, durability: Durability, clock: Callable[[], datetime] | None) -> AsyncIterator[Engines]:
    """
    Open a ledger that other daemons may share.

    Args:
        url: `postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE`; `+asyncpg` is accepted, for the readers.
        durability: `PROCESS` lets the server acknowledge a commit before it is on its disk.

        clock: gives aware UTC; `None`: the server's.

    Raises:
        ConfigError: the URL is none, or the driver is not installed. Never quotes the URL, which may hold a password.
    """
    target = _read_url(url)
    commits = "on" if durability is Durability.POWER else "off"
    settings = {
        "synchronous_commit": commits,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
        "timezone": "UTC",
    }
    lane = create_engine(
        target.set(drivername="postgresql+psycopg"),
        paramstyle="format",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        },
    )
    write = create_async_engine(target, pool_size=1, max_overflow=0, pool_pre_ping=True)
    read = create_async_engine(
        target,
        pool_size=READ_CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,
        execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    )
    try:
        name = f"{target.host or 'localhost'}/{target.database}"
        edits = partial(_edits, target)
        yield Engines(lane=lane, write=write, read=read, tenure=Shared(clock), name=name, edits=edits)
    finally:
        await read.dispose()
        await write.dispose()
        lane.dispose()


def read_beside(url: str) -> Engine:
    """An engine that reads beside whoever writes: it cannot write, a transaction sees one snapshot and may take its time."""
    return create_engine(
        _read_url(url).set(drivername="postgresql+psycopg"),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": "-c statement_timeout=0 -c timezone=UTC"},
        execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    )


async def _edits(target: URL) -> AsyncIterator[None]:
    """
    Come round after each edit of the catalog, and once whenever word of one may have been missed.

    Raises:
        LedgerUnavailable: the connection on which it is told is gone; ask again.
    """
    import psycopg  # noqa: PLC0415 -- an extra: without it this module still has to be read

    try:
        async with await psycopg.AsyncConnection.connect(
            _plain(target), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as conn:
            await conn.execute(f"LISTEN {CHANNEL}")
            yield
            async for _ in conn.notifies():
                yield
    except psycopg.Error as exc:
        raise LedgerUnavailable("Edits of the catalog by others are not heard now.") from exc


def _plain(target: URL) -> str:
    """As psycopg itself takes it."""
    return target.set(drivername="postgresql").render_as_string(hide_password=False)


def _read_url(url: str) -> URL:
    try:
        target = make_url(url)
    except ArgumentError:
        # Without its cause: SQLAlchemy quotes the whole text.
        raise ConfigError("The database is not a URL: write postgresql+psycopg://USER@HOST/DATABASE.", key_path=SETTING) from None
    needed = {"psycopg", target.get_driver_name()}
    missing = [name for name in sorted(needed) if find_spec(name) is None]
    if missing:
        raise ConfigError(f"A PostgreSQL ledger needs {' and '.join(missing)}: install quota-router[postgres].", key_path=SETTING)
    return target

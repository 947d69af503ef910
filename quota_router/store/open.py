"""
Opening a ledger, wherever it lies.

Law: the URL says which database; a PostgreSQL driver is imported only where one is asked for.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from quota_router.errors import LedgerUnavailable
from quota_router.store.engines import Durability, Engines
from quota_router.store.ledger_file import read_path
from quota_router.store.sqlite import open_sqlite, read_file

__all__ = ["Durability", "Engines", "exists", "is_postgres", "open_engines", "reading_beside", "reading_file", "show"]


def is_postgres(url: str) -> bool:
    """Whether a database URL names a PostgreSQL server."""
    return url.startswith("postgresql")


def exists(url: str) -> bool:
    """Whether there is something to open: a file that is there, or any server."""
    return is_postgres(url) or read_path(url).exists()


def show(url: str) -> str:
    """A ledger's URL as it may be shown: never a password."""
    return make_url(url).render_as_string(hide_password=True) if is_postgres(url) else str(read_path(url))


@asynccontextmanager
async def open_engines(url: str, durability: Durability, clock: Callable[[], datetime] | None = None) -> AsyncIterator[Engines]:
    """
    Open the ledger at *url*.

    Args:
        url: of the database.
        durability: what a commit survives.
        clock: gives aware UTC; `None`: this machine's for a file, the server's for a server.

    Raises:
        ConfigError, LedgerLocked, LedgerUnavailable: as the database's own room says.
    """
    if is_postgres(url):
        from quota_router.store.postgres import open_postgres  # noqa: PLC0415 -- an extra: most ledgers are files

        opening = open_postgres(url, durability, clock)
    else:
        opening = open_sqlite(url, durability, clock or _machine_now)
    async with opening as engines:
        yield engines


@contextmanager
def reading_beside(url: str) -> Iterator[Connection]:
    """
    Read the ledger at *url* beside whoever writes it: one transaction, one snapshot, no lock.

    Raises:
        ConfigError: as the database's own room says.
        LedgerUnavailable: it cannot be opened or read.
    """
    if is_postgres(url):
        from quota_router.store.postgres import read_beside  # noqa: PLC0415 -- an extra: most ledgers are files

        engine = read_beside(url)
    else:
        engine = read_file(read_path(url))
    with _reading(engine, show(url)) as conn:
        yield conn


@contextmanager
def reading_file(path: Path) -> Iterator[Connection]:
    """Read a ledger that is a file, as `reading_beside` does."""
    with _reading(read_file(path.absolute()), str(path)) as conn:
        yield conn


@contextmanager
def _reading(engine: Engine, name: str) -> Iterator[Connection]:
    try:
        with engine.connect() as conn:
            yield conn
    except SQLAlchemyError as exc:
        # The driver's own words: SQLAlchemy adds the statement and its values.
        why = str(exc.orig if isinstance(exc, DBAPIError) else exc).partition("\n")[0]
        raise LedgerUnavailable(f"The ledger {name} cannot be read: {why}.") from exc
    finally:
        engine.dispose()


def _machine_now() -> datetime:
    return datetime.now(UTC)

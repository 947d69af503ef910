"""
Working on the ledger itself, where no daemon runs.

Law: the ledger's lock is held as long as anything is read or written, so that no daemon starts meanwhile.
Never: makes a ledger to look at one.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from quota_router.cli.common import CommandFailed
from quota_router.cli.output import configure_logs

if TYPE_CHECKING:
    from quota_router.config import ServerSettings
    from quota_router.core.catalog import Catalog
    from quota_router.store.lane import Lane


@asynccontextmanager
async def open_lane(settings: "ServerSettings", *, dry_run: bool = False) -> "AsyncIterator[Lane]":
    """
    Open the ledger for writing, at this program's schema.

    Args:
        settings: where it is.
        dry_run: whoever asks will undo what he does; a ledger that is not there yet is made somewhere else, and thrown away.

    Raises:
        LedgerLocked: a daemon has it after all, at another address.
        LedgerError: as the store says.
        CommandFailed: in a dry run, the schema is another one.
    """
    configure_logs()
    from quota_router.store.lane import Lane  # noqa: PLC0415 -- SQLAlchemy takes longer to import than `--help` may last
    from quota_router.store.migrate import check, upgrade  # noqa: PLC0415 -- likewise
    from quota_router.store.open import Durability, exists, open_engines  # noqa: PLC0415 -- likewise

    with tempfile.TemporaryDirectory() as scratch:
        is_there = exists(settings.database_url)
        url = settings.database_url if is_there or not dry_run else f"sqlite+aiosqlite:///{scratch}/ledger.db"
        async with open_engines(url, Durability(settings.durability)) as engines:
            if is_there and dry_run:
                problems = await check(engines.write)
                if problems:
                    raise CommandFailed(problems[0])
            else:
                await upgrade(engines.write)
            async with Lane(engines.lane, engines.tenure, settle_wait_s=settings.settle_wait_s) as lane:
                yield lane


async def read_catalog(settings: "ServerSettings", own: "Catalog") -> "Catalog":
    """
    Read the catalog of the ledger. *own*: what the file says, for what is the file's alone.

    Raises:
        CommandFailed: there is no ledger, or its schema is another one.
        LedgerLocked, LedgerError: as the store says.
    """
    from quota_router.store.open import exists, show  # noqa: PLC0415 -- likewise

    if not exists(settings.database_url):
        raise CommandFailed(f"There is no ledger at {show(settings.database_url)} yet: `quota-router serve` makes it.")
    async with open_lane(settings, dry_run=True) as lane:
        return lane.catalog.with_settings_of(own)

"""
The ledger's schema, without a daemon.

Law: both commands take the ledger's lock, so that nobody writes meanwhile; `check` changes nothing and makes no ledger.
Never: edits what was booked.
"""

import asyncio
from typing import TYPE_CHECKING

import typer

from quota_router.cli.common import CommandFailed, ConfigOption, JsonOption, common_of
from quota_router.cli.output import configure_logs, print_json

if TYPE_CHECKING:
    from quota_router.config import ServerSettings

app = typer.Typer(help="The ledger's schema: upgrade, check.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Bring the ledger's schema to this program's; `serve` does the same when it starts."""
    common = common_of(context, config, as_json=as_json)
    path, revision = asyncio.run(_upgrade(common.load().settings))
    if common.as_json:
        print_json({"ledger": path, "revision": revision})
    else:
        typer.echo(f"The ledger {path} is at revision {revision}.")


@app.command()
def check(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the ledger's schema is this program's, and whole."""
    common = common_of(context, config, as_json=as_json)
    path, problems = asyncio.run(_check(common.load().settings))
    if common.as_json:
        print_json({"ledger": path, "problems": problems})
    if problems:
        raise CommandFailed("\n".join(problems))
    if not common.as_json:
        typer.echo(f"The schema of {path} is up to date and whole.")


async def _upgrade(settings: "ServerSettings") -> tuple[str, str]:
    configure_logs()
    from quota_router.store import migrate  # noqa: PLC0415 -- SQLAlchemy takes longer to import than `--help` may last
    from quota_router.store.open import Durability, open_engines  # noqa: PLC0415 -- likewise

    async with open_engines(settings.database_url, Durability(settings.durability)) as engines:
        return engines.name, await migrate.upgrade(engines.write)


async def _check(settings: "ServerSettings") -> tuple[str, list[str]]:
    configure_logs()
    from quota_router.store import migrate  # noqa: PLC0415 -- likewise
    from quota_router.store.open import Durability, exists, open_engines, show  # noqa: PLC0415 -- likewise

    url = settings.database_url
    if not exists(url):
        raise CommandFailed(f"There is no ledger at {show(url)} yet: `quota-router db upgrade` or `quota-router serve` makes it.")
    async with open_engines(url, Durability(settings.durability)) as engines:
        return engines.name, list(await migrate.check(engines.write))

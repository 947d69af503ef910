"""
Making the catalog what a file says.

Law: with a daemon running it is the daemon that changes its ledger; without one, this process takes the ledger's lock and does the
same in one transaction. A file that is not valid is refused before either is asked.
Never: writes in a dry run, not even a new ledger.
"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quota_router.cli.client import Client, find_daemon, path_of
from quota_router.cli.common import CommandFailed, Common, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.output import print_json
from quota_router.cli.without_daemon import open_lane

if TYPE_CHECKING:
    from quota_router.config import Loaded
    from quota_router.core.catalog import Catalog
    from quota_router.store.catalog import Change

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Without one: the daemon's own.", show_default=False, readable=False)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.", show_default=False)]
PruneOption = Annotated[bool, typer.Option("--prune", help="Delete what the file no longer names.", show_default=False)]


def apply(
    context: typer.Context,
    file: FileArgument = None,
    *,
    dry_run: DryRunOption = False,
    prune: PruneOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the catalog what FILE says, and print what changed."""
    common = common_of(context, config, as_json=as_json)
    own = common.load()
    if file is not None and own.path is None:
        own = Common(config=file).load()
    given = own if file is None or _is_same(file, own.path) else Common(config=file).load()
    if given.path is None:
        raise CommandFailed("There is no configuration file to apply. Write one: `quota-router init --path FILE`.", Exit.USAGE)
    from quota_router.daemon import build_desired  # noqa: PLC0415 -- the server takes longer to import than `--help` may last

    wanted = build_desired(given)
    daemon = find_daemon(own, os.environ)
    if daemon.is_up():
        changes = _through(daemon, own, given, dry_run=dry_run, prune=prune)
    else:
        changes = [change.show() for change in asyncio.run(_on_ledger(own, wanted, dry_run=dry_run, prune=prune))]
    if common.as_json:
        print_json({"dry_run": dry_run, "changes": changes})
        return
    for change in changes:
        typer.echo(change["text"])
    if not changes:
        typer.echo(f"Nothing to change: the catalog is what {given.path} says.")
    elif dry_run:
        typer.echo("This was a dry run: nothing was changed.")


def _is_same(file: Path, own: Path | None) -> bool:
    return own is not None and file.resolve() == own.resolve()


def _through(daemon: Client, own: "Loaded", given: "Loaded", *, dry_run: bool, prune: bool) -> list[dict[str, Any]]:
    if given is own:
        answer = daemon.post(path_of("reload"), {"dry_run": dry_run, "prune": prune})
    else:
        flags = {"dry_run": str(dry_run).lower(), "prune": str(prune).lower()}
        answer = daemon.post_toml(path_of("apply"), given.text, flags)
    changes: list[dict[str, Any]] = answer["changes"]
    return changes


async def _on_ledger(own: "Loaded", wanted: "Catalog", *, dry_run: bool, prune: bool) -> "list[Change]":
    """Apply directly, under the ledger's lock. Raises what `open_lane` and the store say."""
    async with open_lane(own.settings, dry_run=dry_run) as lane:
        return await lane.edit_catalog(wanted, prune=prune, dry_run=dry_run)

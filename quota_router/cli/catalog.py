"""
The catalog as files: written back, and what is known before anything is configured.

Law: what `export` prints loads; what could not be written is said on stderr, line by line.
Never: writes over a file unless told to.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Any

import typer

from quota_router.cli.client import find_daemon, path_of
from quota_router.cli.common import ConfigOption, JsonOption, common_of
from quota_router.cli.output import print_json, print_table
from quota_router.cli.serving import ForceOption, PathOption, write_private
from quota_router.cli.without_daemon import read_catalog

if TYPE_CHECKING:
    from quota_router.config import Loaded

HEAD = "# The catalog, as `quota-router export` wrote it. [server] belongs to a daemon's own file and is not part of it.\n\n"

app = typer.Typer(help="What is known of vendors and prices: providers, refresh.", no_args_is_help=True, rich_markup_mode=None)


def export(
    context: typer.Context,
    *,
    path: PathOption = None,
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the catalog as a configuration file, or write it with --path."""
    common = common_of(context, config, as_json=as_json)
    loaded = common.load()
    daemon = find_daemon(loaded, os.environ)
    exported = daemon.get(path_of("export")) if daemon.is_up() else _without_daemon(loaded)
    text = HEAD + exported["text"]
    if path is not None:
        write_private(path, text, force=force)
    if common.as_json:
        print_json({"path": None if path is None else str(path), "text": text, "left_out": exported["left_out"]})
        return
    typer.echo(f"Wrote {path}." if path is not None else text, nl=path is not None)
    for sentence in exported["left_out"]:
        typer.echo(sentence, err=True)


def _without_daemon(loaded: "Loaded") -> dict[str, Any]:
    from quota_router.core.exported import export_catalog  # noqa: PLC0415 -- `--help` has to be quick
    from quota_router.core.toml_text import write_toml  # noqa: PLC0415 -- likewise
    from quota_router.daemon import build_desired  # noqa: PLC0415 -- likewise

    tables, left_out = export_catalog(asyncio.run(read_catalog(loaded.settings, build_desired(loaded))))
    return {"text": write_toml(tables), "left_out": left_out}


@app.command()
def providers(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every vendor with a preset: its dialect, its address, and the variable its key is read from."""
    from quota_router.core.vendors import VENDORS  # noqa: PLC0415 -- likewise

    common = common_of(context, config, as_json=as_json)
    known = [
        {
            "vendor": vendor.name,
            "family": str(vendor.family),
            "base_url": vendor.base_url,
            "base_url_example": vendor.base_url_example or None,
            "key_env": vendor.key_env,
            "network": str(vendor.network),
            "has_list_prices": vendor.prices_id is not None,
        }
        for vendor in sorted(VENDORS.values(), key=lambda vendor: vendor.name)
    ]
    if common.as_json:
        print_json(known)
        return
    rows = [
        (
            str(vendor["vendor"]),
            str(vendor["family"]),
            str(vendor["base_url"] or f"yours: {vendor['base_url_example']}"),
            str(vendor["key_env"] or "no key"),
            "known" if vendor["has_list_prices"] else "yours to state",
        )
        for vendor in known
    ]
    print_table("Vendors with a preset", ("vendor", "family", "base URL", "key variable", "prices"), rows)
    typer.echo('One line makes a provider of it: [providers.NAME] vendor = "…". Any other OpenAI or Anthropic endpoint takes')
    typer.echo("family, base_url and credential instead.")

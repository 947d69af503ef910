"""
What the commands share that list, show and edit single rows of the catalog.

Law: an edit names the version that was read just before; what was edited is said in a line, or with `--json` as it came.
Never: edits a ledger without its daemon: `apply` does, with a file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from quota_router.cli.client import find_daemon, path_of
from quota_router.cli.common import CommandFailed, Exit, common_of
from quota_router.cli.output import NOTHING, print_json

if TYPE_CHECKING:
    from quota_router.cli.client import Client

Row = dict[str, Any]


class Desk:
    """One command's way to the daemon, and how it answers."""

    def __init__(self, context: typer.Context, config: Path | None, *, as_json: bool) -> None:
        common = common_of(context, config, as_json=as_json)
        self.as_json = common.as_json
        self.daemon: Client = find_daemon(common.load(), os.environ)

    def list(self, kind: str) -> list[Row]:
        """Every row of a kind."""
        return self.daemon.items(path_of(kind))

    def read(self, *path: str) -> Row:
        """One row."""
        row: Row = self.daemon.get(path_of(*path))
        return row

    def add(self, kind: str, value: Mapping[str, Any]) -> Row:
        """Make a row, and say so."""
        row: Row = self.daemon.post(path_of(kind), dict(value))
        self.say(row, f"Added {kind[:-1]} {row.get('name') or row['id']}.")
        return row

    def change(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        """Change a row, and say what came of it."""
        if not patch:
            raise CommandFailed("Nothing was said to be changed: see --help for what can be.", Exit.USAGE)
        before = self.read(kind, name)
        row: Row = self.daemon.edit("PATCH", path_of(kind, name), dict(patch), before["version"])
        word = "Changed" if row["version"] != before["version"] else "Nothing to change in"
        self.say(row, f"{word} {kind[:-1]} {name}.")

    def remove(self, kind: str, name: str) -> None:
        """Delete a row, and say what went with it."""
        row: Row = self.daemon.edit("DELETE", path_of(kind, name), None, self.read(kind, name)["version"])
        self.say(row, f"Removed {kind[:-1]} {name}.", *_went_with(row))

    def say(self, value: object, *lines: str) -> None:
        """Print *lines*, or with `--json` *value*."""
        if self.as_json:
            print_json(value)
            return
        for line in lines:
            typer.echo(line)


def _went_with(row: Row) -> list[str]:
    told = {
        "models_changed": "It was taken off {}.",
        "models_disabled": "Hidden, as nobody serves it now: {}. Attach another: `quota-router attachments set MODEL PROVIDER`.",
        "limits_idle": "Limits that count nothing any more: {}.",
    }
    return [sentence.format(", ".join(row[key])) for key, sentence in told.items() if row.get(key)]


def given(**options: Any) -> Row:  # noqa: ANN401 -- whatever the options are
    """The options that were given."""
    return {name: value for name, value in options.items() if value not in (None, [], ())}


def print_fields(row: Row, *, without: tuple[str, ...] = ()) -> None:
    """Print one row, a field a line."""
    shown = {key.replace("_", " "): _show(value) for key, value in row.items() if key not in without}
    width = max(map(len, shown))
    for key, value in shown.items():
        typer.echo(f"{key:<{width}}  {value}")


def _show(value: object) -> str:
    if value is None or value in ("", [], {}):
        return NOTHING
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key} {inner}" for key, inner in value.items())
        case _:
            return str(value)

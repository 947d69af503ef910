"""
What every command shares: two options, the exit codes, and how a refusal is told.

Law: whatever goes wrong as foreseen is one sentence on stderr and an exit code of `Exit`; stdout carries answers alone.
Never: imports what only some commands need: `--help` has to be quick.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quota_router.errors import ConfigError, InvalidRequest, NotFound, QuotaRouterError

if TYPE_CHECKING:
    from quota_router.config import Loaded

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file, instead of the one that is found.",
        show_default=False,
        readable=False,  # not judged by typer: what cannot be read is a bad configuration, no bad usage
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]


class Exit(IntEnum):
    """What a command's end says to a script."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    BAD_CONFIG = 3
    NOT_FOUND = 4
    NONE_USABLE = 5
    UNREACHABLE = 69
    """EX_UNAVAILABLE of sysexits(3), read 2026-11-20"""


class CommandFailed(QuotaRouterError):
    """A command could not do what it was asked."""

    def __init__(self, message: str, exit_code: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The shared options, as they were given before or after the subcommand."""

    config: Path | None = None
    as_json: bool = False

    def merged(self, config: Path | None, *, as_json: bool) -> "Common":
        """Add what was said after the subcommand, which goes first."""
        return replace(self, config=config or self.config, as_json=as_json or self.as_json)

    def load(self, environ: Mapping[str, str] = os.environ) -> "Loaded":
        """
        Read settings and file.

        Raises:
            ConfigError: as `config.load` says.
        """
        from quota_router import config  # noqa: PLC0415 -- pydantic takes longer to import than `--help` may last

        return config.load(self.config, environ)


def common_of(context: typer.Context, config: Path | None, *, as_json: bool) -> Common:
    """Join the options of the program and those of the subcommand."""
    before = context.obj
    assert isinstance(before, Common)
    return before.merged(config, as_json=as_json)


def tell(error: QuotaRouterError) -> Exit:
    """Print the sentence of *error* to stderr, and return the exit code for it."""
    sys.stderr.write(f"{error.message}\n")
    match error:
        case CommandFailed():
            return error.exit_code
        case ConfigError():
            return Exit.BAD_CONFIG
        case NotFound():
            return Exit.NOT_FOUND
        case InvalidRequest():
            return Exit.USAGE
        case _:
            return Exit.FAILURE

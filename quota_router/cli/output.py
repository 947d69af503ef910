"""
What people read: tables, amounts, moments, logs.

Law: answers go to stdout, logs to stderr; an amount is shown whole, never rounded into another one.
Never: takes markup from what it shows: names are data.
"""

import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, TextIO, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from quota_router.core.pricing import format_usd

PIPE_WIDTH = 160
"""Columns where nobody says how wide the page is."""
_ANY_WIDTH = 10_000
_INDENT, _GAP = "    ", "   "
UNKNOWN = "?"
NOTHING = "-"
STDERR = 2
"""The descriptor."""
_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def print_json(value: Any) -> None:  # noqa: ANN401 -- whatever JSON takes
    """Print one JSON value."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, footer: Sequence[str] | None = None) -> None:
    """
    Print a table; a column whose name begins with `>` is set to the right.

    On a page that is too narrow for it each row becomes a block of its own: no name is broken, and no amount is cut.
    """
    told = [tuple(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_footer=footer is not None)
    for index, column in enumerate(columns):
        align: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), footer=footer[index] if footer else "", justify=align, no_wrap=True)
    for row in told:
        table.add_row(*row)
    console = Console(markup=False, emoji=False, highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).maximum
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        console = Console(width=max(PIPE_WIDTH, needed), markup=False, emoji=False, highlight=False)
    if needed <= console.width:
        console.print(table)
    else:
        _print_blocks(title, columns, [*told, *([footer] if footer else [])], console.width)


def _print_blocks(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> None:
    """Print each row as its first cell and, below it, what the others say; what says nothing is left out."""
    typer.echo(title)
    for name, *cells in rows:
        typer.echo(f"\n  {name}")
        line = _INDENT
        for column, cell in zip(columns[1:], cells, strict=True):
            if cell in {"", NOTHING}:
                continue
            said = f"{column.removeprefix('>')} {' '.join(cell.split())}"
            if line.strip() and len(line) + len(said) > width:
                typer.echo(line.rstrip())
                line = _INDENT
            line += f"{said}{_GAP}"
        if line.strip():
            typer.echo(line.rstrip())
    typer.echo()


def show_usd(nusd: int | None) -> str:
    """Nano-USD as dollars; `?` where the price is unknown."""
    if nusd is None:
        return UNKNOWN
    return f"-${format_usd(-nusd)}" if nusd < 0 else f"${format_usd(nusd)}"


def show_amount(unit: str, amount: int | None) -> str:
    """An amount in the unit of its limit; nano-USD for `usd`."""
    if amount is None:
        return UNKNOWN
    return show_usd(amount) if unit == "usd" else f"{amount:,}"


def show_moment(text: str | None) -> str:
    """A moment of the API in the reader's own time zone; `-` where there is none."""
    return NOTHING if text is None else f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"


def show_span(span_s: float) -> str:
    """How long: the two largest units of it, rounded down."""
    left = int(span_s)
    for (unit, length), (below, shorter) in pairwise(_SPANS):
        if left >= length:
            more = left % length // shorter
            return f"{left // length} {unit}" + (f" {more} {below}" if more else "")
    return f"{left} s"


def configure_logs(level: int = logging.ERROR) -> None:
    """Send our logs and those of the libraries to stderr: readable on a terminal, else one JSON object a line."""
    import structlog  # noqa: PLC0415 -- only some commands log

    is_terminal, stderr = sys.stderr.isatty(), cast("TextIO", _Lossy())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if is_terminal:
        # A richer traceback would show the values of variables: prompts and secrets are among them.
        plain = structlog.dev.plain_traceback
        last: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


class _Lossy(io.TextIOBase):
    """
    The process's stderr, which never complains: what a full disk does not take of the log is lost, and no call with it.

    It keeps nothing back: Python would try again at the end, and make a failure of it.
    """

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            os.write(STDERR, text.encode("utf-8", "backslashreplace"))
        return len(text)

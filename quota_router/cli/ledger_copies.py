"""
Taking the ledger elsewhere: its entries as a file for other programs, or all of it as a backup.

Law: what is written is whole or not there; it never takes the place of a file, and nobody but its owner reads it.
Never: stops a daemon, or makes one wait.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar
from zoneinfo import ZoneInfo

import typer

from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.ledger_verify import as_shape, find_ledger, print_verdict, refuse_broken
from quota_router.cli.output import print_json
from quota_router.cli.progress import showing

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Form(StrEnum):
    """How an entry is written."""

    CSV = "csv"
    JSONL = "jsonl"


FormatOption = Annotated[Form | None, typer.Option("--format", help="Default: csv, with --json jsonl.", show_default=False)]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="A date, or an RFC 3339 instant; by `held_at`, as in `usage`.", show_default=False
    ),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Likewise; not included.", show_default=False)]
ZoneOption = Annotated[
    str | None,
    typer.Option("--tz", metavar="ZONE", help="Adds local times, and dates are of this zone: Europe/Berlin.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="A new file, for you alone. Default: stdout.", show_default=False),
]
TargetArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A new file.", show_default=False)]


def export(
    context: typer.Context,
    *,
    form: FormatOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    tz: ZoneOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the entries, every column, as CSV or JSON lines."""
    common = common_of(context, config, as_json=as_json)
    zone, times = _read_times(tz, since, until)
    url, _ = find_ledger(common)
    from quota_router.store.export import Format  # noqa: PLC0415 -- SQLAlchemy takes longer to import than `--help` may last
    from quota_router.store.export import export as write  # noqa: PLC0415 -- likewise
    from quota_router.store.open import reading_beside  # noqa: PLC0415 -- likewise
    from quota_router.store.streaming import count_entries  # noqa: PLC0415 -- likewise

    chosen = Format((form or (Form.JSONL if common.as_json else Form.CSV)).value)
    count = 0
    with (
        _opened(out) as file,
        showing("exporting", on_page=out is not None or not sys.stdout.isatty()) as (told,),
        reading_beside(url) as conn,
    ):
        total = count_entries(conn)
        count = write(conn, file, chosen, **times, tz=zone, progress=lambda done: told(done, max(done, total)))
    if out is None:
        return
    if common.as_json:
        print_json({"file": str(out), "format": chosen.value, "entries": count})
    else:
        typer.echo(f"Wrote {count:,} entries to {out}.")


def _read_times(tz: str | None, since: str | None, until: str | None) -> "tuple[ZoneInfo | None, dict[str, datetime]]":
    """Read what was said of times, with the sentences of the API."""
    from quota_router.web.strict import instant_in  # noqa: PLC0415 -- likewise
    from quota_router.web.strict import zone as read_zone  # noqa: PLC0415 -- likewise

    zone: ZoneInfo | None = None if tz is None else _read("--tz", read_zone, tz)
    read = instant_in(zone or ZoneInfo("UTC"))
    said = {"since": since, "until": until}
    return zone, {name: _read(f"--{name}", read, text) for name, text in said.items() if text is not None}


def _read(option: str, read: "Callable[[str], T]", text: str) -> T:
    try:
        return read(text)
    except (ValueError, OverflowError) as exc:
        raise CommandFailed(f"`{option}` {exc}", Exit.USAGE) from exc


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Where to write: a new file, which is removed again unless it became whole, or stdout."""
    if out is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Whoever reads has enough, as `head` does; what is left must not be an error when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    try:
        file = os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError as exc:
        raise CommandFailed(f"{out} is there already. Choose another path.") from exc
    except OSError as exc:
        raise CommandFailed(f"{out} cannot be written: {exc.strerror}.") from exc
    try:
        with file:
            yield file
    except BaseException as exc:
        out.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise CommandFailed(f"{out} cannot be written: {exc.strerror}. What was written is removed.") from exc
        raise


def backup(context: typer.Context, path: TargetArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Copy a SQLite ledger while it is in use."""
    common = common_of(context, config, as_json=as_json)
    url, name = find_ledger(common)
    from quota_router.store.backup import back_up  # noqa: PLC0415 -- likewise
    from quota_router.store.open import is_postgres  # noqa: PLC0415 -- likewise

    if is_postgres(url):
        raise CommandFailed(
            "This ledger lies on a PostgreSQL server, which has its own way:"
            f" pg_dump --format=custom --file={shlex.quote(str(path))} DATABASE. `ledger verify` reads what was restored."
        )
    with showing("copying", "verifying") as (copied, read):
        verdict = back_up(url, path, datetime.now(UTC), copied, read)
    size = path.stat().st_size
    if common.as_json:
        print_json({"ledger": name, "backup": str(path), "bytes": size, **as_shape(verdict)})
    elif verdict.is_whole:
        entries = sum(walk.entries for walk in verdict.walks)
        typer.echo(f"Copied {name} to {path}: {size:,} bytes, {entries:,} entries. The copy was read again and is whole.")
    else:
        typer.echo(f"Copied {name} to {path}, with what is wrong in it.")
        print_verdict(str(path), verdict)
    refuse_broken(verdict)

"""
The lines of money as a file that other programs read.

Law: every column, every entry once, in the order of journal and seq; from either format the same values come back, to the last
nano-dollar and the difference between nothing and an empty text. Whoever has the file can work the hashes out anew.
Never: holds more than one batch, or rounds.

Decision 2026-11 -- in CSV a text is always quoted and what is missing is an empty field without quotes, as PostgreSQL's COPY writes
    and reads it: else nothing and an empty text would look alike.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection

from quota_router.store.rows import Entry
from quota_router.store.shapes import show_stored
from quota_router.store.streaming import stream_entries
from quota_router.store.tables import EPOCH

COLUMNS = (*Entry.__struct_fields__, "hash")
MOMENTS = ("held_at", "at")
"""Columns that are instants: UTC, and with a zone once more as `…_local`."""

Values = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class Format(StrEnum):
    """How a line is written."""

    CSV = "csv"
    JSONL = "jsonl"


def export(
    conn: Connection,
    out: BinaryIO,
    form: Format,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    tz: ZoneInfo | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """
    Write the entries that were held in `[since, until)`.

    Args:
        conn: a reading transaction; the file shows one moment.
        out: where to, as UTF-8.
        form: of a line.
        since: aware; `None`: from the first.
        until: aware; `None`: to the last.
        tz: whose clock the added columns follow; `None`: none are added.
        progress: told after each batch how many are written.

    Returns:
        how many entries were written.
    """
    written = 0
    if form is Format.CSV:
        out.write(_csv_line([*COLUMNS, *(f"{name}_local" for name in MOMENTS if tz is not None)], is_head=True))
    for batch in stream_entries(conn, since, until):
        lines = (_shown(row, tz) for row in batch)
        out.write(b"".join(_csv_lines(lines) if form is Format.CSV else _json_lines(lines)))
        written += len(batch)
        if progress is not None:
            progress(written)
    return written


def _shown(row: Sequence[Any], tz: ZoneInfo | None) -> Values:
    """One entry by its columns: instants as RFC 3339 text, the hash in hex, the rest as it is stored."""
    shown = dict(zip(COLUMNS, row, strict=True))
    local = {f"{name}_local": _in_zone(shown[name], tz) for name in MOMENTS} if tz is not None else {}
    shown |= {name: show_stored(shown[name]) for name in MOMENTS}
    return {**shown, "hash": shown["hash"].hex(), **local}


def _in_zone(at: int, tz: ZoneInfo) -> str | None:
    """A moment on the clock of a zone, with its offset: an hour that comes twice is told apart. `None`: no calendar has it."""
    try:
        return (EPOCH + timedelta(microseconds=at)).astimezone(tz).isoformat(timespec="microseconds")
    except OverflowError:
        return None


def _json_lines(lines: Iterable[Values]) -> Iterator[bytes]:
    for shown in lines:
        yield _encode({**shown, "labels": _labels(shown["labels"])}) + b"\n"


def _labels(text: str) -> Any:  # noqa: ANN401 -- whatever JSON holds
    """The list behind the column, written as it stands there; text that is no list is told as it is."""
    try:
        msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, UnicodeError):
        return text
    return msgspec.Raw(text.encode())


def _csv_lines(lines: Iterable[Values]) -> Iterator[bytes]:
    for shown in lines:
        yield _csv_line(shown.values())


def _csv_line(values: Iterable[Any], *, is_head: bool = False) -> bytes:
    """One line after RFC 4180, but for its end, which is what other tools of this system write."""
    return (",".join(str(value) if is_head else _csv_field(value) for value in values) + "\n").encode()


def _csv_field(value: Any) -> str:  # noqa: ANN401 -- text, a whole number, or nothing
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value)

"""
What a command-line tool wrote, as values.

Law: an answer is read by the pointers that its provider names (`core/command_output`) and by nothing else; one absurd count makes
the usage unknown, never zero, and a cost is read from its digits, never by way of a float.
Never: raises for what a tool wrote but `UnreadableAnswer`.

Source: RFC 6901 (JSON Pointer) section 4, read 2026-11-25.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from quota_router.core.command_output import Format, Pick, Reads
from quota_router.core.usage import BUCKETS, Usage
from quota_router.dialects.base import UnreadableAnswer
from quota_router.dialects.costs import cost_of
from quota_router.dialects.fields import MAX_COUNT

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_MISSING = object()
_NEEDED = ("input", "output")


class _Digits(str):
    """A number with a fraction or an exponent, as it stood there."""

    __slots__ = ()


_DECODER = msgspec.json.Decoder(float_hook=_Digits)


class Output(Struct, frozen=True, kw_only=True):
    """What a tool told. `None`: it did not tell."""

    text: str | None = None
    failed: bool = False
    message: str = ""
    """what a failed run says of itself; the tool's own words"""
    status: int | None = None
    """the HTTP status that the tool itself was refused with"""
    usage: Usage | None = None
    cost_nusd: int | None = None


def read_output(reads: Reads, data: bytes) -> Output:
    """
    Read all that a tool wrote. What is not UTF-8 in it becomes replacement characters.

    Raises:
        UnreadableAnswer: it should be JSON and holds no document.
    """
    written = data.decode(errors="replace")
    if reads.format is Format.TEXT:
        return Output(text=written.rstrip("\r\n"))
    events = _lines(written) if reads.format is Format.JSON_LINES else _document(written)
    if not events:
        raise UnreadableAnswer("What the provider's tool wrote is not JSON.")
    texts = [value for pick in reads.message if isinstance(value := _find(pick, events), str) and value]
    text = _find(reads.text, events)
    return Output(
        text=text if isinstance(text, str) and not isinstance(text, _Digits) else None,
        failed=any(_find(pick, events) not in (_MISSING, None, False, 0, "", [], {}) for pick in reads.failed),
        message=texts[0] if texts else "",
        status=_status(_find(reads.status, events)),
        usage=_usage(reads, events),
        cost_nusd=_cost(_find(reads.cost_usd, events)),
    )


def _lines(written: str) -> list[Any]:
    events = []
    for line in written.splitlines():
        if line.lstrip().startswith("{"):
            events += _document(line)
    return events


def _document(written: str) -> list[Any]:
    """The events of one document: itself, or its items if it is a list."""
    try:
        document = _DECODER.decode(written)
    except (ValueError, RecursionError):
        return []
    return document if isinstance(document, list) else [document]


def _find(pick: Pick | None, events: list[Any]) -> Any:  # noqa: ANN401 -- whatever JSON holds
    """What stands at *pick* in the last event that fits and has it."""
    if pick is None:
        return _MISSING
    for event in reversed(events):
        if all(_at(pointer, event) == text for pointer, text in pick.when):
            value = _at(pick.at, event)
            if value is not _MISSING:
                return value
    return _MISSING


def _at(pointer: str, document: Any) -> Any:  # noqa: ANN401 -- likewise
    value = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name, _MISSING)
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def _usage(reads: Reads, events: list[Any]) -> Usage | None:
    """The buckets; `None` when input or output were not told, or a count is absurd."""
    found = {bucket: _find(pick, events) for bucket, pick in reads.counts.items()}
    told = {bucket: value for bucket, value in found.items() if value is not _MISSING and value is not None}
    if any(bucket not in told for bucket in _NEEDED) or not all(_is_count(value) for value in told.values()):
        return None
    counts = {bucket: told.get(bucket, 0) for bucket in BUCKETS}
    for part, whole in reads.within:
        counts[whole] -= counts[part]
    return Usage(**counts) if min(counts.values()) >= 0 else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _cost(value: object) -> int | None:
    is_number = isinstance(value, int | _Digits) and not isinstance(value, bool)
    return cost_of(str(value)) if is_number else None


def _status(value: object) -> int | None:
    return value if isinstance(value, int) and 400 <= value < 600 else None  # noqa: PLR2004 -- RFC 9110's classes of errors

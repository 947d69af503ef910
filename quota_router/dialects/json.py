"""
One JSON object as bytes: where each top-level member stands, and how to replace one without touching the rest.

Law: whatever is not replaced keeps its bytes. Anything that is not one strict JSON object in UTF-8 raises `MalformedBody`
and nothing else, in time linear in the body.
Never: builds the whole document as values, nor writes it anew.

Decision 2026-11 -- nesting is bounded by the decoder's own recursion guard (about 900 levels), not by a depth of 64: an
    exact count costs a second pass over every body, and we only forward what is nested. Look again if we read deeper.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from quota_router.errors import MalformedBody

MAX_DIGITS = 400
"""A number with this many digits in a row is no number anyone means: it is refused."""

MAX_NAME_CHARS = 256
_SAMPLE = 50
"""Every run of `MAX_DIGITS` digits shows `MAX_DIGITS / _SAMPLE` digits in a row among each 50th byte."""

_WS = rb"[ \t\n\r]*+"
_STRING = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_MEMBER = re.compile(_WS + rb"[{,]" + _WS + _STRING + _WS + rb":" + _WS)
_CLOSE = re.compile(_WS + rb"\}")
_SAMPLED_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS // _SAMPLE))
_STRING_OR_DIGITS = re.compile(_STRING + rb"|([0-9]{%d,})" % MAX_DIGITS)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class TopLevel(Struct, frozen=True, kw_only=True):
    """A JSON object of which only the top-level members are known, as spans of its bytes."""

    body: bytes
    spans: Mapping[str, tuple[int, int]]
    """name -> `[start, end)` of the value"""
    close: int
    """where the closing brace stands"""

    def raw(self, name: str) -> bytes | None:
        """The bytes of a member's value; `None` when there is no such member."""
        span = self.spans.get(name)
        return None if span is None else self.body[span[0] : span[1]]

    def replaced(self, values: Mapping[str, bytes]) -> bytes:
        """The body with these members' values replaced in place; members it lacks are added before the closing brace."""
        spans = self.spans
        parts: list[bytes] = []
        position = 0
        for (start, end), value in sorted((spans[name], value) for name, value in values.items() if name in spans):
            parts += (self.body[position:start], value)
            position = end
        added = [msgspec.json.encode(name) + b":" + value for name, value in values.items() if name not in spans]
        if added:
            parts += (self.body[position : self.close], b"," if spans else b"", b",".join(added))
            position = self.close
        parts.append(self.body[position:])
        return b"".join(parts)

    def members(self) -> dict[str, Any]:
        """Everything in it, as values; decoded anew each time."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    def rewritten(self, members: Mapping[str, Any]) -> bytes:
        """
        An object of *members*, in their order; those that are what they were keep their bytes.

        Raises:
            TypeError, ValueError: a value is none that JSON can carry.
        """
        parts: list[bytes] = []
        for name, value in members.items():
            encoded, raw = msgspec.json.encode(value), self.raw(name)
            is_same = raw is not None and encoded == msgspec.json.encode(msgspec.json.decode(raw))
            parts.append(msgspec.json.encode(name) + b":" + (raw if is_same and raw is not None else encoded))
        return b"{" + b",".join(parts) + b"}"


def read_object(body: bytes) -> TopLevel:
    """
    Find the top-level members of a JSON object.

    Raises:
        MalformedBody: not one JSON object, not UTF-8, nested too deep for the decoder, a number of 400 digits, or a
            member that stands twice.
    """
    try:
        if not body.isascii():
            body.decode()
        members = _MEMBERS.decode(body)
    except (ValueError, RecursionError) as exc:
        raise MalformedBody from exc
    if _has_long_number(body):
        raise MalformedBody(f"The body holds a number of {MAX_DIGITS} or more digits.")
    # A repeated name shows as a disagreement between the bytes and the members, of which the last one won.
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for name, raw in members.items():
        found = _MEMBER.match(body, end)
        if found is None or _name(found[1]) != name:
            raise _repeated()
        start, value = found.end(), bytes(raw)
        end = start + len(value)
        if body[start:end] != value:
            raise _repeated()
        spans[name] = (start, end)
    closing = _CLOSE.match(body, end) if members else _CLOSE.search(body)
    if closing is None:
        raise _repeated()
    return TopLevel(body=body, spans=spans, close=closing.end() - 1)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a member was sent and is not null. A `Raw` that defaults to empty stands for "not sent"."""
    return len(raw) > 0 and bytes(raw) != b"null"


def text_or_none(value: object) -> str | None:
    """A decoded value if it is text."""
    return value if isinstance(value, str) else None


def name_or_none(value: object) -> str | None:
    """A decoded value if it can be a name: short, and without control characters."""
    is_name = isinstance(value, str) and len(value) <= MAX_NAME_CHARS and value.isprintable()
    return text_or_none(value) if is_name else None


def _name(quoted: bytes) -> str:
    return quoted.decode() if b"\\" not in quoted else msgspec.json.decode(b'"' + quoted + b'"', type=str)


def _has_long_number(body: bytes) -> bool:
    if _SAMPLED_DIGITS.search(body[::_SAMPLE]) is None:
        return False
    return any(found[2] is not None for found in _STRING_OR_DIGITS.finditer(body))


def _repeated() -> MalformedBody:
    return MalformedBody("A member stands twice in the body. Send each one once.")

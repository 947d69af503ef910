"""
Tables as TOML text, laid out for people.

Law: reading the text back gives equal tables, whatever the texts in them hold; a number with a point is written exactly.
Never: knows what a key means, but for those whose lists of tables stand better on lines of their own.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_LINE_CHARS = 110
"""Longer lists are written one entry a line."""
_INLINE = frozenset({"attachments", "stages"})
"""Lists of tables that stay in brackets."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_TO_ESCAPE = re.compile(r'[\x00-\x1f\x7f"\\]')


def write_toml(tables: Mapping[str, Any]) -> str:
    """
    Write a document.

    Args:
        tables: of text, int, Decimal, bool, lists and tables; an empty table says that it is there.
    """
    return "".join(f"{line}\n" for line in _lines(tables, ())).lstrip("\n")


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    """The table's own values, then the tables in it, each with a head."""
    below = {key: value for key, value in table.items() if _has_head(key, value)}
    for key, value in table.items():
        if key not in below:
            yield f"{_key(key)} = {_outermost(value)}"
    for key, value in below.items():
        inner = (*path, key)
        head = ".".join(map(_key, inner))
        if isinstance(value, list):
            for entry in value:
                yield f"\n[[{head}]]"
                yield from _lines(entry, inner)
            continue
        if not value or not all(_has_head(name, part) for name, part in value.items()):
            yield f"\n[{head}]"
        yield from _lines(value, inner)


def _has_head(key: str, value: object) -> bool:
    is_tables = isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
    return isinstance(value, Mapping) or (is_tables and key not in _INLINE)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case str():
            return _text(value)
        case Mapping():
            return f"{{ {', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())} }}" if value else "{}"
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            raise TypeError(f"TOML has no {type(value).__name__}.")


def _outermost(value: object) -> str:
    """A value on its own line, or a list that is long or holds tables on several."""
    line = _value(value)
    if not isinstance(value, list) or (len(line) <= _LINE_CHARS and not any(isinstance(entry, Mapping) for entry in value[1:])):
        return line
    return "\n".join(("[", *(f"    {_value(entry)}," for entry in value), "]"))


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    escaped = _TO_ESCAPE.sub(lambda sign: _ESCAPES.get(sign[0]) or f"\\u{ord(sign[0]):04x}", text)
    return f'"{escaped}"'

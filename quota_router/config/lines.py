"""
At which line of a TOML text a key stands: the parser does not tell.

Law: the text has been parsed before; of a key that is not there, the nearest table around it is found.
Never: reads values. Whatever it cannot follow, it leaves out.
"""

import re
import tomllib
from contextlib import suppress

from quota_router.errors import KeyPath

_BLANK = re.compile(r"(?:\s+|#[^\n]*)*")
_KEY = re.compile(r"""["](?:[^"\\\n]|\\.)*["]|'[^'\n]*'|[A-Za-z0-9_-]+""")
_SCALAR = re.compile(
    r"""
    \"\"\"(?:[^\\]|\\.)*?\"{3,5}    # up to two quotes may belong to the text
    | '''.*?'{3,5}
    | "(?:[^"\\\n]|\\.)*"
    | '[^'\n]*'
    | [^,\]}\#\n]+                  # numbers, booleans, and instants with a space inside
    """,
    re.VERBOSE | re.DOTALL,
)


def line_of(text: str, key_path: KeyPath) -> int | None:
    """The 1-based line of *key_path*, or of the nearest table around it; `None`: not even that is in *text*."""
    return find_line(read_lines(text), key_path)


def find_line(lines: dict[KeyPath, int], key_path: KeyPath) -> int | None:
    """As `line_of`, for who asks of one text more than once."""
    for length in range(len(key_path), 0, -1):
        if key_path[:length] in lines:
            return lines[key_path[:length]]
    return None


def read_lines(text: str) -> dict[KeyPath, int]:
    """The 1-based line on which each table, key and list entry begins."""
    scanner = _Scanner(text)
    # What was found until then is right, and a line more or less is no reason to fail.
    with suppress(ValueError, RecursionError):
        scanner.scan()
    return scanner.lines


class _Scanner:
    """`at` only ever moves forward; `_line` is the line of `_counted`."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0
        self._entries: dict[KeyPath, int] = {}
        """how many tables each array of tables has so far"""

    def scan(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self._take("[["):
                table = self._read_header(is_entry=True)
                self._expect("]]")
            elif self._take("["):
                table = self._read_header(is_entry=False)
                self._expect("]")
            else:
                self._read_pair(table)

    def _read_header(self, *, is_entry: bool) -> KeyPath:
        path: KeyPath = ()
        keys = self._read_keys()
        for place, key in enumerate(keys):
            path = (*path, key)
            self._note(path)
            if is_entry and place == len(keys) - 1:
                self._entries[path] = self._entries.get(path, 0) + 1
            if path in self._entries:
                path = (*path, self._entries[path] - 1)
                self._note(path)
        return path

    def _read_pair(self, table: KeyPath) -> None:
        path = table
        for key in self._read_keys():
            path = (*path, key)
            self._note(path)
        self._expect("=")
        self._read_value(path)

    def _read_value(self, path: KeyPath) -> None:
        self._skip_blank()
        if self._take("["):
            index = 0
            while self._skip_blank() and not self._take("]"):
                self._note((*path, index))
                self._read_value((*path, index))
                self._skip_blank()
                self._take(",")
                index += 1
        elif self._take("{"):
            while self._skip_blank() and not self._take("}"):
                self._read_pair(path)
                self._skip_blank()
                self._take(",")
        else:
            self._match(_SCALAR)

    def _read_keys(self) -> list[str]:
        keys = [self._read_key()]
        while self._skip_blank() and self._take("."):
            keys.append(self._read_key())
        return keys

    def _read_key(self) -> str:
        self._skip_blank()
        written = self._match(_KEY)
        return next(iter(tomllib.loads(f"{written} = 0"))) if written[0] in "\"'" else written

    def _note(self, path: KeyPath) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        self.lines.setdefault(path, self._line)

    def _skip_blank(self) -> bool:
        self._match(_BLANK)
        return self._at < len(self._text)

    def _take(self, sign: str) -> bool:
        is_there = self._text.startswith(sign, self._at)
        self._at += len(sign) if is_there else 0
        return is_there

    def _expect(self, sign: str) -> None:
        self._skip_blank()
        if not self._take(sign):
            raise ValueError(sign)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(pattern.pattern)
        self._at = found.end()
        return found[0]

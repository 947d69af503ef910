"""
What is wrong with a file, as one sentence.

Law: one problem at a time, the first in the file; the sentence names file, line, key path, the offending word and the remedy.
Never: repeats a value that may be a secret or hold one.
"""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from quota_router.config.lines import find_line, line_of, read_lines
from quota_router.errors import ConfigError, KeyPath, did_you_mean

_UNSPOKEN = frozenset({"credential", "api_key_env", "base_url", "database", "token_sha256"})
"""Keys whose values are not repeated."""
_LONGEST_VALUE = 60

_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "tuple_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "union_tag_not_found": "the name of a provider, a list of names, or a table",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_FIRST_KEY = re.compile(r"""\s*\[*\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_.-]+)""")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def explain(error: ConfigError, text: str, file: str | None) -> ConfigError:
    """The same error with file and line, found by its key path in *text*; as it is when it has them already."""
    if error.file is not None or file is None:
        return error
    return _locate(error.message, file, line_of(text, error.key_path), error.key_path)


def refuse(message: str, file: str, line: int | None = None, key_path: KeyPath = ()) -> NoReturn:
    """Raise the error, located."""
    raise _locate(message, file, line, key_path)


def find_syntax_problem(error: ValueError, text: str, file: str) -> ConfigError:
    """What TOML itself does not allow: mostly a slip of the pen, or a key given twice."""
    said = str(error)
    position = _POSITION.search(said)
    if position is None:  # A number longer than Python reads: the parser does not say where.
        return _locate("the file is not valid TOML: one of its numbers is too long.", file, None, ())
    line = int(position[1]) if position[1] else max(1, text.rstrip().count("\n") + 1)
    problem = said[: position.start()]
    written = text.splitlines()[line - 1] if text else ""
    key = _FIRST_KEY.match(written)
    if problem.startswith("Duplicate inline table key"):
        return _locate(f"{problem.removeprefix('Duplicate inline table ')} is given twice: keep one of them.", file, line, ())
    if key is not None and problem.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate", "Cannot redefine")):
        what = "table" if written.lstrip().startswith("[") else "key"
        return _locate(f"{what} {key[1]!r} is given twice: keep one of them.", file, line, ())
    return _locate(f"the file is not valid TOML here: {problem}.", file, line, ())


def find_problem(error: ValidationError, tables: Mapping[str, Any], text: str, file: str) -> ConfigError:
    """The first problem of the file, by line."""
    lines = read_lines(text)
    found = [(_path_in(tables, details), details) for details in error.errors()]
    path, details = min(found, key=lambda problem: find_line(lines, problem[0]) or 0)
    return _locate(describe(details, path), file, find_line(lines, path), path)


def describe(details: ErrorDetails, path: KeyPath) -> str:
    """One sentence for what pydantic found at *path*."""
    kind, context = details["type"], details.get("ctx", {})
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    if kind == "unknown_key":
        return str(context["sentence"])
    if kind == "missing":
        return f"{key} is missing: add it."
    value = details["input"]
    is_spoken = isinstance(value, str | int | float | Decimal | date) and not any(part in _UNSPOKEN for part in path)
    got = f", not {_shorten(value)}" if is_spoken else ""
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{key} {_shorten(value)} is not known: {did_you_mean(str(value), words)}" if is_spoken else "this is no word."
    if kind == "value_error":
        sentence = str(context["error"])
        return sentence if sentence.endswith((".", "?")) else f"{sentence}{got}."
    expected = _EXPECTED.get(kind)
    if expected is None:
        sentence = details["msg"].removeprefix("Input should ").removeprefix("String should ")
        return f"must {sentence}{got}."
    return f"must be {expected}{got}."


def _locate(message: str, file: str, line: int | None, key_path: KeyPath) -> ConfigError:
    where = [file, *([f"line {line}"] if line else ()), *([_dotted(key_path)] if key_path else ())]
    return ConfigError(f"{', '.join(where)}: {message}", key_path=key_path, file=file, line=line)


def _dotted(key_path: KeyPath) -> str:
    dotted = ""
    for part in key_path:
        if isinstance(part, int):
            dotted += f"[{part}]"
        else:
            dotted += f".{part}" if _BARE_KEY.fullmatch(part) else f'."{part}"'
    return dotted.removeprefix(".")


def _path_in(tables: Mapping[str, Any], details: ErrorDetails) -> KeyPath:
    """The path as the file has it: pydantic mixes in the names of its own branches."""
    path: KeyPath = ()
    here: Any = tables
    for part in details["loc"]:
        is_there = part in here if isinstance(here, Mapping) else isinstance(here, list) and isinstance(part, int)
        if is_there:
            path, here = (*path, part), here[part]
    if details["type"] == "missing":
        path = (*path, details["loc"][-1])
    if details["type"] == "unknown_key":
        path = (*path, details["ctx"]["key"])
    return path


def _shorten(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"

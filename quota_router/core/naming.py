"""
Names and words of the catalog: which may be written, and what is said of those that may not.

Law: every refusal names the offending word and the nearest right one, and carries the key path it was found at.
Never: echoes a value that may hold a secret.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NoReturn, TypeVar

from quota_router.errors import ConfigError, KeyPath, did_you_mean

_LONGEST_NAME = 200
_SEPARATORS = "/,="
"""Of subjects and of the `skipped` header, so not part of a provider's, account's or caller's name; a model may have slashes."""

_Word = TypeVar("_Word", bound=StrEnum)


def fail(path: KeyPath, message: str) -> NoReturn:
    """Refuse the file at *path*; *message* is one sentence."""
    raise ConfigError(message, key_path=path)


def read_word(what: str, word: str, known: type[_Word], path: KeyPath, *, later: Iterable[str] = ()) -> _Word:
    """The member of *known* that *word* names. Words of *later* are the design's, not yet served."""
    if word in later:
        fail(path, f"{what} {word!r} is not supported by this version yet: write one of {_listed(known)}.")
    check_known(what, word, known, path)
    return known(word)


def check_known(what: str, name: str, known: Iterable[str], path: KeyPath) -> None:
    """Refuse a *name* that is not among *known*."""
    known = tuple(str(word) for word in known)
    if name not in known:
        fail(path, f"{what} {name!r} is not known: {did_you_mean(name, known)}")


def check_name(what: str, name: str, path: KeyPath) -> None:
    """Refuse a *name* that could not be written in a subject, a header or a path."""
    forbidden = "," if what in ("model", "alias") else _SEPARATORS
    if not 0 < len(name) <= _LONGEST_NAME:
        fail(path, f"the name of {_a(what)} has 1 to {_LONGEST_NAME} characters.")
    if not name.isprintable() or any(sign.isspace() or sign in forbidden for sign in name):
        fail(path, f"{what} {name!r} cannot be a name: leave out spaces, control characters and {_listed(forbidden)}.")


def _a(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(repr(str(word)) for word in words)

"""
What every edit checks first.

Law: known, then ours to edit, then the version that the editor saw, then the shape; the first that fails is said.
Never: repeats a value that may be a secret.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from quota_router.core.references import Value, find_users
from quota_router.core.words import ManagedBy
from quota_router.errors import ConfigError, Conflict, InvalidRequest, NotFound, Stale, did_you_mean

Expected = frozenset[int] | None
"""The versions that the editor may have seen; `None`: whichever it is."""

_SHOWN_CHARS = 100


E = TypeVar("E", bound=Value)


def find(what: str, name: str, known: Mapping[str, E]) -> E:
    """The row of that name. Raises `NotFound`."""
    if name not in known:
        shown = repr(name[:_SHOWN_CHARS]) if name.isprintable() else "of that name"
        raise NotFound(f"There is no {what} {shown}: {did_you_mean(name, known)}")
    return known[name]


def find_editable(what: str, name: str, known: Mapping[str, E], expected: Expected) -> E:
    """
    The row of that name, which the API may edit.

    Raises:
        NotFound: there is none.
        Conflict: the file manages it.
        Stale: it is not the one that the editor saw.
    """
    row = find(what, name, known)
    refuse_files(what, row)
    if expected is not None and row.version not in expected:
        raise Stale(f"The {what} {name!r} was edited meanwhile: it is at version {row.version} now. Read it again, then edit that.")
    return row


def refuse_files(what: str, row: Value) -> None:
    """Raise `Conflict` where the file manages *row*."""
    if row.managed_by is ManagedBy.FILE:
        raise Conflict(f"The {what} {row.name!r} comes from the configuration file: edit it there, then run `quota-router apply`.")


def refuse_taken(what: str, name: str, known: Mapping[str, E]) -> None:
    """Raise `Conflict` where there is a row of that name already."""
    if name in known:
        raise Conflict(f"There is a {what} {name!r} already: edit that one, or choose another name.")


def refuse_named(what: str, users: list[str]) -> None:
    """Raise `Conflict` where *users* name what is about to go."""
    if users:
        raise Conflict(f"The {what} is named by {', '.join(users)}: change that first.")


@contextmanager
def as_request(depth: int) -> Iterator[None]:
    """
    Say what is wrong with a row as what is wrong with the request that asked for it.

    Args:
        depth: how many parts of the key path only say which row it is.
    """
    try:
        yield
    except ConfigError as error:
        param = ".".join(str(part) for part in error.key_path[depth:])
        raise InvalidRequest(error.message, param=param or None) from error


__all__ = [
    "Expected",
    "as_request",
    "find",
    "find_editable",
    "find_users",
    "refuse_files",
    "refuse_named",
    "refuse_taken",
]

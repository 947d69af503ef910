"""
What a name in a condition stands for.

Law: a name is a declared field with its part or key, or it is refused with the nearest right one. No object is ever looked into.
Never: knows types.
"""

from collections.abc import Collection
from typing import NoReturn

from msgspec import Struct

from quota_router.core.conditions.fields import FIELD_OF, WEEKDAYS, Field, Kind, ProviderStatus
from quota_router.core.conditions.lexer import Token
from quota_router.core.conditions.refusals import refuse, shorten
from quota_router.errors import did_you_mean

_GROUPS = {name.partition(".")[0] for name in FIELD_OF if "." in name}
"""Names that are no value themselves but have parts that are."""
_QUOTED = {*WEEKDAYS, *ProviderStatus}
"""Words that people forget to quote."""


class KnownNames(Struct, frozen=True, kw_only=True):
    """What may stand in `[ ]`."""

    providers: Collection[str]
    limits: Collection[str]

    def of(self, field: Field) -> Collection[str]:
        """The names that are keys of *field*."""
        return self.providers if field.keys == "provider" else self.limits


class Suffix(Struct, frozen=True, kw_only=True):
    """What follows a name: `.part` or `['key']`."""

    is_key: bool
    word: str
    start: int


def find_field(name: Token, suffixes: list[Suffix], known: KnownNames) -> tuple[Field, str | None]:
    """
    The field that *name* and what follows it stand for, and of a map the key, else `None`.

    Raises:
        ConditionError: there is no such field, or its part or key is missing, wrong, or one too many.
    """
    word, first = name.source, suffixes[0] if suffixes else None
    if word in _GROUPS:
        field, rest = _part(word, first, name.start), suffixes[1:]
        _refuse_more(field, rest)
        return field, None
    if word not in FIELD_OF:
        _refuse_unknown(name)
    field = FIELD_OF[word]
    if not field.keys:
        _refuse_more(field, suffixes)
        return field, None
    key = _key(field, first, known, name.start)
    _refuse_more(field, suffixes[1:])
    return field, key


def _part(group: str, suffix: Suffix | None, at: int) -> Field:
    """`task.id`, of which `task` alone is nothing."""
    parts = [name.partition(".")[2] for name in FIELD_OF if name.startswith(f"{group}.")]
    if suffix is None:
        refuse(f"{group!r} is no value by itself: write {group}.{parts[0]}.", at)
    if suffix.word not in parts:
        refuse(f"{group!r} has no part {shorten(suffix.word)!r}: {did_you_mean(suffix.word, parts)}", suffix.start)
    if suffix.is_key:
        refuse(f"a part of {group!r} follows a point: write {group}.{suffix.word}.", suffix.start)
    return FIELD_OF[f"{group}.{suffix.word}"]


def _key(field: Field, suffix: Suffix | None, known: KnownNames, at: int) -> str:
    """The provider or limit that a field is asked for."""
    if suffix is None:
        refuse(f"{field.name} is asked of one {field.keys}: write {field.name}['NAME'].", at)
    if suffix.word not in known.of(field):
        message = f"{field.keys} {shorten(suffix.word)!r} is not known: {did_you_mean(suffix.word, known.of(field))}"
        refuse(message, suffix.start)
    if not suffix.is_key:
        refuse(f"the name of a {field.keys} stands in [ ]: write {field.name}[{suffix.word!r}].", suffix.start)
    return suffix.word


def _refuse_more(field: Field, suffixes: list[Suffix]) -> None:
    """Refuse a part of what has none."""
    if not suffixes:
        return
    takes = "lists are asked with" if field.kind is Kind.TEXTS else "compare it as a whole, such as"
    refuse(f"{field.name} has no parts: {takes} {field.example}.", suffixes[0].start)


def _refuse_unknown(name: Token) -> NoReturn:
    word = name.source
    if word in _QUOTED:
        refuse(f"{word!r} is a text: write it in quotes.", name.start)
    remedy = did_you_mean(word.lower(), FIELD_OF)
    if remedy.startswith("write"):
        remedy = f"write it in quotes if it is a text, else {remedy.removeprefix('write ')}"
    refuse(f"name {shorten(word)!r} is not known: {remedy}", name.start)

"""
The JSON of quota endpoints, read exactly and with a name for whatever is missing.

Law: numbers are read digit by digit, never through a float. A body that is not as expected raises `UnreadablePoll`, which names
the place and nothing that stood there.
Never: repeats a vendor's text.
"""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import msgspec
from msgspec import Struct

from quota_router.core.readings import ReadingUnit, Said
from quota_router.dialects.base import UnreadableAnswer
from quota_router.dialects.json import name_or_none
from quota_router.dialects.vendors.values import from_epoch, instant, is_sane, nusd, share_ppm

MEMBERS_MAX = 200
"""Elements of a list that are looked at."""
_DECODER = msgspec.json.Decoder(Any, float_hook=Decimal)


class UnreadablePoll(UnreadableAnswer):
    """The answer of a quota endpoint cannot be read."""


class Node(Struct, frozen=True):
    """A value somewhere in a body, and its place, for the message when it is not what it should be."""

    value: Any
    place: str = "the answer"

    def __getitem__(self, name: str) -> Self:
        """
        The member of that name.

        Raises:
            UnreadablePoll: there is none, or it is null.
        """
        found = self.get(name)
        if found is None:
            raise UnreadablePoll(f"{self.place} has no `{name}`.")
        return found

    def get(self, name: str) -> Self | None:
        """The member of that name; `None`: there is none, or it is null."""
        value = self.value.get(name) if isinstance(self.value, dict) else None
        return None if value is None else type(self)(value, f"`{name}`")

    def each(self, name: str) -> list[Self]:
        """The elements of the list of that name; none when there is no list."""
        found = self.get(name)
        return found.elements() if found is not None and isinstance(found.value, list) else []

    def elements(self) -> list[Self]:
        """
        The elements of the value.

        Raises:
            UnreadablePoll: it is no list.
        """
        if not isinstance(self.value, list):
            raise UnreadablePoll(f"{self.place} is no list.")
        return [type(self)(value, f"an element of {self.place}") for value in self.value[:MEMBERS_MAX]]

    def number(self, name: str) -> Decimal | None:
        """
        The number of that name, also one written as text; `None`: not said.

        Raises:
            UnreadablePoll: it is no number of a sane size.
        """
        found = self.get(name)
        return None if found is None else found.as_number()

    def as_number(self) -> Decimal:
        """
        The value as a number.

        Raises:
            UnreadablePoll: it is none, or of no sane size.
        """
        is_numeric = isinstance(self.value, int | str | Decimal) and not isinstance(self.value, bool)
        try:
            number = Decimal(self.value if not isinstance(self.value, str) else self.value.strip()) if is_numeric else None
        except InvalidOperation:
            number = None
        if number is None or not is_sane(number):
            raise UnreadablePoll(f"{self.place} is no number.")
        return number

    def count(self, name: str) -> int | None:
        """The whole number of that name, rounded down; `None`: not said. Raises like `number`."""
        number = self.number(name)
        return None if number is None else int(number)

    def text(self, name: str) -> str:
        """The text of that name; empty when there is none, or one that is no name: long, or with control characters."""
        found = self.get(name)
        return (name_or_none(found.value) or "") if found is not None else ""

    def flag(self, name: str) -> bool | None:
        """The truth of that name; `None`: not said."""
        found = self.get(name)
        return found.value if found is not None and isinstance(found.value, bool) else None

    def moment(self, name: str) -> datetime | None:
        """The moment of that name: RFC 3339, or seconds or milliseconds since 1970, also as text; `None`: not said."""
        found = self.get(name)
        return None if found is None else found.as_moment()

    def as_moment(self) -> datetime | None:
        """The value as a moment, aware UTC; `None`: it is none."""
        if isinstance(self.value, str) and not self.value.strip().isdigit():
            return instant(self.value)
        try:
            return from_epoch(float(self.as_number()))
        except UnreadablePoll:
            return None


def read_json(body: bytes) -> Node:
    """
    Decode a body.

    Raises:
        UnreadablePoll: it is no JSON.
    """
    try:
        return Node(_DECODER.decode(body))
    except (ValueError, RecursionError, InvalidOperation) as exc:
        raise UnreadablePoll("The answer is no JSON.") from exc


# --- what most endpoints tell -----------------------------------------------------------------------------------------


def balance(window: str, left_usd: Decimal, now: datetime) -> Said:
    """What is left of money that was paid in. A debt is used beyond a limit of nothing."""
    if left_usd < 0:
        return Said(window=window, unit=ReadingUnit.USD, used=nusd(-left_usd, is_cap=False), limit=0, observed_at=now)
    return Said(window=window, unit=ReadingUnit.USD, used=0, limit=nusd(left_usd, is_cap=True), observed_at=now)


def percent(
    window: str, used: Decimal | None, resets_at: datetime | None, now: datetime, *, model: str = "", is_extra: bool = False
) -> Said:
    """A window of which the used percentage is told. Where more is left than there was, nothing is used."""
    return Said(
        window=window,
        unit=ReadingUnit.SHARE,
        model=model,
        share_ppm=None if used is None else share_ppm(max(Decimal(0), used), per=100),
        resets_at=resets_at,
        is_extra=is_extra,
        observed_at=now,
    )


def spent(
    window: str, used_usd: Decimal | None, limit_usd: Decimal | None, resets_at: datetime | None, now: datetime, *, per_usd: int = 1
) -> Said:
    """A window in money; *per_usd*: how many of the vendor's units are a dollar."""
    return Said(
        window=window,
        unit=ReadingUnit.USD,
        used=nusd(used_usd, is_cap=False, per_usd=per_usd),
        limit=nusd(limit_usd, is_cap=True, per_usd=per_usd),
        resets_at=resets_at,
        observed_at=now,
    )


def month_start(now: datetime) -> datetime:
    """Where the calendar month in UTC began."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

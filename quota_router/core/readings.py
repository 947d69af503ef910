"""
What upstreams last told us of their windows, and which of it is believed.

Law: what is believed depends on what was said and not on the order in which it came in; what was observed earlier never
replaces what was observed later, and only three sayings in a row give headroom back.
Never: reads the clock or a header, and never turns "not said" into a number.

What an upstream may say wrongly, and what becomes of it (faults F27-F29):

    a negative number; a share beyond `SHARE_MAX_PPM`     that number was not said
    more used than the limit, a share above 1             believed: nothing is left
    a reset at or before the observation                  of a window that is over: not kept. A bucket is kept: it is full
    a reset beyond `WINDOW_MAX`                           when it resets was not said
    observed later than now (our clock was set back)      not kept, so that it cannot outlive what is observed next
    nothing of all this said                              not kept
    more used than before                                 believed at once
    less used than before, the window not over            believed when three in a row say so, and then the most careful of them
    a flip and back                                       the same rule: the most careful of the last three
    a refusal (`rejected`)                                the most careful there is; a 429 without headers becomes one by `refused`

Decision 2026-11 -- the last three readings are kept and the most careful of those whose window is not over is believed,
    against a counter of confirmations: three readings are the same set in whatever order they came. An upstream that resets
    a window early is therefore believed two readings late. Look again if such gifts become usual.
Decision 2026-11 -- the key of a reading has no provider: quotas belong to accounts, and two dialects of one account see one window.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.limits import Amounts

PPM = 1_000_000
"""A whole, in parts per million."""
SHARE_MAX_PPM = 10 * PPM
"""Shares above 1 are real (paid overage); ten times the whole is a percentage misread, or a lie."""
NUMBER_MAX = 10**18
"""A larger count or amount of nano-USD (a milliard dollars) is nobody's quota."""
WINDOW_MAX = timedelta(days=400)
"""No window is longer than a year."""
CLOCK_SLACK = timedelta(seconds=60)
"""How far apart the clocks of our own daemons may be."""
READINGS_KEPT = 3
"""Per window: one, and the two confirmations that a rise of headroom needs."""

Key = tuple[str, str, str, str]
"""Account, window, model, unit."""


class ReadingUnit(StrEnum):
    """What a vendor counts in: the units of limits, and `share` where it tells only which part of an unknown whole is used."""

    USD = "usd"
    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENCY = "concurrency"
    SHARE = "share"


class Status(StrEnum):
    """A vendor's own word on a window, in one spelling."""

    ALLOWED = "allowed"
    WARNING = "warning"
    REJECTED = "rejected"


class Said(Struct, frozen=True, kw_only=True):
    """
    One window as a vendor told it. Whose window it is, only whoever asked knows.

    Numbers are in `unit`, usd in nano-USD. `None`: not said, which is never 0.
    """

    window: str
    """the vendor's short name: `minute`, `5h`, `7d`, `month`, `credits`, …"""
    unit: ReadingUnit
    observed_at: datetime
    """aware UTC, by our clock"""
    model: str = ""
    """the only upstream model it is about, or a pattern with `*`; empty: all of them"""
    used: int | None = None
    limit: int | None = None
    """of a balance: what is left, with `used` 0; what was paid in is not said"""
    share_ppm: int | None = None
    """the used part of the whole, in parts per million"""
    status: Status | None = None
    resets_at: datetime | None = None
    """aware UTC; of a bucket: when it will be full again if nobody draws from it"""
    refills: bool = False
    """a bucket that fills evenly until `resets_at`: more headroom needs no reset and no confirmation"""
    is_extra: bool = False
    """a way to pay beyond the windows (overage, credits) or a count of something else: shown, never binding"""

    @property
    def left(self) -> int | None:
        """What was left when it was observed, in the unit (`share`: parts per million), never negative. `None`: unknown."""
        if self.status is Status.REJECTED:
            return 0
        if self.unit is ReadingUnit.SHARE:
            return None if self.share_ppm is None else max(0, PPM - self.share_ppm)
        if self.limit is None:
            return None
        if self.used is not None:
            return max(0, self.limit - self.used)
        return None if self.share_ppm is None else max(0, self.limit * (PPM - self.share_ppm) // PPM)

    def by(self, *, provider: str, account: str, source: str, posted_then: Amounts | None = None) -> "Reading":
        """The reading that this becomes once it is known who was asked, and how: see `Reading`."""
        said = {name: getattr(self, name) for name in _SAID}
        return Reading(**said, provider=provider, account=account, source=source, posted_then=posted_then)


_SAID = Said.__struct_fields__


class Reading(Said, frozen=True, kw_only=True):
    """What an upstream last told us of a window of an account."""

    provider: str
    """through which it was told"""
    account: str
    source: str
    """`headers` or `poller:NAME`"""
    posted_then: Amounts | None = None
    """the account's running totals when it was observed; `None`: unknown, then nothing can be said to be posted since"""

    @property
    def key(self) -> Key:
        """Which window it is of."""
        return self.account, self.window, self.model, self.unit.value

    def is_over(self, now: datetime) -> bool:
        """Whether its window has ended: then it says nothing any more."""
        return self.resets_at is not None and self.resets_at <= now

    def covers(self, upstream_model: str) -> bool:
        """Whether a call to *upstream_model* counts in its window."""
        if not self.model:
            return True
        model, asked = self.model.lower(), upstream_model.lower()
        return fnmatchcase(asked, model) if "*" in model else asked == model


class Seen(Struct, frozen=True):
    """The last readings of one window, in the order of their observation."""

    readings: tuple[Reading, ...] = ()

    @property
    def newest(self) -> Reading | None:
        """The last one observed, believed or not; its age is the age of what we know. `None`: there is none."""
        return self.readings[-1] if self.readings else None

    def is_stale(self, now: datetime, stale_after_s: float) -> bool:
        """Whether nothing has been heard of the window for longer than that."""
        return self.newest is None or (now - self.newest.observed_at).total_seconds() > stale_after_s

    def merge(self, reading: Reading, now: datetime) -> Self:
        """
        With one more reading in it.

        The result is the same in whatever order readings come in, and saying one twice adds nothing.

        Args:
            reading: of the same window as those that are here.
            now: aware UTC; readings from a later time are dropped, also those that are here.
        """
        latest, newest = now + CLOCK_SLACK, self.newest
        assert newest is None or newest.key == reading.key, "a reading of another window"
        heard = sound(reading, now)
        if heard is not None and newest is not None and newest.observed_at < heard.observed_at and newest.observed_at <= latest:
            return type(self)((*self.readings, heard)[-READINGS_KEPT:])  # the way almost every reading comes
        known = [known for known in self.readings if known.observed_at <= latest]
        if heard is not None and heard not in known:
            known.append(heard)
        known.sort(key=_order)
        return type(self)(tuple(known[-READINGS_KEPT:]))

    def believed(self, now: datetime) -> Reading | None:
        """
        What is believed of the window at *now*.

        Returns:
            of a bucket the last reading, of any other window the most careful of the last three, with the limit that was
            last said where it lacks one. `None`: nothing is known, or the window is over.
        """
        live = [reading for reading in self.readings if not reading.is_over(now)]
        if not live or live[-1].refills:
            return live[-1] if live else None
        # Some vendors tell what was spent at one endpoint and the cap at another.
        limit = next((reading.limit for reading in reversed(live) if reading.limit is not None), None)
        whole = [
            reading if reading.limit is not None or reading.used is None else replace(reading, limit=limit) for reading in live
        ]
        return min(reversed(whole), key=_care)  # of two alike the later one: less was posted since


def sound(reading: Reading, now: datetime) -> Reading | None:
    """The reading without what cannot be true, by the table at the head of this file; `None`: nothing remains."""
    is_ended = reading.resets_at is not None and reading.resets_at <= reading.observed_at and not reading.refills
    if is_ended or reading.observed_at > now + CLOCK_SLACK:
        return None
    is_far = reading.resets_at is not None and reading.resets_at > reading.observed_at + WINDOW_MAX
    used, limit = _count(reading.used), _count(reading.limit)
    share_ppm = reading.share_ppm if reading.share_ppm is not None and 0 <= reading.share_ppm <= SHARE_MAX_PPM else None
    if used is None and limit is None and share_ppm is None and reading.status is None:
        return None
    if is_far or used != reading.used or limit != reading.limit or share_ppm != reading.share_ppm:
        resets_at = None if is_far else reading.resets_at
        return replace(reading, used=used, limit=limit, share_ppm=share_ppm, resets_at=resets_at)
    return reading


def refused(reading: Reading, at: datetime, until: datetime | None) -> Reading:
    """
    What a 429 makes of a reading that still promised something: the call was refused, whatever the endpoint says.

    Args:
        reading: of the window that the refusal is about.
        at: when it was refused, aware UTC.
        until: when the upstream asks us to come back; `None`: when the window resets, as far as that is known.
    """
    return replace(reading, status=Status.REJECTED, observed_at=at, resets_at=until or reading.resets_at)


def _count(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= NUMBER_MAX else None


def _care(reading: Reading) -> tuple[bool, int]:
    """Sorts the most careful first: the least left. A reading that says nothing of it is the least careful."""
    return reading.left is None, reading.left or 0


def _order(reading: Reading) -> tuple[datetime, bytes]:
    """By observation; among those of one instant any order will do, if only it is always the same."""
    return reading.observed_at, msgspec.json.encode(reading)

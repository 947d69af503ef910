"""
What upstreams told us of their windows, as far as the lane knows it, and what was learned from that.

Law: readings belong to accounts; what is believed of them, and what is left, is `core`'s to say. Bounded: an upstream that names
ever new windows is not listened to beyond `WINDOWS_MAX`.
Never: asks an upstream, or speaks SQL.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calibration import Calibration, Worth
from quota_router.core.forecast import Growth
from quota_router.core.headroom import Headroom, headroom
from quota_router.core.limits import Amounts
from quota_router.core.outlook import Outlook, look_ahead
from quota_router.core.readings import Key, Reading, ReadingUnit, Seen
from quota_router.core.restraints import Caution
from quota_router.store.rows import SetReading

WINDOWS_MAX = 64
"""Per account: more than any vendor has."""

_encode = msgspec.json.Encoder().encode
_decode_seen = msgspec.json.Decoder(Seen).decode


class Known(Struct, kw_only=True):
    """All that is known of one window."""

    seen: Seen = Seen()
    calibration: Calibration = Calibration()
    growth: Growth = Growth()
    worth: Worth | None = None
    """what `calibration` says, worked out when it last learned"""


@dataclass(slots=True)
class Readings:
    """Every window of every account."""

    by_account: dict[str, dict[Key, Known]] = field(default_factory=dict)
    _changed: set[Key] = field(default_factory=set)

    def observe(self, reading: Reading, posted: Amounts, now: datetime) -> None:
        """Take in one reading. *posted*: the account's running totals at this moment."""
        windows = self.by_account.setdefault(reading.account, {})
        known = windows.get(reading.key)
        if known is None:
            if len(windows) >= WINDOWS_MAX:
                return
            known = windows[reading.key] = Known()
        known.seen = known.seen.merge(reading, now)
        if reading.unit is ReadingUnit.SHARE:
            calibration = known.calibration.learn(reading, posted)
            if calibration is not known.calibration:
                known.calibration, known.worth = calibration, calibration.worth()
            known.growth = known.growth.add(reading)
        self._changed.add(reading.key)

    def headrooms(
        self, account: str, *, posted: Amounts, held: Amounts, needed: Amounts | None, now: datetime, stale_after_s: float
    ) -> tuple[Headroom, ...]:
        """What is left of each window of an account that anything is believed of."""
        windows = self.by_account.get(account)
        if not windows:
            return ()
        found = [
            headroom(
                known.seen,
                posted_now=posted,
                held_now=held,
                worth=known.worth,
                now=now,
                stale_after_s=stale_after_s,
                needed=needed,
            )
            for known in windows.values()
        ]
        return tuple([room for room in found if room is not None])

    def outlooks(
        self, account: str, rooms: Iterable[Headroom], caution: Caution, now: datetime, stale_after_s: float
    ) -> list[Outlook]:
        """How each window of an account is doing. *rooms*: what is left of those of which anything is believed."""
        found = {room.reading.key: room for room in rooms}
        return [
            look_ahead(
                known.seen.newest,
                found.get(key),
                worth=known.worth,
                growth=known.growth,
                caution=caution,
                is_stale=known.seen.is_stale(now, stale_after_s),
                now=now,
            )
            for key, known in sorted(self.by_account.get(account, {}).items())
            if known.seen.newest is not None
        ]

    def take_rows(self) -> list[SetReading]:
        """Lay out what this batch has changed, in the order in which everybody writes."""
        rows = [_row(key, self.by_account[key[0]][key]) for key in sorted(self._changed)]
        self._changed.clear()
        return rows

    def put(self, key: Key, seen: str, calibration: str | None, growth: str | None) -> None:
        """Take a row back in."""
        learned = Calibration.from_json(calibration) if calibration else Calibration()
        self.by_account.setdefault(key[0], {})[key] = Known(
            seen=_decode_seen(seen),
            calibration=learned,
            growth=Growth.from_json(growth) if growth else Growth(),
            worth=learned.worth(),
        )

    def forget(self, accounts: Iterable[str]) -> None:
        """Let go of what is to be read anew."""
        for account in accounts:
            self.by_account.pop(account, None)

    def copy(self) -> Self:
        """Copy what can change."""
        return type(self)(
            {account: {key: replace(known) for key, known in windows.items()} for account, windows in self.by_account.items()}
        )


def _row(key: Key, known: Known) -> SetReading:
    account, window, model, unit = key
    is_share = unit == ReadingUnit.SHARE
    return SetReading(
        account=account,
        window=window,
        model=model,
        unit=unit,
        seen=_encode(known.seen).decode(),
        calibration=known.calibration.to_json() if is_share else None,
        growth=known.growth.to_json() if is_share else None,
    )

"""
What every balance should be, counted in Python from the rows.

Law: independent of `store/projection`, which lets the database sum: the two check each other. They share what `core` says a window,
a subject and a hold's charge are, and nothing else.
Never: asks the database, or keeps more buckets than it was told to count.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec

from quota_router.core.catalog import Catalog
from quota_router.core.holds import EntryKind, Hold, amount_held
from quota_router.core.limits import Limit, Unit, Window, subjects_of
from quota_router.core.windows import coverage
from quota_router.store.rows import Entry
from quota_router.store.tables import EPOCH, MICROSECOND, microseconds

PLACES_KEPT = 10_000
"""Combinations of provider, model, caller and labels whose limits are remembered."""

_FIELDS = Entry.__struct_fields__
_place_of = itemgetter(*(_FIELDS.index(name) for name in ("provider", "account", "model", "caller", "labels")))
_COUNTED = ("kind", "cost_nusd", "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "held_at")
_counted_of = itemgetter(*(_FIELDS.index(name) for name in _COUNTED))
_UNITS = (Unit.USD, Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.CONCURRENCY)
"""The order in which the amounts of an entry stand."""
_REQUESTS = frozenset({EntryKind.POST.value, EntryKind.EXPIRE.value})
_NEVER = 2**63
"""Later than any stored instant."""


class Counter:
    """Counts what one limit has taken, bucket by bucket. Instants are stored microseconds."""

    def __init__(self, limit: Limit, windows: Sequence[Window], now: datetime) -> None:
        self.limit = limit
        self.unit = _UNITS.index(limit.unit)
        self._starts = [microseconds(window.start) for window in windows]
        self._ends = [_NEVER if window.end is None else microseconds(window.end) for window in windows]
        covered = coverage(limit, now, windows[-1] if windows else None)
        self.current_from = _NEVER if covered.opens else microseconds(covered.first_bucket)
        """the first bucket of the window that counts now"""
        self.low = self.high = 0
        """the last bucket that was asked for holds `[low, high)`"""
        self.bucket: int | None = None
        self.wanted: frozenset[int] = frozenset()
        self.posted: dict[int, int] = {}
        self.held: dict[int, int] = {}

    def turn_to(self, at: int) -> int | None:
        """Find the bucket that holds *at*; `None`: no first-use window did."""
        covered = coverage(self.limit, EPOCH + at * MICROSECOND, None)
        if covered.opens:
            return self._turn_to_opened(at)
        self.low = self.bucket = microseconds(covered.bucket)
        if covered.bucket_width is not None:
            self.high = self.low + covered.bucket_width // MICROSECOND
        else:
            self.high = _NEVER if covered.end is None else microseconds(covered.end)
        return self.bucket

    def _turn_to_opened(self, at: int) -> int | None:
        """Of windows that overlap, the one that was opened last counts."""
        place = bisect_right(self._starts, at) - 1
        following = self._starts[place + 1] if place + 1 < len(self._starts) else _NEVER
        if place >= 0 and at < self._ends[place]:
            self.low, self.high, self.bucket = self._starts[place], min(self._ends[place], following), self._starts[place]
        else:
            self.low, self.high, self.bucket = (self._ends[place] if place >= 0 else -_NEVER), following, None
        return self.bucket

    def bucket_of(self, at: int) -> int | None:
        """Find the bucket that holds *at*; mostly the one that held the instant before."""
        return self.bucket if self.low <= at < self.high else self.turn_to(at)


class Tally:
    """Counts entries and open holds for every limit of a catalog."""

    def __init__(self, catalog: Catalog, history: Mapping[str, Sequence[Window]], now: datetime) -> None:
        self._catalog = catalog
        self.counters = {limit.name: Counter(limit, history.get(limit.name, ()), now) for limit in catalog.limits}
        self._by_place: dict[tuple[Any, ...], list[Counter]] = {}
        self._is_first = True

    def want(self, buckets: Iterable[tuple[str, int]], *, is_first: bool) -> None:
        """Begin to count for these buckets, by limit, and the first time also for every window that counts now."""
        wanted: dict[str, set[int]] = {}
        for name, bucket in buckets:
            wanted.setdefault(name, set()).add(bucket)
        self._is_first = is_first
        for name, counter in self.counters.items():
            counter.wanted = frozenset(wanted.get(name, ()))
            counter.posted = {bucket: posted for bucket, posted in counter.posted.items() if bucket >= counter.current_from}

    def take(self, row: Sequence[Any]) -> None:
        """Count one entry, a row of `STORED`. Values that no entry can hold count nothing: the chain tells of them."""
        place = _place_of(row)
        counters = self._by_place.get(place)
        if counters is None:
            counters = self._counters_of(place)
        if not counters:
            return
        kind, cost_nusd, plain, read, written, written_1h, answered, reasoning, at = _counted_of(row)
        try:
            input_tokens, output_tokens = plain + read + written + written_1h, answered + reasoning
            is_request = kind in _REQUESTS
            amounts = (cost_nusd or 0, 1 if is_request else 0, input_tokens + output_tokens, input_tokens, output_tokens, 0)
            for counter in counters:
                bucket = counter.bucket if counter.low <= at < counter.high else counter.turn_to(at)
                if bucket is None:
                    continue
                if self._is_first if bucket >= counter.current_from else bucket in counter.wanted:
                    counter.posted[bucket] = counter.posted.get(bucket, 0) + amounts[counter.unit]
        except (TypeError, ValueError, OverflowError):
            return

    def hold(self, hold: Hold) -> None:
        """Count one open hold."""
        for limit in self._catalog.limits_of(hold.subjects):
            counter = self.counters[limit.name]
            bucket = counter.bucket_of(microseconds(hold.held_at))
            if bucket is not None:
                counter.held[bucket] = counter.held.get(bucket, 0) + amount_held(limit, hold.estimate)

    def _counters_of(self, place: tuple[Any, ...]) -> list[Counter]:
        if len(self._by_place) >= PLACES_KEPT:
            self._by_place.clear()
        provider, account, model, caller, text = place
        try:
            labels = msgspec.json.decode(text, type=tuple[str, ...])
        except (msgspec.DecodeError, TypeError, ValueError):
            labels = ()
        found = self._catalog.limits_of(tuple(dict.fromkeys(subjects_of(provider, account, model, caller, labels))))
        counters = [self.counters[limit.name] for limit in found if limit.unit is not Unit.CONCURRENCY]
        self._by_place[place] = counters
        return counters

"""
What the lane knows: the ledger's present, in memory.

Law: a projection of the rows that the same transaction reads or writes, and nothing more: losing it costs one reload and changes no
meaning. Only jobs inside the lane change it, without suspending.
Never: speaks SQL; it collects the rows to be written, the lane writes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Self

import msgspec
from msgspec import Struct

from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Learned
from quota_router.core.headroom import Headroom
from quota_router.core.health import Cooldown
from quota_router.core.holds import CallState, Charge, EntryKind, Hold, HoldState, Settlement
from quota_router.core.limits import NOTHING, Amounts, Gauge, Limit, Window
from quota_router.core.windows import Coverage, coverage, next_relief
from quota_router.store.readings import Readings
from quota_router.store.rows import EndedCooldown, Entry, JournalHead, MovedBalance, MovedTotal, SetCooldown, Taught, values_of
from quota_router.store.tables import microseconds

LABELS_CACHED = 1_024


@lru_cache(maxsize=LABELS_CACHED)
def labels_text(labels: tuple[str, ...]) -> str:
    """Lay labels out as their column: the same few stand in three rows of every call."""
    return msgspec.json.encode(labels).decode()


@dataclass(slots=True, kw_only=True)
class Balance:
    """What is posted to and held in one bucket of one limit, in the limit's unit."""

    posted: int = 0
    held: int = 0


@dataclass(slots=True, kw_only=True)
class Total:
    """What an account has posted since ever and holds now, at list price."""

    posted: Amounts = NOTHING
    held: Amounts = NOTHING


class Head(Struct, frozen=True, kw_only=True):
    """The end of a journal's chain."""

    seq: int
    hash: bytes
    at: datetime


class Line(Struct, frozen=True, kw_only=True):
    """An entry, as it stands in its table."""

    entry: Entry
    hash: bytes


class Adjusted(Struct, frozen=True, kw_only=True):
    """What an adjustment finds."""

    line: Line | None
    """what was booked for it; `None`: nothing yet"""
    windows: Mapping[str, Window]
    """the first-use windows of the moment in which it counts, by limit"""


class Resolved(Struct, frozen=True, kw_only=True):
    """A hold that has left `held`, as its row tells it: what a repeated or late word is compared with."""

    hold: Hold
    state: HoldState
    fingerprint: str
    charges: tuple[Charge, ...]
    booked: dict[EntryKind, Settlement]
    """what was booked for it, by kind of entry"""


class KnownCall(Struct, frozen=True, kw_only=True):
    """A call that an idempotency key names."""

    id: str
    state: CallState
    fingerprint: str | None


class OpenHold(Struct, frozen=True, kw_only=True):
    """A hold that is held, with what it takes from each limit."""

    hold: Hold
    charges: tuple[Charge, ...]


def counted_from(charges: Iterable[Charge]) -> dict[str, datetime]:
    """The first bucket, by limit, of the windows in which *charges* stand: they judge a hold that grows, also when over."""
    found: dict[str, datetime] = {}
    for charge in charges:
        first = coverage(charge.limit, charge.bucket, None).first_bucket
        found[charge.limit.name] = min(found.get(charge.limit.name, first), first)
    return found


@dataclass(slots=True, kw_only=True)
class State:
    """Everything a job may look at, and the rows the batch will write."""

    journal: str
    head: Head
    catalog: Catalog
    balances: dict[str, dict[datetime, Balance]] = field(default_factory=dict)
    """by limit, by bucket"""
    opened: dict[str, Window] = field(default_factory=dict)
    """the last first-use window of each limit"""
    holds: dict[str, OpenHold] = field(default_factory=dict)
    totals: dict[str, Total] = field(default_factory=dict)
    """by account"""
    readings: Readings = field(default_factory=Readings)
    cooldowns: dict[tuple[str, str], Cooldown] = field(default_factory=dict)
    """by (provider, model); model `""`: the whole provider"""
    learned: dict[tuple[str, str], Learned] = field(default_factory=dict)
    """by (model, provider)"""
    turns: dict[str, int] = field(default_factory=dict)
    """how many calls each model has had, for rungs that take turns; this daemon's own, and gone with it"""
    latencies: dict[tuple[str, str], int] = field(default_factory=dict)
    """by (model, provider), how fast answers began lately, in milliseconds; likewise"""
    resolved: dict[str, Resolved] = field(default_factory=dict)
    """read for this batch only: holds that jobs asked for and that are not open"""
    known_keys: dict[tuple[str, str], KnownCall] = field(default_factory=dict)
    """read for this batch only: calls by (caller, idempotency key)"""
    adjusted: dict[str, Adjusted] = field(default_factory=dict)
    """read for this batch only: what its adjustments find, by their ids"""
    writes: dict[type[Struct], list[tuple[Any, ...]]] = field(default_factory=dict)
    orphaned: frozenset[str] = frozenset()
    """read for this batch only: journals whose daemon is gone"""
    _covered: dict[str, Coverage] = field(default_factory=dict)
    """windows worked out before, by limit; gone with the state when the catalog changes"""
    _left: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    _touched: set[tuple[str, datetime]] = field(default_factory=set)
    _moved: dict[str, Total] = field(default_factory=dict)
    """by account, what this batch adds"""
    _cooled: set[tuple[str, str]] = field(default_factory=set)
    _taught: set[tuple[str, str]] = field(default_factory=set)

    @property
    def latest(self) -> datetime:
        """
        The last moment that anything known here was booked at.

        Time does not go back before it: a clock may be set back, and another daemon may have written while this one waited for it.
        A window would open a second time, and what stands in a later bucket would not be counted.
        """
        windows = [window.start for window in self.opened.values()]
        return max([self.head.at, *windows, *[max(buckets) for buckets in self.balances.values() if buckets]])

    def write(self, row: Struct, *more: bytes) -> None:
        """Add one row to what this batch writes. *more*: values that stand behind its fields."""
        self.writes.setdefault(type(row), []).append(values_of(row) + more)

    def gauge(self, limit: Limit, now: datetime) -> Gauge:
        """What is left under *limit* at *now*."""
        covered = self._coverage(limit, now)
        buckets = self.balances.get(limit.name, {})
        posted = held = 0
        oldest: datetime | None = None
        for bucket in self._counted(buckets, covered):
            balance = buckets[bucket]
            if balance.posted or balance.held:
                posted, held = posted + balance.posted, held + balance.held
                oldest = bucket if oldest is None else min(oldest, bucket)
        return Gauge(
            limit=limit,
            posted=posted,
            held=held,
            bucket=covered.bucket,
            opens=covered.opens,
            window_start=covered.start,
            window_end=covered.end,
            relief_at=next_relief(limit, covered, oldest),
        )

    def _coverage(self, limit: Limit, now: datetime) -> Coverage:
        """The window that holds *now*; one that has a single bucket stays the same until it ends."""
        known = self._covered.get(limit.name)
        if known is not None and known.start <= now and (known.end is None or now < known.end):
            return known
        covered = coverage(limit, now, self.opened.get(limit.name))
        if covered.first_bucket == covered.bucket and not covered.opens:
            self._covered[limit.name] = covered
        return covered

    @staticmethod
    def _counted(buckets: Mapping[datetime, Balance], covered: Coverage) -> list[datetime]:
        """Return the buckets that count; all but rolling windows have exactly one, found without a walk."""
        if covered.first_bucket == covered.bucket:
            return [covered.bucket] if covered.bucket in buckets else []
        return [bucket for bucket in buckets if covered.first_bucket <= bucket <= covered.bucket]

    def keeps(self, limit: Limit, bucket: datetime, now: datetime) -> bool:
        """
        Whether a balance of this bucket is kept, so that what is booked afterwards can move it.

        A window that was over when its limit was made has none: one that began with a correction would be a part and look whole.
        """
        covered = self._coverage(limit, now)
        is_counted = not covered.opens and covered.first_bucket <= bucket
        return is_counted or bucket in self.balances.get(limit.name, {})

    def leave(self, limit: Limit, at: datetime, posted: int) -> None:
        """Remember what was booked at an instant in no first-use window: one that is opened at this very instant counts it."""
        then, before = self._left.get(limit.name, (at, 0))
        self._left[limit.name] = (at, posted + before if then == at else posted)

    def take_left(self, limit: Limit, start: datetime) -> int:
        """What a first-use window that is opened now begins with: mostly nothing."""
        then, posted = self._left.pop(limit.name, (start, 0))
        return posted if then == start else 0

    def cooldowns_of(self, provider: str, model: str) -> tuple[Cooldown, ...]:
        """Return what stands on a rung: its own cooldown, and its whole provider's."""
        if not self.cooldowns:
            return ()
        found = (self.cooldowns.get((provider, model)), self.cooldowns.get((provider, "")))
        return tuple(cooldown for cooldown in found if cooldown is not None)

    def set_cooldown(self, cooldown: Cooldown) -> None:
        """Let a rung, or a whole provider, cool."""
        self.cooldowns[cooldown.provider, cooldown.model] = cooldown
        self._cooled.add((cooldown.provider, cooldown.model))

    def end_cooldown(self, provider: str, model: str) -> None:
        """Forget a cooldown."""
        del self.cooldowns[provider, model]
        self._cooled.add((provider, model))

    def take_catalog(self, catalog: Catalog) -> None:
        """Look at another snapshot from now on."""
        self.catalog = catalog
        self._covered.clear()

    def forget_present(self) -> None:
        """Forget what others may change, before it is read for the next batch."""
        self.balances.clear()
        self.totals.clear()
        self.readings.by_account.clear()
        self.opened.clear()
        self.holds.clear()
        self.cooldowns.clear()

    def charge(self, limit: Limit, bucket: datetime, *, posted: int = 0, held: int = 0) -> None:
        """Move one balance."""
        balance = self.balances.setdefault(limit.name, {}).setdefault(bucket, Balance())
        balance.posted += posted
        balance.held += held
        self._touched.add((limit.name, bucket))

    def move_total(self, account: str, *, posted: Amounts = NOTHING, held: Amounts = NOTHING) -> None:
        """Move an account's running totals."""
        for totals in (self.totals, self._moved):
            total = totals.get(account)
            if total is None:
                total = totals[account] = Total()
            total.posted, total.held = total.posted.plus(posted), total.held.plus(held)

    def headrooms(self, account: str, needed: Amounts | None, now: datetime, stale_after_s: float) -> tuple[Headroom, ...]:
        """What is left of each live window of an account."""
        if account not in self.readings.by_account:
            return ()
        total = self.totals.get(account, _NO_TOTAL)
        return self.readings.headrooms(
            account, posted=total.posted, held=total.held, needed=needed, now=now, stale_after_s=stale_after_s
        )

    def is_new(self, account: str) -> bool:
        """Whether nothing was ever booked on an account."""
        return self.totals.get(account, _NO_TOTAL).posted.requests == 0

    def teach(self, key: tuple[str, str], learned: Learned) -> None:
        """Remember what an attachment's answers use."""
        self.learned[key] = learned
        self._taught.add(key)

    def write_learned(self) -> None:
        """Write what was learned since the last time. What a crash loses of it is learned again."""
        for model, provider in self._taught:
            self.write(Taught(model=model, provider=provider, **self.learned[model, provider].to_row()))
        self._taught.clear()

    def write_head(self) -> None:
        """Write where the journal's chain ends; once in a batch, after its last entry."""
        head = self.head
        row = JournalHead(name=self.journal, seq=head.seq, hash=head.hash, at=microseconds(head.at))
        self.writes[JournalHead] = [values_of(row)]

    def forget_old(self, now: datetime) -> None:
        """
        Drop balances that no window counts any more: memory stays bounded, the rows stay.

        What holds of the batch stand in stays, resolved ones too: a late word may still move it, and moves what is known of it. So
        may an adjustment, in any window: where the batch has one, all of it goes with the next sweep.
        """
        if self.adjusted:
            return
        charges = [charge for held in self.holds.values() for charge in held.charges]
        charges += [charge for resolved in self.resolved.values() for charge in resolved.charges]
        kept_from = counted_from(charges)
        for limit in self.catalog.limits:
            first = coverage(limit, now, self.opened.get(limit.name)).first_bucket
            first = min(first, kept_from.get(limit.name, first))
            buckets = self.balances.get(limit.name, {})
            # What this batch moved is still to be written: it goes with the next sweep.
            for bucket in [b for b in buckets if b < first and (limit.name, b) not in self._touched]:
                del buckets[bucket]

    def copy(self) -> Self:
        """Copy what can change, so that the copy does not."""
        balances = {name: {b: replace(balance) for b, balance in found.items()} for name, found in self.balances.items()}
        return type(self)(
            journal=self.journal,
            head=self.head,
            catalog=self.catalog,
            balances=balances,
            opened=dict(self.opened),
            holds=dict(self.holds),
            totals={account: replace(total) for account, total in self.totals.items()},
            readings=self.readings.copy(),
            cooldowns=dict(self.cooldowns),
            learned=dict(self.learned),
            latencies=dict(self.latencies),
        )

    def take_writes(self) -> dict[type[Struct], list[tuple[Any, ...]]]:
        """Return everything this batch has to write, and begin a new one."""
        for name, bucket in sorted(self._touched):
            balance = self.balances[name][bucket]
            moved = MovedBalance(limit_name=name, bucket=microseconds(bucket), posted=balance.posted, held=balance.held)
            self.write(moved)
        for account, total in sorted(self._moved.items()):
            self.write(_total_row(account, total))
        for row in self.readings.take_rows():
            self.write(row)
        for provider, model in sorted(self._cooled):
            cooldown = self.cooldowns.get((provider, model))
            self.write(EndedCooldown(of_provider=provider, of_model=model) if cooldown is None else _cooldown_row(cooldown))
        if Entry in self.writes:
            self.write_head()
        writes, self.writes = self.writes, {}
        self._touched.clear()
        self._cooled.clear()
        self._moved.clear()
        self.resolved.clear()
        self.known_keys.clear()
        self.adjusted.clear()
        self.orphaned = frozenset()
        return writes


_NO_TOTAL = Total()


def _total_row(account: str, total: Total) -> MovedTotal:
    """Lay out what an account's totals grew by."""
    posted, held = total.posted, total.held
    return MovedTotal(
        account=account,
        posted_nusd=posted.cost_nusd,
        posted_requests=posted.requests,
        posted_input_tokens=posted.input_tokens,
        posted_output_tokens=posted.output_tokens,
        held_nusd=held.cost_nusd,
        held_requests=held.requests,
        held_input_tokens=held.input_tokens,
        held_output_tokens=held.output_tokens,
    )


def _cooldown_row(cooldown: Cooldown) -> SetCooldown:
    """Lay a cooldown out as its row."""
    probe = cooldown.probe
    return SetCooldown(
        provider=cooldown.provider,
        model=cooldown.model,
        until=microseconds(cooldown.until),
        source=cooldown.source.value,
        cause=cooldown.cause.value,
        failures=cooldown.failures,
        strikes=cooldown.strikes,
        probe_hold=probe.hold_id if probe else None,
        probe_until=microseconds(probe.until) if probe else None,
    )

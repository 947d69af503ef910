"""
The life of a hold. Everything that may happen to booked money is in this file.

Law: a hold leaves `held` exactly once; entries are only ever added. A post above the hold is an overrun and booked in full:
the upstream has already charged.
Never: reads the clock, talks to the database, rounds.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from quota_router.core.calls import Plane
from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Estimate
from quota_router.core.health import Failure
from quota_router.core.limits import NOTHING, Amounts, Enforcement, Limit, Window, subjects_of
from quota_router.core.usage import Quality, Usage
from quota_router.core.windows import coverage


class HoldState(StrEnum):
    """Where a hold is in its life."""

    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class Event(StrEnum):
    """What may be said of a hold."""

    POST = "post"
    VOID = "void"
    EXPIRE = "expire"


class EntryKind(StrEnum):
    """The kinds of money lines."""

    POST = "post"
    EXPIRE = "expire"
    LATE = "late"
    ADJUST = "adjust"


class Outcome(StrEnum):
    """How the attempt ended."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


class CallState(StrEnum):
    """How a call is doing; it follows from its last attempt and is kept nowhere."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    """nothing was dispatched"""
    UNKNOWN = "unknown"
    """whether the upstream answered is not known"""


TRANSITIONS: dict[tuple[HoldState, Event], tuple[HoldState, EntryKind | None]] = {
    (HoldState.HELD, Event.POST): (HoldState.POSTED, EntryKind.POST),
    (HoldState.HELD, Event.VOID): (HoldState.VOIDED, None),
    (HoldState.HELD, Event.EXPIRE): (HoldState.EXPIRED, EntryKind.EXPIRE),
    # Word that comes after the hold expired corrects what was assumed, once; the hold itself changes no more.
    (HoldState.EXPIRED, Event.POST): (HoldState.EXPIRED, EntryKind.LATE),
    (HoldState.EXPIRED, Event.VOID): (HoldState.EXPIRED, EntryKind.LATE),
}
"""Whatever stands not here is refused: the hold is resolved already."""


class Hold(Struct, frozen=True, kw_only=True):
    """The estimate set aside for one attempt."""

    id: str
    call_id: str
    journal: str
    """of the daemon that took it"""
    attempt: int
    """1 for the first rung tried"""
    provider: str
    account: str
    model: str
    upstream_model: str
    caller: str
    labels: tuple[str, ...]
    workflow: str | None
    stage: str | None
    plane: Plane
    estimate: Estimate
    held_at: datetime
    expires_at: datetime
    rule: str | None = None
    """the condition of the rule that led here; `None`: none did"""
    router: str | None = None
    """the name of the router that did"""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject whose limits count this hold."""
        return subjects_of(self.provider, self.account, self.model, self.caller, self.labels)


class Charge(Struct, frozen=True, kw_only=True):
    """What one hold takes from one bucket of one limit."""

    limit: Limit
    bucket: datetime
    held: int
    """in the limit's unit"""


class Settlement(Struct, frozen=True, kw_only=True):
    """How an attempt ended and what it cost; `usage` and costs are `None` on a void."""

    event: Event
    outcome: Outcome
    usage: Usage | None = None
    cost_nusd: int | None = None
    """`None` on a post: the price is unknown"""
    shadow_cost_nusd: int | None = None
    """what a flat rung would have cost at list price"""
    price_source: str | None = None
    price_version: str | None = None
    failure: Failure | None = None
    jitter: float = 1.0
    """a number of 0..1 drawn before: how long the rung of a failure cools where the upstream did not say"""
    latency_ms: int | None = None
    first_byte_ms: int | None = None
    fingerprint: str = ""
    """digest of what was said, so that saying it again changes nothing"""
    body_bytes: int = 0
    """what was sent, for learning; 0: nothing is learned"""

    @property
    def amounts(self) -> Amounts:
        """What is booked, in every unit. A void booked nothing, unless it takes back what was assumed."""
        if self.usage is None:
            return NOTHING
        return Amounts(
            cost_nusd=self.cost_nusd or 0,
            requests=1,
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
        )


def state_of_call(outcome: Outcome | None, *, was_held: bool) -> CallState:
    """
    How a call is doing.

    Args:
        outcome: of its last attempt; `None`: that one is still held.
        was_held: False for a call that got no hold at all.
    """
    if not was_held:
        return CallState.REFUSED
    match outcome:
        case None:
            return CallState.RUNNING
        case Outcome.OK:
            return CallState.DONE
        case Outcome.UNKNOWN:
            return CallState.UNKNOWN
        case Outcome.FAILED | Outcome.CANCELLED:
            return CallState.FAILED


def charges_of(hold: Hold, catalog: Catalog, opened: Mapping[str, Window]) -> tuple[Charge, ...]:
    """
    What *hold* takes from each limit of *catalog*, in the windows of the moment it was held.

    Args:
        hold: whose charges.
        catalog: the limits as they stand now; a limit made later counts what was held before it.
        opened: first-use windows by limit; a window that does not hold `held_at` is not used.
    """
    charges = []
    for limit in catalog.limits_of(hold.subjects):
        covered = coverage(limit, hold.held_at, opened.get(limit.name))
        if not covered.opens:
            charges.append(Charge(limit=limit, bucket=covered.bucket, held=amount_held(limit, hold.estimate)))
    return tuple(charges)


def amount_held(limit: Limit, estimate: Estimate) -> int:
    """What *estimate* sets aside under *limit*: the upper bound where it is strict and known, else the likely amount."""
    is_strict = limit.enforcement is Enforcement.STRICT
    amounts = estimate.upper if is_strict and estimate.upper is not None else estimate.likely
    return amounts.of(limit.unit)


def assume(hold: Hold, charges: tuple[Charge, ...]) -> Settlement:
    """
    What is booked when no word came in time: unknown is not free.

    Under a strict limit the upper bound is assumed, so that the limit keeps its promise; else the likely amount.
    """
    is_strict = any(charge.limit.enforcement is Enforcement.STRICT for charge in charges)
    amounts = hold.estimate.upper if is_strict and hold.estimate.upper is not None else hold.estimate.likely
    return Settlement(
        event=Event.EXPIRE,
        outcome=Outcome.UNKNOWN,
        usage=Usage(input=amounts.input_tokens, output=amounts.output_tokens, quality=Quality.ASSUMED),
        cost_nusd=amounts.cost_nusd if hold.estimate.is_priced else None,
    )

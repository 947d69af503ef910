"""
What is judged and what comes of it: the question a call puts, the candidates that could answer, the rungs they become.

Law: a candidate carries everything that may be looked at to judge it; a rung passed over carries exactly one reason, the first of
the list in `Reason`, with the numbers it was judged by.
Never: judges.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from quota_router.core.affinity import Home
from quota_router.core.catalog import Attachment, Family, Provider, Strategy
from quota_router.core.estimates import Estimate
from quota_router.core.headroom import Headroom
from quota_router.core.health import Cooldown, Failure, FailureKind
from quota_router.core.limits import Gauge
from quota_router.core.pricing import PriceTable
from quota_router.core.restraints import Caution
from quota_router.core.ways import ASKED, Way


class Reason(StrEnum):
    """Why a rung was passed over, in the order of judging."""

    DISABLED = "disabled"
    PAUSED = "paused"
    NO_CREDENTIAL = "no_credential"
    AUTH_FAILED = "auth_failed"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    PINNED_ELSEWHERE = "pinned_elsewhere"
    ALREADY_TRIED = "already_tried"
    DIALECT_MISMATCH = "dialect_mismatch"
    CAPABILITY_MISSING = "capability_missing"
    CONTEXT_TOO_SMALL = "context_too_small"
    NETWORK_REFUSED = "network_refused"
    COOLDOWN = "cooldown"
    BREAKER_OPEN = "breaker_open"
    QUOTA_EXHAUSTED = "quota_exhausted"
    QUOTA_RESERVED = "quota_reserved"
    UNPRICED = "unpriced"
    UNBOUNDED = "unbounded"
    OVER_BUDGET = "over_budget"
    CONCURRENCY_FULL = "concurrency_full"


ABOUT_THE_CALL = {
    Reason.DIALECT_MISMATCH,
    Reason.CAPABILITY_MISSING,
    Reason.CONTEXT_TOO_SMALL,
    Reason.PINNED_ELSEWHERE,
    Reason.UNBOUNDED,
}
ABOUT_QUOTA = {Reason.QUOTA_EXHAUSTED, Reason.QUOTA_RESERVED, Reason.OVER_BUDGET, Reason.CONCURRENCY_FULL}


class Question(Struct, frozen=True, kw_only=True):
    """What the call needs, for judging a rung."""

    family: Family | None
    """the dialect the caller speaks; `None`: any, the caller makes the call itself"""
    pinned_provider: str | None = None
    max_cost_nusd: int | None = None
    """the caller's own cap on this call"""
    requires: frozenset[str] = frozenset()
    """capabilities without which the call makes no sense"""
    least_input_tokens: int = 0
    """the input has at least so many"""
    repeats: int = 0
    """how often it may try again what it has tried already"""
    more_context_than: int | None = None
    """an answer said that this context is too small; `None`: none did"""
    home: Home | None = None
    """where the call's session is warm"""
    draw: int = 0
    """a random number of 64 bits, drawn before"""
    stale_after_s: float = 900.0
    """readings older than that are no comfort"""


class Candidate(Struct, frozen=True, kw_only=True):
    """One rung, and everything that may be looked at to judge it."""

    attachment: Attachment
    provider: Provider
    has_credential: bool
    estimate: Estimate
    price: PriceTable | None = None
    """what its tokens cost; `None`: nobody knows"""
    remedy: str = ""
    """what the caller may send so that its estimate has an upper bound; empty: it has one"""
    strategy: Strategy = Strategy.PRIORITY
    """how its tier is ordered"""
    way: Way = ASKED
    """that leads to it"""
    cannot_be_told: str = ""
    """why its program cannot be told this call, in one sentence; empty: it can, or there is no program"""
    capabilities: frozenset[str] | None = None
    """of its model; `None`: unknown"""
    context_tokens: int | None = None
    """of its model; `None`: unknown"""
    caution: Caution = Caution()
    """what is kept back of its live windows"""
    subjects: tuple[str, ...] = ()
    """everything whose limits would count it"""
    tried: Failure | None = None
    """how this call's own attempt on it failed"""
    cooldowns: tuple[Cooldown, ...] = ()
    """its own, and its whole provider's"""
    gauges: tuple[Gauge, ...] = ()
    """every limit that would count it, with what is left at this moment"""
    windows: tuple[Headroom, ...] = ()
    """what upstreams told of its account's windows, with what is left at this moment"""
    latency_ms: int | None = None
    """how fast it answered lately; `None`: unknown"""
    is_new: bool = False
    """nothing was ever booked on its account"""


class Rung(Struct, frozen=True, kw_only=True):
    """What became of one candidate: chosen, skipped for a reason, or eligible had it been reached."""

    provider: str
    model: str
    upstream_model: str
    priority: int
    status: str
    reason: Reason | None = None
    detail: Mapping[str, Any] = {}
    usable_at: datetime | None = None
    cause: FailureKind | None = None
    """behind a cooldown, or of this call's own attempt"""
    against: tuple[Reason, ...] = ()
    """everything that speaks against it; the first is its reason"""


class Chosen(Struct, frozen=True, kw_only=True):
    """This rung pays."""

    candidate: Candidate
    rungs: tuple[Rung, ...]


class NoneUsable(Struct, frozen=True, kw_only=True):
    """Nobody can pay now. `rungs` says why, each with the moment it becomes usable if that is known."""

    rungs: tuple[Rung, ...]


Decision = Chosen | NoneUsable

"""
One attempt: what is known of it, and every way in which it can be settled.

Law: each way of ending has exactly one settlement here; unknown usage is assumed, never zero.
Never: talks to the lane or to an upstream.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from msgspec import Struct

from quota_router.core.billing import BYTES_PER_TOKEN, bill, count_what_passed
from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Billing
from quota_router.core.decision import Candidate, Rung
from quota_router.core.estimates import Estimate
from quota_router.core.health import Failure, broken
from quota_router.core.holds import Event, Hold, Outcome, Settlement
from quota_router.core.usage import Quality, Usage
from quota_router.core.vendors import VENDORS
from quota_router.dialects import StreamReader


class Refused(Struct, frozen=True, kw_only=True):
    """What an upstream answered instead of an answer. `headers`: those that reach the caller."""

    status: int
    headers: Mapping[str, str]
    body: bytes


log = structlog.get_logger()


class Failed(Exception):
    """An attempt failed before the first content byte: the next rung may be tried."""

    def __init__(self, failure: Failure, settlement: Settlement, answer: Refused | None = None) -> None:
        super().__init__(failure.kind)
        self.failure = failure
        self.settlement = settlement
        self.answer = answer
        """the caller's own if no other rung can do better, byte for byte; `None`: it is ours to say"""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try of a call on one rung: its hold, and what was seen so far."""

    call: Call
    number: int
    hold: Hold
    candidate: Candidate
    rungs: tuple[Rung, ...]
    time: Callable[[], float]
    """the loop's clock, s"""
    started: float
    jitter: float = 1.0
    """0..1, drawn when it began"""
    first_byte_ms: int | None = None
    body_bytes: int = 0
    reader: StreamReader | None = None
    ends_at: float = math.inf
    """loop time at which its call's time is over"""
    is_sent: bool = False
    """from here on it may have cost something"""
    is_settled: bool = False
    """a settlement was handed to the lane: no other may be"""

    @property
    def ends_with_caller(self) -> bool:
        """Whether hanging up stops the bill; elsewhere an answer is read on for the true usage."""
        if self.candidate.provider.is_command:  # it is killed
            return True
        vendor = VENDORS.get(self.candidate.provider.vendor)
        return vendor is not None and vendor.abort_stops_billing

    @property
    def is_repeat(self) -> bool:
        """Whether it tries a rung again that this call has tried."""
        return self.candidate.tried is not None

    def time_left_s(self) -> float:
        """Return how long its call may still take; a moment at the least."""
        return max(0.001, self.ends_at - self.time())

    def mark_first_byte(self) -> None:
        """Note that the head of an answer is here."""
        self.first_byte_ms = self._since_ms()

    def void(self, failure: Failure | None, outcome: Outcome = Outcome.FAILED) -> Settlement:
        """Nothing was spent."""
        return Settlement(
            event=Event.VOID,
            outcome=outcome,
            fingerprint=self.hold.id,
            failure=failure,
            latency_ms=self._since_ms(),
            jitter=self.jitter,
            first_byte_ms=self.first_byte_ms,
        )

    def post(
        self,
        usage: Usage,
        *,
        outcome: Outcome = Outcome.OK,
        reported_nusd: int | None = None,
        failure: Failure | None = None,
    ) -> Settlement:
        """Price *usage* and book it; `reported_nusd` is the cost that the upstream itself named, if any."""
        if self.call.operation is Operation.COUNT_TOKENS:
            usage, reported_nusd = Usage(), 0
        billing = self.candidate.provider.billing
        billed = bill(usage, billing=billing, price=self.candidate.price, reported_nusd=reported_nusd)
        return Settlement(
            event=Event.POST,
            outcome=outcome,
            usage=usage,
            cost_nusd=billed.cost_nusd,
            shadow_cost_nusd=billed.shadow_cost_nusd,
            price_source=billed.source,
            price_version=billed.version,
            fingerprint=self.hold.id,
            failure=failure,
            latency_ms=self._since_ms(),
            jitter=self.jitter,
            first_byte_ms=self.first_byte_ms,
            body_bytes=self.body_bytes if outcome is Outcome.OK else 0,
        )

    def guess(self, outcome: Outcome, output_bytes: int = 0, failure: Failure | None = None) -> Settlement:
        """Book what was seen of an answer that broke off, or the input alone when nothing was seen; what was not sent is void."""
        if not self.is_sent:
            return self.void(failure, outcome)
        reported = self.reader.usage if self.reader is not None else None
        seen_bytes = self.reader.output_bytes if self.reader is not None else output_bytes
        likely = self.hold.estimate.likely
        usage = count_what_passed(reported, input_tokens=likely.input_tokens, output_bytes=seen_bytes)
        return self.post(usage, outcome=outcome, failure=failure)

    def answered(self, usage: Usage | None, *, output_bytes: int, reported_nusd: int | None) -> Settlement:
        """Book a complete answer; one that told no usage is counted from its bytes."""
        if usage is None:
            likely = self.hold.estimate.likely
            usage = count_what_passed(None, input_tokens=likely.input_tokens, output_bytes=output_bytes)
        return self.post(usage, reported_nusd=reported_nusd)

    def failed(self, failure: Failure, *, may_have_cost: bool, reported: Usage | None = None) -> Failed:
        """
        Settle a failure before the first content byte.

        Tokens that the upstream reported are posted; without a report nothing is booked, unless the upstream may have charged: then
        the input is assumed.
        """
        log.warning(
            "an attempt failed",
            action="attempt_failed",
            call_id=self.call.id,
            provider=self.hold.provider,
            model=self.hold.model,
            failure=failure.kind.value,
            status=failure.status,
            cause=failure.cause,
        )
        if self.reader is not None:
            reported = self.reader.usage
        if reported is not None:
            return Failed(failure, self.post(reported, outcome=Outcome.FAILED, failure=failure))
        if not may_have_cost:
            return Failed(failure, self.void(failure))
        assumed = Usage(input=self.hold.estimate.likely.input_tokens, quality=Quality.ASSUMED)
        return Failed(failure, self.post(assumed, outcome=Outcome.UNKNOWN, failure=failure))

    def unanswered(self, cause: str, *, dispatched: bool) -> Failed:
        """No answer, or none that can be read: what was sent may have been charged, what was not cannot."""
        return self.failed(broken(cause), may_have_cost=dispatched)

    def grown(self) -> Estimate | None:
        """
        What this attempt will likely use, now that more of its answer was seen than was held for it; `None`: what is held suffices.

        It is half again what was seen, so that a long answer is not held anew with every word; but no more than it may use.
        """
        seen_tokens = -(-self.reader.output_bytes // BYTES_PER_TOKEN) if self.reader is not None else 0
        held = self.hold.estimate
        if seen_tokens <= held.likely.output_tokens:
            return None
        expected_tokens = seen_tokens * 3 // 2
        if held.upper is not None and seen_tokens <= held.upper.output_tokens:
            expected_tokens = min(expected_tokens, held.upper.output_tokens)
        price = None if self.candidate.provider.billing is Billing.FLAT else self.candidate.price
        return held.with_output(expected_tokens, price)

    def _since_ms(self) -> int:
        return round((self.time() - self.started) * 1000)

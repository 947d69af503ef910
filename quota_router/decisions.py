"""
Decisions for callers that make the call themselves: route and hold, settle, extend, void.

Law: the same ladder, the same decision, the same hold and the same booking as a call we relay; only the bytes go another way.
Never: opens a connection; a decision-plane hold is voided by its caller alone, and expires as assumed.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from quota_router.core.billing import Bill, bill
from quota_router.core.calls import Call, Plane
from quota_router.core.catalog import Billing
from quota_router.core.decision import Decision, NoneUsable
from quota_router.core.estimates import Bound, Estimate, upper_bound
from quota_router.core.health import Failure
from quota_router.core.holds import Event, Hold, Outcome, Settlement
from quota_router.core.pricing import PriceTable
from quota_router.core.usage import Quality, Usage
from quota_router.dialects import dialect_of
from quota_router.errors import UnknownHold
from quota_router.ladder import Ladders
from quota_router.routing import Routing
from quota_router.store.booking import Booked
from quota_router.store.holding import Extend
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Admit, Explain, Peek, Settle
from quota_router.store.observing import heard


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureWord:
    """What a caller tells of a failed attempt. `status` is `None` when no answer came."""

    status: int | None
    headers: dict[str, str]
    body: str


@dataclass(slots=True, kw_only=True)
class Decisions:
    """The decision plane's service. `new_id` draws UUIDv7 text, `clock` gives aware UTC."""

    lane: Lane
    routing: Routing
    ladders: Ladders
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    draw: Callable[[], float]
    """a random number of 0..1"""

    async def route(self, call: Call, *, ttl_s: float) -> Admission | NoneUsable:
        """
        Decide and hold for *ttl_s* seconds.

        Raises:
            UnknownModel, Conflict: as for a call.
        """
        call, ladder = await self.routing.resolve(call)
        job = Admit(
            call=call,
            candidates=ladder.candidates,
            question=ladder.question,
            hold_id=self.new_id(),
            attempt=1,
            ttl_s=ttl_s,
        )
        admitted = await self.lane.run(job)
        if ladder.session is not None and isinstance(admitted, Admission):
            self.ladders.sessions.keep(ladder.session, admitted.hold.provider, self.clock())
        return admitted

    async def explain(self, call: Call) -> Decision:
        """Decide as `route` would, and write nothing."""
        call, ladder = await self.routing.resolve(call, is_dry=True)
        return await self.lane.run(Explain(candidates=ladder.candidates, question=ladder.question))

    async def settle_usage(self, hold_id: str, caller: str | None, usage: Usage) -> Booked:
        """Post what the caller says was used, at the price of the hold's attachment. `caller` `None`: an admin."""
        hold = await self._hold_of(hold_id, caller)
        billed = self._bill(hold, usage)
        return await self._post(hold, usage, billed, {"usage": msgspec.to_builtins(usage)})

    async def settle_cost(self, hold_id: str, caller: str | None, cost_nusd: int) -> Booked:
        """Post a cost that the caller knows; the tokens behind it are unknown and stay the estimate's."""
        hold = await self._hold_of(hold_id, caller)
        likely = hold.estimate.likely
        usage = Usage(input=likely.input_tokens, output=likely.output_tokens, quality=Quality.ESTIMATED)
        billed = bill(usage, billing=self._terms(hold)[0], price=None, reported_nusd=cost_nusd)
        return await self._post(hold, usage, replace(billed, source="caller"), {"cost_nusd": cost_nusd})

    async def settle_failure(self, hold_id: str, caller: str | None, word: FailureWord) -> Booked:
        """
        Take word of a failed attempt: it voids the hold and cools the rung, as if we had made the call.

        Without a status no answer came: the upstream may have charged, and the input is booked as assumed.
        """
        hold = await self._hold_of(hold_id, caller)
        said = {"failure": [word.status, word.headers, word.body]}
        if word.status is None:
            usage = Usage(input=hold.estimate.likely.input_tokens, quality=Quality.ASSUMED)
            return await self._post(hold, usage, self._bill(hold, usage), said, outcome=Outcome.UNKNOWN)
        provider = self.lane.catalog.providers.get(hold.provider)
        failure: Failure | None = None
        if provider is not None:
            dialect, body = dialect_of(provider.family), word.body.encode()
            failure = dialect.classify(word.status, word.headers, body, self.clock(), vendor=provider.vendor)
        settlement = Settlement(
            event=Event.VOID, outcome=Outcome.FAILED, failure=failure, fingerprint=_fingerprint(said), jitter=self.draw()
        )
        return await self.lane.run(Settle(hold_id=hold.id, settlement=settlement), settles=True)

    async def void(self, hold_id: str, caller: str | None) -> Booked:
        """Give a hold back: nothing was sent on it. Said again it answers the same."""
        hold = await self._hold_of(hold_id, caller)
        settlement = Settlement(event=Event.VOID, outcome=Outcome.CANCELLED, fingerprint=_fingerprint({"void": True}))
        return await self.lane.run(Settle(hold_id=hold.id, settlement=settlement), settles=True)

    async def extend(self, hold_id: str, caller: str | None, ttl_s: float, tokens: Bound | None) -> Hold:
        """Give an open hold more time, and hold what *tokens* may cost from now on; `None`: the estimate stays."""
        hold = await self._hold_of(hold_id, caller)
        estimate = self._estimate(hold, tokens) if tokens is not None else None
        return await self.lane.run(Extend(hold_id=hold.id, ttl_s=ttl_s, estimate=estimate))

    async def hear(self, hold_id: str, caller: str | None, headers: Mapping[str, str]) -> None:
        """Take in what the head of the upstream's answer told of its account; say it before the hold is settled."""
        hold = await self._hold_of(hold_id, caller)
        provider = self.lane.catalog.providers.get(hold.provider)
        lower = {name.lower(): value for name, value in headers.items()}
        observed = heard(hold, provider, lower, self.clock()) if provider is not None else None
        if observed is not None:
            self.lane.note(observed)

    async def _hold_of(self, hold_id: str, caller: str | None) -> Hold:
        """
        Find a hold that this caller may speak of.

        Raises:
            UnknownHold: there is none, or it is somebody else's: the two look alike from outside. So does that of a call we relay,
                which is ours alone to settle.
        """
        hold = await self.lane.run(Peek(hold_id=hold_id))
        if hold.plane is not Plane.DECISION or (caller is not None and hold.caller != caller):
            raise UnknownHold
        return hold

    def _bill(self, hold: Hold, usage: Usage) -> Bill:
        """
        Price usage by the attachment of the hold.

        One that was detached meanwhile has no price any more: what was held for it is booked, since unknown is not zero.
        """
        billing, price = self._terms(hold)
        billed = bill(usage, billing=billing, price=price)
        if billed.cost_nusd is None and hold.estimate.is_priced:
            return Bill(cost_nusd=hold.estimate.most.cost_nusd, source="estimate")
        return billed

    def _estimate(self, hold: Hold, tokens: Bound) -> Estimate:
        """
        Estimate by the caller's own word, which is the likely amount and the bound alike.

        Where the attachment was detached meanwhile, the cost that is held stays.
        """
        billing, price = self._terms(hold)
        is_flat = billing is Billing.FLAT
        amounts = upper_bound(tokens, None if is_flat else price) or hold.estimate.likely
        if price is None and not is_flat:
            amounts = replace(amounts, cost_nusd=hold.estimate.most.cost_nusd)
            return Estimate(likely=amounts, upper=amounts, is_priced=hold.estimate.is_priced)
        return Estimate(likely=amounts, upper=amounts, is_priced=True)

    def _terms(self, hold: Hold) -> tuple[Billing, PriceTable | None]:
        """Look up on what terms the hold's attachment is billed now; the price is `None` when nobody knows it."""
        catalog = self.lane.catalog
        model, provider = catalog.models.get(hold.model), catalog.providers.get(hold.provider)
        attachment = next((a for a in model.attachments if a.provider == hold.provider), None) if model else None
        if attachment is None or provider is None:
            return Billing.METERED, None
        return provider.billing, self.ladders.price_of(attachment, catalog, self.clock())

    async def _post(self, hold: Hold, usage: Usage, billed: Bill, said: dict[str, Any], *, outcome: Outcome = Outcome.OK) -> Booked:
        settlement = Settlement(
            event=Event.POST,
            outcome=outcome,
            usage=usage,
            cost_nusd=billed.cost_nusd,
            shadow_cost_nusd=billed.shadow_cost_nusd,
            price_source=billed.source,
            price_version=billed.version,
            fingerprint=_fingerprint(said),
        )
        return await self.lane.run(Settle(hold_id=hold.id, settlement=settlement), settles=True)


def _fingerprint(said: dict[str, Any]) -> str:
    """Digest of a settle's payload: the same word is a repetition, another one a contradiction."""
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()

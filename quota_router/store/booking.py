"""
Settling: how a hold leaves `held`, and the line of money that follows.

Law: by the table of `core/holds` alone; the same word said twice books once.
Never: waits or reads a clock; it runs inside a job of the lane.
"""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.holds import TRANSITIONS, Charge, EntryKind, Event, Hold, HoldState, Outcome, Settlement
from quota_router.core.limits import NOTHING, Amounts, Unit
from quota_router.core.usage import Usage
from quota_router.errors import HoldResolved, UnknownHold
from quota_router.store.learning import learn
from quota_router.store.lines import append
from quota_router.store.rows import CorrectedHold, ResolvedHold
from quota_router.store.state import Resolved, State
from quota_router.store.tables import microseconds


class Booked(Struct, frozen=True, kw_only=True):
    """What became of a hold. `state`: `posted`, `voided`, `late` or `expired`."""

    hold: Hold
    state: str
    cost_nusd: int | None
    overrun_nusd: int
    replayed: bool


def resolve(state: State, now: datetime, hold_id: str, settlement: Settlement) -> Booked:
    """
    Let a hold leave `held`, or correct it afterwards, by the table of `core/holds`.

    Raises:
        UnknownHold, HoldResolved: as `Settle.run` says.
    """
    open_hold, resolved = state.holds.get(hold_id), state.resolved.get(hold_id)
    if open_hold is not None:
        hold, charges, hold_state = open_hold.hold, open_hold.charges, HoldState.HELD
    elif resolved is not None:
        hold, charges, hold_state = resolved.hold, resolved.charges, resolved.state
        if _is_replay(resolved, settlement):
            return _replay(resolved)
    else:
        raise UnknownHold
    transition = TRANSITIONS.get((hold_state, settlement.event))
    if transition is None or (resolved is not None and EntryKind.LATE in resolved.booked):
        raise HoldResolved(f"Hold {hold_id} was already {hold_state}. What was booked stands.")
    # From here on it must succeed.
    new_state, kind = transition
    settlement = _by_difference(settlement, resolved) if kind is EntryKind.LATE else settlement
    if hold_state is HoldState.HELD:
        del state.holds[hold_id]
        _write_resolution(state, now, hold, new_state, settlement)
    else:
        state.write(CorrectedHold(of_hold=hold_id, fingerprint=settlement.fingerprint))
    was_held = hold_state is HoldState.HELD
    for charge in charges:
        if was_held or state.keeps(charge.limit, charge.bucket, now):
            _move(state, charge, settlement, was_held=was_held)
    held = hold.estimate.likely if was_held else NOTHING
    state.move_total(hold.account, posted=_at_list_price(settlement, was_held=was_held), held=NOTHING.plus(held, -1))
    if kind is not None:
        estimate_nusd = hold.estimate.likely_nusd
        append(state, now, kind, settlement, of=hold, own_id=hold.id, held_at=hold.held_at, estimate_nusd=estimate_nusd)
    learn(state, now, hold, settlement)
    # Whoever settles again in this batch finds it resolved, as the next batch would in its row.
    booked = {**(resolved.booked if resolved else {}), **({kind: settlement} if kind else {})}
    state.resolved[hold_id] = Resolved(
        hold=hold, state=new_state, fingerprint=settlement.fingerprint, charges=charges, booked=booked
    )
    return _booked(hold, kind, settlement, replayed=False)


def _is_replay(resolved: Resolved, settlement: Settlement) -> bool:
    """Say whether this very word was taken before: the same payload, or one more void of a void."""
    if settlement.event is Event.VOID and resolved.state is HoldState.VOIDED:
        return True
    return resolved.state is not HoldState.VOIDED and bool(resolved.fingerprint) and resolved.fingerprint == settlement.fingerprint


def _replay(resolved: Resolved) -> Booked:
    kind = next((k for k in (EntryKind.LATE, EntryKind.POST, EntryKind.EXPIRE) if k in resolved.booked), None)
    settlement = resolved.booked[kind] if kind else Settlement(event=Event.VOID, outcome=Outcome.CANCELLED)
    return _booked(resolved.hold, kind, settlement, replayed=True)


def _booked(hold: Hold, kind: EntryKind | None, settlement: Settlement, *, replayed: bool) -> Booked:
    states = {EntryKind.POST: "posted", EntryKind.EXPIRE: "expired", EntryKind.LATE: "late", None: "voided"}
    overrun_nusd = 0
    if kind is EntryKind.POST and settlement.cost_nusd is not None:
        overrun_nusd = max(0, settlement.cost_nusd - hold.estimate.likely.cost_nusd)
    return Booked(
        hold=hold,
        state=states[kind],
        cost_nusd=settlement.cost_nusd if kind else 0,
        overrun_nusd=overrun_nusd,
        replayed=replayed,
    )


def _by_difference(settlement: Settlement, resolved: Resolved | None) -> Settlement:
    """What a late truth adds to what was assumed; a late void takes it all back."""
    assumed = resolved.booked[EntryKind.EXPIRE] if resolved else None
    before = assumed.usage if assumed and assumed.usage else Usage()
    actual = settlement.usage or Usage()
    cost_nusd = settlement.cost_nusd if settlement.event is Event.POST else 0
    if cost_nusd is not None and assumed is not None:
        cost_nusd -= assumed.cost_nusd or 0
    return replace(settlement, usage=actual.minus(before), cost_nusd=cost_nusd)


def _write_resolution(state: State, now: datetime, hold: Hold, new_state: HoldState, settlement: Settlement) -> None:
    failure = settlement.failure
    state.write(
        ResolvedHold(
            state=new_state.value,
            outcome=settlement.outcome.value,
            failure=failure.kind.value if failure else None,
            status=failure.status if failure else None,
            fingerprint=settlement.fingerprint,
            latency_ms=settlement.latency_ms,
            first_byte_ms=settlement.first_byte_ms,
            resolved_at=microseconds(now),
            of_hold=hold.id,
        )
    )


def _move(state: State, charge: Charge, settlement: Settlement, *, was_held: bool) -> None:
    """Turn what was held under one limit into what is posted."""
    is_counted = charge.limit.unit is not Unit.CONCURRENCY
    posted = settlement.amounts.of(charge.limit.unit) if is_counted else 0
    if not was_held and charge.limit.unit is Unit.REQUESTS:
        posted = 0  # the request was counted when it expired
    state.charge(charge.limit, charge.bucket, posted=posted, held=-charge.held if was_held else 0)


def _at_list_price(settlement: Settlement, *, was_held: bool) -> Amounts:
    """What an attempt adds to its account's totals: a subscription's use is told at what it would have cost."""
    amounts = settlement.amounts
    cost_nusd = amounts.cost_nusd + (settlement.shadow_cost_nusd or 0)
    # A late word corrects amounts; its request was counted when it expired.
    return replace(amounts, cost_nusd=cost_nusd, requests=amounts.requests if was_held else 0)

"""
Settling: how a hold leaves `held`, and the line of money that follows.

Law: by the table of `core/holds` alone; each entry extends the journal's hash chain by one; the same word said twice books once.
Never: waits or reads a clock; it runs inside a job of the lane.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.holds import TRANSITIONS, Charge, EntryKind, Event, Hold, HoldState, Outcome, Settlement
from quota_router.core.limits import NOTHING, Amounts, Unit
from quota_router.core.usage import Quality, Usage
from quota_router.errors import HoldResolved, UnknownHold
from quota_router.store.learning import learn
from quota_router.store.rows import CorrectedHold, Entry, ResolvedHold
from quota_router.store.state import Head, Resolved, State, labels_text
from quota_router.store.tables import microseconds

CHAIN_FORMAT = b"1"
"""Stands before every hashed row, so that a later format can be told from this one."""

_NOTHING_TOLD = Usage(quality=Quality.ASSUMED)

_encode = msgspec.json.Encoder().encode


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
        _append_entry(state, now, hold, kind, settlement)
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


def _append_entry(state: State, now: datetime, hold: Hold, kind: EntryKind, settlement: Settlement) -> None:
    """Add one line of money to the journal's chain."""
    usage = settlement.usage or _NOTHING_TOLD
    entry = Entry(
        journal=state.journal,
        seq=state.head.seq + 1,
        kind=kind.value,
        call_id=hold.call_id,
        hold_id=hold.id,
        provider=hold.provider,
        account=hold.account,
        model=hold.model,
        upstream_model=hold.upstream_model,
        caller=hold.caller,
        labels=labels_text(hold.labels),
        workflow=hold.workflow,
        stage=hold.stage,
        cost_nusd=settlement.cost_nusd,
        estimate_nusd=hold.estimate.likely_nusd,
        shadow_cost_nusd=settlement.shadow_cost_nusd,
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output,
        reasoning=usage.reasoning,
        quality=usage.quality.value,
        price_source=settlement.price_source,
        price_version=settlement.price_version,
        reason=None,
        admin=None,
        held_at=microseconds(hold.held_at),
        at=microseconds(now),
    )
    digest = chain(state.head.hash, entry)
    state.head = Head(seq=entry.seq, hash=digest, at=now)
    state.write(entry, digest)


def chain(previous: bytes, entry: Entry | Sequence[Any]) -> bytes:
    """
    Hash one entry onto the chain.

    SHA-256 over the previous hash, `CHAIN_FORMAT`, and the row as a JSON array: its values as they are stored, in the order of the
    table, without the hash.
    """
    return hashlib.sha256(previous + CHAIN_FORMAT + _encode(entry)).digest()

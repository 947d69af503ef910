"""
What may be done to open holds: more time, more room, an end when their time is over.

Law: as in `store/ledger`: a job checks first, and changes the state only when nothing can refuse any more.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from quota_router.core.calls import Plane
from quota_router.core.estimates import Estimate
from quota_router.core.holds import Charge, Hold, amount_held, assume
from quota_router.core.limits import Enforcement
from quota_router.errors import NoUsableProvider, UnknownHold
from quota_router.store.booking import resolve
from quota_router.store.rows import ExtendedHold
from quota_router.store.state import OpenHold, State
from quota_router.store.tables import microseconds
from quota_router.store.tenure import Job, Sweeping


class Extend(Job[Hold], kw_only=True):
    """Give an open hold more time, and a new estimate when one is given."""

    hold_id: str
    ttl_s: float
    estimate: Estimate | None = None

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """Its one hold."""
        return (self.hold_id,)

    def run(self, state: State, now: datetime) -> Hold:
        """
        Move `expires_at`, later only.

        Raises:
            UnknownHold: there is none of that id that is still open.
            NoUsableProvider: the new estimate does not fit its limits; the hold stays as it was.
        """
        open_hold = state.holds.get(self.hold_id)
        if open_hold is None:
            raise UnknownHold("There is no open hold of that id: it is resolved, or never was.")
        for charge in open_hold.charges:
            if self.estimate is not None:
                _refuse_growth(state, now, charge, replace(charge, held=amount_held(charge.limit, self.estimate)))
        # From here on it must succeed.
        return _extend(state, open_hold, now + timedelta(seconds=self.ttl_s), self.estimate)


class Renew(Job[Hold | None], kw_only=True):
    """
    Give the hold of a running call more time, or what its answer has grown to.

    Nobody is asked whether that fits: the upstream charges it already. A hold that is resolved meanwhile is let be.
    """

    hold_id: str
    ttl_s: float
    estimate: Estimate | None

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """Its one hold."""
        return (self.hold_id,)

    def run(self, state: State, now: datetime) -> Hold | None:
        """Return the hold as it is now; `None`: it is resolved."""
        open_hold = state.holds.get(self.hold_id)
        if open_hold is None:
            return None
        return _extend(state, open_hold, now + timedelta(seconds=self.ttl_s), self.estimate)


class Sweep(Job[int], kw_only=True):
    """
    Expire what is past its time, and drop what nobody counts any more.

    `orphans`: at start every open hold whose call we relayed counts as dispatched and expires at once; the caller of a decision may
    still be at it, his hold waits for its time.
    """

    orphans: bool = False

    @property
    def sweeps(self) -> Sweeping:
        """What is due, and at start what the last daemon of this journal left."""
        return Sweeping.OWN if self.orphans else Sweeping.DUE

    @property
    def frees(self) -> bool:
        """What has expired."""
        return True

    def run(self, state: State, now: datetime) -> int:
        """Return how many holds expired."""
        gone = {*state.orphaned, *([state.journal] if self.orphans else [])}
        due = [
            held
            for held in state.holds.values()
            if held.hold.expires_at <= now or (held.hold.plane is Plane.DATA and held.hold.journal in gone)
        ]
        for held in due:
            resolve(state, now, held.hold.id, assume(held.hold, held.charges))
        for (provider, model), cooldown in list(state.cooldowns.items()):
            if cooldown.is_stale(now):
                state.end_cooldown(provider, model)
        state.forget_old(now)
        state.write_learned()
        state.write_head()  # so that a ledger which stopped taking writes is found out when nobody calls
        return len(due)


def _extend(state: State, open_hold: OpenHold, until: datetime, new: Estimate | None) -> Hold:
    """Move the end of a hold, later only, and what it takes from its limits."""
    estimate, later = new or open_hold.hold.estimate, max(open_hold.hold.expires_at, until)
    hold = replace(open_hold.hold, expires_at=later, estimate=estimate)
    charges = tuple(replace(charge, held=amount_held(charge.limit, estimate)) for charge in open_hold.charges)
    for before, after in zip(open_hold.charges, charges, strict=True):
        state.charge(after.limit, after.bucket, held=after.held - before.held)
    state.move_total(hold.account, held=estimate.likely.plus(open_hold.hold.estimate.likely, -1))
    state.holds[hold.id] = OpenHold(hold=hold, charges=charges)
    state.write(ExtendedHold(of_hold=hold.id, expires_at=microseconds(later), estimate=estimate.to_json()))
    return hold


def _refuse_growth(state: State, now: datetime, before: Charge, after: Charge) -> None:
    """
    Judge what a hold wants more of as what a new one asks for: a strict limit keeps its promise.

    Raises:
        NoUsableProvider: it does not fit.
    """
    limit, more = after.limit, max(0, after.held - before.held)
    gauge = state.gauge(limit, now)
    if gauge.window_start > after.bucket:  # the hold counts in a window that has ended
        gauge = state.gauge(limit, after.bucket)
    if limit.enforcement is not Enforcement.ADVISORY and not gauge.fits(more):
        message = f"The new estimate does not fit the limit {limit.name!r}: {more} more asked, {gauge.remaining} left."
        raise NoUsableProvider(message, status=429, code="insufficient_quota", rungs=[], retry_after_s=None)

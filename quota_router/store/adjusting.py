"""
Booking what an admin says beside what was booked.

Law: one line of money per id, on the chain like every other; each limit in USD whose window counts it moves by exactly its amount,
and so does what its account has posted.
Never: touches what was booked before, a hold, or a limit in another unit.

Decision 2026-11 -- an adjustment's own id stands in `hold_id`, which no hold of that name has: the unique key on (hold_id, kind)
    then keeps two daemons from booking it twice, and no column had to be added to a table that is hashed row by row. Those of one
    call are looked for among all adjustments. Look again if a ledger has so many that this is felt: an index on `call_id`.
"""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.adjustments import COST_MAX_NUSD, Adjustment, Place
from quota_router.core.holds import EntryKind, Event, Hold, Outcome, Settlement
from quota_router.core.limits import NOTHING, Limit, Unit
from quota_router.core.usage import Usage
from quota_router.core.windows import Coverage, coverage
from quota_router.errors import Conflict, InvalidRequest, UnknownHold
from quota_router.store.lines import append
from quota_router.store.rows import Entry
from quota_router.store.state import Adjusted, State, labels_text
from quota_router.store.tables import EPOCH, microseconds
from quota_router.store.tenure import Job

PRICE_SOURCE = "admin"
"""Where the amount of an adjustment is from."""


class Recorded(Struct, frozen=True, kw_only=True):
    """Where an adjustment stands."""

    journal: str
    seq: int
    limits: tuple[str, ...]
    """the names of those that it moved, or would move if it were said now"""
    replayed: bool


class Adjust(Job[Recorded], kw_only=True):
    """Book an adjustment."""

    said: Adjustment

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """The hold whose place it takes."""
        return (self.said.hold_id,) if self.said.hold_id is not None else ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Those of the place it brings."""
        return self.said.of.subjects if isinstance(self.said.of, Place) else ()

    @property
    def accounts(self) -> tuple[str, ...]:
        """That of the place it brings."""
        return (self.said.of.account,) if isinstance(self.said.of, Place) else ()

    @property
    def adjusts(self) -> Adjustment:
        """Itself."""
        return self.said

    @property
    def frees(self) -> bool:
        """What is taken back."""
        return self.said.cost_nusd < 0

    def run(self, state: State, now: datetime) -> Recorded:
        """
        Book it, or answer where it stands already.

        Raises:
            Conflict: something else was booked under its id.
            InvalidRequest: it says nothing, or not why, or counts in a time that has not come.
            UnknownHold: there is no hold of that id.
        """
        said, known = self.said, state.adjusted[self.said.id]
        of = self._place(state)
        counting = _counting(state, of, said.held_at or now, known)
        moved = [(cap, then.bucket) for cap, then in counting if not then.opens and state.keeps(cap, then.bucket, now)]
        names = tuple(limit.name for limit, _ in moved)
        if known.line is not None:
            _refuse_another(said, of, known.line.entry)
            return Recorded(journal=known.line.entry.journal, seq=known.line.entry.seq, limits=names, replayed=True)
        _refuse_unbookable(said, now)
        # From here on it must succeed.
        for limit, bucket in moved:
            state.charge(limit, bucket, posted=said.cost_nusd)
        for limit, then in counting:
            if then.opens:
                state.leave(limit, then.start, said.cost_nusd)
        state.move_total(of.account, posted=replace(NOTHING, cost_nusd=said.cost_nusd))
        money = Settlement(event=Event.POST, outcome=Outcome.OK, usage=Usage(), cost_nusd=said.cost_nusd, price_source=PRICE_SOURCE)
        line = append(
            *(state, now, EntryKind.ADJUST, money),
            of=of,
            own_id=said.id,
            held_at=said.held_at or now,
            reason=said.reason,
            admin=said.admin,
        )
        # Whoever says it again in this batch finds it, as the next batch would in its row.
        state.adjusted[said.id] = Adjusted(line=line, windows=known.windows)
        return Recorded(journal=line.entry.journal, seq=line.entry.seq, limits=names, replayed=False)

    def _place(self, state: State) -> Hold | Place:
        of = self.said.of
        if isinstance(of, Place):
            return of
        known = state.holds.get(of) or state.resolved.get(of)
        if known is None:
            raise UnknownHold
        return known.hold


def _counting(state: State, of: Hold | Place, at: datetime, known: Adjusted) -> list[tuple[Limit, Coverage]]:
    """Find the limits in USD that count this money, each with its window of that moment."""
    counting = []
    for limit in state.catalog.limits_of(of.subjects):
        if limit.unit is Unit.USD:
            covered = coverage(limit, at, state.opened.get(limit.name))
            # One that is over was read for this batch; one that was opened in it stands in the state alone.
            counting.append((limit, coverage(limit, at, known.windows.get(limit.name)) if covered.opens else covered))
    return counting


def _refuse_another(said: Adjustment, of: Hold | Place, entry: Entry) -> None:
    """Refuse what is not what was booked under this id. Raises `Conflict`."""
    asked: dict[str, object] = {
        "cost_nusd": said.cost_nusd,
        "reason": said.reason,
        "admin": said.admin,
        "held_at": entry.at if said.held_at is None else microseconds(said.held_at),
        "labels": labels_text(of.labels),
        **{name: getattr(of, name) for name in ("call_id", "provider", "account", "model", "caller", "workflow", "stage")},
    }
    if any(getattr(entry, name) != value for name, value in asked.items()):
        message = f"This key already names entry {entry.seq} of journal {entry.journal}, which says something else. Use a new key."
        raise Conflict(message)


def _refuse_unbookable(said: Adjustment, now: datetime) -> None:
    """Refuse what would be no line of money. Raises `InvalidRequest`."""
    if not said.reason.strip():
        raise InvalidRequest("`reason` is empty. Say why: it stands in the ledger for good.", param="reason")
    if said.cost_nusd == 0:
        raise InvalidRequest("The amount is 0, which changes nothing.", param="cost_usd")
    if abs(said.cost_nusd) > COST_MAX_NUSD:
        raise InvalidRequest("The amount is more than one entry takes. Send several.", param="cost_usd")
    if said.held_at is not None and not EPOCH <= said.held_at <= now:
        raise InvalidRequest("`held_at` lies before 1970 or in the future. Leave it out for now.", param="held_at")

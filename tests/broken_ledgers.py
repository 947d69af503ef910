"""
Ledgers that are broken on purpose, each in a way in which a ledger is easily broken: a check that lets one pass checks nothing.

Law: each is the real ledger but for its one mistake, so that it is the mistake that is found.
Never: imported by anything but tests of the checks.
"""

import asyncio
from datetime import datetime
from typing import Any

from model_kit import Ledger
from msgspec.structs import replace

from quota_router.core.decision import Chosen, NoneUsable
from quota_router.core.holds import Charge, Event, HoldState, amount_held
from quota_router.core.limits import Unit
from quota_router.core.windows import coverage
from quota_router.store.booking import Booked
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Admit, Explain, Peek, Settle, _open_window
from quota_router.store.state import OpenHold, State
from quota_router.store.tenure import Job


class ReadsThenWrites(Ledger):
    """Decides in one transaction and holds in the next: whoever came between has not been seen."""

    async def say(self, lane: Lane, jobs: list[Job[Any]]) -> list[Any]:
        asking = [job for job in jobs if isinstance(job, Admit)]
        explained = await asyncio.gather(*(lane.run(Explain(candidates=job.candidates, question=job.question)) for job in asking))
        decided = dict(zip((job.hold_id for job in asking), explained, strict=True))
        return await super().say(lane, [self._blind(job, decided) for job in jobs])

    @staticmethod
    def _blind(job: Job[Any], decided: dict[str, Any]) -> Job[Any]:
        decision = decided.get(job.hold_id) if isinstance(job, Admit) else None
        if not isinstance(job, Admit) or not isinstance(decision, Chosen):
            return job
        fields = {name: getattr(job, name) for name in job.__struct_fields__ if not name.startswith("_")}
        return _HoldsBlindly(**{**fields, "candidates": (replace(decision.candidate, gauges=(), subjects=()),)}, seen=job.subjects)


class _HoldsBlindly(Admit, kw_only=True):
    seen: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        return self.seen

    def run(self, state: State, now: datetime) -> Admission | NoneUsable:
        answer = super().run(state, now)
        assert isinstance(answer, Admission)
        hold, charges = answer.hold, []
        for limit in state.catalog.limits_of(hold.subjects):
            gauge = state.gauge(limit, now)
            if gauge.opens:
                _open_window(state, gauge, hold)
            charges.append(Charge(limit=limit, bucket=gauge.bucket, held=amount_held(limit, hold.estimate)))
            state.charge(limit, gauge.bucket, held=charges[-1].held)
        state.holds[hold.id] = OpenHold(hold=hold, charges=tuple(charges))
        return answer


class KeepsItsBatchInMemory(Ledger):
    """Acknowledges settlements and writes them later, many at once: what it has not written yet dies with it."""

    BATCH = 10

    def __init__(self) -> None:
        self.waiting: list[tuple[Lane, Job[Any]]] = []

    async def say(self, lane: Lane, jobs: list[Job[Any]]) -> list[Any]:
        answers = await super().say(lane, [Peek(hold_id=job.hold_id) if isinstance(job, Settle) else job for job in jobs])
        for place, job in enumerate(jobs):
            if isinstance(job, Settle) and not isinstance(answers[place], Exception):
                self.waiting.append((lane, job))
                answers[place] = _made_up(job, answers[place])
        if len(self.waiting) >= self.BATCH:
            await self.write()
        return answers

    async def write(self) -> None:
        """Write what waits."""
        waiting, self.waiting = self.waiting, []
        await asyncio.gather(*(lane.run(job) for lane, job in waiting), return_exceptions=True)

    async def die(self) -> None:
        self.waiting.clear()


class AnswersFirst(KeepsItsBatchInMemory):
    """Acknowledges a settlement and writes it right after: also before it dies, if it has the time."""

    async def say(self, lane: Lane, jobs: list[Job[Any]]) -> list[Any]:
        await self.write()
        return await super().say(lane, jobs)

    async def die(self) -> None:
        await self.write()


def _made_up(job: Settle, hold: Any) -> Booked:
    """What a settlement would be answered if all went well."""
    is_void = job.settlement.event is Event.VOID
    cost_nusd = 0 if is_void else job.settlement.cost_nusd
    overrun_nusd = max(0, (cost_nusd or 0) - hold.estimate.likely.cost_nusd)
    return Booked(
        hold=hold, state="voided" if is_void else "posted", cost_nusd=cost_nusd, overrun_nusd=overrun_nusd, replayed=False
    )


class _Settles(Ledger):
    """Settles in a way of its own."""

    kind: type[Settle]

    async def say(self, lane: Lane, jobs: list[Job[Any]]) -> list[Any]:
        own = [self.kind(hold_id=job.hold_id, settlement=job.settlement) if isinstance(job, Settle) else job for job in jobs]
        return await super().say(lane, own)


class _Hoarding(Settle):
    def run(self, state: State, now: datetime) -> Booked:
        before = state.holds.get(self.hold_id)
        booked = super().run(state, now)
        if before is not None and booked.state == "voided":
            for charge in before.charges:
                state.charge(charge.limit, charge.bucket, held=charge.held)
        return booked


class KeepsWhatIsVoided(_Settles):
    """A void ends the hold and does not give back what was held."""

    kind = _Hoarding


class _Doubling(Settle):
    def run(self, state: State, now: datetime) -> Booked:
        booked = super().run(state, now)
        if booked.replayed and booked.state == "posted":
            for charge in state.resolved[self.hold_id].charges:
                state.charge(charge.limit, charge.bucket, posted=self.settlement.amounts.of(charge.limit.unit))
        return booked


class BooksTwice(_Settles):
    """A settlement that is said again counts again."""

    kind = _Doubling


class _Dawdling(Settle):
    def run(self, state: State, now: datetime) -> Booked:
        before = state.holds.get(self.hold_id)
        booked = super().run(state, now)
        if before is not None and booked.state == "posted":
            for charge in before.charges:
                posted = 0 if charge.limit.unit is Unit.CONCURRENCY else self.settlement.amounts.of(charge.limit.unit)
                covered = coverage(charge.limit, now, state.opened.get(charge.limit.name))
                state.charge(charge.limit, charge.bucket, posted=-posted)
                state.charge(charge.limit, covered.bucket, posted=posted)
        return booked


class CountsWhenItIsSettled(_Settles):
    """What was spent counts in the window of the answer, not in that of the hold which was let in."""

    kind = _Dawdling


class _Generous(Settle):
    def run(self, state: State, now: datetime) -> Booked:
        said = self.settlement
        is_free = said.event is Event.POST and said.cost_nusd is None and self.hold_id in state.holds
        told = replace(self, settlement=replace(said, cost_nusd=0)) if is_free else self
        return Settle.run(told, state, now)


class TakesUnknownForFree(_Settles):
    """A price that nobody knows is booked as 0."""

    kind = _Generous


class _Reviving(Settle):
    def run(self, state: State, now: datetime) -> Booked:
        resolved = state.resolved.get(self.hold_id)
        if resolved is not None and resolved.state is HoldState.EXPIRED and len(resolved.booked) == 1:
            state.resolved[self.hold_id] = replace(
                resolved, booked={kind: replace(said, cost_nusd=0) for kind, said in resolved.booked.items()}
            )
        return super().run(state, now)


class ForgetsWhatWasAssumed(_Settles):
    """A late word is booked whole, on top of what was assumed."""

    kind = _Reviving


BROKEN = {
    ReadsThenWrites: "I5",
    KeepsItsBatchInMemory: "I6",
    AnswersFirst: "I6",
    KeepsWhatIsVoided: "I1",
    BooksTwice: "I1",
    CountsWhenItIsSettled: "I1",
    TakesUnknownForFree: "I23",
    ForgetsWhatWasAssumed: "I10",
}
"""With the law that finds each."""

"""
Deciding and holding, for callers in a hurry and for those that would rather wait.

Law: whoever leaves here with an attempt has a durable hold; whoever is refused was judged at that very moment, and is told what
then stood against each rung.
Never: sends anything.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from quota_router.attempts import Attempt, Failed
from quota_router.core.calls import Call
from quota_router.core.decision import NoneUsable
from quota_router.core.holds import Event, Outcome, Settlement
from quota_router.core.retries import Retries
from quota_router.core.verdict import say_none_usable
from quota_router.errors import CallerGone
from quota_router.ladder import Ladder
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Admit, Setback, Settle
from quota_router.underway import Running, Underway
from quota_router.waiting import Place, WaitingRoom


@dataclass(slots=True, kw_only=True)
class Admissions:
    """Takes holds for calls that we relay."""

    lane: Lane
    underway: Underway
    waiting: WaitingRoom
    retries: Retries
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    time: Callable[[], float]
    draw: Callable[[], float]
    """a random number of 0..1"""
    ttl_s: float
    """how long a hold lives without being renewed"""

    async def hold(self, call: Call, ladder: Ladder, running: Running) -> Attempt:
        """
        Hold the first usable rung for a call's first attempt.

        Raises:
            NoUsableProvider: there is none, or none in the time the caller would wait.
            CallerGone: he did not wait.
        """
        return await self._hold(call, ladder, running, None, None)

    async def hold_next(self, call: Call, ladder: Ladder, running: Running, before: Attempt, failed: Failed) -> Attempt:
        """
        Settle an attempt that failed, and hold the next rung in the same transaction.

        Raises: as `hold`.
        """
        repeats = self.retries.left(before.number, ladder.tried) if self.underway.may_repeat(running) else 0
        ladder = replace(ladder, question=replace(ladder.question, repeats=repeats))
        return await self._hold(call, ladder, running, before, failed.settlement)

    async def _hold(
        self, call: Call, ladder: Ladder, running: Running, before: Attempt | None, settlement: Settlement | None
    ) -> Attempt:
        number, setback = 1, None
        if before is not None and settlement is not None:
            number, setback = before.number + 1, Setback(hold_id=before.hold.id, settlement=settlement)
            before.is_settled = True
        job = self._job(call, ladder, number, setback, is_last=self.time() >= running.waits_until)
        admitted = await self._ask(job)
        if isinstance(admitted, NoneUsable) and not job.is_last:
            admitted = await self._wait(call, ladder.afresh(), running, number, admitted)
        if isinstance(admitted, NoneUsable):
            raise say_none_usable(admitted, self.clock())
        candidate = admitted.decision.candidate
        attempt = Attempt(
            call=candidate.way.call or call,
            number=number,
            hold=admitted.hold,
            candidate=candidate,
            rungs=admitted.decision.rungs,
            time=self.time,
            started=self.time(),
            jitter=self.draw(),
        )
        running.attempt, running.is_repeating = attempt, attempt.is_repeat
        return attempt

    async def _wait(self, call: Call, ladder: Ladder, running: Running, number: int, refusal: NoneUsable) -> Admission | NoneUsable:
        """Wait in line until a rung can be held, or the caller's patience is over."""
        place = self.waiting.enter((call.caller.name, call.model, call.pinned_provider, call.labels))
        if place is None:
            return await self._ask(self._job(call, ladder, number))
        async with place:
            with running.in_line(self.time):
                return await self._take_turns(call, ladder, running, number, refusal, place)

    async def _take_turns(
        self, call: Call, ladder: Ladder, running: Running, number: int, refusal: NoneUsable, place: Place
    ) -> Admission | NoneUsable:
        while True:
            await place.turn(running.waits_until, self._soonest(refusal, running.waits_until))
            if running.sink.is_gone:
                raise CallerGone
            is_last = self.time() >= running.waits_until
            answer = await self._ask(self._job(call, ladder, number, is_last=is_last))
            if is_last or not isinstance(answer, NoneUsable):
                return answer
            refusal = answer

    def _soonest(self, refusal: NoneUsable, latest: float) -> float:
        """When the first rung becomes usable, as loop time, as far as anybody knows."""
        now = self.clock()
        waits_s = [(rung.usable_at - now).total_seconds() for rung in refusal.rungs if rung.usable_at is not None]
        return self.time() + min(waits_s, default=0.0) if waits_s else latest

    def _job(self, call: Call, ladder: Ladder, number: int, after: Setback | None = None, *, is_last: bool = True) -> Admit:
        return Admit(
            call=call,
            candidates=ladder.candidates,
            question=ladder.question,
            hold_id=self.new_id(),
            attempt=number,
            ttl_s=self.ttl_s,
            after=after,
            is_last=is_last,
        )

    async def _ask(self, job: Admit) -> Admission | NoneUsable:
        """Ask the ledger. A hold that becomes durable after its call was cancelled is given back."""
        is_next = job.after is not None
        answer = self.lane.submit(job, settles=is_next, spills=is_next, unclaimed=self._give_back)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:  # cut with the hold already in its hands
                self._give_back(answer.result())
            raise

    def _give_back(self, admitted: Admission | NoneUsable) -> None:
        """Void a hold on which nothing was sent."""
        if isinstance(admitted, Admission):
            void = Settlement(event=Event.VOID, outcome=Outcome.CANCELLED)
            _ = self.lane.settle(Settle(hold_id=admitted.hold.id, settlement=void))

"""
The way of a call, top to bottom. Start reading here.

    resolve   model -> ladder: rungs with prices and estimates        ladder
    hold      decide and hold, in one write transaction               store/ledger, core/decision
    attempt   send; a failure before the first content byte settles
              this rung and holds the next in one step                upstream, dialects
    relay     the same bytes to the caller, usage read off them       relay, dialects
    settle    usage x price -> post, committed before the last byte   attempts, store/booking
    learn     failure -> cooldown; usage -> estimates                 store/booking, core/health

Law: no byte leaves for an upstream before its hold is committed; no last byte reaches the caller before its post is. Each hold
taken here is settled here, whatever happens: an answer, a failure, a cut, a caller who left, a cancellation, an error of ours.
Never: looks into a body (the dialect does), knows HTTP's incoming side (the sink does), or decides (`core/decision` does).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from quota_router.attempts import Attempt, Failed
from quota_router.core.calls import Call
from quota_router.core.decision import NoneUsable
from quota_router.core.health import Failure
from quota_router.core.holds import Event, Outcome, Settlement
from quota_router.core.verdict import say_none_usable
from quota_router.crashpoints import CrashPoint, reach
from quota_router.dialects import dialect_of
from quota_router.errors import AddressRefused, CallerGone, InvalidRequest, QuotaRouterError, ShuttingDown, UpstreamUnavailable
from quota_router.ladder import Ladder, Ladders
from quota_router.relay import Bounds, Relay, Sink
from quota_router.store.holding import Renew
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Admit, Setback, Settle
from quota_router.upstream import Upstream, UpstreamAnswer, UpstreamRequest

log = structlog.get_logger()


@dataclass(slots=True)
class _Running:
    """A call under way: the task that serves it, and its attempt of the moment."""

    task: "asyncio.Task[None] | None"
    ends_at: float
    """loop time"""
    attempt: Attempt | None = None


@dataclass(slots=True, kw_only=True)
class Router:
    """Serves calls. One per daemon; `new_id` draws UUIDv7 text, `clock` gives aware UTC."""

    lane: Lane
    upstream: Upstream
    ladders: Ladders
    relay: Relay
    bounds: Bounds
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    time: Callable[[], float]
    """the loop's clock, s; for how long things take"""
    _running: dict[str, "_Running"] = field(default_factory=dict)
    """by call"""
    _is_cutting: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, call: Call, sink: Sink) -> None:
        """
        Serve one call, whole.

        Raises:
            QuotaRouterError: nothing was sent to the caller, and nothing will be; the error is the answer.
        """
        ladder = self.ladders.climb(call, self.lane.catalog, self.lane.learned, self.clock())
        attempt: Attempt | None = None
        running = self._running[call.id] = _Running(asyncio.current_task(), self.time() + self.bounds.max_call_s)
        self._idle.clear()
        try:
            attempt = running.attempt = await self._hold(call, ladder)
            while True:
                try:
                    answer = await self._send(attempt, running.ends_at)
                    return await self.relay.relay(attempt, answer, sink)
                except Failed as failed:
                    ladder = _marked_tried(ladder, attempt, failed.failure)
                    attempt = running.attempt = await self._hold(call, ladder, after=attempt, settlement=failed.settlement)
        except asyncio.CancelledError:
            await self._end_cancelled(call, attempt, sink)
        except Exception as error:
            if attempt is not None and not attempt.is_settled:  # an error of ours: whether the upstream charged is not known
                await self.relay.settle(attempt, attempt.guess(Outcome.UNKNOWN))
            if not sink.is_started:
                raise
            if not isinstance(error, QuotaRouterError):
                log.exception("a call broke after its answer had begun", action="call_broke", call_id=call.id)
                error = QuotaRouterError()
            await _tell_in_stream(call, sink, error)
        finally:
            del self._running[call.id]
            if not self._running:
                self._idle.set()

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return len(self._running)

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        if self._running:
            await self._idle.wait()

    def cut(self) -> None:
        """End every running call now: each settles what it has seen, and its caller is told. For the end of a shutdown."""
        self._is_cutting = True
        for running in self._running.values():
            if running.task is not None:
                running.task.cancel()

    async def renew_holds(self, within_s: float) -> None:
        """
        Give the holds of running calls what they need.

        More time, where theirs is over in *within_s* seconds; more room, where an answer has grown beyond what was held for it.
        """
        soon = self.clock() + timedelta(seconds=within_s)
        for attempt in [running.attempt for running in self._running.values() if running.attempt is not None]:
            grown = attempt.grown()
            if not attempt.is_settled and (grown is not None or attempt.hold.expires_at <= soon):
                renewed = await self.lane.run(Renew(hold_id=attempt.hold.id, ttl_s=2 * within_s, estimate=grown))
                attempt.hold = renewed or attempt.hold

    # --- decide and hold --------------------------------------------------------------------------------------------------

    async def _hold(
        self, call: Call, ladder: Ladder, *, after: Attempt | None = None, settlement: Settlement | None = None
    ) -> Attempt:
        """Hold the first usable rung; the attempt before, if any, is settled in the same transaction."""
        setback = None
        if after is not None and settlement is not None:
            await self.relay.stop_if_late(after, settlement)
            setback = Setback(hold_id=after.hold.id, settlement=settlement)
            after.is_settled = True
        job = Admit(
            call=call,
            candidates=ladder.candidates,
            question=ladder.question,
            hold_id=self.new_id(),
            attempt=after.number + 1 if after else 1,
            ttl_s=self.bounds.max_call_s,
            after=setback,
        )
        answer = self.lane.submit(job, settles=after is not None, spills=after is not None, unclaimed=self._give_back)
        try:
            admitted = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:  # cut with the hold already in its hands
                self._give_back(answer.result())
            raise
        if isinstance(admitted, NoneUsable):
            raise say_none_usable(admitted, self.clock())
        return Attempt(
            call=call,
            number=job.attempt,
            hold=admitted.hold,
            candidate=admitted.decision.candidate,
            rungs=admitted.decision.rungs,
            time=self.time,
            started=self.time(),
        )

    def _give_back(self, admitted: Admission | NoneUsable) -> None:
        """Void a hold that became durable after its call was cancelled: nothing was sent on it."""
        if isinstance(admitted, Admission):
            void = Settlement(event=Event.VOID, outcome=Outcome.CANCELLED)
            _ = self.lane.settle(Settle(hold_id=admitted.hold.id, settlement=void))

    # --- attempt ------------------------------------------------------------------------------------------------------------

    async def _send(self, attempt: Attempt, ends_at: float) -> UpstreamAnswer:
        """
        Send the call to the held rung, and wait for the head of its answer.

        Raises:
            Failed: no answer came.
            DeadlinePassed: the caller's own time ran out first.
            InvalidRequest: the query or a header cannot be sent.
        """
        call, provider = attempt.call, attempt.candidate.provider
        dialect = dialect_of(provider.family)
        secret = None if provider.is_keyless else self.ladders.credential_of(provider.credential_ref)
        body = call.body_for(attempt.hold.upstream_model)
        attempt.body_bytes = len(body)
        query = f"?{call.query}" if call.query else ""
        request = UpstreamRequest(
            provider=provider,
            url=f"{provider.base_url}{dialect.upstream_path(call.operation)}{query}",
            headers=dialect.outgoing_headers(call.headers, secret.reveal() if secret else None),
            body=body,
            connect_timeout_s=self.bounds.connect_timeout_s,
            first_byte_timeout_s=self.bounds.first_byte_timeout_s,
            gap_timeout_s=self.bounds.gap_timeout_s,
            total_timeout_s=self._time_left_s(call, ends_at),
        )
        reach(CrashPoint.BEFORE_SEND)
        try:
            return await self.upstream.send(request, attempt.hold.id)
        except AddressRefused as refused:
            raise attempt.unanswered("network_refused", dispatched=False) from refused
        except InvalidRequest:
            await self.relay.settle(attempt, attempt.void(None))
            raise
        except UpstreamUnavailable as gone:
            ending = attempt.guess(Outcome.CANCELLED) if gone.dispatched else attempt.void(None)
            await self.relay.stop_if_late(attempt, ending, cause=gone.cause)
            raise attempt.unanswered(gone.cause, dispatched=gone.dispatched) from gone

    def _time_left_s(self, call: Call, ends_at: float) -> float:
        """Return how long an attempt may take: what is left of `max_call_s`, or of the caller's own time."""
        left_s = ends_at - self.time()
        if call.deadline is not None:
            left_s = min(left_s, (call.deadline - self.clock()).total_seconds())
        return max(0.001, left_s)

    # --- the end of a cancelled call ----------------------------------------------------------------------------------------

    async def _end_cancelled(self, call: Call, attempt: Attempt | None, sink: Sink) -> None:
        """
        Settle what was seen. At a shutdown the caller is told, else the cancellation goes on its way.

        Raises:
            ShuttingDown: a shutdown cut the call before anything was sent.
        """
        task = asyncio.current_task()
        durable = None
        if attempt is not None and not attempt.is_settled:
            # From here on it must succeed: the lane owns the settlement, whatever becomes of this task.
            attempt.is_settled = True
            settle = Settle(hold_id=attempt.hold.id, settlement=attempt.guess(Outcome.CANCELLED))
            durable = self.lane.settle(settle)
        if not self._is_cutting or task is None:
            raise asyncio.CancelledError
        task.uncancel()
        if durable is not None:
            await asyncio.shield(durable)
        if not sink.is_started:
            raise ShuttingDown
        await _tell_in_stream(call, sink, ShuttingDown())


async def _tell_in_stream(call: Call, sink: Sink, error: QuotaRouterError) -> None:
    """End an answer that has begun with an error event of its dialect: a status can no longer be sent."""
    with contextlib.suppress(CallerGone):
        await sink.finish(dialect_of(call.family).error_event(call.operation, error, call.id))


def _marked_tried(ladder: Ladder, attempt: Attempt, failure: Failure) -> Ladder:
    """Return the ladder with this attempt's rung marked: it is not tried again within the call."""
    candidates = tuple(
        replace(candidate, tried=failure) if candidate.attachment == attempt.candidate.attachment else candidate
        for candidate in ladder.candidates
    )
    return replace(ladder, candidates=candidates)

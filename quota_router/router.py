"""
The way of a call, top to bottom. Start reading here.

    resolve   rules, workflows -> model -> ladder: its rungs with
              prices and estimates                                    routing, core/ways, ladder
    hold      decide and hold, in one write transaction; or wait      admission, waiting, store/ledger, core/decision
    attempt   send; a failure before the first content byte settles
              this rung and holds the next in one step                outbound (upstream | command), dialects
    observe   what the head tells of the account's windows            dialects/vendors, store/readings
    relay     the same bytes to the caller, usage read off them       relay, dialects
    settle    usage x price -> post, committed before the last byte   attempts, store/booking
    learn     failure -> cooldown; usage -> estimates, speed          store/learning, core/health, core/breaker

Law: no byte leaves for an upstream before its hold is committed; no last byte reaches the caller before its post is. Each hold
taken here is settled here, whatever happens: an answer, a failure, a cut, a caller who left, a cancellation, an error of ours.
Never: looks into a body (the dialect does), knows HTTP's incoming side (the sink does), or decides (`core/decision` does).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus

import structlog

from quota_router.admission import Admissions
from quota_router.attempts import Attempt, Failed
from quota_router.core.calls import Call
from quota_router.core.health import FORBIDDEN
from quota_router.core.holds import Outcome
from quota_router.core.retries import pause_s
from quota_router.crashpoints import CrashPoint, reach
from quota_router.dialects import dialect_of
from quota_router.errors import (
    AddressRefused,
    CallerGone,
    CallTimedOut,
    InvalidRequest,
    NoUsableProvider,
    QuotaRouterError,
    ShuttingDown,
    UpstreamUnavailable,
)
from quota_router.ladder import Ladder, Ladders
from quota_router.outbound import Outbound, Outgoing
from quota_router.relay import Bounds, Relay, Sink, Source
from quota_router.routing import Routing
from quota_router.store.holding import Renew
from quota_router.store.lane import Lane
from quota_router.store.ledger import Settle
from quota_router.store.observing import heard
from quota_router.underway import Running, Underway

CONNECT_SOON_S = 5.0
"""Where another rung remains, nobody waits longer for a connection (faults.md F4)."""
LEAST_TIME_S = 0.05
"""With less of `max_call_s` left no other rung is tried: it would be blamed for our hurry."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Router:
    """Serves calls. One per daemon; `clock` gives aware UTC."""

    lane: Lane
    outbound: Outbound
    routing: Routing
    ladders: Ladders
    admissions: Admissions
    relay: Relay
    underway: Underway
    bounds: Bounds
    clock: Callable[[], datetime]
    time: Callable[[], float]
    """the loop's clock, s; for how long things take"""

    async def serve(self, call: Call, sink: Sink) -> None:
        """
        Serve one call, whole.

        Raises:
            QuotaRouterError: nothing was sent to the caller, and nothing will be; the error is the answer.
        """
        call, ladder = await self.routing.resolve(call)
        running = self.underway.begin(call.id, sink, max_s=self.bounds.max_call_s, max_wait_s=self._longest_wait_s(call))
        try:
            attempt = await self.admissions.hold(call, ladder, running)
            while True:
                try:
                    answer = await self._send(attempt, ladder, running)
                    return await self.relay.relay(attempt, answer, sink)
                except Failed as failed:
                    await self.relay.stop_if_late(attempt, failed.settlement)
                    if running.ends_at - self.time() < LEAST_TIME_S:
                        await self.relay.settle(attempt, failed.settlement)
                        raise CallTimedOut from failed
                    ladder = ladder.after(attempt.candidate, failed.failure)
                    try:
                        attempt = await self.admissions.hold_next(call, ladder, running, attempt, failed)
                    except NoUsableProvider:
                        if failed.answer is None:
                            raise
                        return await self.relay.pass_back(failed.answer, sink)
        except asyncio.CancelledError:
            await self._end_cancelled(call, running)
        except Exception as error:
            if not await self._is_told(call, running, error):
                raise
        finally:
            self.underway.end(call.id)

    async def renew_holds(self, within_s: float) -> None:
        """
        Give the holds of running calls what they need.

        More time, where theirs is over in *within_s* seconds; more room, where an answer has grown beyond what was held for it.
        """
        soon = self.clock() + timedelta(seconds=within_s)
        for attempt in [running.attempt for running in self.underway if running.attempt is not None]:
            grown = attempt.grown()
            if not attempt.is_settled and (grown is not None or attempt.hold.expires_at <= soon):
                renewed = await self.lane.run(Renew(hold_id=attempt.hold.id, ttl_s=2 * within_s, estimate=grown))
                attempt.hold = renewed or attempt.hold

    # --- attempt ------------------------------------------------------------------------------------------------------------

    async def _send(self, attempt: Attempt, ladder: Ladder, running: Running) -> Source:
        """
        Send the call to the held rung, and wait for the head of its answer.

        Raises:
            Failed: no answer came.
            DeadlinePassed: the caller's own time ran out first.
            InvalidRequest: something in it cannot be sent.
            CallerGone: nobody is there to read the answer.
        """
        call, provider = attempt.call, attempt.candidate.provider
        if attempt.is_repeat:
            left_s = self._time_left_s(call, running.ends_at)
            await asyncio.sleep(min(pause_s(attempt.number - ladder.tried, attempt.jitter), left_s))
        if running.sink.is_gone:
            await self.relay.settle(attempt, attempt.void(None, Outcome.CANCELLED))
            raise CallerGone
        secret = None if provider.is_keyless else self.ladders.credential_of(provider.credential_ref)
        body = call.body.for_model(attempt.hold.upstream_model)
        attempt.body_bytes = len(body)
        attempt.ends_at = self.time() + self._time_left_s(call, running.ends_at)
        outgoing = Outgoing(
            call=call,
            provider=provider,
            upstream_model=attempt.hold.upstream_model,
            body=body,
            secret=secret,
            connect_timeout_s=self._connect_timeout_s(attempt),
            total_timeout_s=attempt.time_left_s(),
        )
        reach(CrashPoint.BEFORE_SEND)
        attempt.is_sent = True
        try:
            answer = await self.outbound.send(outgoing, attempt.hold.id)
        except AddressRefused as refused:
            raise attempt.unanswered(FORBIDDEN, dispatched=False) from refused
        except InvalidRequest:
            await self.relay.settle(attempt, attempt.void(None))
            raise
        except UpstreamUnavailable as gone:
            ending = attempt.guess(Outcome.CANCELLED) if gone.dispatched else attempt.void(None)
            await self.relay.stop_if_late(attempt, ending, cause=gone.cause)
            raise attempt.unanswered(gone.cause, dispatched=gone.dispatched) from gone
        self._observe(attempt, ladder.session, answer)
        return answer

    def _observe(self, attempt: Attempt, session: str | None, answer: Source) -> None:
        """Take in what the head of an answer tells of its account, at the moment it is told; who refuses is nobody's home."""
        hold, now = attempt.hold, self.clock()
        if session is not None and answer.status == HTTPStatus.OK:
            self.ladders.sessions.keep(session, hold.provider, now)
        observed = heard(hold, attempt.candidate.provider, answer.headers, now)
        if observed is not None:
            self.lane.note(observed)

    def _connect_timeout_s(self, attempt: Attempt) -> float:
        has_others = any(rung.status == "eligible" for rung in attempt.rungs)
        return min(self.bounds.connect_timeout_s, CONNECT_SOON_S) if has_others else self.bounds.connect_timeout_s

    def _time_left_s(self, call: Call, ends_at: float) -> float:
        """Return how long an attempt may take: what is left of `max_call_s`, or of the caller's own time."""
        left_s = ends_at - self.time()
        if call.deadline is not None:
            left_s = min(left_s, (call.deadline - self.clock()).total_seconds())
        return max(0.001, left_s)

    def _longest_wait_s(self, call: Call) -> float:
        """Return how long a call may stand in line: as long as its caller said, and never beyond his own deadline."""
        if call.deadline is None or call.max_wait_s <= 0:
            return call.max_wait_s
        return min(call.max_wait_s, (call.deadline - self.clock()).total_seconds())

    # --- other ends of a call -----------------------------------------------------------------------------------------------

    async def _end_cancelled(self, call: Call, running: Running) -> None:
        """
        Settle what was seen. At a shutdown the caller is told, else the cancellation goes on its way.

        Raises:
            ShuttingDown: a shutdown cut the call before anything was sent.
            CallerGone: the call was ended because its caller has left.
        """
        task, attempt, durable = running.task, running.attempt, None
        if attempt is not None and not attempt.is_settled:
            # From here on it must succeed: the lane owns the settlement, whatever becomes of this task.
            attempt.is_settled = True
            settle = Settle(hold_id=attempt.hold.id, settlement=attempt.guess(Outcome.CANCELLED))
            durable = self.lane.settle(settle)
        if task is None or not (self.underway.is_cutting or running.is_left):
            raise asyncio.CancelledError
        task.uncancel()
        if durable is not None:
            await asyncio.shield(durable)
        if running.is_left:
            raise CallerGone
        if not running.sink.is_started:
            raise ShuttingDown
        await _tell_in_stream(call, running.sink, ShuttingDown())

    async def _is_told(self, call: Call, running: Running, error: Exception) -> bool:
        """Settle an attempt that an error left open; tell the caller, if his answer has begun."""
        attempt = running.attempt
        if attempt is not None and not attempt.is_settled:  # whether the upstream charged is not known
            await self.relay.settle(attempt, attempt.guess(Outcome.UNKNOWN))
        if not running.sink.is_started:
            return False
        if not isinstance(error, QuotaRouterError):
            log.error("a call broke after its answer had begun", action="call_broke", call_id=call.id, exc_info=error)
            error = QuotaRouterError()
        await _tell_in_stream(call, running.sink, error)
        return True


async def _tell_in_stream(call: Call, sink: Sink, error: QuotaRouterError) -> None:
    """End an answer that has begun with an error event of its dialect: a status can no longer be sent."""
    with contextlib.suppress(CallerGone):
        await sink.finish(dialect_of(call.family).error_event(call.operation, error, call.id))

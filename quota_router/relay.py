"""
Passing an upstream's answer on, and posting it.

Law: the last byte leaves after the post is committed; before the first content byte a failure may move on (`Failed`), after it
never. Bytes are forwarded as they came.
Never: chooses a rung.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Protocol

from quota_router.attempts import Attempt, Failed, Refused
from quota_router.core.affinity import Homes
from quota_router.core.calls import Operation
from quota_router.core.health import Action
from quota_router.core.health import broken as broke
from quota_router.core.holds import Outcome, Settlement
from quota_router.core.pricing import format_usd
from quota_router.core.verdict import skipped_header
from quota_router.crashpoints import CrashPoint, reach
from quota_router.dialects import Event, EventKind, StreamReader, UnreadableAnswer, dialect_of
from quota_router.errors import CallerGone, DeadlinePassed, UpstreamCut, UpstreamError, UpstreamRefused, UpstreamUnavailable
from quota_router.store.lane import Lane
from quota_router.store.ledger import Settle

ERROR_BODY_MAX_BYTES = 1024 * 1024
"""An upstream's error is read up to here."""
BYTES_PER_DRAINED_TOKEN = 4
"""For `drain_tokens`: how much is read on after the caller left."""


class Source(Protocol):
    """Where an answer comes from: a provider's connection, or what its program wrote. Whoever holds one closes it."""

    @property
    def status(self) -> int:
        """As in HTTP."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The provider's own."""

    async def read(self, max_bytes: int) -> bytes:
        """Read the whole body. Raises `UpstreamCut`."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes. Raises `UpstreamCut` while iterating."""

    def close(self) -> None:
        """Let go of it, read or not. May be repeated."""


class Sink(Protocol):
    """Where an answer goes: the caller's connection, or whoever calls in-process."""

    @property
    def is_started(self) -> bool:
        """Whether a status was sent, or is about to be: from then on errors are told inside the answer."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody reads any more."""

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the answer; sends nothing yet."""

    async def write(self, data: bytes, within_s: float) -> None:
        """Send a piece. Raises `CallerGone`: he has left, or takes nothing for *within_s* seconds."""

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece and end the answer. Raises `CallerGone`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long and how much, from `[server]`."""

    max_call_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    gap_timeout_s: float
    settle_wait_s: float
    drain_s: float
    drain_tokens: int
    max_answer_bytes: int


@dataclass(slots=True, kw_only=True)
class Relay:
    """Relays answers and posts them through *lane*."""

    lane: Lane
    bounds: Bounds
    clock: Callable[[], datetime]
    homes: Homes

    async def relay(self, attempt: Attempt, answer: Source, sink: Sink) -> None:
        """
        Pass one answer on; returns when the caller has its last byte, or has left.

        Raises:
            Failed: before the first content byte; another rung may be tried.
            DeadlinePassed: the caller's own time ran out before anything was sent.
        """
        attempt.mark_first_byte()
        reach(CrashPoint.AFTER_HEAD)
        is_stream = answer.headers.get("Content-Type", "").lower().startswith("text/event-stream")
        try:
            if answer.status != HTTPStatus.OK:
                await self._refusal(attempt, answer, sink)
            elif is_stream:
                await self._stream(attempt, answer, sink)
            else:
                await self._whole(attempt, answer, sink)
        finally:
            answer.close()

    async def settle(self, attempt: Attempt, settlement: Settlement) -> None:
        """Hand the settlement to the lane and wait until it is durable."""
        attempt.is_settled = True
        await self.lane.settle(Settle(hold_id=attempt.hold.id, settlement=settlement))

    async def stop_if_late(self, attempt: Attempt, settlement: Settlement, *, cause: str | None = None) -> None:
        """
        End the call when its own deadline has passed: the rung is not to blame, and no other is tried.

        Args:
            attempt: the one under way.
            settlement: how it ends then.
            cause: why no answer came. `total_timeout` says it even if the clock does not yet: the time was the caller's.

        Raises:
            DeadlinePassed: it has.
        """
        deadline = attempt.call.deadline
        if deadline is not None and (self.clock() >= deadline or cause == "total_timeout"):
            await self.settle(attempt, settlement)
            raise DeadlinePassed

    async def _refusal(self, attempt: Attempt, answer: Source, sink: Sink) -> None:
        """Read an error; go on to the next rung, or pass the caller's own error back byte for byte."""
        dialect = dialect_of(attempt.candidate.provider.family)
        try:
            body = await answer.read(ERROR_BODY_MAX_BYTES)
        except UpstreamError:
            body = b""
        vendor = attempt.candidate.provider.vendor
        failure = dialect.classify(answer.status, answer.headers, body, self.clock(), vendor=vendor)
        if failure.kind.action is Action.NEXT_RUNG:
            raise attempt.failed(failure, may_have_cost=False)
        refused = Refused(status=answer.status, headers=_head(attempt, answer), body=body)
        if failure.kind.action is Action.LONGER_CONTEXT and attempt.candidate.context_tokens is not None:
            raise Failed(failure, attempt.void(failure), refused)
        await self.settle(attempt, attempt.void(failure))
        await self.pass_back(refused, sink)

    async def pass_back(self, refused: Refused, sink: Sink) -> None:
        """
        Give the caller an upstream's own refusal, byte for byte.

        Raises:
            UpstreamRefused: a status can no longer be sent.
        """
        if sink.is_started:
            raise UpstreamRefused(
                f"The provider refused the call with status {refused.status}. Ask without `stream` for its words."
            )
        sink.start(refused.status, refused.headers)
        await _finish(sink, refused.body)

    async def _whole(self, attempt: Attempt, answer: Source, sink: Sink) -> None:
        """Read the whole answer, post it, pass it on."""
        dialect = dialect_of(attempt.candidate.provider.family)
        try:
            body = await answer.read(self.bounds.max_answer_bytes)
            read = dialect.read_answer(attempt.call.operation, body)
        except (UpstreamCut, UpstreamUnavailable, UnreadableAnswer) as broken:
            await self.stop_if_late(attempt, attempt.guess(Outcome.CANCELLED))
            raise attempt.unanswered(broken.code, dispatched=True) from broken
        if read.failed:
            failure = dialect.classify_event(body, self.clock(), vendor=attempt.candidate.provider.vendor)
            failed = attempt.failed(failure, may_have_cost=False, reported=read.usage)
            if failed.failure.kind.moves_on:
                raise failed
            settlement = failed.settlement
        else:
            settlement = attempt.answered(read.usage, output_bytes=len(body), reported_nusd=read.cost_nusd)
        await self.settle(attempt, settlement)
        self._keep_home(attempt, read.answer_id)
        if sink.is_started:
            raise UpstreamError("The provider did not stream its answer as it was asked to, and took its time.")
        head = _head(attempt, answer)
        if settlement.cost_nusd is not None:
            head["x-quota-router-cost-usd"] = format_usd(settlement.cost_nusd)
        sink.start(answer.status, head)
        await _finish(sink, body)

    async def _stream(self, attempt: Attempt, answer: Source, sink: Sink) -> None:
        """
        Pass events on as they come.

        The opening ones wait for the first content, so that another rung may still be tried; the terminal one waits for the post.
        """
        call, dialect = attempt.call, dialect_of(attempt.candidate.provider.family)
        reader = attempt.reader = dialect.reader(call.operation, call.facts)
        last, broken, refused = bytearray(), None, None
        try:
            refused = await self._pump(attempt, answer, reader, sink, last)
        except CallerGone:
            await self._drain(attempt, answer, reader)
            return
        except (UpstreamCut, UpstreamUnavailable, UnreadableAnswer) as cut:
            broken = cut
        if not reader.is_complete and not reader.saw_content and refused is None:
            await self.stop_if_late(attempt, attempt.guess(Outcome.CANCELLED))
            raise attempt.unanswered("upstream_truncated", dispatched=True) from broken
        if not reader.is_complete and not last:
            last += dialect.error_event(call.operation, UpstreamCut(), call.id)
        await self.settle(attempt, refused or self._streamed(attempt, reader, broken))
        self._keep_home(attempt, reader.answer_id)
        if not sink.is_started:
            sink.start(answer.status, _head(attempt, answer))
        await _finish(sink, bytes(last))

    async def _pump(self, attempt: Attempt, answer: Source, reader: StreamReader, sink: Sink, last: bytearray) -> Settlement | None:
        """
        Send what may go out, and leave in *last* what has to wait for the post; returns at the end, or at an error event.

        Returns:
            how to settle an error before any content that is the caller's own; `None`: as the reader has seen it.
        """
        ready = bytearray()
        async for batch in _batches(answer, reader):
            error = _sort(batch, ready, last)
            refused = None
            if error is not None and not reader.saw_content:
                provider = attempt.candidate.provider
                failure = dialect_of(provider.family).classify_event(error, self.clock(), vendor=provider.vendor)
                failed = attempt.failed(failure, may_have_cost=False)
                if failed.failure.kind.moves_on:
                    raise failed
                refused = failed.settlement
            if reader.saw_content and ready:
                if not sink.is_started:
                    sink.start(answer.status, _head(attempt, answer))
                await sink.write(bytes(ready), attempt.time_left_s())
                reach(CrashPoint.AFTER_FIRST_WRITE)
                ready.clear()
            if error is not None or reader.is_complete:
                last[:0] = ready
                last += error or b""
                return refused
        last[:0] = ready
        return None

    async def _drain(self, attempt: Attempt, answer: Source, reader: StreamReader) -> None:
        """
        The caller left. Where hanging up does not stop the bill, read on for the true usage, within bounds; then settle.

        Where it does, hang up at once.
        """
        most_bytes = reader.output_bytes + self.bounds.drain_tokens * BYTES_PER_DRAINED_TOKEN
        if not attempt.ends_with_caller and not reader.is_complete:
            # However it ends, what was seen until then is what can be booked.
            with contextlib.suppress(TimeoutError, UpstreamError):
                async with asyncio.timeout(self.bounds.drain_s):
                    async for _ in _batches(answer, reader):
                        if reader.is_complete or reader.output_bytes > most_bytes:
                            break
        await self.settle(attempt, self._streamed(attempt, reader, None, left=True))

    def _keep_home(self, attempt: Attempt, answer_id: str | None) -> None:
        """Remember who made an answer that a later call may continue; only the Responses API keeps them."""
        if answer_id is not None and attempt.call.operation is Operation.RESPONSES:
            self.homes.keep(answer_id, attempt.hold.provider)

    def _streamed(self, attempt: Attempt, reader: StreamReader, broken: UpstreamError | None, *, left: bool = False) -> Settlement:
        """How a stream ends: complete, failed by the upstream's own word, cut, or left by its caller."""
        if reader.is_complete and reader.failed:
            return attempt.guess(Outcome.FAILED) if reader.usage is None else attempt.post(reader.usage, outcome=Outcome.FAILED)
        if reader.is_complete:
            return attempt.answered(reader.usage, output_bytes=reader.output_bytes, reported_nusd=reader.cost_nusd)
        if left or self._is_out_of_time(attempt, broken):
            return attempt.guess(Outcome.CANCELLED if left else Outcome.FAILED)
        return attempt.guess(Outcome.FAILED, failure=broke(UpstreamCut.code))

    def _is_out_of_time(self, attempt: Attempt, broken: UpstreamError | None) -> bool:
        """Whether a stream was cut by the caller's time or ours for the whole call, for which its rung is not to blame."""
        deadline = attempt.call.deadline
        ran_out = isinstance(broken, UpstreamCut) and broken.cause == "total_timeout"
        return ran_out or (deadline is not None and self.clock() >= deadline)


async def _batches(answer: Source, reader: StreamReader) -> AsyncIterator[list[Event]]:
    """Yield the events of each chunk, and at the end what was left without its blank line."""
    async for chunk in answer.chunks():
        events = reader.feed(chunk)
        if events:
            yield events
    rest = reader.close()
    if rest:
        yield rest


def _sort(batch: list[Event], ready: bytearray, last: bytearray) -> bytes | None:
    """Sort events into what may go out and what must wait for the post; return the first error event's bytes, if any."""
    for event in batch:
        match event.kind:
            case EventKind.ERROR:
                return event.data
            case EventKind.TERMINAL:
                last += event.data
            case EventKind.OPENING | EventKind.CONTENT:
                ready += event.data
            case EventKind.HIDDEN:
                pass  # the usage we asked for, and the caller did not
    return None


async def _finish(sink: Sink, data: bytes) -> None:
    """End the answer. A caller who left meanwhile changes nothing: his call is posted."""
    with contextlib.suppress(CallerGone):
        await sink.finish(data)
    reach(CrashPoint.AFTER_LAST_BYTE)


def _head(attempt: Attempt, answer: Source) -> dict[str, str]:
    """Build the answer's headers: the upstream's own that are allowed, and ours."""
    head = dialect_of(attempt.candidate.provider.family).answer_headers(answer.headers)
    head["x-quota-router-provider"] = attempt.hold.provider
    head["x-quota-router-model"] = attempt.hold.model
    head["x-quota-router-attempts"] = str(attempt.number)
    skipped = skipped_header(attempt.rungs)
    if skipped:
        head["x-quota-router-skipped"] = skipped
    return head

"""
The lane: the only way to write.

Law: it drains its queue, hands the batch to the writer's thread, and answers all when the transaction is durable: what a caller
learns from the lane is on disk. While the database takes no writes, admission fails closed and what was spent goes to the spill
file; once it does again, that is booked before anything else.
Never: lets a caller's cancellation reach the database, or begins a batch before the last is durable.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Learned
from quota_router.crashpoints import CrashPoint, reach
from quota_router.errors import LedgerBusy, LedgerUnavailable, QuotaRouterError
from quota_router.store.catalog import Change
from quota_router.store.catalog_edits import apply_file
from quota_router.store.looking import Copy, Heartbeat, Look
from quota_router.store.spill import Spill, Spilled
from quota_router.store.state import State
from quota_router.store.tenure import Job, Tenure
from quota_router.store.tickets import Ticket
from quota_router.store.trail import Signature
from quota_router.store.writer import Edit, RolledBack, Writer

BATCH_MAX = 256
"""Jobs in one transaction: bounds how long the first waits for the last."""
QUEUE_MAX = 4096
"""Admissions beyond this are refused; settlements are always taken."""
RETRY_PAUSE_S = 0.2
"""Between two looks at a database that takes no writes."""
ADMIT_WAIT_S = 5.0
"""An admission waits so long for the database; nothing was sent for it, so it is refused then."""
NOTE_WAIT_S = 0.1
"""A note waits so long for a batch to go with."""
CONTENDED_TRIES = 4
"""How often a batch is tried that another daemon's transaction got into the way of."""

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()


class Lane:
    """
    The one writer. Open it with `async with`; what is queued when it closes is still written.

    Args:
        engine: of the write connection.
        tenure: how the ledger is held.
        settle_wait_s: how long a settlement waits that could not even be spilled.
        spill: `None`: there is no spill file, settlements wait in memory.
    """

    def __init__(self, engine: Engine, tenure: Tenure, *, settle_wait_s: float, spill: Spill | None = None) -> None:
        self._writer = Writer(engine, tenure)
        self._settle_wait_s = settle_wait_s
        self._spill = spill
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lane")
        self._queue: deque[Ticket] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.when_freed: Callable[[], None] = _nothing
        """called when something that calls wait for may have become free"""
        self.trouble: str | None = None
        """why the database takes no writes, as a sentence; `None`: it does. Admission depends on it, and `/readyz` says it"""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            await self._in_thread(self._open)
        except self._writer.failures as error:
            await self._close()
            raise LedgerUnavailable(self._writer.describe(error)) from error
        self._task = asyncio.create_task(self._run(), name="lane")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what is queued, then let go of the connection."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._close()

    async def _close(self) -> None:
        await self._in_thread(self._writer.disconnect)
        self._thread.shutdown()

    @property
    def state(self) -> State:
        """The thread's own present. From outside only while nothing is queued; `snapshot` is for everybody else."""
        assert self._writer.state is not None, "the lane is not open"
        return self._writer.state

    @property
    def catalog(self) -> Catalog:
        """The catalog as last read; it stays while the database is away, so that callers are still told what is the matter."""
        return self._writer.catalog

    @property
    def learned(self) -> Mapping[tuple[str, str], Learned]:
        """What attachments' answers have used, by (model, provider); for looking up one at a time."""
        return self._writer.learned

    @property
    def is_alive(self) -> bool:
        """Whether the writing task still runs."""
        return self._task is not None and not self._task.done()

    # --- what may be asked of it --------------------------------------------------------------------------------------------

    def submit(
        self, job: Job[T], *, settles: bool = False, spills: bool = False, unclaimed: Callable[[T], None] | None = None
    ) -> asyncio.Future[T]:
        """
        Queue *job*; no waiting, so that it can be called where a cancellation is being handled.

        Args:
            job: what to do. Cancelling the future that is returned leaves the job alone.
            settles: the job books what has already happened upstream. It is taken even when the queue is full, and waits up to
                `settle_wait_s` for a database that takes no writes.
            spills: what it settles goes to the spill file then, and the rest of it is refused.
            unclaimed: called with the durable answer if the future was cancelled meanwhile.

        Raises:
            LedgerBusy: the queue is full.
            LedgerUnavailable: the lane is closed, or closing and the job settles nothing.
        """
        if not self.is_alive or (self._closing and not settles):
            raise LedgerUnavailable
        if not settles and len(self._queue) >= QUEUE_MAX:
            raise LedgerBusy
        patience_s = self._settle_wait_s if settles else ADMIT_WAIT_S
        return self._enqueue(job=job, patience_s=patience_s, spills=spills, unclaimed=unclaimed)

    def settle(self, job: Job[Any]) -> "asyncio.Future[None]":
        """Queue a settlement of which only one thing matters: that it is safe. In the spill file it is."""
        if not self.is_alive:
            raise LedgerUnavailable
        return self._enqueue(job=job, patience_s=self._settle_wait_s, spills=True, needs_answer=False)

    def note(self, job: Job[Any]) -> None:
        """Queue what nobody waits for: it goes with the next batch, or by itself a moment later; a full queue takes none."""
        if not self.is_alive or self._closing or len(self._queue) >= QUEUE_MAX:
            return
        _ = self._enqueue(job=job, patience_s=ADMIT_WAIT_S, is_note=True)

    async def run(self, job: Job[T], *, settles: bool = False) -> T:
        """Queue *job* and wait for its durable answer."""
        return await self.submit(job, settles=settles)

    async def refresh(self) -> None:
        """Look at the catalog again: another daemon may have edited it."""
        await self.run(Look())

    async def snapshot(self) -> State:
        """Return a copy of the present that nobody changes any more."""
        return await self.run(Copy())

    async def edit_catalog(
        self, desired: Catalog, *, prune: bool = False, dry_run: bool = False, signature: Signature | None = None
    ) -> list[Change]:
        """Make the catalog what the file says: an edit of `apply_file`, which brings the file's own settings with it."""
        apply = apply_file(desired, prune=prune, dry_run=dry_run, signature=signature)

        def edit(conn: Connection, now: datetime) -> list[Change]:
            changes = apply(conn, now)
            self._writer.default_model = desired.default_model
            self._writer.timezone, self._writer.routers = desired.timezone, desired.routers
            return changes

        return await self.edit(edit)

    async def edit(self, step: Edit[R]) -> R:
        """
        Run *step* alone, in a transaction of its own that no batch overlaps; the present is read anew behind it.

        Raises:
            LedgerUnavailable: the lane is closed or closing, or the database does not take writes.
        """
        if not self.is_alive or self._closing:
            raise LedgerUnavailable
        answer: R = await self._enqueue(edit=step, patience_s=ADMIT_WAIT_S)
        return answer

    def _enqueue(
        self,
        *,
        job: Job[Any] | None = None,
        edit: Edit[Any] | None = None,
        patience_s: float,
        spills: bool = False,
        needs_answer: bool = True,
        unclaimed: Callable[[Any], None] | None = None,
        is_note: bool = False,
    ) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        until = self._loop.time() + patience_s
        self._queue.append(
            Ticket(
                job=job,
                edit=edit,
                answer=answer,
                patient_until=until,
                spills=spills,
                needs_answer=needs_answer,
                unclaimed=unclaimed,
            )
        )
        if is_note:
            self._loop.call_later(NOTE_WAIT_S, self._wake.set)
        else:
            self._wake.set()
        return answer

    # --- the loop: takes batches from the queue, and answers ----------------------------------------------------------------

    async def _run(self) -> None:
        """Write batch after batch; the next begins when the last is durable, without lingering."""
        while True:
            if self._closing and not self._queue:
                return
            if self.trouble is not None:
                await self._wait_for_database()
            elif not self._queue or not (self._wake.is_set() or self._closing):
                self._wake.clear()
                await self._wake.wait()
            elif self._queue[0].edit is not None:
                await self._run_edit(self._queue.popleft())
            else:
                batch: list[Ticket] = []
                while self._queue and self._queue[0].edit is None and len(batch) < BATCH_MAX:
                    batch.append(self._queue.popleft())
                if not self._queue:
                    self._wake.clear()
                await self._run_batch(batch)

    async def _run_batch(self, batch: list[Ticket]) -> None:
        try:
            answers = await self._commit(batch)
        except Exception as error:  # noqa: BLE001 -- whatever broke, the batch is not written
            await self._take_apart(batch, error)
        else:
            for ticket, answer in zip(batch, answers, strict=True):
                ticket.give(answer)
            if any(ticket.job is not None and ticket.job.frees for ticket in batch):
                self.when_freed()

    async def _commit(self, batch: list[Ticket]) -> list[Any]:
        """Commit one batch, again when another daemon got in its way."""
        jobs = [ticket.job for ticket in batch]
        for _ in range(CONTENDED_TRIES - 1):
            try:
                return await self._in_thread(self._writer.commit, jobs)
            except Exception as error:
                if not self._writer.is_contention(error):
                    raise
                await self._in_thread(self._writer.forget)
        return await self._in_thread(self._writer.commit, jobs)

    async def _take_apart(self, batch: list[Ticket], error: Exception) -> None:
        """
        Nothing, or everything, of the batch was written: read the present again, and give each job a transaction of its own.

        A job whose rows are there after all finds them by its ids and answers as if nothing had happened. Once the database itself
        fails, what is left goes back into the queue.
        """
        log.error("a batch could not be written", action="batch_failed", jobs=len(batch), error=type(error).__name__)
        await self._in_thread(self._writer.let_go, error)
        waiting = deque(batch)
        while waiting and not (is_down := self._writer.is_down(error)):
            ticket = waiting[0]
            try:
                (answer,) = await self._commit([ticket])
            except Exception as failure:  # noqa: BLE001 -- the database's, or a mistake of ours
                if is_down := self._writer.is_down(failure):
                    error = failure
                    await self._in_thread(self._writer.disconnect)
                    break
                answer = await self._leave_out(ticket, failure)
            waiting.popleft()
            ticket.give(answer)
        if waiting and is_down:
            self._queue.extendleft(reversed(waiting))
            self._wake.set()
            self.trouble = self._writer.describe(error)

    async def _leave_out(self, ticket: Ticket, error: Exception) -> QuotaRouterError:
        """Go on without a job that breaks, or whose rows the database refuses: it must not stop the lane."""
        log.error("a job broke", action="job_broke", job=type(ticket.job).__name__, exc_info=error)
        await self._in_thread(self._writer.let_go, error)
        settlements = ticket.job.settlements if ticket.job is not None else ()
        if self._spill is not None:
            for hold_id, settlement in settlements:
                with suppress(LedgerUnavailable):  # it is in the log, and the hold stays open
                    await self._in_thread(self._spill.refuse, Spilled(hold_id=hold_id, settlement=settlement))
        return _caused(QuotaRouterError(), error)

    async def _run_edit(self, ticket: Ticket) -> None:
        assert ticket.edit is not None
        try:
            answer = await self._in_thread(self._writer.edit, ticket.edit)
        except RolledBack as rolled_back:
            answer = rolled_back.answer
        except QuotaRouterError as refusal:
            answer = refusal
        except Exception as error:  # an edit that broke changed nothing; its caller is told
            log.exception("an edit could not be written", action="edit_failed")
            await self._in_thread(self._writer.let_go, error)
            answer = _caused(LedgerUnavailable(), error)
        ticket.give(answer)
        self.when_freed()

    # --- while the database takes no writes -----------------------------------------------------------------------------------

    async def _wait_for_database(self) -> None:
        """Put what was spent where it is safe, refuse who has waited long enough, and look whether the database is back."""
        await self._set_aside()
        await asyncio.sleep(RETRY_PAUSE_S)
        try:
            await self._in_thread(self._open)
        except self._writer.failures as error:
            self.trouble = self._writer.describe(error)
            await self._in_thread(self._writer.disconnect)
        else:
            log.warning("the ledger takes writes again", action="ledger_back")
            self.trouble = None

    async def _set_aside(self) -> None:
        spilling = [ticket for ticket in self._queue if ticket.spills]
        if spilling and self._spill is not None:
            waiting = [spilled for ticket in spilling if ticket.job is not None for spilled in ticket.job.settlements]
            try:
                await self._in_thread(self._spill.keep, [Spilled(hold_id=hold, settlement=said) for hold, said in waiting])
            except LedgerUnavailable as error:
                log.warning("settlements wait in memory", action="spill_failed", settlements=len(waiting), reason=error.message)
            else:
                reach(CrashPoint.AFTER_SPILL)
                log.warning("settlements were spilled", action="settlements_spilled", settlements=len(waiting))
                for ticket in spilling:
                    self._queue.remove(ticket)
                    if ticket.needs_answer:
                        self._refuse(ticket)
                    else:
                        ticket.give(None)
        now = self._loop.time()
        for ticket in [ticket for ticket in self._queue if ticket.patient_until <= now or self._closing]:
            self._queue.remove(ticket)
            self._refuse(ticket)

    def _refuse(self, ticket: Ticket) -> None:
        """Say that it could not be done. A COMMIT that failed may have been one: a hold that it left is given back, whenever."""
        ticket.give(LedgerUnavailable(self.trouble))
        undo = ticket.job.undo if ticket.job is not None else None
        if undo is not None:
            _ = self._enqueue(job=undo, patience_s=math.inf, needs_answer=False)

    # --- in the thread --------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read the present, and book what was spilled. Raises what the database raises."""
        self._writer.reload()
        if self._spill:
            self._writer.replay(self._spill)
        else:
            self._writer.commit([Heartbeat()])

    async def _in_thread(self, step: Callable[..., R], *values: Any) -> R:  # noqa: ANN401 -- handed through
        """Run one step in the lane's thread. Cancelling the lane's task would not stop it, and nobody does."""
        return await self._loop.run_in_executor(self._thread, step, *values)


def _nothing() -> None:
    """Nobody waits."""


def _caused(error: QuotaRouterError, cause: Exception) -> QuotaRouterError:
    """Keep what lies behind an error that is handed over rather than raised."""
    error.__cause__ = cause
    return error

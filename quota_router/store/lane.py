"""
The lane: the only way to write.

Law: it drains its queue, hands the batch to the writer's thread, and answers all when the transaction is durable: what a caller
learns from the lane is on disk.
Never: lets a caller's cancellation reach the database, or begins a batch before the last is durable.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Learned
from quota_router.errors import LedgerBusy, LedgerUnavailable, QuotaRouterError
from quota_router.store.catalog import Change, apply_catalog
from quota_router.store.projection import project
from quota_router.store.state import State
from quota_router.store.tenure import Job, Tenure
from quota_router.store.writer import Edit, RolledBack, Writer

BATCH_MAX = 256
"""Jobs in one transaction: bounds how long the first waits for the last."""
QUEUE_MAX = 4096
"""Admissions beyond this are refused; settlements are always taken."""
RETRY_PAUSE_S = 0.2
"""Between two tries of a settlement while the database is down."""

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Ticket:
    """A job in the queue."""

    job: Job[Any] | None
    edit: Edit[Any] | None
    answer: asyncio.Future[Any]
    patient_until: float | None
    """loop time; a settlement is tried again until then, an admission fails at once"""
    unclaimed: Callable[[Any], None] | None
    """told the answer when nobody waits for it any more"""


class Lane:
    """The one writer. Open it with `async with`; what is queued when it closes is still written."""

    def __init__(self, engine: Engine, tenure: Tenure, *, settle_wait_s: float) -> None:
        self._writer = Writer(engine, tenure)
        self._settle_wait_s = settle_wait_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lane")
        self._queue: deque[_Ticket] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.is_writable = False
        """whether the last batch could be written: admission depends on it, and `/readyz` says it"""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._in_thread(self._writer.reload)
        self._task = asyncio.create_task(self._run(), name="lane")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what is queued, then let go of the connection."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
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

    def submit(self, job: Job[T], *, settles: bool = False, unclaimed: Callable[[T], None] | None = None) -> asyncio.Future[T]:
        """
        Queue *job*; no waiting, so that it can be called where a cancellation is being handled.

        Args:
            job: what to do. Cancelling the future that is returned leaves the job alone.
            settles: the job books what has already happened upstream. It is taken even when the queue is full, and tried again
                while the database is down, up to `settle_wait_s`.
            unclaimed: called with the durable answer if the future was cancelled meanwhile.

        Raises:
            LedgerBusy: the queue is full.
            LedgerUnavailable: the lane is closed, or closing and the job settles nothing.
        """
        if not self.is_alive or (self._closing and not settles):
            raise LedgerUnavailable
        if not settles and len(self._queue) >= QUEUE_MAX:
            raise LedgerBusy
        answer: asyncio.Future[T] = self._loop.create_future()
        patient_until = self._loop.time() + self._settle_wait_s if settles else None
        self._queue.append(_Ticket(job=job, edit=None, answer=answer, patient_until=patient_until, unclaimed=unclaimed))
        self._wake.set()
        return answer

    def leave(self, job: Job[Any]) -> None:
        """Queue a settlement that nobody waits for."""
        _ = self.submit(job, settles=True)

    async def run(self, job: Job[T], *, settles: bool = False) -> T:
        """Queue *job* and wait for its durable answer."""
        return await self.submit(job, settles=settles)

    async def snapshot(self) -> State:
        """Return a copy of the present that nobody changes any more."""
        return await self.run(_Copy())

    async def edit_catalog(self, desired: Catalog, *, prune: bool = False, dry_run: bool = False) -> list[Change]:
        """
        Make the catalog what the file says, in one transaction, and project the balances of every limit that changed.

        Args:
            desired: what the file says.
            prune: delete rows that the file no longer names, instead of disabling them.
            dry_run: work the changes out and roll back.

        Raises:
            ConfigError: the file contradicts rows that it does not own.
            LedgerUnavailable: the lane is closed or closing, or the database does not take writes.
        """
        if not self.is_alive or self._closing:
            raise LedgerUnavailable

        def edit(conn: Connection, now: datetime) -> list[Change]:
            changes = apply_catalog(conn, desired, now, prune=prune)
            if dry_run:
                raise RolledBack(changes)
            moved = {change.name for change in changes if change.kind == "limit"}
            project(conn, [limit for limit in desired.limits if limit.name in moved], now)
            self._writer.default_model = desired.default_model
            return changes

        answer: asyncio.Future[list[Change]] = self._loop.create_future()
        self._queue.append(_Ticket(job=None, edit=edit, answer=answer, patient_until=None, unclaimed=None))
        self._wake.set()
        return await answer

    # --- the loop: takes batches from the queue, and answers ----------------------------------------------------------------

    async def _run(self) -> None:
        """Write batch after batch; the next begins when the last is durable, without lingering."""
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._queue[0].edit is not None:
                await self._run_edit(self._queue.popleft())
                continue
            batch: list[_Ticket] = []
            while self._queue and self._queue[0].edit is None and len(batch) < BATCH_MAX:
                batch.append(self._queue.popleft())
            await self._run_batch(batch)

    async def _run_batch(self, batch: list[_Ticket]) -> None:
        try:
            answers = await self._in_thread(self._writer.commit, [ticket.job for ticket in batch])
        except Exception as error:  # noqa: BLE001 -- whatever broke, the batch is not written and each job gets its own try
            await self._recover(batch, error)
        else:
            self.is_writable = True
            for ticket, answer in zip(batch, answers, strict=True):
                _give(ticket, answer)

    async def _recover(self, batch: list[_Ticket], error: Exception) -> None:
        """
        Nothing, or everything, of the batch was written: read the present again, and give each job a transaction of its own.

        A job whose rows are there after all finds them by its ids and answers as if nothing had happened.
        """
        log.error("a batch could not be written", action="batch_failed", jobs=len(batch), error=type(error).__name__)
        self.is_writable = False
        await self._in_thread(self._writer.disconnect)
        for ticket in sorted(batch, key=lambda ticket: ticket.patient_until is not None):
            _give(ticket, await self._try_alone(ticket))
        if self._writer.state is None:
            await self._reload_until_it_works()

    async def _try_alone(self, ticket: _Ticket) -> Any:  # noqa: ANN401 -- whatever the job answers
        """Give one job its own transaction, again and again if it is a settlement that has the time."""
        while True:
            try:
                (answer,) = await self._in_thread(self._writer.commit, [ticket.job])
            except self._writer.failures as error:
                await self._in_thread(self._writer.disconnect)
                if ticket.patient_until is None or self._loop.time() >= ticket.patient_until:
                    return _caused(LedgerUnavailable(), error)
                await self._pause()
            except Exception as error:  # a mistake of ours in one job must not stop the lane
                log.exception("a job broke", action="job_broke", job=type(ticket.job).__name__)
                await self._in_thread(self._writer.disconnect)
                return _caused(QuotaRouterError(), error)
            else:
                self.is_writable = True
                return answer

    async def _pause(self) -> None:
        """Admission fails closed: whoever wants to spend is refused at once, whoever has spent waits."""
        for waiting in [waiting for waiting in self._queue if waiting.patient_until is None]:
            self._queue.remove(waiting)
            _give(waiting, LedgerUnavailable())
        await asyncio.sleep(RETRY_PAUSE_S)

    async def _reload_until_it_works(self) -> None:
        """Refuse whatever comes until the database can be read again; settlements wait in their queue."""
        while self._writer.state is None:
            try:
                await self._in_thread(self._writer.reload)
            except self._writer.failures:
                await self._pause()
        self.is_writable = True

    async def _run_edit(self, ticket: _Ticket) -> None:
        assert ticket.edit is not None
        try:
            answer = await self._in_thread(self._writer.edit, ticket.edit)
        except RolledBack as rolled_back:
            _give(ticket, rolled_back.answer)
        except QuotaRouterError as refusal:
            _give(ticket, refusal)
        except Exception as error:  # an edit that broke changed nothing; its caller is told
            log.exception("an edit could not be written", action="edit_failed")
            await self._in_thread(self._writer.disconnect)
            await self._reload_until_it_works()
            _give(ticket, _caused(LedgerUnavailable(), error))
        else:
            _give(ticket, answer)

    async def _in_thread(self, step: Callable[..., R], *values: Any) -> R:  # noqa: ANN401 -- handed through
        """Run one step in the lane's thread. Cancelling the lane's task would not stop it, and nobody does."""
        return await self._loop.run_in_executor(self._thread, step, *values)


class _Copy(Job[State]):
    """Copies the state, between two jobs."""

    @property
    def looks_at_everything(self) -> bool:
        """All of it."""
        return True

    def run(self, state: State, now: datetime) -> State:  # noqa: ARG002 -- a job's shape
        """Copy."""
        return state.copy()


def _give(ticket: _Ticket, answer: Any) -> None:  # noqa: ANN401 -- whatever the job answers
    """Answer; a job whose caller has stopped waiting is done all the same."""
    if ticket.answer.done():
        if ticket.unclaimed is not None and not isinstance(answer, Exception):
            ticket.unclaimed(answer)
    elif isinstance(answer, Exception):
        ticket.answer.set_exception(answer)
        ticket.answer.exception()  # a settlement that nobody waits for has nobody to read its error: the lane has logged it
    else:
        ticket.answer.set_result(answer)


def _caused(error: QuotaRouterError, cause: Exception) -> QuotaRouterError:
    """Keep what lies behind an error that is handed over rather than raised."""
    error.__cause__ = cause
    return error

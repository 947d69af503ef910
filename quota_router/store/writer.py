"""
The lane's thread: the only write connection, and the state that its transactions leave behind.

Law: a transaction reads what its jobs ask for, runs them one after the other on one state, writes their rows and commits once. One
that fails leaves neither row nor state behind: the next reads the present anew.
Never: waits for the event loop, answers a caller, or tries again: the lane does.

Decision 2026-11 -- a thread with SQLAlchemy's synchronous engine instead of aiosqlite: a batch is one hop to the thread instead of
    three for each statement, a fifth of its CPU. Readers and migrations stay asynchronous. Look again if the hops get cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Learned
from quota_router.crashpoints import CrashPoint, reach
from quota_router.errors import ConfigError, LedgerUnavailable, QuotaRouterError
from quota_router.store.ledger import Settle
from quota_router.store.rows import Entry, NewHold, statements_for, write_rows
from quota_router.store.spill import Spill, Spilled
from quota_router.store.state import State
from quota_router.store.tenure import Job, Tenure

CONTENTION = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL's serialization failure, deadlock, and lock not available (its appendix A, read 2026-11-25)."""
REPLAY_BATCH = 256

R = TypeVar("R")
Edit = Callable[[Connection, datetime], R]

log = structlog.get_logger()


class RolledBack(Exception):
    """An edit wants its transaction undone. `answer` is what it worked out."""

    def __init__(self, answer: Any) -> None:  # noqa: ANN401 -- whatever the edit answers
        super().__init__()
        self.answer = answer


class Writer:
    """Writes one ledger. All but its attributes is for the lane's thread alone."""

    def __init__(self, engine: Engine, tenure: Tenure) -> None:
        self._engine = engine
        self._tenure = tenure
        self._statements = statements_for(engine.dialect)
        self._conn: Connection | None = None
        self._journal = ""
        # The last two are what the engine says of a file that cannot be opened as it must be.
        self.failures = (SQLAlchemyError, OSError, engine.dialect.loaded_dbapi.Error, LedgerUnavailable, ConfigError)
        """what a database does that cannot be written, as opposed to a mistake of ours"""
        self.default_model: str | None = None
        """a setting of this daemon, not a row, like the next two: it comes with the file, and stays over reloads"""
        self.timezone = "UTC"
        self.routers: tuple[str, ...] = ()
        self.state: State | None = None
        """the present; `None`: it has to be read anew"""
        self.catalog = Catalog()
        """as last read; it stays while the database is away, so that callers are still told what is the matter"""
        self.learned: Mapping[tuple[str, str], Learned] = {}
        """likewise"""

    def reload(self) -> None:
        """Read the present anew."""
        with self._connected().begin():
            self._load(self._connected())

    def commit(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """
        Run a batch in one transaction.

        Returns:
            what each job answered, or the `QuotaRouterError` with which it refused.
        """
        conn = self._connected()
        with conn.begin():
            state = self.state or self._load(conn)
            now = self._tenure.learn(conn, state, jobs)
            if state.catalog is not self.catalog:
                self._take_catalog(state)
            answers = [_run(job, state, now) for job in jobs]
            batch = state.take_writes()
            write_rows(conn, self._statements, batch)
            if NewHold in batch:
                reach(CrashPoint.BEFORE_HOLD_COMMIT)
            if Entry in batch:
                reach(CrashPoint.BEFORE_POST_COMMIT)
        if NewHold in batch:
            reach(CrashPoint.AFTER_HOLD_COMMIT)
        if Entry in batch:
            reach(CrashPoint.AFTER_POST_COMMIT)
        return answers

    def edit(self, edit: Edit[R]) -> R:
        """Run an edit of the catalog in one transaction, and read the present anew. `RolledBack` undoes it."""
        conn = self._connected()
        with conn.begin():
            self._tenure.claim_catalog(conn)
            state = self.state or self._load(conn)
            answer = edit(conn, self._tenure.learn(conn, state, ()))
        self.reload()
        return answer

    def replay(self, spill: Spill) -> None:
        """Book what was spilled, and empty the file. What was booked before books nothing again."""
        waiting = list(spill.read())
        for start in range(0, len(waiting), REPLAY_BATCH):
            batch = waiting[start : start + REPLAY_BATCH]
            for spilled, answer in zip(batch, self._book(batch, spill), strict=True):
                if isinstance(answer, QuotaRouterError):
                    log.error(
                        "a spilled settlement cannot be booked", action="spill_refused", hold_id=spilled.hold_id, reason=answer.code
                    )
        reach(CrashPoint.IN_REPLAY)
        spill.clear()
        log.warning("spilled settlements were booked", action="spill_replayed", settlements=len(waiting))

    def _book(self, batch: Sequence[Spilled], spill: Spill) -> list[Any]:
        """Book what was spilled, one by one if need be: a settlement that the database refuses keeps no other one waiting."""
        try:
            return self.commit([Settle(hold_id=spilled.hold_id, settlement=spilled.settlement) for spilled in batch])
        except self.failures as error:
            if self.is_down(error) or self.is_contention(error):
                raise
            self.let_go(error)
            if len(batch) == 1:
                log.exception("the database refuses a settlement", action="settlement_refused", hold_id=batch[0].hold_id)
                spill.refuse(batch[0])
                return [QuotaRouterError()]
            return [answer for spilled in batch for answer in self._book([spilled], spill)]

    def is_down(self, error: Exception) -> bool:
        """Whether the database itself fails, as opposed to one job's rows."""
        dbapi = self._engine.dialect.loaded_dbapi
        cause = _of_driver(error)
        is_about_rows = isinstance(cause, (dbapi.IntegrityError, dbapi.DataError)) or (
            # A value that no column takes. What the server calls a wrong statement, as on a table that is gone, is not.
            isinstance(cause, dbapi.ProgrammingError) and getattr(cause, "sqlstate", None) is None
        )
        return isinstance(error, self.failures) and not is_about_rows

    @staticmethod
    def is_contention(error: Exception) -> bool:
        """Whether another daemon's transaction was in the way: tried again, it may work."""
        return getattr(_of_driver(error), "sqlstate", None) in CONTENTION

    @staticmethod
    def describe(error: Exception) -> str:
        """Say for the operator why the ledger takes no writes, in one line."""
        if isinstance(error, QuotaRouterError):
            return error.message
        told = str(_of_driver(error)).strip().partition("\n")[0]
        return f"The ledger's database does not take writes: {told or type(error).__name__}."

    def forget(self) -> None:
        """Let go of what a transaction that was undone has left in memory."""
        self.state = None

    def let_go(self, error: Exception) -> None:
        """
        Let go of what a transaction that failed has left behind.

        The connection is kept where it was not to blame: on a server our journal goes with it, and the holds of calls that run here
        would look like those of a daemon that is gone.
        """
        if self.is_down(error) and not self.is_contention(error):
            self.disconnect()
        else:
            self.forget()

    def disconnect(self) -> None:
        """Let go of a connection that may be broken, and of what was read through it."""
        conn, self._conn, self.state = self._conn, None, None
        if conn is not None:
            try:
                conn.invalidate()
                conn.close()
            except self.failures as error:
                log.warning("the write connection did not close", action="close_failed", error=type(error).__name__)

    def _load(self, conn: Connection) -> State:
        self.state = self._tenure.load(conn, self._journal)
        self._take_catalog(self.state)
        return self.state

    def _take_catalog(self, state: State) -> None:
        state.catalog = replace(state.catalog, default_model=self.default_model, timezone=self.timezone, routers=self.routers)
        self.catalog, self.learned = state.catalog, state.learned

    def _connected(self) -> Connection:
        if self._conn is None:
            self._conn = self._engine.connect()
            with self._conn.begin():
                self._journal = self._tenure.settle_in(self._conn)
        return self._conn


def _of_driver(error: Exception) -> BaseException:
    """The driver's own error, where SQLAlchemy has wrapped it."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _run(job: Job[Any], state: State, now: datetime) -> Any:  # noqa: ANN401 -- whatever the job answers
    try:
        return job.run(state, now)
    except QuotaRouterError as refusal:
        return refusal

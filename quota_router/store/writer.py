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
from sqlalchemy.exc import SQLAlchemyError

from quota_router.core.catalog import Catalog
from quota_router.core.estimates import Learned
from quota_router.errors import ConfigError, LedgerUnavailable, QuotaRouterError
from quota_router.store.rows import statements_for, write_rows
from quota_router.store.state import State
from quota_router.store.tenure import Job, Tenure

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
        """a setting of this daemon, not a row: it comes with the file, and stays over reloads"""
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
            write_rows(conn, self._statements, state.take_writes())
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
        state.catalog = replace(state.catalog, default_model=self.default_model)
        self.catalog, self.learned = state.catalog, state.learned

    def _connected(self) -> Connection:
        if self._conn is None:
            self._conn = self._engine.connect()
            with self._conn.begin():
                self._journal = self._tenure.settle_in(self._conn)
        return self._conn


def _run(job: Job[Any], state: State, now: datetime) -> Any:  # noqa: ANN401 -- whatever the job answers
    try:
        return job.run(state, now)
    except QuotaRouterError as refusal:
        return refusal

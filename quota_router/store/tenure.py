"""
How a transaction of the lane comes to know the present: alone on its ledger, or one of many.

Law: when `learn` returns, the state is true of everything the batch's jobs will look at, and stays true until the transaction ends.
Never: changes a row, decides, or commits.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct
from sqlalchemy import Connection

from quota_router.core.adjustments import Adjustment
from quota_router.core.holds import Settlement
from quota_router.store.state import State

T = TypeVar("T")


class Job(Struct, Generic[T], kw_only=True):
    """One pure step on the ledger, and what has to be known before it runs. What a kind of job does not say, it does not need."""

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """Holds that it looks at."""
        return ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose limits it looks at, beside those of its holds."""
        return ()

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose totals and readings it looks at, beside those of its holds."""
        return ()

    @property
    def idempotency(self) -> tuple[str, str] | None:
        """The (caller, key) whose call it looks for."""
        return None

    @property
    def adjusts(self) -> Adjustment | None:
        """What it says beside what was booked: it may stand already, and it counts in windows that may be over."""
        return None

    @property
    def sweeps(self) -> "Sweeping":
        """Which open holds it wants to end."""
        return Sweeping.NONE

    @property
    def settlements(self) -> "tuple[tuple[str, Settlement], ...]":
        """What it settles, by hold: this alone must not be lost when the database takes no writes."""
        return ()

    @property
    def frees(self) -> bool:
        """Whether something may be usable again once it is durable: who waits for a rung looks then."""
        return False

    @property
    def undo(self) -> "Job[Any] | None":
        """What gives back a hold that it may have left although its caller was refused; `None`: it leaves none."""
        return None

    @property
    def looks_at_everything(self) -> bool:
        """It wants every open hold and balance, and changes nothing."""
        return False

    def run(self, state: State, now: datetime) -> T:  # noqa: ARG002 -- the shape of every job
        """Answer, and leave the rows to be written in *state*."""
        raise AssertionError("each kind of job runs in its own way")


def adjustments_of(jobs: Sequence[Job[Any]]) -> list[Adjustment]:
    """What the jobs of a batch adjust, mostly nothing."""
    return [said for job in jobs if (said := job.adjusts) is not None]


class Sweeping(IntEnum):
    """Whose open holds a job ends, each with those before."""

    NONE = 0
    DUE = 1
    """past their time, or of a daemon that is gone"""
    OWN = 2
    """of this journal's last daemon too"""


class Tenure(Protocol):
    """One way of holding a ledger."""

    def settle_in(self, conn: Connection) -> str:
        """
        Take a journal that nobody else writes into; it is ours as long as this connection lives.

        Returns:
            its name.
        """

    def load(self, conn: Connection, journal: str) -> State:
        """Read the state anew."""

    def learn(self, conn: Connection, state: State, jobs: Sequence[Job[Any]]) -> datetime:
        """
        Bring *state* up to what *jobs* will look at.

        Returns:
            the moment of this batch; never before that of the batch before.
        """

    def claim_catalog(self, conn: Connection) -> None:
        """Keep every other writer away until this edit of the catalog is committed or undone."""

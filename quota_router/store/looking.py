"""
Jobs that change nothing: for looking at the present, and for finding out whether it could be changed.

Law: what they write, if anything, is written already.
"""

from datetime import datetime

from quota_router.store.state import State
from quota_router.store.tenure import Job


class Copy(Job[State]):
    """Copies the state, between two jobs."""

    @property
    def looks_at_everything(self) -> bool:
        """All of it."""
        return True

    def run(self, state: State, now: datetime) -> State:  # noqa: ARG002 -- a job's shape
        """Copy."""
        return state.copy()


class Look(Job[None]):
    """Asks for nothing: every batch looks at the catalog's epoch."""

    def run(self, state: State, now: datetime) -> None:
        """Nothing."""


class Heartbeat(Job[None]):
    """Writes what is written already: whether it can be written is the question."""

    def run(self, state: State, now: datetime) -> None:  # noqa: ARG002 -- a job's shape
        """Write the journal's head."""
        state.write_head()

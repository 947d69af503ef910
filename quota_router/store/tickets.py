"""
What waits in the lane's queue.

Law: whoever waits is told once; one who has stopped waiting is told nothing, and what was done for him all the same goes to
`unclaimed`.
Never: decides how long to wait, or what the answer is: the lane does.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quota_router.store.tenure import Job
from quota_router.store.writer import Edit


@dataclass(slots=True, kw_only=True)
class Ticket:
    """A job, or an edit, in the queue."""

    job: Job[Any] | None
    edit: Edit[Any] | None
    answer: asyncio.Future[Any]
    patient_until: float
    """loop time; it waits so long while the database takes no writes"""
    spills: bool = False
    """what it settles may go to the spill file, which ends it"""
    needs_answer: bool = True
    """False: it is enough to know that what it settles is safe"""
    unclaimed: Callable[[Any], None] | None = None
    """told the answer when nobody waits for it any more"""

    def give(self, answer: Any) -> None:  # noqa: ANN401 -- whatever the job answers
        """Answer; a job whose caller has stopped waiting is done all the same."""
        if self.answer.done():
            if self.unclaimed is not None and not isinstance(answer, Exception):
                self.unclaimed(answer)
        elif isinstance(answer, Exception):
            self.answer.set_exception(answer)
            self.answer.exception()  # a settlement that nobody waits for has nobody to read its error: the lane has logged it
        else:
            self.answer.set_result(answer)

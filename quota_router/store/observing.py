"""
Taking in what upstreams tell of themselves.

Law: a reading is kept with what its account had posted at that moment, and with what the vendor had counted of the call that
brought it: whoever is told "1 left" in an answer has that one left, also once the answer is booked.
"""

from datetime import datetime

from quota_router.core.limits import NOTHING
from quota_router.core.readings import ReadingUnit, Said
from quota_router.store.state import State
from quota_router.store.tenure import Job

HEADERS = "headers"
"""The source of what answers tell by the way."""


class Observe(Job[None], kw_only=True):
    """Take in what an upstream told of its windows."""

    provider: str
    account: str
    source: str
    """`headers` or `poller:NAME`"""
    said: tuple[Said, ...]
    hold_id: str | None = None
    """of the attempt whose answer told it"""

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose windows it speaks of."""
        return (self.account,)

    def run(self, state: State, now: datetime) -> None:
        """Keep it with what the account has posted by now: what is posted from here on comes on top."""
        total = state.totals.get(self.account)
        posted = total.posted if total is not None else NOTHING
        mine = state.holds.get(self.hold_id) if self.hold_id is not None else None
        counted = posted if mine is None else posted.plus(mine.hold.estimate.likely)
        for said in self.said:
            # A share is told as of before the call: it grows with what is answered.
            then = posted if said.unit is ReadingUnit.SHARE else counted
            reading = said.by(provider=self.provider, account=self.account, source=self.source, posted_then=then)
            state.readings.observe(reading, posted, now)

"""
Taking in what upstreams tell of themselves.

Law: a reading is kept with what its account had posted at that moment.
"""

from datetime import datetime

from quota_router.core.limits import NOTHING
from quota_router.core.readings import Said
from quota_router.store.state import State
from quota_router.store.tenure import Job


class Observe(Job[None], kw_only=True):
    """Take in what an upstream told of its windows."""

    provider: str
    account: str
    source: str
    """`headers` or `poller:NAME`"""
    said: tuple[Said, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose windows it speaks of."""
        return (self.account,)

    def run(self, state: State, now: datetime) -> None:
        """Keep it with what the account has posted by now: what is posted from here on comes on top."""
        total = state.totals.get(self.account)
        posted = total.posted if total is not None else NOTHING
        for said in self.said:
            reading = said.by(provider=self.provider, account=self.account, source=self.source, posted_then=posted)
            state.readings.observe(reading, posted, now)

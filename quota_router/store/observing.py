"""
Taking in what upstreams tell of themselves.

Law: a reading is kept with what its account had posted at that moment, and with what the vendor had counted of the call that
brought it: whoever is told "1 left" in an answer has that one left, also once the answer is booked.
"""

from collections.abc import Mapping
from datetime import datetime

from quota_router.core.catalog import Provider
from quota_router.core.holds import Hold
from quota_router.core.limits import NOTHING, Amounts
from quota_router.core.readings import ReadingUnit, Said
from quota_router.dialects.vendors import read_headers
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
    posted_before: Amounts | None = None
    """what the account had posted when the endpoint was asked: what was posted while it answered may not be in it; `None`: now"""

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """That of the attempt."""
        return (self.hold_id,) if self.hold_id is not None else ()

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose windows it speaks of."""
        return (self.account,)

    def run(self, state: State, now: datetime) -> None:
        """
        Keep it with what the account has posted by now: what is posted from here on comes on top.

        What is told of an attempt that has ended is old, and may have been told before.
        """
        if self.hold_id is not None and self.hold_id not in state.holds:
            return
        total = state.totals.get(self.account)
        posted = self.posted_before or (total.posted if total is not None else NOTHING)
        mine = state.holds.get(self.hold_id) if self.hold_id is not None else None
        counted = posted if mine is None else posted.plus(mine.hold.estimate.likely)
        for said in self.said:
            # A share is told as of before the call: it grows with what is answered.
            then = posted if said.unit is ReadingUnit.SHARE else counted
            reading = said.by(provider=self.provider, account=self.account, source=self.source, posted_then=then)
            state.readings.observe(reading, posted, now)


def heard(hold: Hold, provider: Provider, headers: Mapping[str, str], now: datetime) -> Observe | None:
    """
    What the head of an answer tells of the account that it came from.

    Args:
        hold: of the attempt that was answered.
        provider: its provider; one without `headers` among its sources is not listened to.
        headers: by their names in small letters.
        now: when it was told, aware UTC.

    Returns:
        `None`: nothing.
    """
    if HEADERS not in provider.quota_sources:
        return None
    said = read_headers(provider.vendor, headers, now, upstream_model=hold.upstream_model)
    return Observe(provider=hold.provider, account=hold.account, source=HEADERS, said=said, hold_id=hold.id) if said else None


class LastTold(Job[tuple[datetime | None, Amounts]], kw_only=True):
    """
    Look when *sources* last told anything of an account, and what it has posted by now.

    Other daemons of this ledger ask the same endpoints, and so did this one in its last life.
    """

    account: str
    sources: tuple[str, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose windows and totals it looks at."""
        return (self.account,)

    def run(self, state: State, now: datetime) -> tuple[datetime | None, Amounts]:  # noqa: ARG002 -- a job's shape
        """Return the last moment of observation, `None` if there is none, and the posted totals."""
        total = state.totals.get(self.account)
        told = [
            reading.observed_at
            for known in state.readings.by_account.get(self.account, {}).values()
            for reading in known.seen.readings
            if reading.source in self.sources
        ]
        return max(told, default=None), total.posted if total is not None else NOTHING

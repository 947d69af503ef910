"""
From a call to its ladder: what the operator says about calls of its kind, then the rungs of the models that this leads to.

Law: rules see every call but a pinned one, also one that names a model; what they do not ask for is not worked out.
Never: chooses a rung.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from quota_router.core.calls import Call
from quota_router.core.catalog import Catalog, Provider
from quota_router.core.ways import ASKED, UNASKED, Standing, Way, asks_standing, at_stage, facts_of, ways_by_rule
from quota_router.ladder import Ladder, Ladders
from quota_router.store.lane import Lane
from quota_router.store.standings import Stand

_ASKED_ALONE = (ASKED,)


@dataclass(slots=True, kw_only=True)
class Routing:
    """Resolves calls. `clock` gives aware UTC."""

    lane: Lane
    ladders: Ladders
    clock: Callable[[], datetime]

    async def resolve(self, call: Call) -> tuple[Call, Ladder]:
        """
        Lay out the rungs of *call*, and give it the names that the operator's words lead to.

        Raises:
            UnknownModel: nothing of that name is served, or no such workflow is known.
        """
        catalog = self.lane.catalog
        call = at_stage(call, catalog)
        ways = await self._ways(call, catalog) if catalog.rule_book.rules else _ASKED_ALONE
        return call, self.ladders.climb(call, ways, catalog, self.lane.learned, self.clock())

    async def _ways(self, call: Call, catalog: Catalog) -> tuple[Way, ...]:
        if self.ladders.pin_of(call) is not None:
            return _ASKED_ALONE
        standing = await self._standing(catalog) if asks_standing(catalog) else UNASKED
        return tuple(ways_by_rule(call, catalog, facts_of(call, catalog, standing, self.clock())))

    async def _standing(self, catalog: Catalog) -> Standing:
        """Look at what the rules ask for, and at nothing else."""
        asked = catalog.rule_book.fields

        def named(field: str) -> tuple[Provider, ...]:
            return tuple([catalog.providers[name] for name in sorted(asked.get(field, ())) if name in catalog.providers])

        statuses_of, used = named("provider_status"), asked.get("budget_used", frozenset())
        job = Stand(
            statuses_of=statuses_of,
            headroom_of=named("headroom"),
            limits=tuple([limit for limit in catalog.limits if limit.name in used]),
            keyed=frozenset(provider.credential_ref for provider in statuses_of if self.ladders.has_credential(provider)),
            stale_after_s=self.ladders.stale_after_s,
        )
        return await self.lane.run(job)

"""
From a call to its ladder: what the operator says about calls of its kind, then the rungs of the models that this leads to.

Law: a call that is pinned to a provider goes there. Any other one is asked of the operator's routers, and if none of them takes it,
of the rules, also when it names a model; what they do not ask for is not worked out.
Never: chooses a rung.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from quota_router.core.calls import Call
from quota_router.core.catalog import Catalog, Provider
from quota_router.core.conditions import Facts
from quota_router.core.routers import Transform
from quota_router.core.rules import RuleTrace
from quota_router.core.ways import ASKED, UNASKED, Standing, Way, asks_standing, at_stage, facts_of, ways_by_rule
from quota_router.errors import TransformFailed
from quota_router.ladder import Ladder, Ladders, needs_of
from quota_router.own_routers import Asked, OwnRouters, changed_call, transformed
from quota_router.store.lane import Lane
from quota_router.store.standings import Stand

_ASKED_ALONE = (ASKED,)


@dataclass(slots=True, kw_only=True)
class Routing:
    """Resolves calls. `clock` gives aware UTC."""

    lane: Lane
    ladders: Ladders
    own: OwnRouters
    clock: Callable[[], datetime]

    async def resolve(self, call: Call, *, is_dry: bool = False) -> tuple[Call, Ladder]:
        """
        Lay out the rungs of *call*, and give it the names that the operator's words lead to.

        Args:
            call: as it came.
            is_dry: nothing may be spent on the answer: no router asks a model.

        Raises:
            UnknownModel: nothing of that name is served, or no such workflow is known.
            TransformFailed: a router could not change the body as it was to.
        """
        catalog = self.lane.catalog
        call = at_stage(call, catalog)
        ways: tuple[Way, ...] = ()
        if self.own.routers and not call.is_of_router and self.ladders.pin_of(call) is None:
            call, ways = await self._ask_routers(call, catalog, is_dry=is_dry)
        if not ways:
            is_ruled = bool(catalog.rule_book.rules) and not call.is_of_router
            ways = await self._ways(call, catalog) if is_ruled else _ASKED_ALONE
        return call, self.ladders.climb(call, ways, catalog, self.lane.learned, self.clock())

    async def _ask_routers(self, call: Call, catalog: Catalog, *, is_dry: bool) -> tuple[Call, tuple[Way, ...]]:
        """Let the operator's routers change the call, or take it; no ways: none of them took it."""
        requires = needs_of(call, catalog)
        asked = await self.own.ask(call, catalog, requires, is_dry=is_dry)
        call = changed_call(call, asked.request, requires)
        if not asked.ways:
            return at_stage(transformed(call, asked.transform, asked.router), catalog), ()
        return call, tuple(self._ways_of_router(call, asked))

    def _ways_of_router(self, call: Call, asked: Asked) -> Iterator[Way]:
        """The ways that a router named, each with the body it is to be sent. One whose body cannot be made is not gone."""
        made: dict[Transform | None, Call] = {None: call}
        failed: TransformFailed | None = None
        for way in asked.ways:
            try:
                if way.transform not in made:
                    made[way.transform] = transformed(call, way.transform, asked.router)
            except TransformFailed as failure:
                failed = failure
                continue
            yield Way(
                model=way.model,
                provider=way.provider,
                router=asked.router,
                reason=way.reason or None,
                confidence=way.confidence,
                call=made[way.transform] if way.transform is not None else None,
            )
        if failed is not None and len(made) == 1 and all(way.transform is not None for way in asked.ways):
            raise failed

    async def trace(self, call: Call) -> tuple[RuleTrace, ...]:
        """
        Say of every rule what it makes of *call*, and why; for people.

        Raises:
            UnknownModel: no such workflow is known.
        """
        catalog = self.lane.catalog
        call = at_stage(call, catalog)
        return catalog.rule_book.trace(await self._facts(call, catalog), call_id=call.id)

    async def _ways(self, call: Call, catalog: Catalog) -> tuple[Way, ...]:
        if self.ladders.pin_of(call) is not None:
            return _ASKED_ALONE
        return tuple(ways_by_rule(call, catalog, await self._facts(call, catalog)))

    async def _facts(self, call: Call, catalog: Catalog) -> Facts:
        standing = await self._standing(catalog) if asks_standing(catalog) else UNASKED
        return facts_of(call, catalog, standing, self.clock())

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

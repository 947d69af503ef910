"""
Routers made of routers.

Law: whatever is made here is a router again, so that it nests: `failover(round_robin("a", "b"), "c")`. A pool says whom it chose,
and the others as alternatives: a tier is exhausted before the next one is tried.
Never: draws by itself; chance comes with the context, or is given.

A text stands for the model of that name, whoever serves it.

Decision 2026-11 -- turns are counted in this process, by each `round_robin` for itself: a restart begins anew, and each of several
    daemons counts its own. A model's own `strategy = "round_robin"` is the one that the ledger counts.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeAlias

from quota_router.core.routers.context import RouterContext
from quota_router.core.routers.contract import AnyRouter, Router, Said, answer_of, as_router
from quota_router.core.routers.requests import RoutingRequest, Transform
from quota_router.core.routers.results import ALTERNATIVES_MAX, RoutingResult, compose

Member: TypeAlias = str | RoutingResult | AnyRouter
"""What routers are made of."""
Draw: TypeAlias = Callable[[], float]


def explicit(
    model: str,
    provider: str | None = None,
    *,
    reason: str = "",
    confidence: float | None = None,
    transform: Transform | None = None,
) -> Router:
    """Always there."""
    return Explicit(RoutingResult(model, provider, reason, confidence, transform))


def chain(*routers: Member) -> "Chain":
    """Ask one after the other; the first that takes the call has it. One that changes the request changes it for those after it."""
    return Chain(_members("chain", routers))


def failover(*routers: Member) -> Router:
    """The first of them; each other one when nobody was usable for those before it."""
    members = _members("failover", routers)
    return Pool("failover", "the first that takes it", members, lambda _: members)


def round_robin(*routers: Member) -> Router:
    """Each in turn; the others behind it, in the order of their turns."""
    members, turns = _members("round_robin", routers), count()

    def arrange(_: RouterContext) -> Sequence[AnyRouter]:
        first = next(turns) % len(members)
        return [*members[first:], *members[:first]]

    return Pool("round_robin", "its turn", members, arrange)


def random(*routers: Member, draw: Draw | None = None) -> Router:
    """Any of them, as often as each other; the others behind it, in an order of chance too. *draw*: instead of the context's."""
    members = _members("random", routers)
    return Pool("random", "drawn", members, lambda context: _drawn([(member, 1) for member in members], draw or context.draw))


def weighted(weights: Mapping[Member, float] | Iterable[tuple[Member, float]], *, draw: Draw | None = None) -> Router:
    """Each as often as its weight says: `weighted({"a": 3, "b": 1})`. Weight 0 is there only when nobody else is usable."""
    pairs = list(weights.items() if isinstance(weights, Mapping) else weights)
    members = _members("weighted", [member for member, _ in pairs])
    if any(weight < 0 for _, weight in pairs) or all(weight == 0 for _, weight in pairs):
        raise ValueError("weighted takes weights of 0 or more, and one at least that is more.")
    shares = [(member, weight) for member, (_, weight) in zip(members, pairs, strict=True)]
    return Pool("weighted", "drawn by weight", members, lambda context: _drawn(shares, draw or context.draw))


class Explicit:
    """Always says the same."""

    name = "explicit"

    def __init__(self, result: RoutingResult) -> None:
        self._result = result

    def __repr__(self) -> str:
        return f"explicit({self._result.model!r})"

    def route(self, _request: RoutingRequest, _context: RouterContext) -> RoutingResult:
        """Say it."""
        return self._result


class Chain:
    """Asks its routers one after the other."""

    name = "chain"

    def __init__(self, routers: tuple[AnyRouter, ...]) -> None:
        self.routers = routers

    def __repr__(self) -> str:
        return f"chain{self.routers!r}"

    async def route(self, request: RoutingRequest, context: RouterContext) -> Said:
        """
        Ask them. What was changed on the way to a result goes with it.

        Returns:
            the changed request when nobody took it, and `None` when nobody changed anything either.
        """
        now = request
        for router in self.routers:
            said = await answer_of(router, now, context)
            if isinstance(said, RoutingResult):
                return _behind(now.transforms[len(request.transforms) :], said)
            now = said or now
        return None if now is request else now


class Pool:
    """Asks all of its routers, in the order of this call: the first that takes it is chosen, the others stand behind it."""

    def __init__(
        self,
        name: str,
        why: str,
        routers: tuple[AnyRouter, ...],
        arrange: Callable[[RouterContext], Sequence[AnyRouter]],
    ) -> None:
        self.name = name
        self._why = why
        self._routers = routers
        self._arrange = arrange

    def __repr__(self) -> str:
        return f"{self.name}{self._routers!r}"

    def route(self, request: RoutingRequest, context: RouterContext) -> Awaitable[Said]:
        """
        Choose.

        Raises:
            TypeError: one of them goes on with a changed request, which only `chain` can.
        """
        return self._choose(
            self._arrange(context), request, context
        )  # a turn is taken when it is asked for, not when it is awaited

    async def _choose(self, ordered: Sequence[AnyRouter], request: RoutingRequest, context: RouterContext) -> Said:
        results: list[RoutingResult] = []
        for router in ordered[:ALTERNATIVES_MAX]:
            said = await answer_of(router, request, context)
            if isinstance(said, RoutingRequest):
                raise TypeError(f"{router!r} changes the request without naming a model: put it first in a `chain`.")
            if said is not None:
                results.append(said if said.reason else replace(said, reason=self._why))
        if not results:
            return None
        first, *others = results
        return replace(first, alternatives=(*first.alternatives, *others))


def _behind(transforms: tuple[Transform, ...], result: RoutingResult) -> RoutingResult:
    """Make a result, and what stands behind it, begin with *transforms*."""
    if not transforms:
        return result
    others = tuple(_behind(transforms, other) for other in result.alternatives)
    return replace(result, transform=compose(*transforms, result.transform), alternatives=others)


def _drawn(shares: Sequence[tuple[AnyRouter, float]], draw: Draw) -> Sequence[AnyRouter]:
    """Draw one after the other, each by its share of what is left; those without a share come last."""
    left = [(router, weight) for router, weight in shares if weight > 0]
    ordered: list[AnyRouter] = []
    while left:
        point = draw() * sum(weight for _, weight in left)
        place = 0
        while place < len(left) - 1 and point >= left[place][1]:
            point -= left[place][1]
            place += 1
        ordered.append(left.pop(place)[0])
    return [*ordered, *(router for router, weight in shares if weight == 0)]


def _members(name: str, members: Sequence[Member]) -> tuple[AnyRouter, ...]:
    """
    What a router is made of, as routers.

    Raises:
        ValueError: of nothing. TypeError: of something that is none.
    """
    if not members:
        raise ValueError(f"{name} needs at least one router, or the name of a model.")
    return tuple(_member(member) for member in members)


def _member(member: Member) -> AnyRouter:
    if isinstance(member, str):
        return explicit(member)
    return Explicit(member) if isinstance(member, RoutingResult) else as_router(member)

"""
What a router says, and the ways that it means.

Law: ways are laid out depth first, in the order that was said; one that stands there already is not tried twice.
Never: says more ways than a call may go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quota_router.core.routers.requests import Transform

ALTERNATIVES_MAX = 32
"""How many ways a router's word is followed."""


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """
    Where a call goes.

    Raises:
        TypeError, ValueError: it names no model, or something of it is not what it is to be.
    """

    model: str
    provider: str | None = None
    """the only one to be used; `None`: any of the model's"""
    reason: str = ""
    """shown with the decision"""
    confidence: float | None = None
    """0 to 1; shown with the decision, and nothing else"""
    transform: Transform | None = field(default=None, repr=False)
    """changes the body; `model` and `stream` stay as they are decided here and by the caller"""
    alternatives: tuple["RoutingResult", ...] = ()
    """tried in this order when nobody is usable for this one"""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"a result names a model, not {self.model!r}.")
        if not isinstance(self.provider, str | None) or not isinstance(self.reason, str):
            raise TypeError("provider and reason of a result are texts.")
        if not isinstance(self.alternatives, tuple) or not all(isinstance(way, RoutingResult) for way in self.alternatives):
            raise TypeError("alternatives are a tuple of results, each a RoutingResult.")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence {self.confidence!r} is not between 0 and 1.")


def flatten(result: RoutingResult) -> tuple[RoutingResult, ...]:
    """
    Lay out a result and its alternatives, and theirs, in the order to be tried. None of those returned has alternatives.

    A way keeps its own provider, reason, confidence and transform; what stands there twice is tried where it stands first.
    """
    ways: dict[tuple[str, str | None], RoutingResult] = {}
    waiting, steps = [result], 0
    while waiting and steps < ALTERNATIVES_MAX:
        way, steps = waiting.pop(), steps + 1
        ways.setdefault((way.model, way.provider), replace(way, alternatives=()))
        waiting += reversed(way.alternatives)
    return tuple(ways.values())


def compose(*transforms: Transform | None) -> Transform | None:
    """One transform that does all of them, in their order; `None`: there is nothing to do."""
    steps = [transform for transform in transforms if transform is not None]
    if not steps:
        return None

    def transform(members: dict[str, Any]) -> Mapping[str, Any]:
        changed: Mapping[str, Any] = members
        for step in steps:
            changed = step(dict(changed))
        return changed

    return transform

"""
Routers that choose by what models can do.

Law: nobody is chosen who is known to be unfit: a model of another dialect, or one that lacks what the call requires. A model whose
capabilities are unknown is chosen only where nothing is required.
Never: looks at quotas or prices: what stands behind the first choice is tried when that one is not usable.
"""

from collections.abc import Iterable, Sequence

from quota_router.core.catalog import Model
from quota_router.core.routers.context import RouterContext
from quota_router.core.routers.contract import Router
from quota_router.core.routers.requests import RoutingRequest
from quota_router.core.routers.results import ALTERNATIVES_MAX, RoutingResult

COMMON_CONTEXT_TOKENS = 8_192
"""What a model is taken to hold whose context nobody wrote down."""


def capability(*models: str) -> Router:
    """The first of *models* that can do what the call requires: an image needs vision, long input a long context. None: all."""
    return Choice("capability", models, (), ())


def catalog(*, capabilities: Iterable[str] = (), tags: Iterable[str] = ()) -> Router:
    """The first model of the catalog that has all of these, and can do what the call requires."""
    return Choice("catalog", (), tuple(capabilities), tuple(tags))


class Choice:
    """Chooses among models, named ones or the catalog's."""

    def __init__(self, name: str, models: tuple[str, ...], capabilities: tuple[str, ...], tags: tuple[str, ...]) -> None:
        self.name = name
        self._models = models
        self._capabilities = capabilities
        self._tags = tags

    def __repr__(self) -> str:
        return f"{self.name}({', '.join((*self._models, *self._capabilities, *self._tags))})"

    def route(self, request: RoutingRequest, context: RouterContext) -> RoutingResult | None:
        """Choose; the others that are fit stand behind. Those whose context should hold the input come first."""
        found = self._named(context) if self._models else context.catalog.find(self._capabilities, self._tags)
        fit = [model for model in found if _is_fit(model, request)]
        roomy = [model for model in fit if _has_room(model, request)]
        ordered = [*roomy, *(model for model in fit if model not in roomy)] if len(roomy) < len(fit) else fit
        if not ordered:
            return None
        why = self._why(request)
        first, *others = ordered[:ALTERNATIVES_MAX]
        behind = tuple(RoutingResult(model.name, reason=why) for model in others)
        return RoutingResult(first.name, reason=why, alternatives=behind)

    def _named(self, context: RouterContext) -> Sequence[Model]:
        return [model for name in self._models if (model := context.catalog.get(name)) is not None]

    def _why(self, request: RoutingRequest) -> str:
        words = sorted({*self._capabilities, *request.requires}) + [f"#{tag}" for tag in self._tags]
        return f"can do {', '.join(words)}" if words else "nothing special is required"


def _is_fit(model: Model, request: RoutingRequest) -> bool:
    if request.family is not None and model.family is not request.family:
        return False
    return request.requires.issubset(model.capabilities or ())


def _has_room(model: Model, request: RoutingRequest) -> bool:
    if request.input_tokens is None:
        return True
    return request.input_tokens < (COMMON_CONTEXT_TOKENS if model.context_tokens is None else model.context_tokens)

"""
What a router may use: the catalog, chance, and a model to ask.

Law: one snapshot of the catalog; what is asked of a model on the way is held and booked like any call.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quota_router.core.catalog import Catalog, Model
from quota_router.core.routers.results import RoutingResult


class CatalogView:
    """What there is to choose from: the models that callers may name, in the order of the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._by_word: dict[str, list[Model]] | None = None

    @property
    def default_model(self) -> str | None:
        """The model of calls that name none."""
        return self._catalog.default_model

    def get(self, name: str) -> Model | None:
        """The model of that name or alias; `None`: none that can be called."""
        return self._catalog.find_model(name)

    def has(self, result: RoutingResult) -> bool:
        """Whether there is such a model, and its provider serves it."""
        model = self.get(result.model)
        if model is None or result.provider is None:
            return model is not None
        return any(rung.provider == result.provider for rung in model.attachments)

    def find(self, capabilities: Iterable[str] = (), tags: Iterable[str] = ()) -> tuple[Model, ...]:
        """
        The models that have all of *capabilities* and all of *tags*; without any, all there are.

        A model whose capabilities are unknown has none.
        """
        wanted = [*(f"can:{word}" for word in capabilities), *(f"tag:{word}" for word in tags)]
        by_word = self._words()
        sets = [by_word.get(word, []) for word in wanted] or [by_word[""]]
        narrowest = min(sets, key=len)
        others = [{model.name for model in models} for models in sets if models is not narrowest]
        return tuple(model for model in narrowest if all(model.name in names for names in others))

    def _words(self) -> Mapping[str, list[Model]]:
        """Who has which word; made once per catalog."""
        if self._by_word is None:
            by_word: dict[str, list[Model]] = {"": []}
            for name in self._catalog.models:
                model = self._catalog.find_model(name)
                if model is not None:
                    words = {"", *(f"can:{word}" for word in model.capabilities or ()), *(f"tag:{word}" for word in model.tags)}
                    for word in words:
                        by_word.setdefault(word, []).append(model)
            self._by_word = by_word
        return self._by_word


class AskModel(Protocol):
    """Asks a model on behalf of a router; the call is held and booked like any other."""

    def __call__(self, model: str, prompt: str, /, *, system: str | None, max_output_tokens: int | None) -> Awaitable[str]:
        """Answer with the model's text."""


async def _ask_nobody(_model: str, _prompt: str, **_options: object) -> str:
    raise RuntimeError("no model can be asked here: this context stands for no daemon.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterContext:
    """What a router may use."""

    catalog: CatalogView
    draw: Callable[[], float]
    """a random number, 0 or more and less than 1"""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """`call_id`, and whatever whoever embeds us adds"""
    ask: AskModel = field(default=_ask_nobody, repr=False)

    @property
    def default_model(self) -> str | None:
        """The model of calls that name none; `None`: such calls are refused."""
        return self.catalog.default_model

    async def call(self, model: str, prompt: str, *, system: str | None = None, max_output_tokens: int | None = None) -> str:
        """
        Ask a model, and return its text.

        The call has a ladder, a hold and an entry of its own, counts against the caller's budgets, and is asked of no router.

        Raises:
            QuotaRouterError: nobody could answer.
        """
        return await self.ask(model, prompt, system=system, max_output_tokens=max_output_tokens)

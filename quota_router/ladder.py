"""
From the model a caller names to the rungs that may be tried, each with its price and estimate.

Law: one catalog snapshot per call; whatever is edited meanwhile, this call keeps the ladder it began with.
Never: judges a rung: what is full, cooling or over budget is read inside the write transaction.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from msgspec import Struct

from quota_router.core.affinity import Homes
from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Attachment, Catalog, Model, Provider
from quota_router.core.decision import Candidate, Question
from quota_router.core.estimates import Learned, estimate
from quota_router.core.limits import caller_subjects, rung_subjects
from quota_router.core.pricing import PriceTable
from quota_router.core.secrets import Secret
from quota_router.errors import UnknownModel
from quota_router.store.prices import PriceBook


class Ladder(Struct, frozen=True, kw_only=True):
    """The rungs of one call, in the order to be tried."""

    model: Model
    candidates: tuple[Candidate, ...]
    question: Question


class Served(Struct, frozen=True, kw_only=True):
    """What of a rung is the same for every call: read once per catalog and day, since list prices change by the day."""

    model: Model
    attachment: Attachment
    provider: Provider
    price: PriceTable | None
    subjects: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Ladders:
    """Builds ladders from a snapshot. `credential_of` resolves a reference at the moment of use; `None`: there is none."""

    prices: PriceBook
    credential_of: Callable[[str], Secret | None]
    homes: Homes = field(default_factory=Homes)
    _known: dict[str, tuple[Served, ...]] = field(default_factory=dict, init=False)
    """by model; at most as many as the catalog has"""
    _known_for: tuple[Catalog, date] | None = field(default=None, init=False)

    def climb(self, call: Call, catalog: Catalog, learned: Mapping[tuple[str, str], Learned], now: datetime) -> Ladder:
        """
        Lay out the rungs for *call*: its model's attachments, then those of the model's fallbacks.

        Raises:
            UnknownModel: nothing of that name is served.
        """
        model = find_model(call.model, catalog)
        question = Question(
            family=None if call.operation is Operation.ROUTE else call.family,
            pinned_provider=call.pinned_provider or self.homes.find(call.facts.leans_on),
            max_cost_nusd=call.max_cost_nusd,
        )
        whose = caller_subjects(call.caller.name, call.labels)
        candidates = tuple([self._candidate(call, whose, served, learned) for served in self._served(model, catalog, now)])
        return Ladder(model=model, candidates=candidates, question=question)

    def price_of(self, attachment: Attachment, catalog: Catalog, now: datetime) -> PriceTable | None:
        """Find what an attachment's tokens cost; `None`: nobody knows."""
        model, provider = catalog.models[attachment.model], catalog.providers[attachment.provider]
        return self.prices.price_of(attachment, model, provider, now)

    def _served(self, model: Model, catalog: Catalog, now: datetime) -> tuple[Served, ...]:
        today = now.date()
        if self._known_for is None or self._known_for[0] is not catalog or self._known_for[1] != today:
            self._known.clear()
            self._known_for = (catalog, today)
        known = self._known.get(model.name)
        if known is None:
            known = self._known[model.name] = tuple(
                Served(
                    model=rung_of,
                    attachment=attachment,
                    provider=catalog.providers[attachment.provider],
                    price=self.price_of(attachment, catalog, now),
                    subjects=rung_subjects(attachment.provider, catalog.providers[attachment.provider].account, rung_of.name),
                )
                for rung_of in _with_fallbacks(model, catalog)
                for attachment in rung_of.attachments
            )
        return known

    def _candidate(
        self, call: Call, whose: tuple[str, ...], served: Served, learned: Mapping[tuple[str, str], Learned]
    ) -> Candidate:
        model, provider = served.model, served.provider
        return Candidate(
            attachment=served.attachment,
            provider=provider,
            price=served.price,
            subjects=served.subjects + whose,
            has_credential=provider.is_keyless or self.credential_of(provider.credential_ref) is not None,
            estimate=estimate(
                call.facts,
                call.operation,
                model,
                provider.billing,
                served.price,
                learned.get((model.name, provider.name)),
                body_bytes=call.body_bytes,
            ),
        )


def find_model(name: str | None, catalog: Catalog) -> Model:
    """
    Find the model asked for, or the default when none was.

    Raises:
        UnknownModel: with the sentence that fits: unknown, disabled, or without attachments.
    """
    asked = name or catalog.default_model
    if asked is None:
        raise UnknownModel("The call names no model, and no `default_model` is configured. `GET /v1/models` lists the models.")
    model = catalog.find_model(asked)
    if model is not None:
        return model
    known = catalog.models.get(asked)
    if known is not None and known.enabled:
        raise UnknownModel(f"The model {asked!r} has no explicit provider attachments configured.")
    raise UnknownModel(f"No model {asked!r} is served here. `GET /v1/models` lists the models.")


def _with_fallbacks(model: Model, catalog: Catalog) -> Iterator[Model]:
    yield model
    for name in model.fallbacks:
        fallback = catalog.find_model(name)
        if fallback is not None and fallback.name != model.name:
            yield fallback

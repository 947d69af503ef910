"""
The price book: which price applies to an attachment, and where it comes from.

Law: the first of these that knows a price gives it: attachment, model, the list that the operator has fetched, the list that came
with genai-prices. An unknown price is `None`, never 0, and every price says its source and version.
Never: asks the network.

Decision 2026-11 -- a fetched list goes before the bundled one also when a later version of the package brings a newer one: the
    operator asked for it, and `catalog refresh --bundled` takes it back. Look again when the bundled one says how old it is.
"""

from dataclasses import dataclass, field
from datetime import date, datetime

from quota_router.core.catalog import Attachment, Model, Provider
from quota_router.core.model_lists import Known, ModelsDev
from quota_router.core.pricing import PriceTable
from quota_router.store.genai_list import GenaiList, bundled

PRICES_CACHED = 4_096
"""Look-ups remembered, one per attachment and day; more are asked of the list again."""

PriceList = GenaiList | ModelsDev


@dataclass(slots=True)
class PriceBook:
    """Finds the price of an attachment. What an upstream itself reports of a call goes before the list: the router sees to it."""

    fetched: PriceList | None = None
    """`None`: the bundled list alone"""
    edition: int = field(default=0, init=False)
    """how often another list was taken: who keeps prices looks again when it has changed"""
    _found: dict[tuple[str, str, str, date], PriceTable | None] = field(default_factory=dict, init=False, repr=False)

    def take(self, fetched: PriceList | None) -> None:
        """Ask another list from now on."""
        self.fetched = fetched
        self.edition += 1
        self._found.clear()

    def price_of(self, attachment: Attachment, model: Model, provider: Provider, now: datetime) -> PriceTable | None:
        """
        The price that applies: the attachment's own, the model's, or a list's.

        Args:
            attachment: whose upstream model is looked up.
            model: that it belongs to.
            provider: whose base URL, or else vendor, says whose list it is.
            now: aware UTC; its day says which of a model's prices is in force.

        Returns:
            `None`: unknown, which is not free.
        """
        if attachment.price is not None:
            return attachment.price
        if model.price is not None:
            return model.price
        return self.listed(provider.vendor, provider.base_url, attachment.upstream_model, now.date())

    def listed(self, vendor: str, base_url: str, upstream_model: str, on: date) -> PriceTable | None:
        """What the lists say of that model on that day (UTC); `None`: it is in neither, or not priced by tokens."""
        asked = (vendor, base_url, upstream_model, on)
        if asked not in self._found:
            if len(self._found) >= PRICES_CACHED:
                self._found.clear()
            self._found[asked] = self._look_up(*asked)
        return self._found[asked]

    def _look_up(self, vendor: str, base_url: str, upstream_model: str, on: date) -> PriceTable | None:
        found: PriceTable | None = None
        if isinstance(self.fetched, GenaiList):
            found = self.fetched.find(vendor, base_url, upstream_model, on)
        elif self.fetched is not None:
            found = self.fetched.find(vendor, base_url, upstream_model)
        return found or bundled().find(vendor, base_url, upstream_model, on)

    def known(self, on: date) -> list[Known]:
        """Everything that the lists tell of models, the fetched one first; each model once."""
        told = {(known.provider, known.model): known for known in bundled().known(on)}
        return list((told | {(known.provider, known.model): known for known in known_of(self.fetched, on)}).values())


def known_of(listed: PriceList | None, on: date) -> list[Known]:
    """Everything that one list tells."""
    if listed is None:
        return []
    return listed.known(on) if isinstance(listed, GenaiList) else listed.known()

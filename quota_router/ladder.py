"""
From the model a caller names to the rungs that may be tried, each with its price and estimate.

Law: one catalog snapshot per call; whatever is edited meanwhile, this call keeps the ladder it began with.
Never: judges a rung: what is full, cooling or over budget is read inside the write transaction.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from difflib import get_close_matches

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.affinity import Homes, Sessions
from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Attachment, Catalog, Family, Model, Provider
from quota_router.core.decision import Candidate, Question
from quota_router.core.estimates import Learned, estimate
from quota_router.core.health import Action, Failure
from quota_router.core.limits import caller_subjects, rung_subjects
from quota_router.core.pricing import PriceTable
from quota_router.core.remedies import say_what_bounds
from quota_router.core.restraints import Caution, caution_of
from quota_router.core.secrets import Secret
from quota_router.core.ways import AUTO, Way
from quota_router.dialects import dialect_of
from quota_router.errors import InvalidRequest, RequestError, UnknownModel
from quota_router.store.prices import PriceBook

BYTES_PER_TOKEN_MOST = 12
"""No text has so many bytes per token on the whole: spaces of indented code come nearest (measured on the o200k vocabulary,
2026-11-20: 9)."""
SESSION_HEADERS = ("x-claude-code-session-id", "session-id", "session_id", "x-session-affinity")
"""How tools name a session without being told to: Claude Code since 2.1.86, Codex, opencode (their issues, read 2026-11-25)."""
SESSION_MAX_CHARS = 256
NAMES_COMPARED_MAX = 500
_SENSES = frozenset({"vision", "audio", "files"})
AUTO_MODELS_MAX = 32
"""So many models are tried for `auto`: whoever finds them all unusable is told."""
CAPABLE_MAX = 256
"""Different needs that are remembered."""


class Ladder(Struct, frozen=True, kw_only=True):
    """The rungs of one call, in the order to be tried."""

    candidates: tuple[Candidate, ...]
    question: Question
    session: str | None = None
    """of the call, where it makes a difference: some tier has several rungs"""

    @property
    def tried(self) -> int:
        """On how many rungs the call has failed."""
        return sum(candidate.tried is not None for candidate in self.candidates)

    def after(self, failed: Candidate, failure: Failure) -> "Ladder":
        """The ladder after an attempt: its rung is marked, so that others are tried first."""
        marked = tuple(
            [
                replace(candidate, tried=failure) if candidate.attachment == failed.attachment else candidate
                for candidate in self.candidates
            ]
        )
        if failure.kind.action is not Action.LONGER_CONTEXT:
            return replace(self, candidates=marked)
        return replace(self, candidates=marked, question=replace(self.question, more_context_than=failed.context_tokens))

    def afresh(self) -> "Ladder":
        """The ladder after a wait: what was tried before it may be tried again."""
        return replace(self, candidates=tuple([replace(candidate, tried=None) for candidate in self.candidates]))


class Served(Struct, frozen=True, kw_only=True, gc=False):
    """
    What of a rung is the same for every call: read once per catalog and day, since list prices change by the day.

    Nothing in it leads back to it, so that the collector need not walk half a million of them (`benchmarks/decision.py`).
    """

    model: Model
    attachment: Attachment
    provider: Provider
    price: PriceTable | None
    subjects: tuple[str, ...]
    caution: Caution
    capabilities: frozenset[str] | None


@dataclass(slots=True, kw_only=True)
class Ladders:
    """Builds ladders from a snapshot. `credential_of` resolves a reference at the moment of use; `None`: there is none."""

    prices: PriceBook
    credential_of: Callable[[str], Secret | None]
    draw: Callable[[], int]
    """a random number of 64 bits"""
    stale_after_s: float
    homes: Homes = field(default_factory=Homes)
    sessions: Sessions = field(default_factory=Sessions)
    _known: dict[str, tuple[Served, ...]] = field(default_factory=dict, init=False)
    """by model; at most as many as the catalog has"""
    _known_for: tuple[Catalog, date, int] | None = field(default=None, init=False)
    """the last is the edition of the prices"""
    _capable: dict[tuple[Family | None, frozenset[str]], tuple[Model, ...]] = field(default_factory=dict, init=False)
    """by dialect and what is needed: the models for `auto`"""
    _capable_for: tuple[Catalog, int] | None = field(default=None, init=False)

    def climb(
        self, call: Call, ways: tuple[Way, ...], catalog: Catalog, learned: Mapping[tuple[str, str], Learned], now: datetime
    ) -> Ladder:
        """
        Lay out the rungs for *call*, way after way: a model's attachments, then those of the model's fallbacks.

        Raises:
            UnknownModel: nothing is served on any of *ways*; it tells of the last.
        """
        if call.pinned_provider is not None and call.pinned_provider not in catalog.providers:
            nearest = _nearest(call.pinned_provider, catalog.providers)
            raise InvalidRequest(f"No provider {call.pinned_provider!r} is configured{nearest}", param="provider")
        served, along = self._along(call, ways, catalog, now)
        call = along[0].call or call
        session, is_explicit = _session_of(call) if _has_choice(served) else (None, False)
        home = self.sessions.home_of(session, is_explicit=is_explicit) if session is not None else None
        question = Question(
            family=None if call.operation is Operation.ROUTE else call.family,
            pinned_provider=self.pin_of(call),
            max_cost_nusd=call.max_cost_nusd,
            requires=call.requires if all(rung.capabilities is None for rung in served) else needs_of(call, catalog),
            least_input_tokens=_least_input(call),
            home=home,
            draw=self.draw(),
            stale_after_s=self.stale_after_s,
        )
        whose = caller_subjects(call.caller.name, call.labels)
        candidates = tuple([self._candidate(call, whose, rung, way, learned) for rung, way in zip(served, along, strict=True)])
        if call.operation is not Operation.ROUTE and any(rung.provider.is_command for rung in served):
            candidates = _with_programs_asked(call, candidates)
        return Ladder(candidates=candidates, question=question, session=session)

    def pin_of(self, call: Call) -> str | None:
        """The one provider that a call may go to: named by its caller, or where the state lies that it leans on."""
        return call.pinned_provider or self.homes.find(call.facts.leans_on)

    def has_credential(self, provider: Provider) -> bool:
        """Whether calls to it can be signed; a keyless one needs nothing."""
        return provider.is_keyless or self.credential_of(provider.credential_ref) is not None

    def _along(self, call: Call, ways: tuple[Way, ...], catalog: Catalog, now: datetime) -> tuple[Sequence[Served], Sequence[Way]]:
        """The rungs of all ways, each once, where it comes first; and beside each the way that leads to it."""
        if (
            len(ways) == 1 and ways[0].provider is None and not self._is_auto(ways[0], call, catalog)
        ):  # the way of almost every call
            served = self._served(find_model(ways[0].model or call.model, catalog), catalog, now)
            return served, ways * len(served)
        rungs: dict[tuple[str, str], tuple[Served, Way]] = {}
        for way in ways:
            for model in self._models_of(way, call, catalog, now):
                for rung in self._served(model, catalog, now):
                    if way.provider in {None, rung.provider.name}:
                        rungs.setdefault((rung.model.name, rung.provider.name), (rung, way))
        if not rungs:
            last = ways[-1]
            if self._is_auto(last, call, catalog):
                needed = ", ".join(sorted(needs_of(call, catalog))) or "anything"
                raise UnknownModel(f"No model that is served here is known to be capable of {needed}: name one in the call.")
            model = find_model(last.model or call.model, catalog)
            raise UnknownModel(f"The model {model.name!r} is not served by {last.provider!r}, which a rule names for this call.")
        return [rung for rung, _ in rungs.values()], [way for _, way in rungs.values()]

    def _is_auto(self, way: Way, call: Call, catalog: Catalog) -> bool:
        return (way.model or call.model) == AUTO and catalog.find_model(AUTO) is None

    def _models_of(self, way: Way, call: Call, catalog: Catalog, now: datetime) -> Sequence[Model]:
        """The models of one way: one, or none that is served; for `auto` those that can do what the call needs, cheapest first."""
        if not self._is_auto(way, call, catalog):
            model = catalog.find_model(way.model or call.model or catalog.default_model or "")
            return () if model is None else (model,)
        asked = (None if call.operation is Operation.ROUTE else call.family, needs_of(call, catalog))
        found, edition = self._capable.get(asked), self.prices.edition
        is_current = self._capable_for is not None and self._capable_for[0] is catalog and self._capable_for[1] == edition
        if found is None or not is_current:
            if not is_current or len(self._capable) >= CAPABLE_MAX:
                self._capable.clear()
            self._capable_for = (catalog, edition)
            found = self._capable[asked] = self._find_capable(*asked, catalog, now)
        return found

    def _find_capable(self, family: Family | None, needed: frozenset[str], catalog: Catalog, now: datetime) -> tuple[Model, ...]:
        """Find the models that are known to be capable of what is needed, by what their first rung costs; unknown costs last."""
        capable = [
            model
            for model in catalog.models.values()
            if catalog.find_model(model.name) is model
            and family in {None, model.family}
            and (not needed or needed <= frozenset(model.capabilities or ()))
        ]

        def cost_of(model: Model) -> tuple[bool, int]:
            price = self.price_of(model.attachments[0], catalog, now)
            return price is None, sum(price.dearest_pusd(0)) if price is not None else 0

        return tuple(sorted(capable, key=cost_of)[:AUTO_MODELS_MAX])

    def price_of(self, attachment: Attachment, catalog: Catalog, now: datetime) -> PriceTable | None:
        """Find what an attachment's tokens cost; `None`: nobody knows."""
        model, provider = catalog.models[attachment.model], catalog.providers[attachment.provider]
        return self.prices.price_of(attachment, model, provider, now)

    def _served(self, model: Model, catalog: Catalog, now: datetime) -> tuple[Served, ...]:
        today, edition = now.date(), self.prices.edition
        if self._known_for is None or self._known_for[0] is not catalog or self._known_for[1:] != (today, edition):
            self._known.clear()
            self._known_for = (catalog, today, edition)
        known = self._known.get(model.name)
        if known is None:
            rungs = [rung for rung_of in _with_fallbacks(model, catalog) for rung in self._rungs_of(rung_of, catalog, now)]
            known = self._known[model.name] = tuple(rungs)
        return known

    def _rungs_of(self, model: Model, catalog: Catalog, now: datetime) -> Iterator[Served]:
        capabilities = None if model.capabilities is None else frozenset(model.capabilities)
        for attachment in model.attachments:
            provider = catalog.providers[attachment.provider]
            yield Served(
                model=model,
                attachment=attachment,
                provider=provider,
                price=self.price_of(attachment, catalog, now),
                subjects=rung_subjects(provider.name, provider.account, model.name),
                caution=caution_of(provider),
                capabilities=capabilities,
            )

    def _candidate(
        self, call: Call, whose: tuple[str, ...], served: Served, way: Way, learned: Mapping[tuple[str, str], Learned]
    ) -> Candidate:
        model, provider, call = served.model, served.provider, way.call or call
        estimated = estimate(
            call.facts,
            call.operation,
            model,
            provider.billing,
            served.price,
            learned.get((model.name, provider.name)),
            body_bytes=call.body.size,
        )
        return Candidate(
            attachment=served.attachment,
            provider=provider,
            price=served.price,
            subjects=served.subjects + whose,
            strategy=way.strategy or model.strategy,
            way=way,
            capabilities=served.capabilities,
            context_tokens=model.context_tokens,
            caution=served.caution,
            has_credential=self.has_credential(provider),
            estimate=estimated,
            remedy=say_what_bounds(call.facts, call.operation, model) if estimated.upper is None else "",
        )


def _has_choice(served: Sequence[Served]) -> bool:
    """Whether some tier has several rungs."""
    tiers = [(rung.attachment.model, rung.attachment.priority) for rung in served]
    return len(set(tiers)) < len(tiers)


def _session_of(call: Call) -> tuple[str | None, bool]:
    """
    Name the session of a call, and say whether the caller named it.

    Without a name it is a digest of how the prompt begins: as long as that stays, an upstream's cache can serve it.
    """
    headers = call.headers
    named = call.session or next((headers[name] for name in SESSION_HEADERS if headers.get(name)), None)
    named = named or call.body.named_session()
    if named is not None:
        return f"{call.caller.name}\0{named[:SESSION_MAX_CHARS]}", True
    prefix = call.body.prefix()
    if not prefix:
        return None, False
    return hashlib.blake2b(f"{call.caller.name}\0{call.model}\0".encode() + prefix, digest_size=16).hexdigest(), False


def needs_of(call: Call, catalog: Catalog) -> frozenset[str]:
    """
    The capabilities that a call cannot do without: asked for by name, or read off its body.

    Who cannot see an image cannot answer about it. That a model can use tools, or think, few operators write down: it is asked only
    where some model of the catalog is said to.
    """
    return call.requires | (call.body.needs() & (_SENSES | catalog.capabilities))


def _with_programs_asked(call: Call, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates, those that are programs knowing whether they can be told the call: a prompt is text and nothing else."""
    try:
        dialect_of(call.family).prompt_of(call.operation, call.body.for_model(""))
    except RequestError as refusal:
        why = refusal.message
        return tuple([replace(it, cannot_be_told=why) if it.provider.is_command else it for it in candidates])
    return candidates


def _least_input(call: Call) -> int:
    """The least that the input can be, in tokens: of a body only what its text cannot be shorter than."""
    known = call.facts.input_tokens
    if known is None:
        return 0
    return known if call.operation is Operation.ROUTE else known // BYTES_PER_TOKEN_MOST


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
    if known is not None and (known.enabled or not known.attachments):
        raise UnknownModel(f"The model {asked!r} has no explicit provider attachments configured.")
    raise UnknownModel(f"No model {asked!r} is served here{_nearest(asked, catalog.models)} `GET /v1/models` lists the models.")


def _nearest(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a name nobody knows. Of very many names none is looked for: it would hold up other calls."""
    near = get_close_matches(name, known, n=1) if len(known) <= NAMES_COMPARED_MAX else []
    return f": did you mean {near[0]!r}?" if near else "."


def _with_fallbacks(model: Model, catalog: Catalog) -> Iterator[Model]:
    yield model
    for name in model.fallbacks:
        fallback = catalog.find_model(name)
        if fallback is not None and fallback.name != model.name:
            yield fallback

"""
What a public list says of models: prices, context, capabilities; and whether a new list may be believed.

Law: what is converted is never below the list; what a list does not say is `None`. A list that has shrunk, or whose prices have
jumped, is objected to before anybody is charged by it.
Never: fetches or keeps a list; that is the price file's.

Decision 2026-11 -- where models.dev names a price of writing to a cache, an hour in it costs at least twice the input: that is what
    Anthropic asks by genai-prices 0.2.3, and models.dev has no word for it.
Decision 2026-11 -- audio input is taken at the text price, and a model that charges for audio output has no price: as in the other
    list.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import SequenceMatcher
from math import ceil
from typing import Any

from msgspec import Struct

from quota_router.core.pricing import PriceTable, Rates

MODELS_DEV = "models.dev"
MODELS_MIN = 100
"""Fewer models with a price are no list, but a part of one."""
SHRINK_MAX = 0.2
"""The part of the priced models that may go from one list to the next of the same source."""
JUMP_MAX = 10
"""How many times a price may be multiplied or divided from one list to the next."""
DIFFER_MAX = 0.2
"""The part of the prices that two sources both know, and that may jump from one to the other."""
DEAREST_PUSD = 10_000 * 10**6
"""10,000 USD per million tokens: beyond it stands a slip of the unit, not a price."""
TOLD_MAX = 5
"""Models named in one objection."""
SUGGESTED_MAX = 10
_LEAST_LIKENESS = 0.5
_LARGEST_TOKENS = 10**12

_RATES = {"cache_read": "cache_read_pusd", "cache_write": "cache_write_5m_pusd", "reasoning": "reasoning_pusd"}
_LEFT_OUT = frozenset({"input_audio"})
_STRUCTURE = frozenset({"tiers", "context_over_200k"})
_UNDERSTOOD = frozenset({"input", "output"}) | _RATES.keys() | _LEFT_OUT | _STRUCTURE
_OVER_200K = 200_000
_CAN = {"tool_call": "tools", "structured_output": "json_schema", "reasoning": "reasoning"}
_SEES = {"image": "vision", "audio": "audio", "pdf": "files"}
_IDS = {
    "together": "togetherai",
    "fireworks": "fireworks-ai",
    "moonshot": "moonshotai",
    "gemini": "google",
    "bedrock": "amazon-bedrock",
}
"""Our vendors that the list calls otherwise."""


class Known(Struct, frozen=True, kw_only=True):
    """One model of one provider, as a list tells it."""

    provider: str
    """the list's own word for it"""
    model: str
    """the upstream's name"""
    price: PriceTable | None = None
    """`None`: unknown, or not by tokens alone"""
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] | None = None
    source: str
    version: str


class ModelsDev(Struct, frozen=True, kw_only=True):
    """
    The list of models.dev (`api.json`).

    Source: its README and programs that read it (read 2026-11-25): USD per million tokens; `tiers` by the size of the input, each
    above so many tokens, or the older `context_over_200k`.
    """

    version: str
    models: Mapping[tuple[str, str], Known]
    addresses: Mapping[str, str]
    """provider by its address, where the list has one"""
    source: str = MODELS_DEV

    def known(self) -> list[Known]:
        """Everything that it tells."""
        return list(self.models.values())

    def find(self, vendor: str, base_url: str, upstream_model: str) -> PriceTable | None:
        """The price of a model, by who is at the other end of the URL, or else by the vendor; `None`: unknown."""
        provider = self.addresses.get(_address(base_url)) or _IDS.get(vendor, vendor)
        found = self.models.get((provider, upstream_model.lower()))
        return None if found is None else found.price


def read_models_dev(document: Mapping[str, Any], version: str) -> ModelsDev:
    """
    Read the list.

    Args:
        document: decoded, numbers as `Decimal`.
        version: of this text, for every entry that is priced by it.

    Raises:
        ValueError: it is no such list; the message is a sentence.
    """
    models: dict[tuple[str, str], Known] = {}
    addresses: dict[str, str] = {}
    for provider, table in document.items():
        described = table.get("models") if isinstance(table, Mapping) else None
        if not isinstance(described, Mapping) or not all(isinstance(entry, Mapping) for entry in described.values()):
            message = f"{provider!r} has no models, or they are not described: this is no list of models.dev."
            raise ValueError(message)
        if isinstance(table.get("api"), str):
            addresses[_address(table["api"])] = provider
        for name, entry in described.items():
            models[provider, name.lower()] = _known(provider, name, entry, version)
    return ModelsDev(version=version, models=models, addresses=addresses)


def _address(base_url: str) -> str:
    """Who is there, whether or not `/v1` is written to its end: an SDK may want it without."""
    return base_url.rstrip("/").removesuffix("/v1")


def _known(provider: str, name: str, entry: Mapping[str, Any], version: str) -> Known:
    limits = _table(entry, "limit")
    return Known(
        provider=provider,
        model=name,
        price=_price(_table(entry, "cost"), version),
        context_tokens=_tokens(limits.get("context")),
        max_output_tokens=_tokens(limits.get("output")),
        capabilities=tuple(sorted(_capabilities(entry))),
        source=MODELS_DEV,
        version=version,
    )


def _capabilities(entry: Mapping[str, Any]) -> Iterator[str]:
    yield from (word for key, word in _CAN.items() if entry.get(key) is True)
    taken = _table(entry, "modalities").get("input")
    yield from (word for key, word in _SEES.items() if isinstance(taken, list) and key in taken)


def _price(cost: Mapping[str, Any], version: str) -> PriceTable | None:
    """Convert a table of costs; `None`: there is none, or it charges for something that we do not count."""
    charged = {key for key, value in cost.items() if value not in (None, 0)}
    if not charged <= _UNDERSTOOD:
        return None
    base = _rates(cost)
    tiers = [] if base is None else [(0, base)]
    for above, table in _tiers(cost):
        rates = _rates({**cost, **table})
        if above is None or rates is None:
            return None
        tiers.append((above + 1, rates))
    starts = {start for start, _ in tiers}
    if base is None or len(starts) < len(tiers):
        return None
    return PriceTable(tiers=tuple(sorted(tiers, key=lambda tier: tier[0])), source=MODELS_DEV, version=version)


def _tiers(cost: Mapping[str, Any]) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
    """Above how many tokens of input a table applies, and the table; `None`: it is not told by the input."""
    if isinstance(cost.get("tiers"), list) and cost["tiers"]:
        for table in cost["tiers"]:
            tier = _table(table, "tier") if isinstance(table, Mapping) else {}
            is_by_input = tier.get("type") == "context"
            yield (_tokens(tier.get("size")) if is_by_input else None), table if isinstance(table, Mapping) else {}
    elif isinstance(cost.get("context_over_200k"), Mapping):
        yield _OVER_200K, cost["context_over_200k"]


def _rates(cost: Mapping[str, Any]) -> Rates | None:
    input_pusd, output_pusd = _pusd(cost.get("input")), _pusd(cost.get("output"))
    if input_pusd is None or output_pusd is None:
        return None
    stated = {name: _pusd(cost[key]) for key, name in _RATES.items() if cost.get(key) is not None}
    if None in stated.values():
        return None
    written = stated.get("cache_write_5m_pusd")
    hour_pusd = None if written is None else max(written, 2 * input_pusd)
    return Rates(input_pusd=input_pusd, output_pusd=output_pusd, cache_write_1h_pusd=hour_pusd, **stated)


def _pusd(per_million: object) -> int | None:
    """A price, rounded upward to a pico-USD; `None`: it is none."""
    if isinstance(per_million, bool) or not isinstance(per_million, int | Decimal):
        return None
    is_price = Decimal(per_million).is_finite() and 0 <= per_million < _LARGEST_TOKENS
    return ceil(per_million * 10**6) if is_price else None


def _tokens(number: object) -> int | None:
    is_count = isinstance(number, int) and not isinstance(number, bool) and 0 < number < _LARGEST_TOKENS
    return number if is_count and isinstance(number, int) else None


def _table(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = entry.get(key)
    return found if isinstance(found, Mapping) else {}


# --- whether to believe it ----------------------------------------------------------------------------------------------


def objections(before: Sequence[Known], after: Sequence[Known]) -> list[str]:
    """
    Say in sentences what speaks against a new list; nothing: it may be believed.

    Args:
        before: what is in force.
        after: the new one. How many models it has is compared with a list of the same source alone; two sources may differ in some
            prices, as one may list at nothing what a subscription covers.
    """
    old, new = _priced(before), _priced(after)
    found = []
    if len(new) < MODELS_MIN:
        found.append(f"It has prices of {len(new)} models, and less than {MODELS_MIN} are no whole list.")
    is_next = {known.source for known in before} == {known.source for known in after}
    if is_next and len(new) < len(old) * (1 - SHRINK_MAX):
        found.append(
            f"It has prices of {len(new)} models, and the one in force of {len(old)}: more than {SHRINK_MAX:.0%} are gone."
        )
    both = [name for name in new if name in old]
    jumps = [name for name in both if _jumps(old[name], new[name])]
    if len(jumps) > (0 if is_next else DIFFER_MAX * len(both)):
        found.append(f"More than {JUMP_MAX} times as much or as little as before is asked for {_named(jumps)}.")
    dear = [name for name, price in new.items() if max(price.dearest_pusd(_LARGEST_TOKENS)) > DEAREST_PUSD]
    if dear:
        found.append(f"More than {DEAREST_PUSD // 10**6:,} USD per million tokens are asked for {_named(dear)}.")
    return found


def _priced(models: Iterable[Known]) -> dict[tuple[str, str], PriceTable]:
    return {(known.provider, known.model): known.price for known in models if known.price is not None}


def _jumps(old: PriceTable, new: PriceTable) -> bool:
    """Whether a price was multiplied, divided, or dropped to nothing. What was free may come to cost something."""
    was, now = old.tiers[0][1], new.tiers[0][1]
    pairs = ((was.input_pusd, now.input_pusd), (was.output_pusd, now.output_pusd))
    return any(before and (after > before * JUMP_MAX or after * JUMP_MAX < before) for before, after in pairs)


def _named(names: Sequence[tuple[str, str]]) -> str:
    told = ", ".join("/".join(name) for name in names[:TOLD_MAX])
    return told if len(names) <= TOLD_MAX else f"{told} and {len(names) - TOLD_MAX} more"


def changes(before: Sequence[Known], after: Sequence[Known]) -> dict[str, int]:
    """Count the priced models that are `new`, `gone`, and have `changed` their price."""
    old, new = _priced(before), _priced(after)
    changed = sum(name in old and old[name].tiers != price.tiers for name, price in new.items())
    return {"new": len(new.keys() - old.keys()), "gone": len(old.keys() - new.keys()), "changed": changed}


# --- who is meant -------------------------------------------------------------------------------------------------------


def nearest(name: str, known: Iterable[Known], most: int = SUGGESTED_MAX) -> list[Known]:
    """The models whose names are most like *name*, `PROVIDER/MODEL` or the model alone; the nearest first."""
    likeness = _likeness_to(name)
    ranked = [(likeness(one), one) for one in known]
    close = [(score, one) for score, one in ranked if score >= _LEAST_LIKENESS]
    # The shorter of two that are alike, and the vendor's own before those that resell it.
    close.sort(key=lambda found: (-found[0], len(found[1].model), found[1].provider, found[1].model))
    return [one for _, one in close[:most]]


def _likeness_to(name: str) -> Callable[[Known], float]:
    asked = _letters(name)
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(asked)

    def likeness(known: Known) -> float:
        found = 0.0
        for text in {known.model, known.model.rpartition("/")[2], f"{known.provider}/{known.model}"}:
            letters = _letters(text)
            matcher.set_seq1(letters)
            if letters == asked:
                return 2.0
            if asked and asked in letters:
                found = max(found, 1.0 + len(asked) / len(letters) / 2)
            elif matcher.real_quick_ratio() > found and matcher.quick_ratio() > found:
                found = max(found, matcher.ratio())
        return found

    return likeness


def _letters(name: str) -> str:
    """Letters and digits alone: nobody remembers where the dots and dashes are."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == "/")

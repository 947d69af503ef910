"""
A LiteLLM proxy's configuration, as a file of ours.

Law: whatever is not carried over, or means something else here, is said in a sentence; a key that stands in the file is never
copied, nor repeated.
Never: reads YAML or the environment; it is given plain values.

Decision 2026-11 -- deployments of one model name become one tier, ordered by the strategy nearest to LiteLLM's, and `order` makes
    tiers of them. Deployments that speak the other dialect become a model of their own: a ladder has one family.

Source: docs.litellm.ai (config.yaml, routing, budgets, provider prefixes), read 2026-11-25.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from quota_router.core.catalog import Family, Network
from quota_router.core.desired_prices import PRICES
from quota_router.core.exported import Table, leave_out_what_leads_nowhere
from quota_router.core.vendors import VENDORS

_VENDOR_OF = {
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama",
    "lm_studio": "lmstudio",
    "hosted_vllm": "vllm",
    "azure_ai": "azure",
}
"""Prefixes that LiteLLM writes differently from us."""
_STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least_used",
    "usage-based-routing": "least_used",
    "usage-based-routing-v2": "least_used",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
}
_PRICES = {
    "input_cost_per_token": "cost_per_million_input",
    "output_cost_per_token": "cost_per_million_output",
    "cache_read_input_token_cost": "cost_per_million_cache_read",
    "cache_creation_input_token_cost": "cost_per_million_cache_write_5m",
    "output_cost_per_reasoning_token": "cost_per_million_reasoning",
}
_UNDERSTOOD = {
    "": {"model_list", "router_settings", "litellm_settings", "general_settings"},
    "router_settings": {"routing_strategy", "fallbacks", "model_group_alias"},
    "litellm_settings": {"fallbacks", "max_budget", "budget_duration"},
    "general_settings": set[str](),
    "litellm_params": {"model", "api_key", "api_base", "base_url", "api_version", "weight", "order", "rpm", "tpm"}
    | {"max_parallel_requests", "max_budget", "budget_duration", *_PRICES},
}
_HINTS = {
    "master_key": "the admin token comes from $QUOTA_ROUTER_ADMIN_TOKEN; other tokens are [[callers]]",
    "environment_variables": "set them where the daemon is started",
    "context_window_fallbacks": "write the longer model into fallbacks, with context_tokens on both",
    "database_url": "the ledger is [server] database",
}
_MILLION = 10**6
_DECIMALS = 6
_KEY = "os.environ/"


@dataclass(slots=True)
class _Import:
    """What has been made of the file so far."""

    providers: dict[str, Table] = field(default_factory=dict)
    models: dict[str, Table] = field(default_factory=dict)
    tiers: dict[str, dict[int, list[Table]]] = field(default_factory=dict)
    budgets: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def convert(config: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """
    Make tables of our file, and a sentence for everything that is not carried over as it was.

    Args:
        config: config.yaml as plain values; numbers with a point are Decimal.
    """
    made = _Import()
    _note_unknown(made, config, "", "")
    for section in ("router_settings", "litellm_settings", "general_settings"):
        _note_unknown(made, _mapping(config.get(section)), section, f"{section}.")
    for place, entry in enumerate(_list(config.get("model_list"))):
        _deployment(made, _mapping(entry), place)
    router = _mapping(config.get("router_settings"))
    strategy = _strategy(made, _text(router.get("routing_strategy")) or "simple-shuffle")
    for name, model in made.models.items():
        model["attachments"] = _attachments(made.tiers[name])
        if any(len(rungs) > 1 for rungs in made.tiers[name].values()):
            model["strategy"] = strategy
    _fallbacks(made, [*_list(router.get("fallbacks")), *_list(_mapping(config.get("litellm_settings")).get("fallbacks"))])
    _aliases(made, _mapping(router.get("model_group_alias")))
    settings = _mapping(config.get("litellm_settings"))
    _budget(made, "litellm", "everyone", settings.get("max_budget"), settings.get("budget_duration"))
    desired: Table = {"providers": made.providers, "models": list(made.models.values()), "budgets": made.budgets}
    made.notes += leave_out_what_leads_nowhere(desired)
    return {key: tables for key, tables in desired.items() if tables}, made.notes


# --- deployments --------------------------------------------------------------------------------------------------------


def _deployment(made: _Import, entry: Mapping[str, Any], place: int) -> None:
    params, info = _mapping(entry.get("litellm_params")), _mapping(entry.get("model_info"))
    name, target = _text(entry.get("model_name")), _text(params.get("model"))
    called = f"model_list[{place}] ({name or 'without a name'})"
    if not (name and target) or "*" in name or "*" in target:
        made.note(f"{called} is not carried over: it needs one model_name and one model, and no '*'.")
        return
    if (mode := _text(info.get("mode")) or "chat") not in ("chat", "completion", "embedding", "responses"):
        made.note(f"{called} is not carried over: calls of mode {mode!r} are not relayed.")
        return
    _note_unknown(made, params, "litellm_params", f"{called}: ")
    prefix, _, rest = target.partition("/")
    vendor = _vendor(prefix) if rest else _vendor_of_bare(target)
    if vendor is None:
        made.note(f"{called} is not carried over: there is no preset for {prefix!r}; add a provider with family and base_url.")
        return
    provider, family = _provider(made, vendor, params, called)
    if provider is None:
        return
    model = _model_for(made, name, family)
    upstream = rest or target
    rung: Table = {"provider": provider, **({"upstream_model": upstream} if upstream != model else {})}
    weight = _whole(params.get("weight"))
    if weight and weight > 1:
        rung["weight"] = weight
    rung |= _prices(made, {**info, **params}, called)
    if any(other["provider"] == provider for rungs in made.tiers[model].values() for other in rungs):
        made.note(f"{called} is not carried over: provider {provider} serves {model} already, and does so once.")
        return
    made.tiers[model].setdefault(_whole(params.get("order")) or 1, []).append(rung)
    for key, ours in (("max_input_tokens", "context_tokens"), ("max_output_tokens", "max_output_tokens")):
        if count := _whole(info.get(key)):
            made.models[model].setdefault(ours, count)
    _rates(made, model, provider, params)


def _model_for(made: _Import, name: str, family: Family) -> str:
    """The model that a deployment of *family* belongs to: its own name, or where that speaks the other dialect a second one."""
    speaks = next((_family_of(made.providers[r["provider"]]) for rungs in made.tiers.get(name, {}).values() for r in rungs), family)
    model = name if speaks is family else f"{name}-{family}"
    if model != name:
        made.note(f"model {name!r} has deployments of two dialects: those that speak {family} are model {model!r}.")
    made.models.setdefault(model, {"name": model})
    made.tiers.setdefault(model, {})
    return model


def _attachments(tiers: Mapping[int, Sequence[Table]]) -> list[Any]:
    entries: list[Any] = []
    for _, rungs in sorted(tiers.items()):
        short = [rung["provider"] if len(rung) == 1 else rung for rung in rungs]
        entries.append(short if len(short) > 1 else short[0])
    return entries


def _rates(made: _Import, model: str, provider: str, params: Mapping[str, Any]) -> None:
    """Rate limits and budgets of a deployment: limits of ours on the attachment."""
    subject = f"attachment:{model}/{provider}"
    title = f"{model}-{provider}".replace("/", "-")
    for key, unit in (("rpm", "requests"), ("tpm", "tokens")):
        if limit := _whole(params.get(key)):
            made.budgets.append({"name": f"{title}-{key}", "subject": subject, "unit": unit, "limit": limit, "window": "1m"})
    if limit := _whole(params.get("max_parallel_requests")):
        made.budgets.append({"name": f"{title}-parallel", "subject": subject, "unit": "concurrency", "limit": limit})
    _budget(made, title, subject, params.get("max_budget"), params.get("budget_duration"))


def _prices(made: _Import, said: Mapping[str, Any], called: str) -> Table:
    prices: Table = {}
    for key, ours in _PRICES.items():
        if said.get(key) is None:
            continue
        try:
            per_million = Decimal(said[key]) * _MILLION
        except (InvalidOperation, TypeError, ValueError):
            per_million = Decimal("NaN")
        if not per_million.is_finite() or per_million != round(per_million, _DECIMALS):
            made.note(f"{called}: {key} is not carried over: it is no price of at most six decimals per million tokens.")
            return {}
        prices[ours] = f"{per_million.normalize():f}"
    stated = [key for key in PRICES if key in prices]
    if stated and not {"cost_per_million_input", "cost_per_million_output"} <= set(stated):
        made.note(f"{called}: its prices are not carried over: one for input and one for output are needed together.")
        return {}
    return prices


# --- providers ----------------------------------------------------------------------------------------------------------


def _provider(made: _Import, vendor: str, params: Mapping[str, Any], called: str) -> tuple[str | None, Family]:
    """The provider of a deployment; the same account at the same address is one."""
    preset = VENDORS[vendor]
    table: Table = {"vendor": vendor}
    base = (_text(params.get("api_base")) or _text(params.get("base_url"))).rstrip("/")
    if base.startswith(_KEY):
        made.note(f"{called} is not carried over: its address stands in the variable {base.removeprefix(_KEY)}: write base_url.")
        return None, preset.family
    if base:
        table |= _address(made, vendor, base, called)
    elif preset.base_url is None:
        made.note(f"{called} is not carried over: it has no api_base, and vendor {vendor!r} has none of its own.")
        return None, preset.family
    key = params.get("api_key")
    if isinstance(key, str) and key.startswith(_KEY):
        reference = f"env:{key.removeprefix(_KEY)}"
        if reference != f"env:{preset.key_env}":
            table["credential"] = reference
    elif key:
        variable = preset.key_env or f"{vendor.upper()}_API_KEY"
        if preset.key_env is None:
            table["credential"] = f"env:{variable}"
        made.note(f"{called}: its key stands in the file. It is not copied: put it into the variable {variable}.")
    for name, known in made.providers.items():
        if known == table:
            return name, preset.family
    number = sum(name.rpartition("-")[0] == vendor or name == vendor for name in made.providers)
    name = vendor if not number else f"{vendor}-{number + 1}"
    made.providers[name] = table
    return name, preset.family


def _address(made: _Import, vendor: str, base: str, called: str) -> Table:
    if vendor == "azure" and "/openai" not in base:
        made.note(f"{called}: Azure is asked at {base}/openai/v1, where the deployment's name is the model: check that it is open.")
        base = f"{base}/openai/v1"
    if vendor == "ollama" and not base.endswith("/v1"):
        base = f"{base}/v1"
    network = _network(base)
    said = {"base_url": base} if base != VENDORS[vendor].base_url else {}
    return {**said, **({"network": str(network)} if network is not VENDORS[vendor].network else {})}


def _network(base: str) -> Network:
    try:
        url = urlsplit(base)
        host = url.hostname or ""
    except ValueError:
        return Network.PUBLIC
    try:
        address = ip_address(host)
    except ValueError:
        if host == "localhost":
            return Network.LOOPBACK
        return Network.PUBLIC if url.scheme == "https" and "." in host else Network.PRIVATE
    return Network.LOOPBACK if address.is_loopback else Network.PRIVATE if address.is_private else Network.PUBLIC


def _vendor(prefix: str) -> str | None:
    name = _VENDOR_OF.get(prefix, prefix)
    return name if name in VENDORS else None


def _vendor_of_bare(model: str) -> str | None:
    """LiteLLM knows these by their name alone."""
    if model.startswith("claude"):
        return "anthropic"
    return "openai" if model.startswith(("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-")) else None


def _family_of(provider: Table) -> Family:
    return VENDORS[provider["vendor"]].family


# --- what stands beside the models ---------------------------------------------------------------------------------------


def _strategy(made: _Import, said: str) -> str:
    strategy = _STRATEGIES.get(said)
    if strategy is None:
        made.note(f"routing_strategy {said!r} is not carried over: the models are ordered by weight.")
    return strategy or "weighted"


def _fallbacks(made: _Import, written: Sequence[Any]) -> None:
    for entry in written:
        for name, others in _mapping(entry).items():
            named = [_text(other) for other in _list(others)]
            known = [other for other in named if other in made.models and other != name]
            lost = [other for other in named if other not in known]
            if name not in made.models or lost:
                made.note(f"fallbacks of {name!r} are not all carried over: {', '.join(lost) or name} is no model here.")
            if name in made.models and known:
                model = made.models[str(name)]
                model["fallbacks"] = list(dict.fromkeys([*model.get("fallbacks", []), *known]))


def _aliases(made: _Import, written: Mapping[str, Any]) -> None:
    for alias, said in written.items():
        name = _text(said) or _text(_mapping(said).get("model"))
        if name in made.models:
            made.models[name].setdefault("aliases", []).append(_text(alias))
        else:
            made.note(f"model_group_alias {alias!r} is not carried over: {name!r} is no model here.")


def _budget(made: _Import, title: str, subject: str, amount: object, duration: object) -> None:
    if not isinstance(amount, int | Decimal | str):
        return
    said = _text(duration)
    window = "forever" if not said else "month" if said in ("1mo", "monthly") else said
    made.budgets.append({"name": f"{title}-budget", "subject": subject, "unit": "usd", "limit": str(amount), "window": window})
    if window not in ("month", "forever"):
        made.note(f"budget {title}-budget counts the last {window} at every moment; LiteLLM begins anew every {window}.")


def _note_unknown(made: _Import, said: Mapping[str, Any], section: str, prefix: str) -> None:
    for key in said:
        if isinstance(key, str) and key not in _UNDERSTOOD[section]:
            hint = _HINTS.get(key)
            made.note(f"{prefix}{key} is not carried over{f': {hint}' if hint else ''}.")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """Text, else nothing: a name is never made of what is none."""
    return value if isinstance(value, str) else ""


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

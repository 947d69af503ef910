"""
The file that asks for a catalog: the way back from values to tables.

Law: what is built from the tables is the catalog again. What the file has no words for is left out and named, so that the tables
always load.
Never: writes what goes without saying: a key that would change nothing is left out.
"""

from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, assert_never

from quota_router.core.catalog import (
    DEFAULT_MODEL,
    HEADERS,
    Attachment,
    Caller,
    Catalog,
    Model,
    Poller,
    Provider,
    RoutingRule,
    Workflow,
)
from quota_router.core.command_presets import PRESETS
from quota_router.core.commands import CommandSpec
from quota_router.core.desired import build_catalog
from quota_router.core.desired_commands import command_table
from quota_router.core.desired_pollers import EVERY_S, POINTERS, SHARE
from quota_router.core.desired_prices import PRICES
from quota_router.core.desired_providers import build_provider
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable, format_usd
from quota_router.core.references import Value
from quota_router.core.shares import show_decimal
from quota_router.core.vendors import VENDORS
from quota_router.core.words import OnUnusable, Strategy
from quota_router.errors import ConfigError, KeyPath

Table = dict[str, Any]

_PUSD_PER_USD_PER_MILLION = 10**6


def export_catalog(catalog: Catalog, *, pollers: Collection[str] = ()) -> tuple[Table, list[str]]:
    """
    The tables of a file that asks for *catalog*, and a sentence for each thing that they cannot say.

    Rows that are disabled because the file no longer names them are not in it. Pauses are not: they are the operator's word at run
    time.

    Args:
        catalog: of any ledger.
        pollers: the presets of quota endpoints that this program reads.
    """
    models = [model for model in catalog.models.values() if model.enabled and model.attachments]
    desired: Table = {
        "providers": {name: provider_table(provider, pollers) for name, provider in catalog.providers.items()},
        "models": [{"name": model.name, **model_table(model)} for model in models],
        "budgets": [{"name": limit.name, **limit_table(limit)} for limit in catalog.limits if limit.kind is Kind.BUDGET],
        "callers": [{"name": c.name, **caller_table(c)} for c in catalog.callers.values() if c.enabled],
        "routing": _routing(catalog),
        "workflows": {name: workflow_table(found) for name, found in catalog.workflows.items() if found.enabled},
    }
    left_out = _place_quotas(desired, catalog) + leave_out_what_leads_nowhere(desired, pollers)
    return {key: tables for key, tables in desired.items() if tables}, left_out


# --- providers --------------------------------------------------------------------------------------------------------


def provider_table(provider: Provider, pollers: Collection[str] = ()) -> Table:
    """`[providers.NAME]`, without quotas: no more than it takes to build the provider again."""
    said: Table = {
        "vendor": provider.vendor if provider.vendor in VENDORS else None,
        "family": str(provider.family),
        "base_url": provider.base_url,
        "credential": provider.credential_ref,
        "network": str(provider.network),
        "allow": list(provider.allow),
        "billing": str(provider.billing),
        "account": provider.account,
        "enabled": provider.enabled,
        "display_name": provider.display_name,
        "description": provider.description,
        "model": provider.default_upstream_model,
        "reserve": Decimal(show_decimal(provider.reserve)),
        "pause_at": None if provider.pause_at is None else Decimal(show_decimal(provider.pause_at)),
        "pace": provider.pace,
        "quota_sources": list(provider.quota_sources),
        "pollers": [_poller_table(poller) for poller in provider.pollers],
    }
    if provider.command is not None:
        of_an_api = ("base_url", "network", "allow")
        said = {key: value for key, value in said.items() if key not in of_an_api} | _command_table(provider.command)
    table = {key: value for key, value in said.items() if value is not None}
    # A known tool says what the file leaves out.
    tools = [{**table, "command": name} for name in PRESETS if provider.is_command]
    table = next((by_name for by_name in tools if _is_of(by_name) and _gives(by_name, provider, pollers)), table)
    for key in [key for key in table if key != "vendor"]:
        shorter = {other: value for other, value in table.items() if other != key}
        if _gives(shorter, provider, pollers):
            table = shorter
    return table


def _command_table(command: CommandSpec) -> Table:
    return {**command_table(command), "run_timeout_s": Decimal(str(command.run_timeout_s))}


def _is_of(table: Table) -> bool:
    """Whether the program is the one of the known tool that is named."""
    program: str = PRESETS[table["command"]].spec.template[0]
    return bool(program == table["command_template"][0])


def _gives(table: Table, provider: Provider, pollers: Collection[str]) -> bool:
    try:
        built = build_provider(provider.name, table, (*pollers, *_presets_of(provider)))
    except ConfigError:
        return False
    of_the_row = replace(
        built,
        paused=provider.paused,
        paused_reason=provider.paused_reason,
        managed_by=provider.managed_by,
        version=provider.version,
    )
    return of_the_row == provider


def _presets_of(provider: Provider) -> list[str]:
    """Those that the row names: whoever wrote it knew them."""
    named = [poller.preset for poller in provider.pollers if poller.preset is not None]
    return [*named, *(source for source in provider.quota_sources if source != HEADERS)]


def _poller_table(poller: Poller) -> Table:
    said: Table = {
        "name": poller.name,
        "preset": poller.preset,
        "url": poller.url,
        "credential": poller.credential_ref,
        **{key: getattr(poller, key) for key in POINTERS},
        "scale": Decimal(show_decimal(poller.scale)) if poller.scale != 1 else None,
        "unit": poller.unit if poller.unit != SHARE else None,
        "window": poller.window or None,
        "every_s": poller.every_s if poller.every_s != EVERY_S else None,
    }
    return {key: value for key, value in said.items() if value is not None}


# --- models -----------------------------------------------------------------------------------------------------------


def model_table(model: Model) -> Table:
    """`[[models]]`, without its name."""
    said: Table = {
        "attachments": attachments_list(model),
        "strategy": str(model.strategy) if model.strategy is not Strategy.PRIORITY else None,
        "display_name": model.display_name or None,
        "aliases": list(model.aliases) or None,
        "capabilities": None if model.capabilities is None else list(model.capabilities),
        "tags": list(model.tags) or None,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "fallbacks": list(model.fallbacks) or None,
    }
    return {key: value for key, value in said.items() if value is not None} | price_keys(model.price)


def attachments_list(model: Model) -> list[Any]:
    """A model's ladder: a name or a table for each rung, a list for a tier."""
    tiers: dict[int, list[Attachment]] = {}
    for rung in sorted(model.attachments, key=lambda rung: (rung.priority, rung.position)):
        tiers.setdefault(rung.priority, []).append(rung)
    written: list[Any] = []
    following = 0
    for priority, rungs in tiers.items():
        is_next, following = priority == following, priority + 1
        entries = [_rung_entry(rung, None if is_next else priority) for rung in rungs]
        written += entries if len(entries) == 1 or not is_next else [entries]
    return written


def _rung_entry(rung: Attachment, priority: int | None) -> str | Table:
    """*priority*: only where the order does not say it."""
    said: Table = {
        "upstream_model": rung.upstream_model if rung.upstream_model != rung.model else None,
        "priority": priority,
        "weight": rung.weight if rung.weight != 1 else None,
        "unmetered": rung.unmetered or None,
        "enabled": None if rung.enabled else False,
    }
    table = {key: value for key, value in said.items() if value is not None} | price_keys(rung.price)
    return {"provider": rung.provider, **table} if table else rung.provider


def price_keys(price: PriceTable | None) -> Table:
    """A price that was stated, by the keys of the file; empty where none was."""
    if price is None:
        return {}
    rates = price.tiers[0][1]
    return {key: show_decimal(Fraction(pusd, _PUSD_PER_USD_PER_MILLION)) for key, pusd in _rates(rates) if pusd is not None}


def _rates(rates: object) -> list[tuple[str, int | None]]:
    return [(key, getattr(rates, rate)) for key, rate in PRICES.items()]


# --- limits, callers, rules, workflows --------------------------------------------------------------------------------


def limit_table(limit: Limit) -> Table:
    """`[[budgets]]` without its name, or a quota of the provider that has the account."""
    is_open = limit.unit is Unit.CONCURRENCY and limit.window == "forever"
    said: Table = {
        "subject": limit.subject if limit.kind is Kind.BUDGET else None,
        "unit": str(limit.unit),
        "limit": format_usd(limit.limit) if limit.unit is Unit.USD else limit.limit,
        "window": None if is_open else limit.window,
        "anchor": limit.anchor,
        "timezone": limit.timezone if limit.timezone != "UTC" else None,
        "enforcement": str(limit.enforcement) if limit.enforcement is not Enforcement.BOUNDED else None,
    }
    return {key: value for key, value in said.items() if value is not None}


def caller_table(caller: Caller) -> Table:
    """`[[callers]]`, without its name."""
    scopes = {} if caller.scopes == ("call",) else {"scopes": list(caller.scopes)}
    return {"token_sha256": caller.token_sha256, **scopes}


def rule_table(rule: RoutingRule) -> Table:
    """`[[routing.rules]]`."""
    said: Table = {
        "condition": rule.condition,
        "model": rule.model,
        "provider": rule.provider,
        "strategy": None if rule.strategy is None else str(rule.strategy),
        "share": None if rule.share is None else Decimal(show_decimal(rule.share)),
        "on_unusable": None if rule.on_unusable is OnUnusable.FALL_THROUGH else str(rule.on_unusable),
        "reason": rule.reason,
    }
    return {key: value for key, value in said.items() if value is not None}


def workflow_table(workflow: Workflow) -> Table:
    """`[workflows.NAME]`."""
    return {"stages": [{"name": stage.name, "model": stage.model} for stage in workflow.stages]}


def _routing(catalog: Catalog) -> Table:
    rules = [rule_table(rule) for rule in catalog.rules if rule.enabled]
    goes_without_saying = catalog.default_model in {None, DEFAULT_MODEL}
    return {
        **({} if goes_without_saying else {"default_model": catalog.default_model}),
        **({} if catalog.timezone == "UTC" else {"timezone": catalog.timezone}),
        **({"routers": list(catalog.routers)} if catalog.routers else {}),
        **({"rules": rules} if rules else {}),
    }


def show_row(value: Value) -> Table:
    """A row in words, for whoever reads its history: as the file would say it, and how it stands. Nothing that must stay unseen."""
    match value:
        case Provider():
            table = provider_table(value)
            hidden = {"env": sorted(table["env"])} if "env" in table else {}
            paused = {"paused": True, "paused_reason": value.paused_reason} if value.paused else {}
            return {**table, **hidden, **paused}
        case Model():
            return {**model_table(value), "enabled": value.enabled}
        case Limit():
            return {**limit_table(value), "subject": value.subject, "kind": str(value.kind)}
        case Caller():
            return {"scopes": list(value.scopes), "enabled": value.enabled}
        case RoutingRule():
            return {**rule_table(value), "rank": value.rank, "enabled": value.enabled}
        case Workflow():
            return {**workflow_table(value), "enabled": value.enabled}
        case _:
            assert_never(value)


# --- what the file has no words for -------------------------------------------------------------------------------------


def _place_quotas(desired: Table, catalog: Catalog) -> list[str]:
    """Write each quota down at a provider of its account."""
    left_out = []
    for limit in catalog.limits:
        if limit.kind is Kind.BUDGET:
            continue
        account = limit.subject.removeprefix("account:")
        owner = next((p.name for p in catalog.providers.values() if p.account == account), None)
        if owner is None:
            left_out.append(f"limit {limit.name} is left out: no provider has the account {account!r}.")
        else:
            desired["providers"][owner].setdefault("quotas", []).append(limit_table(limit))
    return left_out


def leave_out_what_leads_nowhere(desired: Table, pollers: Collection[str] = ()) -> list[str]:
    """
    Take out entry by entry what could not be built: it names what is disabled, gone, or never was.

    Returns:
        a sentence for each.
    """
    left_out = []
    while True:
        try:
            build_catalog(desired, pollers=(*pollers, *_presets_in(desired)))
        except ConfigError as error:
            left_out.append(f"{_take_out(desired, error.key_path)} is left out: {error.message}")
        else:
            return left_out


def _presets_in(desired: Table) -> list[str]:
    tables = desired["providers"].values()
    named = [poller["preset"] for table in tables for poller in table.get("pollers", ()) if "preset" in poller]
    return [*named, *(source for table in tables for source in table.get("quota_sources", ()) if source != HEADERS)]


def _take_out(desired: Table, path: KeyPath) -> str:
    """
    Take out the entry around *path*: a rule, a workflow, a budget, a fallback, else a model or provider.

    Returns:
        what it was called.
    """
    name: object
    match path:
        case ("routing", "rules", int(index), *_):
            return f"rule {desired['routing']['rules'].pop(index)['condition']!r}"
        case ("routing", str(key), *_):
            del desired["routing"][key]
            return f"routing.{key}"
        case ("models", int(index), "fallbacks", int(place), *_):
            model = desired["models"][index]
            return f"fallback {model['fallbacks'].pop(place)!r} of model {model['name']}"
        case ("models" | "budgets" | "callers" as kind, int(index), *_):
            name = desired[str(kind)].pop(index)["name"]
        case ("providers", str(name), "quotas", int(index), *_):
            del desired["providers"][name]["quotas"][index]
            return f"a quota of provider {name}"
        case (str(kind), str(name), *_):
            del desired[kind][name]
        case _:
            raise AssertionError(path)
    return f"{str(kind).removesuffix('s')} {name}"

"""
The models a file asks for, and the ladder of each.

Law: the order of the file is the order of the ladder, unless a priority says otherwise.
Never: makes a model without an attachment, or mixes families in one ladder.

Decision 2026-11 -- a ladder comes from the `[[models]]` blocks of its name. `[providers.X.models]` gives upstream names for it, and
    puts X at its end when no block names X. A price in a model's only block is the model's; where several blocks share a name, a
    block's price is that of its own attachments.
    Look again if operators expect a later block to change an earlier one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quota_router.core.catalog import DEFAULT_MODEL, Attachment, Family, Model, Provider, Strategy
from quota_router.core.commands import check_model
from quota_router.core.desired_prices import build_price
from quota_router.core.desired_providers import LATER_FAMILIES
from quota_router.core.naming import check_known, check_name, fail, read_word
from quota_router.core.pricing import PriceTable
from quota_router.errors import KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """One `[[models]]` table; a model that only providers register has none."""

    path: KeyPath
    table: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rung:
    """One attachment as it is written, before its place is known."""

    path: KeyPath
    provider: str
    upstream_model: str
    priority: int | None = None
    weight: int = 1
    price: PriceTable | None = None
    unmetered: bool = False
    enabled: bool = True


def build_models(desired: Mapping[str, Any], providers: Mapping[str, Provider]) -> dict[str, Model]:
    """
    Build every model of the file, the pool included.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    registered = {name: table.get("models", {}) for name, table in desired.get("providers", {}).items()}
    blocks: dict[str, list[_Block]] = {name: [] for name in _names(desired, registered)}
    for index, table in enumerate(desired.get("models", ())):
        blocks[table["name"]].append(_Block(path=("models", index), table=table))
    models = {name: _model(name, found, providers, registered) for name, found in blocks.items()}
    pool = _pool(desired.get("routing", {}), providers)
    if pool is not None:
        if pool.name in models:
            fail(("routing", "models"), f"model {pool.name!r} is there already: name another default_model for the pool.")
        models[pool.name] = pool
    _check_references(models, blocks)
    return models


def build_model(name: str, table: Mapping[str, Any], providers: Mapping[str, Provider], others: Mapping[str, Model]) -> Model:
    """
    Build one model beside *others*, which may have one of its name.

    Args:
        name: what callers ask for.
        table: `[[models]]`, its shape already checked.
        providers: what it may be attached to.
        others: whose names and aliases are taken, and which may be its fallbacks.

    Raises:
        ConfigError: what is wrong, with its key path below `("models", name)`.
    """
    block = _Block(path=("models", name), table={**table, "name": name})
    model = _model(name, [block], providers, {})
    beside = {other: known for other, known in others.items() if other != name}
    owners = {alias: known.name for known in beside.values() for alias in known.aliases}
    if name in owners:
        fail((*block.path, "name"), f"{name!r} is an alias of model {owners[name]!r} already: choose another name.")
    _check_references({**beside, name: model}, {name: [block]}, owners)
    return model


def find_model_name(name: str, models: Mapping[str, Model]) -> str | None:
    """The model of that name or alias; `None`: there is none."""
    return name if name in models else next((model.name for model in models.values() if name in model.aliases), None)


def _names(desired: Mapping[str, Any], registered: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    yield from (table["name"] for table in desired.get("models", ()))
    for names in registered.values():
        yield from names


def _model(
    name: str,
    blocks: Sequence[_Block],
    providers: Mapping[str, Provider],
    registered: Mapping[str, Mapping[str, str]],
) -> Model:
    upstream_names = {provider: names[name] for provider, names in registered.items() if name in names}
    path = blocks[0].path if blocks else ("providers", next(iter(upstream_names)), "models", name)
    check_name("model", name, path)
    tiers = [tier for block in blocks for tier in _tiers(block, upstream_names, owns_price=len(blocks) > 1)]
    named = {rung.provider for tier in tiers for rung in tier}
    for provider, upstream_model in upstream_names.items():
        if provider not in named:
            at = ("providers", provider, "models", name)
            tiers.append((_Rung(path=at, provider=provider, upstream_model=upstream_model),))
    if not tiers:
        fail(path, f"no explicit provider attachments configured for model {name!r}: add provider or attachments.")
    family_path, family = _said(blocks, "family")
    stated = None if family is None else read_word("family", family, Family, family_path, later=LATER_FAMILIES)
    strategy_path, strategy = _said(blocks, "strategy")
    capabilities = _said(blocks, "capabilities")[1]
    attachments = _ladder(name, tiers, providers, stated)
    return Model(
        name=name,
        family=providers[attachments[0].provider].family,
        attachments=attachments,
        strategy=read_word("strategy", strategy or Strategy.PRIORITY.value, Strategy, strategy_path),
        display_name=_said(blocks, "display_name")[1] or "",
        aliases=_gathered(blocks, "aliases"),
        capabilities=None if capabilities is None else tuple(dict.fromkeys(capabilities)),
        tags=_gathered(blocks, "tags"),
        context_tokens=_said(blocks, "context_tokens")[1],
        max_output_tokens=_said(blocks, "max_output_tokens")[1],
        fallbacks=_gathered(blocks, "fallbacks"),
        price=build_price(blocks[0].table, blocks[0].path) if len(blocks) == 1 else None,
    )


def _said(blocks: Sequence[_Block], key: str) -> tuple[KeyPath, Any]:
    """What the blocks say under *key*, and where; they may repeat each other but not differ. `None`: nothing is said."""
    found = [((*block.path, key), block.table[key]) for block in blocks if key in block.table]
    for path, value in found:
        if value != found[0][1]:
            fail(path, f"an earlier block of this model says another {key}: keep one of them.")
    return found[0] if found else ((), None)


def _gathered(blocks: Sequence[_Block], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry for block in blocks for entry in block.table.get(key, ())))


# --- ladders ----------------------------------------------------------------------------------------------------------


def _tiers(block: _Block, upstream_names: Mapping[str, str], *, owns_price: bool) -> list[tuple[_Rung, ...]]:
    table, path = block.table, block.path
    entries = table.get("attachments", ())
    if "provider" in table and "attachments" in table:
        fail((*path, "provider"), "provider is short for attachments with one entry: keep one of them.")
    if "provider" in table:
        return [(_rung(table["provider"], block, (*path, "provider"), upstream_names, owns_price=owns_price),)]
    tiers: list[tuple[_Rung, ...]] = []
    for index, entry in enumerate(entries):
        at = (*path, "attachments", index)
        if not isinstance(entry, list):
            tiers.append((_rung(entry, block, at, upstream_names, owns_price=owns_price),))
            continue
        members = tuple(
            _rung(member, block, (*at, place), upstream_names, owns_price=owns_price) for place, member in enumerate(entry)
        )
        if not members:
            fail(at, "a tier has at least one provider: name one or leave the tier out.")
        for member in members:
            if member.priority is not None:
                fail((*member.path, "priority"), "a nested list is one tier already: leave out its priority.")
        tiers.append(members)
    return tiers


def _rung(
    entry: str | Mapping[str, Any],
    block: _Block,
    path: KeyPath,
    upstream_names: Mapping[str, str],
    *,
    owns_price: bool,
) -> _Rung:
    table: Mapping[str, Any] = {"provider": entry} if isinstance(entry, str) else entry
    provider = table["provider"]
    price = build_price(table, path)
    if price is None and owns_price:
        price = build_price(block.table, block.path)
    return _Rung(
        path=path,
        provider=provider,
        upstream_model=table.get("upstream_model") or upstream_names.get(provider) or block.table["name"],
        priority=table.get("priority"),
        weight=table.get("weight", 1),
        price=price,
        unmetered=table.get("unmetered", block.table.get("unmetered", False)),
        enabled=table.get("enabled", True),
    )


def _ladder(
    model: str,
    tiers: Sequence[Sequence[_Rung]],
    providers: Mapping[str, Provider],
    stated: Family | None,
) -> tuple[Attachment, ...]:
    """The attachments in the order to be tried. A tier without a priority comes right after the one written before it."""
    attachments: list[Attachment] = []
    next_priority, family = 0, stated
    for tier in tiers:
        priority = next_priority if tier[0].priority is None else tier[0].priority
        next_priority = priority + 1
        for rung in tier:
            check_known("provider", rung.provider, providers, rung.path)
            speaks = providers[rung.provider].family
            family = family or speaks
            if speaks is not family:
                fail(rung.path, f"provider {rung.provider!r} speaks {speaks}, but model {model!r} is {family}: name another one.")
            if providers[rung.provider].is_command:
                _check_argument(rung)
            if any(other.provider == rung.provider for other in attachments):
                fail(rung.path, f"provider {rung.provider!r} serves model {model!r} already: name it once.")
            attachments.append(
                Attachment(
                    model=model,
                    provider=rung.provider,
                    priority=priority,
                    position=sum(other.priority == priority for other in attachments),
                    upstream_model=rung.upstream_model,
                    weight=rung.weight,
                    price=rung.price,
                    unmetered=rung.unmetered,
                    enabled=rung.enabled,
                )
            )
    return tuple(sorted(attachments, key=lambda attachment: (attachment.priority, attachment.position)))


def _check_argument(rung: _Rung) -> None:
    """A program is given the model's name as a word of its command line."""
    try:
        check_model(rung.upstream_model)
    except ValueError as exc:
        fail(rung.path, str(exc))


def _pool(routing: Mapping[str, Any], providers: Mapping[str, Provider]) -> Model | None:
    """The model that `[routing] models` makes; `None`: no pool is configured."""
    policy = read_word("policy", routing.get("policy", Strategy.PRIORITY.value), Strategy, ("routing", "policy"))
    if "policy" in routing and not routing.get("models"):
        fail(("routing", "policy"), "a policy orders a pool: add models = [{ provider, model }, …] beside it.")
    if "models" not in routing:
        return None
    if "policy" not in routing:
        fail(("routing", "models"), 'a pool needs a policy: add policy = "priority" beside it.')
    name = routing.get("default_model", DEFAULT_MODEL)
    check_name("model", name, ("routing", "default_model"))
    tiers = [(_pool_rung(entry, providers, ("routing", "models", place)),) for place, entry in enumerate(routing["models"])]
    attachments = _ladder(name, tiers, providers, None)
    return Model(name=name, family=providers[attachments[0].provider].family, attachments=attachments, strategy=policy)


def _pool_rung(entry: Mapping[str, Any], providers: Mapping[str, Provider], path: KeyPath) -> _Rung:
    check_known("provider", entry["provider"], providers, path)
    upstream_model = entry.get("model") or providers[entry["provider"]].default_upstream_model
    if upstream_model is None:
        fail(path, f"no upstream model for provider {entry['provider']!r}: add model here or in the provider's table.")
    return _Rung(path=path, provider=entry["provider"], upstream_model=upstream_model)


# --- names ----------------------------------------------------------------------------------------------------------


def _check_references(
    models: Mapping[str, Model], blocks: Mapping[str, Sequence[_Block]], taken: Mapping[str, str] | None = None
) -> None:
    """Aliases stand for one model each and hide none; fallbacks exist. *taken*: whose the aliases are that there are already."""
    owners = dict(taken or {})
    for block in (block for found in blocks.values() for block in found):
        name = block.table["name"]
        for place, alias in enumerate(block.table.get("aliases", ())):
            path = (*block.path, "aliases", place)
            check_name("alias", alias, path)
            if alias in models:
                fail(path, f"alias {alias!r} would hide the model of that name: choose another alias.")
            if owners.setdefault(alias, name) != name:
                fail(path, f"alias {alias!r} stands for model {owners[alias]!r} already: choose another alias.")
    for block in (block for found in blocks.values() for block in found):
        for place, fallback in enumerate(block.table.get("fallbacks", ())):
            path = (*block.path, "fallbacks", place)
            check_known("model", fallback, (*models, *owners), path)
            if owners.get(fallback, fallback) == block.table["name"]:
                fail(path, f"model {fallback!r} cannot be its own fallback: name another model.")

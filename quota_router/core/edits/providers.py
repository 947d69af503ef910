"""
Providers: made, changed, paused, deleted.

Law: no edit leaves a model on a provider that speaks another dialect or is gone; who lost a rung is said.
Never: lets what only the host's file may say come in: see `core/host_only`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quota_router.core.catalog import Attachment, Catalog, Family, ManagedBy, Model, Provider
from quota_router.core.desired_providers import build_provider
from quota_router.core.edits.common import Expected, as_request, find, find_editable, find_users, refuse_named, refuse_taken
from quota_router.core.exported import provider_table
from quota_router.core.host_only import take_sent
from quota_router.errors import Conflict

_PROVIDER = "provider"
_DEPTH = 2
"""`("providers", name)`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the daemon at hand lets the API say."""

    networks: Collection[str] = ()
    """beyond public ones: `[server] api_networks`"""
    pollers: Collection[str] = ()
    """the presets of quota endpoints that somebody reads"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What went with a provider."""

    catalog: Catalog
    shortened: tuple[str, ...] = ()
    """models that lost a rung"""
    disabled: tuple[str, ...] = ()
    """models that lost their last one"""
    idle_limits: tuple[str, ...] = ()
    """limits that are set on what is gone, and count nothing any more"""


def create_provider(catalog: Catalog, name: str, table: Mapping[str, Any], host: Host) -> Catalog:
    """
    Add a provider.

    Args:
        catalog: as it is.
        name: of the new one.
        table: as `[providers.NAME]`.
        host: what may be said.

    Raises:
        Conflict: there is one of that name. InvalidRequest: it cannot be. Forbidden: only the host's file may say that.
    """
    refuse_taken(_PROVIDER, name, catalog.providers)
    with as_request(_DEPTH):
        provider = replace(build_provider(name, table, host.pollers), managed_by=ManagedBy.API)
    return _put(catalog, provider, host)


def change_provider(catalog: Catalog, name: str, patch: Mapping[str, Any], expected: Expected, host: Host) -> Catalog:
    """
    Change what *patch* says, and nothing else. An empty `model` takes the default upstream model away.

    Raises:
        NotFound, Conflict, Stale, InvalidRequest, Forbidden: as for every edit; Conflict also when models are attached to it in
            its old dialect.
    """
    before = find_editable(_PROVIDER, name, catalog.providers, expected)
    table = {**provider_table(before, host.pollers), **patch}
    if "api_key_env" in patch or "credential" in patch:
        table.pop("credential" if "api_key_env" in patch else "api_key_env", None)
    if not table.get("model", "-"):
        del table["model"]
    _refuse_orphans(catalog, before, patch.get("family", before.family))
    with as_request(_DEPTH):
        after = build_provider(name, table, host.pollers)
    _refuse_orphans(catalog, before, after.family)  # a vendor brings its family along
    after = replace(after, managed_by=before.managed_by, version=before.version)
    return _put(catalog, replace(after, paused=before.paused, paused_reason=before.paused_reason), host)


def pause_provider(catalog: Catalog, name: str, reason: str) -> Catalog:
    """Let no new call go to a provider, also one that the file manages, until it is resumed. Raises `NotFound`."""
    provider = find(_PROVIDER, name, catalog.providers)
    return _with(catalog, replace(provider, paused=True, paused_reason=reason))


def resume_provider(catalog: Catalog, name: str) -> Catalog:
    """Let calls go to a provider again. Raises `NotFound`."""
    provider = find(_PROVIDER, name, catalog.providers)
    return _with(catalog, replace(provider, paused=False, paused_reason=""))


def delete_provider(catalog: Catalog, name: str, expected: Expected) -> Deleted:
    """
    Delete a provider. Models that it served keep the order and the tiers of the others; one that it served alone is disabled.

    Raises:
        NotFound, Conflict, Stale: as for every edit; Conflict also when a rule names it, or a model of the file is attached to it.
    """
    provider = find_editable(_PROVIDER, name, catalog.providers, expected)
    refuse_named(f"provider {name!r}", find_users(catalog, _PROVIDER, name))
    served = [model for model in catalog.models.values() if any(rung.provider == name for rung in model.attachments)]
    of_the_file = [model.name for model in served if model.managed_by is ManagedBy.FILE]
    if of_the_file:
        raise Conflict(
            f"The provider {name!r} serves {', '.join(of_the_file)}, which come from the configuration file: detach it there first."
        )
    shorter = {model.name: _without(model, name) for model in served}
    providers = {other: known for other, known in catalog.providers.items() if other != name}
    gone = {f"provider:{name}", *(f"attachment:{model.name}/{name}" for model in served)}
    if all(known.account != provider.account for known in providers.values()):
        gone.add(f"account:{provider.account}")
    return Deleted(
        catalog=replace(catalog, providers=providers, models={**catalog.models, **shorter}),
        shortened=tuple(sorted(model for model, left in shorter.items() if left.attachments)),
        disabled=tuple(sorted(model for model, left in shorter.items() if not left.attachments)),
        idle_limits=tuple(limit.name for limit in catalog.limits if limit.subject in gone),
    )


def _without(model: Model, provider: str) -> Model:
    """The model without a rung: the others in their order, their tiers numbered anew without a gap."""
    left = [rung for rung in model.attachments if rung.provider != provider]
    tiers = sorted({rung.priority for rung in left})
    ladder: list[Attachment] = []
    for rung in sorted(left, key=lambda rung: (rung.priority, rung.position)):
        tier = tiers.index(rung.priority)
        ladder.append(replace(rung, priority=tier, position=sum(other.priority == tier for other in ladder)))
    return replace(model, attachments=tuple(ladder), enabled=model.enabled and bool(ladder))


def _refuse_orphans(catalog: Catalog, provider: Provider, family: Family | str) -> None:
    if family == provider.family:
        return
    served = [model.name for model in catalog.models.values() if any(r.provider == provider.name for r in model.attachments)]
    if served:
        where = f"{', '.join(served)} in {provider.family}"
        raise Conflict(f"The provider {provider.name!r} serves {where}: detach it there before it speaks {family}.")


def _put(catalog: Catalog, provider: Provider, host: Host) -> Catalog:
    take_sent(Catalog(providers={provider.name: provider}), catalog, host.networks)
    return _with(catalog, provider)


def _with(catalog: Catalog, provider: Provider) -> Catalog:
    return replace(catalog, providers={**catalog.providers, provider.name: provider})

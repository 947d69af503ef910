"""
What the operator's file means: presets filled in, names resolved, ladders in order.

Law: the same file gives the same catalog, whatever is in the database or the environment; what is wrong is said with its key path.
Never: reads a file or a secret, nor guesses: a name that is not known is an error with the nearest right one.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from quota_router.core.catalog import ADMIN, DEFAULT_MODEL, Caller, Catalog, Model
from quota_router.core.desired_limits import build_limits
from quota_router.core.desired_models import build_models, find_model_name
from quota_router.core.desired_providers import build_provider
from quota_router.core.desired_rules import build_rules, build_workflows
from quota_router.core.naming import check_known, check_name, fail
from quota_router.errors import KeyPath, did_you_mean

SCOPES = ("call", "read", "admin")

_ROUTER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def build_catalog(desired: Mapping[str, Any], *, pollers: Collection[str] = ()) -> Catalog:
    """
    Build the catalog that a file asks for.

    Args:
        desired: the file's tables as TOML gives them, their shapes already checked; numbers are int or Decimal, never float.
        pollers: the presets of quota endpoints that this program reads.

    Raises:
        ConfigError: what is wrong, with its key path; file and line are for whoever knows the text.
    """
    providers = {name: build_provider(name, table, pollers) for name, table in desired.get("providers", {}).items()}
    models = build_models(desired, providers)
    callers = _callers(desired)
    limits = build_limits(desired, providers, models, {ADMIN, *callers})
    routing = desired.get("routing", {})
    return Catalog(
        providers=providers,
        models=models,
        limits=limits,
        callers=callers,
        rules=build_rules(routing, providers, models, [limit.name for limit in limits]),
        workflows=build_workflows(desired.get("workflows", {}), models),
        default_model=_default_model(routing, models),
        timezone=_timezone(routing),
        routers=_routers(routing),
    )


def _callers(desired: Mapping[str, Any]) -> dict[str, Caller]:
    callers: dict[str, Caller] = {}
    for index, table in enumerate(desired.get("callers", ())):
        path, name = ("callers", index), table["name"]
        if name == ADMIN or name in callers:
            fail((*path, "name"), f"caller {name!r} is there already: give this one another name.")
        callers[name] = build_caller(name, table, callers.values(), path)
    return callers


def build_caller(name: str, table: Mapping[str, Any], others: Iterable[Caller], path: KeyPath) -> Caller:
    """
    Build one caller.

    Args:
        name: what limits and `usage` call it.
        table: `[[callers]]`, its shape already checked.
        others: whose tokens are taken.
        path: of the table.

    Raises:
        ConfigError: what is wrong, with its key path. A digest is not echoed: it may be the token itself.
    """
    check_name("caller", name, (*path, "name"))
    if not _DIGEST.fullmatch(table["token_sha256"]):
        fail((*path, "token_sha256"), "token_sha256 is the SHA-256 of the token in 64 hex digits, not the token.")
    digest = table["token_sha256"].lower()
    twin = next((caller.name for caller in others if caller.token_sha256 == digest and caller.name != name), None)
    if twin is not None:
        fail((*path, "token_sha256"), f"caller {twin!r} has the same token: give each caller its own.")
    scopes = tuple(table.get("scopes", ("call",)))
    for place, scope in enumerate(scopes):
        check_known("scope", scope, SCOPES, (*path, "scopes", place))
    return Caller(name=name, token_sha256=digest, scopes=scopes)


def _default_model(routing: Mapping[str, Any], models: Mapping[str, Model]) -> str | None:
    """The name of the model that calls without one get; `None`: there is none."""
    if "default_model" not in routing:
        return find_model_name(DEFAULT_MODEL, models)
    name = find_model_name(routing["default_model"], models)
    if name is None:
        said = routing["default_model"]
        fail(("routing", "default_model"), f"model {said!r} is not known: {did_you_mean(said, models)}")
    return name


def _timezone(routing: Mapping[str, Any]) -> str:
    timezone = str(routing.get("timezone", "UTC"))
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        fail(("routing", "timezone"), f"timezone {timezone!r} is not known: write an IANA name such as 'Europe/Berlin'.")
    return timezone


def _routers(routing: Mapping[str, Any]) -> tuple[str, ...]:
    routers = tuple(routing.get("routers", ()))
    for place, router in enumerate(routers):
        path: KeyPath = ("routing", "routers", place)
        if not _ROUTER.fullmatch(router):
            fail(path, f"router {router!r} is no 'package.module:object': write one such as 'my_routers:by_team'.")
        if router in routers[:place]:
            fail(path, f"router {router!r} is asked already: name it once.")
    return routers

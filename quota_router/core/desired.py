"""
What the operator's file means: presets filled in, names resolved, ladders in order.

Law: the same file gives the same catalog, whatever is in the database or the environment; what is wrong is said with its key path.
Never: reads a file or a secret, nor guesses: a name that is not known is an error with the nearest right one.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from quota_router.core.catalog import ADMIN, DEFAULT_MODEL, Billing, Caller, Catalog, Family, Model, Network, Provider
from quota_router.core.desired_limits import build_limits
from quota_router.core.desired_models import build_models, find_model_name
from quota_router.core.naming import check_known, check_name, fail, read_word
from quota_router.core.networks import read_permit
from quota_router.core.vendors import VENDORS, Vendor
from quota_router.errors import KeyPath, did_you_mean

SCOPES = ("call", "read", "admin")

_LATER_FAMILIES = ("gemini",)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def build_catalog(desired: Mapping[str, Any]) -> Catalog:
    """
    Build the catalog that a file asks for.

    Args:
        desired: the file's tables as TOML gives them, their shapes already checked; numbers are int or Decimal, never float.

    Raises:
        ConfigError: what is wrong, with its key path; file and line are for whoever knows the text.
    """
    providers = {name: _provider(name, table) for name, table in desired.get("providers", {}).items()}
    models = build_models(desired, providers)
    callers = _callers(desired)
    return Catalog(
        providers=providers,
        models=models,
        limits=build_limits(desired, providers, models, {ADMIN, *callers}),
        callers=callers,
        default_model=_default_model(desired.get("routing", {}), models),
    )


def _provider(name: str, table: Mapping[str, Any]) -> Provider:
    path: KeyPath = ("providers", name)
    check_name("provider", name, path)
    preset = _preset(table, path)
    family = preset.family if preset else Family.OPENAI
    if "family" in table:
        family = read_word("family", table["family"], Family, (*path, "family"), later=_LATER_FAMILIES)
    network = preset.network if preset else Network.PUBLIC
    if "network" in table:
        network = read_word("network", table["network"], Network, (*path, "network"))
    account = table.get("account", name)
    check_name("account", account, (*path, "account"))
    return Provider(
        name=name,
        family=family,
        vendor=preset.name if preset else family.value,
        account=account,
        base_url=_base_url(table, preset, family, network, path),
        credential_ref=_credential_ref(table, preset, path),
        network=network,
        allow=tuple(_allowed(entry, (*path, "allow", index)) for index, entry in enumerate(table.get("allow", ()))),
        billing=read_word("billing", table.get("billing", Billing.METERED.value), Billing, (*path, "billing")),
        enabled=table.get("enabled", True),
        default_upstream_model=table.get("model"),
        display_name=table.get("display_name", ""),
        description=table.get("description", ""),
    )


def _preset(table: Mapping[str, Any], path: KeyPath) -> Vendor | None:
    if "vendor" not in table:
        return None
    check_known("vendor", table["vendor"], VENDORS, (*path, "vendor"))
    return VENDORS[table["vendor"]]


def _base_url(table: Mapping[str, Any], preset: Vendor | None, family: Family, network: Network, path: KeyPath) -> str:
    """Normal form: no slash at the end; for anthropic no /v1 either, which its SDK adds."""
    at = (*path, "base_url")
    if "base_url" in table:
        base_url = str(table["base_url"])
    elif preset is None:
        name = path[-1] if path[-1] in VENDORS else family.value
        fail(path, f'neither vendor nor base_url is given: add one, such as vendor = "{name}".')
    elif preset.family is not family:
        fail(path, f"the preset of vendor {preset.name!r} speaks {preset.family}: add the base_url that speaks {family}.")
    else:
        base_url = preset.base_url
    url = _split(base_url)
    # The URL is not echoed: people write keys into it.
    if url is None:
        fail(at, "base_url is not a URL: write one such as 'https://api.example.com/v1'.")
    if "@" in url.netloc or url.query or url.fragment:
        fail(at, "base_url holds more than scheme, host, port and path: give a key as credential, and leave out the rest.")
    if network is Network.PUBLIC and url.scheme != "https":
        fail(at, "a public provider is reached by https only: write https, or network = 'private' or 'loopback'.")
    base_url = base_url.rstrip("?#/")
    return base_url.removesuffix("/v1").rstrip("/") if family is Family.ANTHROPIC else base_url


def _split(base_url: str) -> SplitResult | None:
    """The parts of a URL that can be called; `None`: it is none."""
    try:
        url = urlsplit(base_url)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if is_complete and base_url.isascii() and base_url.isprintable() and " " not in base_url else None


def _credential_ref(table: Mapping[str, Any], preset: Vendor | None, path: KeyPath) -> str:
    if "credential" in table and "api_key_env" in table:
        fail((*path, "api_key_env"), "credential and api_key_env say the same thing: keep one of them.")
    if "credential" in table:
        return str(table["credential"])
    if "api_key_env" in table:
        return f"env:{table['api_key_env']}"
    if preset is None:
        fail(path, 'credential is missing: add one such as "env:NAME", or "none" for a server without keys.')
    return "none" if preset.key_env is None else f"env:{preset.key_env}"


def _allowed(entry: str, path: KeyPath) -> str:
    try:
        read_permit(entry)
    except ValueError as exc:
        fail(path, str(exc))
    return entry


def _callers(desired: Mapping[str, Any]) -> dict[str, Caller]:
    callers: dict[str, Caller] = {}
    for index, table in enumerate(desired.get("callers", ())):
        path, name = ("callers", index), table["name"]
        check_name("caller", name, (*path, "name"))
        if name == ADMIN or name in callers:
            fail((*path, "name"), f"caller {name!r} is there already: give this one another name.")
        # A digest of the wrong length is not echoed: it is probably the token itself.
        if not _DIGEST.fullmatch(table["token_sha256"]):
            fail((*path, "token_sha256"), "token_sha256 is the SHA-256 of the token in 64 hex digits, not the token.")
        digest = table["token_sha256"].lower()
        twin = next((caller.name for caller in callers.values() if caller.token_sha256 == digest), None)
        if twin is not None:
            fail((*path, "token_sha256"), f"caller {twin!r} has the same token: give each caller its own.")
        scopes = tuple(table.get("scopes", ("call",)))
        for place, scope in enumerate(scopes):
            check_known("scope", scope, SCOPES, (*path, "scopes", place))
        callers[name] = Caller(name=name, token_sha256=digest, scopes=scopes)
    return callers


def _default_model(routing: Mapping[str, Any], models: Mapping[str, Model]) -> str | None:
    """The name of the model that calls without one get; `None`: there is none."""
    if "default_model" not in routing:
        return find_model_name(DEFAULT_MODEL, models)
    name = find_model_name(routing["default_model"], models)
    if name is None:
        said = routing["default_model"]
        fail(("routing", "default_model"), f"model {said!r} is not known: {did_you_mean(said, models)}")
    return name

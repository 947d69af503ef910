"""
The providers a file asks for: presets filled in, addresses in one normal form, shares exact.

Law: what a provider does not say is its vendor's; what neither says is an error, never a guess.
Never: echoes a base URL or a credential: people write keys into them.
"""

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

from quota_router.core.catalog import Billing, Family, Network, Provider
from quota_router.core.desired_commands import find_tool, read_command
from quota_router.core.desired_pollers import build_pollers, read_sources, split_url
from quota_router.core.naming import check_known, check_name, fail, read_word
from quota_router.core.networks import read_permit
from quota_router.core.shares import read_share
from quota_router.core.vendors import VENDORS, Vendor
from quota_router.errors import KeyPath

LATER_FAMILIES = ("gemini",)
"""Words of the design that this version does not serve; said so instead of `not known`."""


def build_provider(name: str, table: Mapping[str, Any], pollers: Collection[str] = ()) -> Provider:
    """
    Build one provider.

    Args:
        name: as callers, limits and rules name it.
        table: `[providers.NAME]`, its shape already checked.
        pollers: the presets of quota endpoints that somebody reads.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    path: KeyPath = ("providers", name)
    check_name("provider", name, path)
    preset = _preset(table, path)
    tool = find_tool(table, path)
    family = preset.family if preset else tool.family if tool else Family.OPENAI
    if "family" in table:
        family = read_word("family", table["family"], Family, (*path, "family"), later=LATER_FAMILIES)
    is_command = tool is not None or "command_template" in table
    credential_ref = _credential_ref(table, preset, path, is_command=is_command)
    network = preset.network if preset and not is_command else Network.PUBLIC
    if "network" in table:
        network = read_word("network", table["network"], Network, (*path, "network"))
    account = table.get("account", name)
    check_name("account", account, (*path, "account"))
    return Provider(
        name=name,
        family=family,
        vendor=preset.name if preset else family.value,
        account=account,
        base_url="" if is_command else _base_url(table, preset, family, network, path),
        credential_ref=credential_ref,
        network=network,
        allow=tuple(_allowed(entry, (*path, "allow", index)) for index, entry in enumerate(table.get("allow", ()))),
        billing=read_word("billing", table.get("billing", Billing.METERED.value), Billing, (*path, "billing")),
        enabled=table.get("enabled", True),
        reserve=_reserve(table, path),
        pause_at=_pause_at(table, path),
        pace=table.get("pace", False),
        quota_sources=read_sources(table, path, pollers),
        pollers=build_pollers(table, path, network, pollers),
        command=read_command(table, path, credential_ref),
        default_upstream_model=table.get("model"),
        display_name=table.get("display_name", ""),
        description=table.get("description", ""),
    )


def _preset(table: Mapping[str, Any], path: KeyPath) -> Vendor | None:
    if "vendor" not in table:
        return None
    check_known("vendor", table["vendor"], VENDORS, (*path, "vendor"))
    return VENDORS[table["vendor"]]


# --- addresses and credentials ----------------------------------------------------------------------------------------


def _base_url(table: Mapping[str, Any], preset: Vendor | None, family: Family, network: Network, path: KeyPath) -> str:
    """Normal form: no slash at the end; for anthropic no /v1 either, which its SDK adds."""
    at = (*path, "base_url")
    if "base_url" in table:
        base_url = str(table["base_url"])
    elif preset is None:
        name = path[-1] if path[-1] in VENDORS else family.value
        fail(path, f'neither vendor nor base_url is given: add one, such as vendor = "{name}".')
    elif preset.base_url is None:
        fail(path, f"the address of vendor {preset.name!r} is your own: add base_url, such as {preset.base_url_example!r}.")
    elif preset.family is not family:
        fail(path, f"the preset of vendor {preset.name!r} speaks {preset.family}: add the base_url that speaks {family}.")
    else:
        base_url = preset.base_url
    url = split_url(base_url)
    # The URL is not echoed: people write keys into it.
    if url is None:
        fail(at, "base_url is not a URL: write one such as 'https://api.example.com/v1'.")
    if "@" in url.netloc or url.query or url.fragment:
        fail(at, "base_url holds more than scheme, host, port and path: give a key as credential, and leave out the rest.")
    if network is Network.PUBLIC and url.scheme != "https":
        fail(at, "a public provider is reached by https only: write https, or network = 'private' or 'loopback'.")
    base_url = base_url.rstrip("?#/")
    return base_url.removesuffix("/v1").rstrip("/") if family is Family.ANTHROPIC else base_url


def _credential_ref(table: Mapping[str, Any], preset: Vendor | None, path: KeyPath, *, is_command: bool) -> str:
    if "credential" in table and "api_key_env" in table:
        fail((*path, "api_key_env"), "credential and api_key_env say the same thing: keep one of them.")
    if "credential" in table:
        return str(table["credential"])
    if "api_key_env" in table:
        return f"env:{table['api_key_env']}"
    if is_command:
        return "none"  # the program has signed in by itself
    if preset is None:
        fail(path, 'credential is missing: add one such as "env:NAME", or "none" for a server without keys.')
    return "none" if preset.key_env is None else f"env:{preset.key_env}"


def _allowed(entry: str, path: KeyPath) -> str:
    try:
        read_permit(entry)
    except ValueError as exc:
        fail(path, str(exc))
    return entry


# --- headroom that is left alone --------------------------------------------------------------------------------------


def _reserve(table: Mapping[str, Any], path: KeyPath) -> Fraction:
    reserve = _share(table, "reserve", path) or Fraction(0)
    if reserve == 1:
        fail((*path, "reserve"), "a reserve of all leaves nothing to use: write a smaller share, or enabled = false.")
    return reserve


def _pause_at(table: Mapping[str, Any], path: KeyPath) -> Fraction | None:
    pause_at = _share(table, "pause_at", path)
    if pause_at == 0:
        fail((*path, "pause_at"), "a pause at 0 is a pause for ever: write a larger share, or enabled = false.")
    return pause_at


def _share(table: Mapping[str, Any], key: str, path: KeyPath) -> Fraction | None:
    if key not in table:
        return None
    try:
        return read_share(table[key])
    except ValueError as exc:
        fail((*path, key), str(exc))

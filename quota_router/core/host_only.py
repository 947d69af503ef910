"""
What only the file on the host may say: commands, routers, and addresses beyond the world's.

Law: text that came over HTTP neither adds nor changes any of them, whoever sent it; what stands as it stood may be sent again.
Never: looks at who asks. An admin's token may be stolen, the host's file takes the host.
"""

from collections.abc import Collection
from dataclasses import replace

from quota_router.core.catalog import Catalog, Network, Provider
from quota_router.errors import Forbidden

_BEYOND = (Network.PRIVATE, Network.LOOPBACK)


def take_sent(wanted: Catalog, present: Catalog, networks: Collection[str]) -> Catalog:
    """
    Take a catalog that was sent, unless it says what the API may not set.

    Args:
        wanted: as it would be.
        present: as it is.
        networks: `[server] api_networks`: those that the API may let providers into.

    Returns:
        what is wanted; where it is silent about routers, with those that there are.

    Raises:
        Forbidden: a command or a router is new or another one; a provider reaches beyond public networks, and did not before.
    """
    for provider in wanted.providers.values():
        known = present.providers.get(provider.name)
        if provider.is_command and (known is None or _runs(provider) != _runs(known)):
            raise Forbidden(f"Provider {provider.name!r} runs a command: set that in the file on the host.")
        if _leads_beyond(provider, networks) and (known is None or _reach(provider) != _reach(known)):
            raise Forbidden(
                f"Provider {provider.name!r} reaches beyond public networks: set that in the file on the host,"
                " or name the network in its `[server] api_networks`."
            )
    if wanted.routers not in ((), present.routers):
        raise Forbidden("Routers are code that runs here: set them in the file on the host.")
    return replace(wanted, routers=present.routers)


def _leads_beyond(provider: Provider, networks: Collection[str]) -> bool:
    # An entry of `allow` may name any address, so that it takes both networks.
    named = {*([provider.network] if provider.network in _BEYOND else []), *(_BEYOND if provider.allow else [])}
    return not named <= set(networks)


def _reach(provider: Provider) -> tuple[object, ...]:
    return provider.network, provider.allow, provider.base_url, tuple(poller.url for poller in provider.pollers)


def _runs(provider: Provider) -> tuple[object, ...]:
    return provider.command, provider.credential_ref

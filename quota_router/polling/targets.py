"""
Which quota endpoints a catalog wants asked: one target for each endpoint of an account, however many providers and pollers name it.

Law: a credential goes where its owner has put it and nowhere else. The provider's own goes to its own origin only; an endpoint
that takes another kind is asked with one that the poller was given, or not at all.
Never: asks anything, or reads a secret.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.catalog import HEADERS, Catalog, Poller, Provider
from quota_router.core.readings import ReadingUnit, Said
from quota_router.core.vendors import VENDORS
from quota_router.dialects.vendors import ENDPOINTS, CredentialKind, PointedPoll, PointedWindow, Poll, poll_of, read_poll

Key = tuple[str, ...]
"""Account, kind and address; where the address is the operator's own, the credential too: each may have windows of its own."""

_TAKES = {
    CredentialKind.MANAGEMENT: "a management key",
    CredentialKind.ADMIN: "an admin key of the organisation",
    CredentialKind.SUBSCRIPTION: "a token of the plan, if its vendor's terms allow that",
}


class Target(Struct, frozen=True, kw_only=True):
    """One endpoint of one account, and everybody who wants to know what it tells."""

    key: Key
    provider: Provider
    """under whose network policy it is asked"""
    pollers: tuple[Poller, ...]
    """at least one; all are read from one answer"""
    credential_ref: str | None
    """`none`: it is asked without one; `None`: it takes one that nobody has given"""

    @property
    def account(self) -> str:
        """Whose windows it tells of."""
        return self.provider.account

    @property
    def sources(self) -> tuple[str, ...]:
        """The source of its readings, by poller."""
        return tuple(f"poller:{poller.name}" for poller in self.pollers)

    @property
    def interval_s(self) -> int:
        """How often it is asked: as the most impatient of its pollers wants, but no oftener than the endpoint takes."""
        preset = self.pollers[0].preset
        least_s = ENDPOINTS[preset].interval_min_s if preset is not None else 0
        return max(least_s, min(poller.every_s for poller in self.pollers))

    @property
    def lacking(self) -> str:
        """What to do when there is no credential, as a sentence."""
        poller = self.pollers[0]
        if self.credential_ref is not None:
            return f"The credential {self.credential_ref!r} of poller {poller.name!r} leads to nothing."
        if poller.preset is None:
            return f"The address of poller {poller.name!r} is not its provider's own: give it a credential, or 'none'."
        takes = _TAKES.get(ENDPOINTS[poller.preset].credential, "a key")
        return f"The endpoint {poller.preset!r} takes {takes}: add a poller with that preset and a credential of its own."

    def poll(self, now: datetime) -> Poll:
        """The request to make, without the credential."""
        poller = self.pollers[0]
        return _poll_of(poller, self.provider, now) if poller.preset is not None else _pointed(poller).poll()

    def read(self, poller: Poller, body: bytes, now: datetime) -> tuple[Said, ...]:
        """
        What an answer tells one of its pollers.

        Raises:
            UnreadablePoll: it is not understood.
        """
        return read_poll(poller.preset, body, now) if poller.preset is not None else _pointed(poller).read(body, now)


def targets_of(catalog: Catalog, now: datetime) -> dict[Key, Target]:
    """Every endpoint to be asked: those of all providers that are enabled, paused ones too."""
    found: dict[Key, Target] = {}
    for _, provider in sorted(catalog.providers.items()):
        for poller in _pollers(provider):
            target = _target(poller, provider, now)
            known = found.get(target.key)
            if known is None:
                found[target.key] = target
            elif poller.preset is None and poller not in known.pollers:
                found[target.key] = replace(known, pollers=(*known.pollers, poller))
    return found


def _pollers(provider: Provider) -> Iterator[Poller]:
    if not provider.enabled:
        return
    # A newer version may have left a preset in the ledger that this one does not know.
    yield from (poller for poller in provider.pollers if poller.preset is None or poller.preset in ENDPOINTS)
    named = {poller.name for poller in provider.pollers}
    for source in provider.quota_sources:
        if source != HEADERS and source not in named and source in ENDPOINTS:
            yield Poller(name=source, preset=source)


def _target(poller: Poller, provider: Provider, now: datetime) -> Target:
    if poller.preset is not None:
        address = _poll_of(poller, provider, now).url.partition("?")[0]
        is_own = ENDPOINTS[poller.preset].credential is CredentialKind.CALLS
        ref = poller.credential_ref or (provider.credential_ref if is_own else None)
        key: Key = (provider.account, poller.preset, address)
    else:
        assert poller.url is not None, "a poller has a preset or a url"
        is_own = _origin(poller.url) == _origin(provider.base_url)
        ref = poller.credential_ref or (provider.credential_ref if is_own or provider.is_keyless else None)
        key = (provider.account, "url", poller.url, ref or "")
    return Target(key=key, provider=provider, pollers=(poller,), credential_ref=ref)


def _poll_of(poller: Poller, provider: Provider, now: datetime) -> Poll:
    assert poller.preset is not None
    vendor = VENDORS.get(provider.vendor)
    # A command has no address: its vendor's does, and its plan is asked about there.
    return poll_of(poller.preset, provider.base_url or (vendor.base_url if vendor else None) or "", now)


def _pointed(poller: Poller) -> PointedPoll:
    assert poller.url is not None
    window = PointedWindow(
        window=poller.window,
        unit=ReadingUnit(poller.unit),
        used=poller.used,
        limit=poller.limit,
        share=poller.share,
        remaining=poller.remaining,
        resets_at=poller.resets_at,
        scale=Decimal(poller.scale.numerator) / Decimal(poller.scale.denominator),
    )
    return PointedPoll(url=poller.url, windows=(window,), interval_min_s=max(poller.every_s, 10))


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()

"""
Which addresses a provider may be reached at: the outgoing policy, judged on the address that is about to be connected to.

Law: what is on the never-list, or is our own listen address, is refused whatever the operator allows; an address that no line of
this file knows is refused too.
Never: resolves a name. A name is judged when its address is known, at connect time, so that it cannot point elsewhere in between.

    address                            public      private   loopback
    global unicast                     https only  yes       no
    RFC 1918, fc00::/7, 100.64/10      allow       yes       allow
    127/8, ::1                         allow       allow     yes
    anything else that is special      allow       allow     allow
    the never-list, our own address    no          no        no

Decision 2026-11 -- tables of our own, not `ipaddress.is_global`: Python 3.11 calls NAT64, site-local, multicast and 168.63.129.16
    global. Look again when the registries below give out new ranges.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from quota_router.core.catalog import Network

Address: TypeAlias = IPv4Address | IPv6Address
AddressRange: TypeAlias = IPv4Network | IPv6Network

_PERMITS_CACHED = 1_024
"""How many `allow` lists are remembered: more than any catalog has."""
_LONGEST_PERMIT = 64
_LARGEST_PORT = 65_535
_HTTP_PORT = 80

_NEVER: tuple[tuple[AddressRange, str], ...] = tuple(
    (ip_network(written), what)
    for what, ranges in (
        ("a cloud's metadata address", "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192"),
        ("a cloud's metadata address", "fd00:ec2::/32 fd20:ce::254 fd00:42::42"),
        ("link-local", "169.254.0.0/16 fe80::/10"),
        ("unspecified", "0.0.0.0/8 ::"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        ("reserved", "240.0.0.0/4"),
        ("a documentation address", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20"),
        ("a translated address (NAT64, 6to4 or Teredo)", "64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32"),
        ("site-local", "fec0::/10"),
    )
    for written in ranges.split()
)
"""
No override reaches these. Of the metadata addresses 100.100.100.200 is Alibaba's, 168.63.129.16 Azure's, 192.0.0.192 Oracle's,
fd20:ce::254 Google's, fd00:42::42 Scaleway's; fd00:ec2::/32 holds Amazon's (::254 for instances, ::23 for pods).

Source: the IANA special-purpose address registries (RFC 6890) and the vendors' pages on instance metadata, read 2026-11-20.
"""
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "2001::/23")))
"""Assigned to protocols, relays and benchmarks: neither ours nor the world's."""
_GLOBAL_V6 = ip_network("2000::/3")
"""The only part of IPv6 from which global unicast addresses are given out (RFC 4291 section 2.4, read 2026-11-20)."""

_UNWRITABLE = re.compile(r"[^\x21-\x7e]|[\\^`{|}<>\"]")
"""What no URL holds unescaped (RFC 3986 section 2). Left alone, two parsers may read two different hosts."""
_DIGITS = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """One entry of a provider's `allow`: every address of a range, on one port."""

    addresses: AddressRange
    port: int


def judge(
    address: str,
    port: int,
    network: Network,
    allow: tuple[str, ...],
    own: frozenset[tuple[str, int]],
) -> str | None:
    """
    Whether a provider may be connected to at this address.

    Args:
        address: as the socket is given it: a literal, never a name.
        port: likewise.
        network: the provider's policy.
        allow: the provider's permits beside the policy, see `read_permit`.
        own: the addresses and ports that we listen on ourselves.

    Returns:
        `None`: it may; else a sentence that says why not.
    """
    ip = _read_address(address)
    if ip is None:
        return f"{address!r} is not an IP address."
    if any(port == own_port and ip == _read_address(own_address) for own_address, own_port in own):
        return f"{ip} port {port} is our own listen address: the call would come back to us."
    for addresses, what in _NEVER:
        if ip in addresses:
            return f"{ip} is {what}: no provider may be there, and `allow` does not reach it."
    try:
        return None if _is_permitted(ip, port, allow) else _judge_class(ip, network)
    except ValueError as exc:
        return str(exc)


def judge_url(url: str, network: Network, allow: tuple[str, ...] = ()) -> str | None:
    """
    Whether a URL may be asked at all, before its host is resolved. Its query is the caller's and not looked at.

    Public providers are asked over https, so that a key never crosses the world in the clear; an address that stands in *allow* may
    be asked over http.

    Returns:
        `None`: it may; else a sentence that says why not, without quoting the URL.
    """
    base = url.partition("?")[0]
    try:
        parts = urlsplit(base)
        port = parts.port or _HTTP_PORT
    except ValueError:
        return "The URL has no readable host and port."
    refusal = None
    if _UNWRITABLE.search(base):
        refusal = "The URL holds a character that must be percent-encoded; a host is written in ASCII."
    elif parts.scheme not in {"http", "https"} or not parts.hostname:
        refusal = "The URL must begin with https:// or http:// and name a host."
    elif "@" in parts.netloc or parts.fragment:
        refusal = "The URL must hold neither a user name nor a fragment: a key is configured as `credential`."
    elif network is Network.PUBLIC and parts.scheme == "http":
        refusal = _judge_plain_http(parts.hostname, port, allow)
    return refusal


@lru_cache(maxsize=_PERMITS_CACHED)
def read_permit(text: str) -> Permit:
    """
    Read one entry of `allow`: `ADDRESS:PORT`, `NET/BITS:PORT`, `[IPV6]:PORT` or `[NET/BITS]:PORT`.

    Raises:
        ValueError: the message is a sentence that says what is allowed. Names are not: whoever answers for a name could point it
            anywhere.
    """
    host, _, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        addresses = ip_network(host[1:-1] if is_bracketed else host) if len(text) <= _LONGEST_PERMIT else None
    except ValueError:
        addresses = None
    is_port = _DIGITS.fullmatch(port) is not None and 0 < int(port) <= _LARGEST_PORT
    if addresses is None or not is_port or is_bracketed is not isinstance(addresses, IPv6Network):
        raise ValueError(
            f"allow entry {text[:_LONGEST_PERMIT]!r} cannot be read: write an address or a network and a port, such as "
            "'10.1.2.3:8000', '10.1.2.0/24:443' or '[fd00::1]:8000'; names are not taken."
        )
    return Permit(addresses=addresses, port=int(port))


def _judge_class(ip: Address, network: Network) -> str | None:
    if _is_in(ip, _LOOPBACK):
        what, is_reached = "loopback", network is Network.LOOPBACK
    elif _is_in(ip, _PRIVATE):
        what, is_reached = "private", network is Network.PRIVATE
    elif _is_in(ip, _SPECIAL) or (isinstance(ip, IPv6Address) and ip not in _GLOBAL_V6):
        what, is_reached = "special-purpose", False
    else:
        what, is_reached = "public", network in {Network.PUBLIC, Network.PRIVATE}
    return None if is_reached else f"{ip} is {what}, which network = {network.value!r} does not reach."


def _judge_plain_http(host: str, port: int, allow: tuple[str, ...]) -> str | None:
    ip = _read_address(host)
    try:
        if ip is not None and _is_permitted(ip, port, allow):
            return None
    except ValueError as exc:
        return str(exc)
    return "A provider with network = 'public' is asked over https: plain http needs network = 'private' or 'loopback'."


def _is_permitted(ip: Address, port: int, allow: tuple[str, ...]) -> bool:
    """Whether *allow* names it. Raises `ValueError` when an entry cannot be read: then nothing is permitted."""
    return any(permit.port == port and ip in permit.addresses for permit in _read_permits(allow))


def _read_address(address: str) -> Address | None:
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    # ::ffff:127.0.0.1 reaches 127.0.0.1: it is judged as what it reaches.
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


@lru_cache(maxsize=_PERMITS_CACHED)
def _read_permits(allow: tuple[str, ...]) -> tuple[Permit, ...]:
    return tuple(map(read_permit, allow))


def _is_in(ip: Address, ranges: tuple[AddressRange, ...]) -> bool:
    return any(ip in addresses for addresses in ranges)

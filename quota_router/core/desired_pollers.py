"""
Where a provider's quota is learned from: the headers of its answers, and endpoints that are polled.

Law: a source that nobody reads is refused, and so is a pointer that could point nowhere: a quota that seems watched would not be.
Never: asks an endpoint, or knows what a preset knows; which presets there are is an argument.
"""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from urllib.parse import SplitResult, urlsplit

from quota_router.core.catalog import HEADERS, Network, Poller
from quota_router.core.limits import Unit
from quota_router.core.naming import check_known, check_name, fail
from quota_router.errors import KeyPath

SHARE = "share"
"""The unit of a part of an unknown whole."""
UNITS = (*(unit.value for unit in Unit if unit is not Unit.CONCURRENCY), SHARE)
EVERY_S = 300
"""How often an endpoint is asked where nothing is said."""
POINTERS = ("used", "limit", "share", "remaining", "resets_at")

_LEAST_EVERY_S = 10
"""Quota endpoints are tightly limited themselves: the vendor's side of this is one reason to be blocked."""
_AMOUNTS = ("used", "share", "remaining")
_POINTER = re.compile(r"(?:/(?:[^~/]|~0|~1)*)*")
_WINDOW = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_SCALE_DIGITS = 9
"""Before and behind the point of a scale."""
_LONGEST_SCALE = 32
_OWN_KEYS = (*POINTERS, "scale", "unit", "window")


def read_sources(table: Mapping[str, Any], path: KeyPath, presets: Collection[str]) -> tuple[str, ...]:
    """
    The words of `quota_sources`.

    Raises:
        ConfigError: one is neither `headers`, nor a preset, nor a poller of this provider.
    """
    own = [poller.get("name") for poller in table.get("pollers", ())]
    words = table.get("quota_sources", (HEADERS,))
    for place, word in enumerate(words):
        check_known("quota source", word, (HEADERS, *presets, *own), (*path, "quota_sources", place))
        if word in words[:place]:
            fail((*path, "quota_sources", place), f"quota source {word!r} is named twice: keep one.")
    # A table is asked whether it is named or not.
    return tuple(word for word in words if word not in own)


def build_pollers(table: Mapping[str, Any], path: KeyPath, network: Network, presets: Collection[str]) -> tuple[Poller, ...]:
    """
    The tables `[[providers.X.pollers]]`.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    pollers: dict[str, Poller] = {}
    for index, written in enumerate(table.get("pollers", ())):
        at: KeyPath = (*path, "pollers", index)
        name = written["name"]
        check_name("poller", name, (*at, "name"))
        if name in pollers or name == HEADERS:
            fail((*at, "name"), f"there is a source {name!r} already: name this poller differently.")
        pollers[name] = _of_preset(name, written, at, presets) if "preset" in written else _of_url(name, written, at, network)
    return tuple(pollers.values())


def _of_preset(name: str, written: Mapping[str, Any], path: KeyPath, presets: Collection[str]) -> Poller:
    check_known("poller preset", written["preset"], presets, (*path, "preset"))
    for key in ("url", *_OWN_KEYS):
        if key in written:
            fail((*path, key), f"a preset knows its {key} itself: leave it out, or leave out the preset.")
    return Poller(
        name=name,
        preset=written["preset"],
        credential_ref=written.get("credential"),
        every_s=_every_s(written, path),
    )


def _of_url(name: str, written: Mapping[str, Any], path: KeyPath, network: Network) -> Poller:
    if "url" not in written:
        fail(path, "neither url nor preset is given: add the address to ask, or the name of a preset.")
    _check_url(written["url"], network, (*path, "url"))
    pointers = {key: written[key] for key in POINTERS if key in written}
    for key, pointer in pointers.items():
        if not _POINTER.fullmatch(pointer):
            fail((*path, key), f"{key} is a JSON pointer: write one such as '/data/limit'.")
    if not any(key in pointers for key in _AMOUNTS):
        fail(path, "no number to read is given: add used, remaining or share, each a JSON pointer such as '/data/usage'.")
    unit = written.get("unit", SHARE if SHARE in pointers else None)
    if unit is None:
        fail(path, "unit is missing: say what the numbers count, such as 'usd' or 'requests'.")
    check_known("unit", unit, UNITS, (*path, "unit"))
    if (SHARE in pointers) is not (unit == SHARE):
        fail((*path, "unit"), "a share is read with the pointer share and the unit 'share', and nothing else is.")
    if "window" not in written:
        fail(path, "window is missing: name the window that the numbers speak of, such as '5h' or 'month'.")
    if not _WINDOW.fullmatch(written["window"]):
        fail((*path, "window"), "a window of a poller is a short name such as '5h', '7d' or 'month'.")
    return Poller(
        name=name,
        url=written["url"],
        credential_ref=written.get("credential"),
        **pointers,
        scale=_scale(written.get("scale", 1), (*path, "scale")),
        unit=unit,
        window=written["window"],
        every_s=_every_s(written, path),
    )


def _every_s(written: Mapping[str, Any], path: KeyPath) -> int:
    every_s: int = written.get("every_s", EVERY_S)
    if every_s < _LEAST_EVERY_S:
        fail((*path, "every_s"), f"a quota endpoint is asked at most every {_LEAST_EVERY_S} seconds, not every {every_s}.")
    return every_s


def _check_url(written: str, network: Network, path: KeyPath) -> None:
    # The URL is not echoed: people write keys into it.
    url = split_url(written)
    if url is None:
        fail(path, "url is not a URL: write one such as 'https://api.example.com/v1/quota'.")
    if "@" in url.netloc or url.fragment:
        fail(path, "url holds a user name or a fragment: give a key as credential, and leave out the rest.")
    if network is Network.PUBLIC and url.scheme != "https":
        fail(path, "a public provider is asked by https only: write https, or network = 'private' or 'loopback'.")


def split_url(written: str) -> SplitResult | None:
    """The parts of a URL that can be called; `None`: it is none."""
    try:
        url = urlsplit(written)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if is_complete and written.isascii() and written.isprintable() and " " not in written else None


def _scale(written: Decimal | int | str, path: KeyPath) -> Fraction:
    try:
        number = Decimal(written) if len(str(written)) <= _LONGEST_SCALE else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number <= 0 or not -_SCALE_DIGITS <= number.adjusted() < _SCALE_DIGITS:
        fail(path, "scale is a number that others are multiplied with: write one such as '0.01' for percent.")
    scale = Fraction(number)
    if (scale * 10**_SCALE_DIGITS).denominator != 1:
        fail(path, f"scale has at most {_SCALE_DIGITS} decimals, not {written}.")
    return scale

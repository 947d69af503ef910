"""
A quota endpoint that needs no code: where in its JSON the numbers stand is configuration.

Law: a pointer that cannot be read is refused when it is written; one that leads nowhere when it is read raises `UnreadablePoll`.
Never: guesses a scale or a unit.

Source: RFC 6901 (JSON Pointer), sections 3 and 4, read 2026-11-20.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from math import ceil, floor

from msgspec import Struct

from quota_router.core.readings import ReadingUnit, Said
from quota_router.dialects.vendors.answers import Node, UnreadablePoll, read_json
from quota_router.dialects.vendors.polls import Auth, CredentialKind, Poll
from quota_router.dialects.vendors.values import is_sane, nusd, share_ppm

INTERVAL_MIN_S = 10
"""However often the operator wants to ask."""
_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NOTHING = Decimal(0)
_POINTERS = ("used", "limit", "share", "remaining", "resets_at")


class PointedWindow(Struct, frozen=True, kw_only=True):
    """
    One window at an endpoint of the operator's choice.

    Pointers are JSON pointers; an empty one is the whole answer, `None` is none. A `share` is pointed at as `share`, as what is
    `remaining` of it, or as `used` and `limit` of whatever unit. Other units take `used` and `limit`, `limit` and `remaining`, one
    of them alone, or `remaining` alone: a balance.

    Raises:
        ValueError: a pointer is malformed, or the pointers together tell nothing; the message is a sentence.
    """

    window: str
    unit: ReadingUnit
    model: str = ""
    used: str | None = None
    limit: str | None = None
    share: str | None = None
    remaining: str | None = None
    resets_at: str | None = None
    """RFC 3339, or seconds or milliseconds since 1970"""
    scale: Decimal = Decimal(1)
    """what one of the numbers is in the unit (usd: in dollars; share: of the whole): 0.01 for cents and for percent"""

    def __post_init__(self) -> None:
        for name in _POINTERS:
            pointer = getattr(self, name)
            if pointer is not None:
                _tokens(pointer)
        is_share = self.unit is ReadingUnit.SHARE
        if self.share is not None and not is_share:
            raise ValueError(f"window {self.window!r} counts {self.unit.value}: point at used, limit or remaining, not at share.")
        is_pair = self.used is not None and self.limit is not None
        is_told = (self.share is not None or is_pair) if is_share else (self.used is not None or self.limit is not None)
        if not is_told and self.remaining is None:
            raise ValueError(f"window {self.window!r} points at nothing: give used and limit, remaining, or share.")
        if self.scale == 0 or not is_sane(self.scale):
            raise ValueError(f"window {self.window!r} needs a scale: write what one of its numbers is in {self.unit.value}.")

    def read(self, root: Node, now: datetime) -> Said:
        """
        What an answer says of the window.

        Raises:
            UnreadablePoll: one of the pointers leads nowhere. A null there is "not said".
        """
        used, limit, share, remaining = (self._number(root, at) for at in (self.used, self.limit, self.share, self.remaining))
        resets = _at(root, self.resets_at) if self.resets_at is not None else None
        resets_at = resets.as_moment() if resets is not None and resets.value is not None else None
        if self.unit is ReadingUnit.SHARE:
            part = _part(used, limit, share, remaining)
            return Said(window=self.window, unit=self.unit, model=self.model, share_ppm=part, resets_at=resets_at, observed_at=now)
        if remaining is not None and used is None:
            # A balance: what is left is the cap, and a debt is used beyond a cap of nothing.
            cap = max(_NOTHING, remaining) if limit is None else limit
            used, limit = max(_NOTHING, cap - remaining), cap
        return Said(
            window=self.window,
            unit=self.unit,
            model=self.model,
            used=self._amount(used, is_cap=False),
            limit=self._amount(limit, is_cap=True),
            resets_at=resets_at,
            observed_at=now,
        )

    def _number(self, root: Node, pointer: str | None) -> Decimal | None:
        """The number at *pointer*, in the unit; `None`: there is no such pointer, or a null."""
        found = _at(root, pointer) if pointer is not None else None
        return found.as_number() * self.scale if found is not None and found.value is not None else None

    def _amount(self, value: Decimal | None, *, is_cap: bool) -> int | None:
        """What is used rounded up, and what may be used rounded down."""
        if self.unit is ReadingUnit.USD:
            return nusd(value, is_cap=is_cap)
        if value is None or not is_sane(value):
            return None
        return floor(value) if is_cap else ceil(value)


class PointedPoll(Struct, frozen=True, kw_only=True):
    """
    An endpoint of the operator's choice, and the windows it tells of.

    Raises:
        ValueError: there is no window, or it is to be asked too often; the message is a sentence.
    """

    url: str
    """whole; where it leads is judged when it is connected to"""
    windows: tuple[PointedWindow, ...]
    method: str = "GET"
    auth: Auth = Auth.BEARER
    headers: Mapping[str, str] = {}
    interval_min_s: int = 300

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError(f"the poller of {self.url!r} has no windows: give at least one.")
        if self.interval_min_s < INTERVAL_MIN_S:
            raise ValueError(f"the poller of {self.url!r} asks too often: at least {INTERVAL_MIN_S} s lie between two polls.")

    def poll(self) -> Poll:
        """The request to make; the credential is the poller's own."""
        return Poll(
            method=self.method,
            url=self.url,
            headers={"Accept": "application/json", **self.headers},
            auth=self.auth,
            credential=CredentialKind.OWN,
            interval_min_s=self.interval_min_s,
        )

    def read(self, body: bytes, now: datetime) -> tuple[Said, ...]:
        """
        What an answer says, window by window.

        Raises:
            UnreadablePoll: it is no JSON, or one of the pointers leads nowhere.
        """
        root = read_json(body)
        return tuple(window.read(root, now) for window in self.windows)


def _part(used: Decimal | None, limit: Decimal | None, share: Decimal | None, remaining: Decimal | None) -> int | None:
    """The used part of the whole, in parts per million."""
    if share is not None:
        return share_ppm(share)
    if remaining is not None:
        return share_ppm(max(_NOTHING, 1 - remaining))
    return share_ppm(used / limit) if used is not None and limit else None


def _at(root: Node, pointer: str) -> Node:
    """The value that *pointer* leads to."""
    value = root.value
    for token in _tokens(pointer):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            raise UnreadablePoll(f"`{pointer}` leads nowhere.")
    return Node(value, f"`{pointer}`")


def _tokens(pointer: str) -> list[str]:
    if pointer and (not pointer.startswith("/") or _ESCAPE.search(pointer)):
        raise ValueError(f"{pointer!r} is no JSON pointer: write '/data/limit', with ~1 for / and ~0 for ~ inside a name.")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]

"""
The rate-limit headers of the IETF drafts, which some gateways send.

Law: three generations are read, the newest that is there. A name, number or parameter that is not plain is not said.
Never: counts bytes.

    RateLimit-Policy: "burst";q=100;w=60      RateLimit: "burst";r=50;t=30                       drafts 08 to 10
    RateLimit-Policy: 100;w=60                RateLimit: limit=100, remaining=50, reset=5        draft 07
    RateLimit-Limit: 100, 100;w=60            RateLimit-Remaining: 50    RateLimit-Reset: 5      up to draft 06

Source: draft-ietf-httpapi-ratelimit-headers-10 of 2025-09-27 and its predecessors, read 2026-11-20.

Decision 2026-11 -- lists are cut at commas and parameters at semicolons, without the quoting of structured fields (RFC 9651): a
    policy whose name holds one of them is not read. Look again when one is seen.
Decision 2026-11 -- a policy is the account's: the drafts have no models, only partitions of the server's own making.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta

from quota_router.core.live_windows import window_name
from quota_router.core.readings import WINDOW_MAX, ReadingUnit, Said
from quota_router.dialects.vendors.values import Told, seconds, whole

UNNAMED_WINDOW = "default"
"""Where a vendor gives its window neither a name nor a length."""

_POLICIES_MAX = 16
_NAME = re.compile(r"[A-Za-z0-9_.:/*-]{1,64}")
_UNITS = {
    "requests": ReadingUnit.REQUESTS,
    "concurrent-requests": ReadingUnit.CONCURRENCY,
    "tokens": ReadingUnit.TOKENS,
}
"""`qu`, the quota unit; requests unless said. `tokens` is no word of the draft, but some gateways count them."""

_Items = dict[str, Mapping[str, str]]


def read_ietf(told: Told) -> Iterator[Said]:
    """Every policy that the answer tells of."""
    current, policy = told.headers.get("ratelimit"), told.headers.get("ratelimit-policy")
    if current is not None and "limit=" in current:
        fields = dict(map(_pair, current.split(",")))
        yield from _plain(fields, _items(policy), told)
    elif current is not None or (policy is not None and "q=" in policy):
        yield from _named(_items(current), _items(policy), told)
    elif "ratelimit-limit" in told.headers:
        fields = {name: told.headers.get(f"ratelimit-{name}", "") for name in ("limit", "remaining", "reset")}
        yield from _plain(fields, _items(fields["limit"]) | _items(policy), told)


def _named(current: _Items, policies: _Items, told: Told) -> Iterator[Said]:
    for name in current | policies:
        policy, now = policies.get(name, {}), current.get(name, {})
        unit = _UNITS.get(policy.get("qu", "requests"))
        limit, remaining = whole(policy.get("q")), whole(now.get("r"))
        if unit is not None:
            yield from _said(name, unit, limit, remaining, now.get("t"), told)


def _plain(fields: Mapping[str, str], policies: _Items, told: Told) -> Iterator[Said]:
    """One unnamed window: of several lengths the shortest, which is the one that a server counts down."""
    limit = fields.get("limit", "").partition(",")[0].partition(";")[0]
    lengths_s = [length for policy in policies.values() if (length := whole(policy.get("w")))]
    is_short = bool(lengths_s) and min(lengths_s) <= WINDOW_MAX.total_seconds()
    window = window_name(timedelta(seconds=min(lengths_s))) if is_short else UNNAMED_WINDOW
    yield from _said(window, ReadingUnit.REQUESTS, whole(limit), whole(fields.get("remaining")), fields.get("reset"), told)


def _said(
    window: str, unit: ReadingUnit, limit: int | None, remaining: int | None, reset: str | None, told: Told
) -> Iterator[Said]:
    cap = remaining if limit is None else limit
    if cap is None:
        return
    yield Said(
        window=window,
        unit=unit,
        used=None if remaining is None else max(0, cap - remaining),
        limit=cap,
        resets_at=seconds(reset, told) if reset is not None else None,
        observed_at=told.now,
    )


def _items(value: str | None) -> _Items:
    """The items of a list with their parameters."""
    found: _Items = {}
    for item in (value or "").split(",")[:_POLICIES_MAX]:
        name, *parameters = item.split(";")
        name = name.strip().strip('"')
        if _NAME.fullmatch(name):
            found[name] = dict(_pair(parameter) for parameter in parameters[:_POLICIES_MAX])
    return found


def _pair(piece: str) -> tuple[str, str]:
    name, _, value = piece.partition("=")
    return name.strip(), value.strip().strip('"')

"""
The windows of Anthropic's subscriptions, as headers tell of them.

Law: claims are read by their form, not from a list: new ones appear over time. What is refused is what the vendor calls `rejected`.
Never: takes a way to pay beyond the windows (`overage`) for a window.

    anthropic-ratelimit-unified-{claim}-{status | utilization | reset | …}     claim: 5h, 7d, 7d_opus, 7d_oi, overage, …
    anthropic-ratelimit-unified-{status | reset | representative-claim}        of all claims together

Source: upstreams.md A.3 (dumps of public clients, undocumented by the vendor), read 2026-11-20.

Decision 2026-11 -- a claim is a window and, behind `_`, the models it is about, so that the header's `7d_opus` and the usage
    endpoint's `seven_day_opus` are one reading. `oi` was only ever seen for Fable.
"""

import re
from collections.abc import Iterator

from msgspec.structs import replace

from quota_router.core.readings import ReadingUnit, Said, Status
from quota_router.dialects.vendors.values import Told, decimal, epoch, share_ppm, status

EXTRA_WINDOW = "overage"
CLAIMS = {
    "five_hour": "5h",
    "seven_day": "7d",
    "seven_day_opus": "7d_opus",
    "seven_day_sonnet": "7d_sonnet",
    "seven_day_overage_included": "7d_oi",
}
"""The long names of claims, as `representative-claim` and the usage endpoint say them."""

_UNIFIED = "anthropic-ratelimit-unified-"
_SUFFIXES = ("surpassed-threshold", "disabled-reason", "utilization", "status", "reset")
"""The longest first; what stands before one is the claim."""
_NO_CLAIMS = ("grace", "fallback", "upgrade")
_GROUPS = {"oi": "*fable*"}
_CLAIMS_MAX = 16
_NAME = re.compile(r"(?=.{1,40}\Z)[a-z0-9]+(?:[_-][a-z0-9]+)*")
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


def read_unified(told: Told) -> Iterator[Said]:
    """Every window of the subscription that the answer tells of."""
    claims, overall = _sort(told)
    windows = {claim: _window(claim, fields, told) for claim, fields in claims.items()}
    overall_status = status(overall.get("status"))
    if overall_status is not None:
        chief = told.headers.get(_UNIFIED + "representative-claim", "").strip()
        claim = CLAIMS.get(chief, chief if _NAME.fullmatch(chief) else "unified")
        known = windows.get(claim)
        if known is not None and overall_status is Status.REJECTED:
            windows[claim] = replace(known, status=overall_status)
        elif known is None and (overall_status is Status.REJECTED or not windows):
            alone = _window(claim, overall, told)
            # A name that we do not know may be of some models only: of those, the one that was called is certain.
            windows[claim] = alone if chief in CLAIMS else replace(alone, window=claim, model=told.model)
    yield from (said for said in windows.values() if said.status is not None or said.share_ppm is not None)


def scope_of(claim: str) -> tuple[str, str]:
    """The window and the models of a claim: `7d_opus` is the week of whatever is called Opus."""
    window, _, group = claim.partition("_")
    return window, _GROUPS.get(group) or models_called(group)


def models_called(name: str) -> str:
    """The pattern of the upstream models that a vendor calls *name*; empty for no name: all of them."""
    words = _NOT_PLAIN.sub("*", name.lower()).strip("*")
    return f"*{words}*" if words else ""


def _sort(told: Told) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The fields of each claim, and those of all together."""
    claims: dict[str, dict[str, str]] = {}
    overall: dict[str, str] = {}
    for name, value in told.headers.items():
        if not name.startswith(_UNIFIED):
            continue
        rest = name.removeprefix(_UNIFIED)
        suffix = next((suffix for suffix in _SUFFIXES if rest.endswith(suffix)), None)
        claim = rest.removesuffix(suffix).removesuffix("-") if suffix is not None else ""
        if suffix is not None and rest == suffix:
            overall[suffix] = value
        elif suffix is not None and _NAME.fullmatch(claim) and not rest.startswith(_NO_CLAIMS) and len(claims) < _CLAIMS_MAX:
            claims.setdefault(claim, {})[suffix] = value
    return claims, overall


def _window(claim: str, fields: dict[str, str], told: Told) -> Said:
    is_extra = claim.startswith(EXTRA_WINDOW)
    window, model = (claim, "") if is_extra else scope_of(claim)
    reset = fields.get("reset")
    return Said(
        window=window,
        unit=ReadingUnit.SHARE,
        model=model,
        share_ppm=share_ppm(decimal(fields.get("utilization"))),
        status=status(fields.get("status")),
        resets_at=epoch(reset, told) if reset is not None else None,
        is_extra=is_extra,
        observed_at=told.now,
    )

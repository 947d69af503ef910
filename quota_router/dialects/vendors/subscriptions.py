"""
What subscriptions tell at their vendors' private usage endpoints.

Law: read only with a token that the operator supplies for it, and as rarely as `polls` says; the headers of answers tell the same.
Never: refreshes, stores or fetches such a token, nor poses as the vendor's own client. The vendor's terms decide whether it may be
used.

Source: upstreams.md B1 and B2 (as public clients read them; undocumented, they change), read 2026-11-20.
"""

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from quota_router.core.readings import ReadingUnit, Said, Status
from quota_router.dialects.vendors.answers import Node, UnreadablePoll, percent, spent
from quota_router.dialects.vendors.anthropic import CLAIMS, EXTRA_WINDOW, models_called, scope_of
from quota_router.dialects.vendors.codex import CREDITS_WINDOW, named_by_length

_CENTS = 100
_ACCOUNT_KINDS = {"session": "5h", "weekly_all": "7d"}
_SCOPED_KIND = "weekly_scoped"
_CODEX_SLOTS = ("primary", "secondary")


def read_anthropic_subscription(body: Node, now: datetime) -> Iterator[Said]:
    """
    The windows, told twice: by name, and in the list that also has those of single models. Paid extra usage binds nothing.

    A plan that its organisation manages may tell no numbers: then there are no readings.
    """
    if not isinstance(body.value, dict) or not ({"limits", *CLAIMS} & set(body.value)):
        raise UnreadablePoll("The answer has neither `five_hour` nor `limits`.")
    found: dict[tuple[str, str], Said] = {}
    for name, claim in CLAIMS.items():
        told = body.get(name)
        if told is not None:
            window, model = scope_of(claim)
            found[window, model] = percent(window, told.number("utilization"), told.moment("resets_at"), now, model=model)
    for limit in body.each("limits"):
        kind = limit.text("kind")
        scope = limit.get("scope")
        named = scope.get("model") if scope is not None else None
        model = models_called(named.text("display_name")) if named is not None else ""
        window = _ACCOUNT_KINDS.get(kind, "7d" if kind == _SCOPED_KIND and model else "")
        if window and (window, model) not in found:
            found[window, model] = percent(window, limit.number("percent"), limit.moment("resets_at"), now, model=model)
    yield from (said for said in found.values() if said.share_ppm is not None)
    extra = body.get("extra_usage")
    if extra is not None and extra.flag("is_enabled") and extra.text("currency").upper() == "USD":
        used, cap = extra.number("used_credits"), extra.number("monthly_limit")
        yield replace(spent(EXTRA_WINDOW, used, cap, None, now, per_usd=_CENTS), is_extra=True)


def read_codex_subscription(body: Node, now: datetime) -> Iterator[Said]:
    """The windows of the plan, those of single models, and the credits beyond them."""
    limits = body["rate_limit"]
    windows = list(_codex_windows(limits, "", now))
    if limits.flag("limit_reached") and windows:
        # Which window is full is not said: the fuller one.
        fullest = max(windows, key=lambda said: said.share_ppm or 0)
        windows[windows.index(fullest)] = replace(fullest, status=Status.REJECTED)
    yield from windows
    for further in body.each("additional_rate_limits"):
        name, told = further.text("limit_name").strip().lower().replace("*", ""), further.get("rate_limit")
        if name and told is not None:
            yield from _codex_windows(told, name, now)
    credits_left = body.get("credits")
    if credits_left is not None:
        is_usable = bool(credits_left.flag("unlimited") or credits_left.flag("has_credits"))
        status = Status.ALLOWED if is_usable else Status.REJECTED
        yield Said(window=CREDITS_WINDOW, unit=ReadingUnit.SHARE, status=status, is_extra=True, observed_at=now)


def _codex_windows(limits: Node, model: str, now: datetime) -> Iterator[Said]:
    for slot in _CODEX_SLOTS:
        window = limits.get(f"{slot}_window")
        if window is not None:
            name = named_by_length(window.count("limit_window_seconds"), slot)
            yield percent(name, window["used_percent"].as_number(), window.moment("reset_at"), now, model=model)

"""
The windows of ChatGPT subscriptions, as Codex' backend tells of them in headers.

Law: windows are named by their length: which one is "primary" differs between plans. A family other than `codex` is about one
model.
Never: takes credits for a window: they pay beyond the windows.

    x-{family}-{primary | secondary}-{used-percent | window-minutes | reset-at | reset-after-seconds}     x-{family}-limit-name
    x-codex-credits-{has-credits | unlimited | balance}

Source: openai/codex, rate_limits.rs and api_bridge.rs (upstreams.md A.4), read 2026-11-20: families are found by their
`-primary-used-percent`, and a window of length 0 with nothing used and no reset is absent.
"""

from collections.abc import Iterator
from datetime import timedelta

from quota_router.core.live_windows import window_name
from quota_router.core.readings import WINDOW_MAX, ReadingUnit, Said, Status
from quota_router.dialects.vendors.values import Told, decimal, epoch, seconds, share_ppm, whole

DEFAULT_FAMILY = "x-codex"
CREDITS_WINDOW = "credits"

_SLOTS = ("primary", "secondary")
_USED = "-used-percent"
_FAMILIES_MAX = 16
_NAME_MAX_CHARS = 100


def read_codex(told: Told) -> Iterator[Said]:
    """Every window of the subscription that the answer tells of."""
    headers = told.headers
    families = {name.removesuffix(f"-{slot}{_USED}") for slot in _SLOTS for name in headers if name.endswith(f"-{slot}{_USED}")}
    for family in sorted(families)[:_FAMILIES_MAX]:
        model = "" if family == DEFAULT_FAMILY else _model(family, told)
        for slot in _SLOTS:
            yield from _window(f"{family}-{slot}", slot, model, told)
    if f"{DEFAULT_FAMILY}-credits-has-credits" in headers:
        unlimited, has = (headers.get(f"{DEFAULT_FAMILY}-credits-{what}", "").lower() for what in ("unlimited", "has-credits"))
        yield Said(
            window=CREDITS_WINDOW,
            unit=ReadingUnit.SHARE,
            status=Status.ALLOWED if "true" in {unlimited, has} else Status.REJECTED,
            is_extra=True,
            observed_at=told.now,
        )


def named_by_length(length_s: int | None, slot: str) -> str:
    """The name of a window that lasts so long; *slot* where that is not said."""
    if length_s is None or not 0 < length_s <= WINDOW_MAX.total_seconds():
        return slot
    return window_name(timedelta(seconds=length_s))


def _window(stem: str, slot: str, model: str, told: Told) -> Iterator[Said]:
    headers = told.headers
    used_ppm = share_ppm(decimal(headers.get(stem + _USED)), per=100)
    minutes = whole(headers.get(stem + "-window-minutes"))
    reset_at, reset_after = headers.get(stem + "-reset-at"), headers.get(stem + "-reset-after-seconds")
    is_absent = not used_ppm and not minutes and reset_at is None
    if used_ppm is None or is_absent:
        return
    resets_at = epoch(reset_at, told) if reset_at is not None else None
    if resets_at is None and reset_after is not None:
        resets_at = seconds(reset_after, told)
    yield Said(
        window=named_by_length(minutes * 60 if minutes is not None else None, slot),
        unit=ReadingUnit.SHARE,
        model=model,
        share_ppm=used_ppm,
        resets_at=resets_at,
        observed_at=told.now,
    )


def _model(family: str, told: Told) -> str:
    """The model of a further family; without one the family's id, which is no model's name, so that it binds nobody."""
    name = told.headers.get(f"{family}-limit-name", "").strip().lower()
    is_name = 0 < len(name) <= _NAME_MAX_CHARS and name.isprintable() and "*" not in name
    return name if is_name else family[:_NAME_MAX_CHARS].removeprefix("x-").replace("-", "_")

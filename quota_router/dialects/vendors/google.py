"""
Google's errors: AI Studio's and Vertex's compatible endpoints, and Anthropic's models on Vertex.

Law: `details` before words before the status. A day's quota is not over in the seconds that `retryDelay` names.

Rows: upstreams.md C.2 (Gemini; gemini-cli's own reading of it), read 2026-11-20.

Decision 2026-11 -- a day ends at midnight in California by the documentation, at 00:00 UTC by one test (upstreams.md H.2): the
    earlier of the two is taken, for a wrong guess costs one probe.
"""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from quota_router.core.health import FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody
from quota_router.dialects.failures import seconds_of, soonest
from quota_router.dialects.headers import after
from quota_router.dialects.traps import Row

_REASONS: dict[str, Row] = {
    "api_key_invalid": FailureKind.AUTH,
    "api_key_service_blocked": FailureKind.AUTH,
    "validation_required": FailureKind.AUTH,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "quota_exhausted": FailureKind.QUOTA_WINDOW,
    "insufficient_g1_credits_balance": FailureKind.BILLING,
    "model_capacity_exhausted": FailureKind.OVERLOADED,
}
"""`ErrorInfo.reason`"""
_STATUSES: dict[str, Row] = {
    "unauthenticated": FailureKind.AUTH,
    "permission_denied": FailureKind.AUTH,
    "not_found": FailureKind.MODEL_UNAVAILABLE,
    "unavailable": FailureKind.OVERLOADED,
    "internal": FailureKind.TRANSIENT,
    "deadline_exceeded": FailureKind.TRANSIENT,
    "cancelled": FailureKind.TRANSIENT,
    # The free tier is not offered where the caller is, or billing is off.
    "failed_precondition": FailureKind.BILLING,
}
_HAS_NONE = re.compile(r"you exceeded your current quota\b[^\n]*(?:\n[^\n]*)?\blimit: 0\b")
"""This tier has no quota for the model at all."""
_IS_DAILY = re.compile(r"perday|daily")
_LONGEST_MINUTE_S = 300
"""gemini-cli takes a longer `retryDelay` for the end of a window."""
_CALIFORNIA = ZoneInfo("America/Los_Angeles")


def read(error: ErrorBody, status: int, now: datetime) -> tuple[Row | None, datetime | None]:
    """What Google's own fields say, and when to come back; nothing, where there are none."""
    if not isinstance(error.at("status"), str):
        return None, None
    details = error.objects("details")
    delay_s = next((seconds_of(item["retryDelay"]) for item in details if "retryDelay" in item), None)
    row = _judge(error, status, details, delay_s)
    kind = row[0] if isinstance(row, tuple) else row
    if kind is FailureKind.QUOTA_WINDOW and (delay_s is None or delay_s <= _LONGEST_MINUTE_S):
        return row, _day_end(now)
    if delay_s is None or kind is FailureKind.MODEL_UNAVAILABLE:  # no delay brings a quota that is none
        return row, None
    return row, after(delay_s, now)


def _judge(error: ErrorBody, status: int, details: list[dict[str, object]], delay_s: float | None) -> Row | None:
    reasons = (_REASONS.get(str(item.get("reason")).lower()) for item in details)
    reason = next((row for row in reasons if row is not None), None)
    if status == 429:  # noqa: PLR2004 -- the row of quotas
        if _HAS_NONE.match(error.message):
            return FailureKind.MODEL_UNAVAILABLE
        violations = [entry for item in details for entry in _list(item.get("violations"))]
        daily = [name for entry in violations if _IS_DAILY.search(name := str(entry.get("quotaId")).lower())]
        if daily:
            is_models = all("permodel" in name for name in daily)
            return FailureKind.QUOTA_WINDOW, Scope.ATTACHMENT if is_models else Scope.ACCOUNT
        if reason is None and delay_s is not None and delay_s > _LONGEST_MINUTE_S:
            return FailureKind.QUOTA_WINDOW
    return reason


def by_status_word(error: ErrorBody) -> Row | None:
    """What `error.status` says; 400, 402 and 429 share words with other causes and are told apart by their numbers."""
    return _STATUSES.get(error.text("status"))


def _list(value: object) -> list[dict[str, object]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _day_end(now: datetime) -> datetime | None:
    """The next midnight, of whichever of the two zones comes first."""
    zones = (UTC, _CALIFORNIA)
    midnights = [
        (now.astimezone(zone) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        for zone in zones
    ]
    return soonest(*midnights)

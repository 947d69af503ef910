"""
OpenRouter's errors: `metadata` and `availability` beside a code that is the HTTP status.

Law: `limit_source` before `availability` before `error_type`; what the caller's own routing wishes exclude never cools the rung.

Rows: upstreams.md C.2 (its documentation of errors and limits), read 2026-11-20; `openrouter_free_tier_daily` and
`upstream_provider_shared_pool` from Atlas #543 and open-webui/computer #293, `token_limit_exceeded` ("a token budget enforced by
OpenRouter") from a digest of its documentation, developersdigest.tech, read 2026-11-25.
"""

from datetime import datetime

from quota_router.core.health import FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody
from quota_router.dialects.failures import instant
from quota_router.dialects.headers import after
from quota_router.dialects.traps import Row

_KEYS = (FailureKind.BILLING, Scope.PROVIDER)
_THIS_CALLS = (FailureKind.MODEL_UNAVAILABLE, Scope.CALL)

_LIMITS: dict[str, Row] = {
    "openrouter_in_flight_budget": FailureKind.IN_FLIGHT_BUDGET,
    "openrouter_credits": FailureKind.BILLING,
    "openrouter_key_limit": _KEYS,
    "openrouter_guardrail_budget": _KEYS,
    "openrouter_workspace_budget": FailureKind.BILLING,
    "openrouter_free_tier_daily": (FailureKind.QUOTA_WINDOW, Scope.ATTACHMENT),
    "upstream_provider_shared_pool": FailureKind.RATE_LIMITED,
}
_AVAILABILITY: dict[str, Row] = {
    "capacity_exhausted": FailureKind.RATE_LIMITED,
    "temporarily_unavailable": FailureKind.OVERLOADED,
    "model_not_found": FailureKind.MODEL_UNAVAILABLE,
    "no_endpoints": FailureKind.MODEL_UNAVAILABLE,
    "model_deprecated": FailureKind.MODEL_UNAVAILABLE,
    "free_variant_ended": FailureKind.MODEL_UNAVAILABLE,
    "region_restricted": FailureKind.MODEL_UNAVAILABLE,
    "privacy_restricted": _THIS_CALLS,
    "constraint_filtered": _THIS_CALLS,
    "wrong_endpoint": FailureKind.CLIENT_ERROR,
}
_TYPES: dict[str, Row] = {
    "context_length_exceeded": FailureKind.CONTEXT_TOO_LONG,
    "token_limit_exceeded": (FailureKind.BILLING, Scope.CALL),
    "max_tokens_exceeded": FailureKind.CLIENT_ERROR,
    "string_too_long": FailureKind.CLIENT_ERROR,
    "authentication": FailureKind.AUTH,
    "permission_denied": FailureKind.AUTH,
    "payment_required": FailureKind.BILLING,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "provider_overloaded": FailureKind.OVERLOADED,
    "provider_unavailable": FailureKind.TRANSIENT,
    "invalid_request": FailureKind.CLIENT_ERROR,
    "invalid_prompt": FailureKind.CONTENT_POLICY,
    "not_found": FailureKind.MODEL_UNAVAILABLE,
    "payload_too_large": FailureKind.CLIENT_ERROR,
    "unprocessable": FailureKind.CLIENT_ERROR,
    "content_policy_violation": FailureKind.CONTENT_POLICY,
    "refusal": FailureKind.CONTENT_POLICY,
    "server": FailureKind.TRANSIENT,
    "timeout": FailureKind.TRANSIENT,
}
_JUDGED_THE_PROMPT = ("patterns", "reasons", "flagged_input")


def judge(error: ErrorBody, status: int) -> Row | None:
    """What OpenRouter's own fields say; `None` where there are none."""
    if status == 403 and any(error.at("metadata", name) is not None for name in _JUDGED_THE_PROMPT):  # noqa: PLR2004 -- a row
        return FailureKind.CONTENT_POLICY
    row = _LIMITS.get(error.text("metadata", "limit_source"))
    if row is not None and error.text("metadata", "reason") == "weight_exceeds_budget":
        # Too dear by itself: others may serve it, and the rung is fine.
        return (row if isinstance(row, FailureKind) else row[0]), Scope.CALL
    row = row or _AVAILABILITY.get(error.text("availability", "code")) or _TYPES.get(error.text("metadata", "error_type"))
    if row is None and error.at("availability", "retryable") is True:
        return FailureKind.OVERLOADED  # a code of tomorrow: `retryable` is what it says to switch on
    return row


def said(error: ErrorBody, now: datetime) -> datetime | None:
    """When to come back: a budget names the instant, an availability the wait, a free tier what its header would say."""
    wait_s = error.at("availability", "retry_after")
    if isinstance(wait_s, int | float) and not isinstance(wait_s, bool):
        return after(wait_s, now)
    reset = error.at("metadata", "headers", "X-RateLimit-Reset")
    epoch_ms = int(reset) if isinstance(reset, str) and reset.isascii() and reset.isdigit() and len(reset) <= 13 else None  # noqa: PLR2004 -- milliseconds
    return instant(error.at("metadata", "resets_at"), now) or instant(epoch_ms, now)

"""
OpenAI's failures, as tables, and those of vendors that speak its dialect.

Law: `code` before `type` before message before status. A vendor's own fields are read only where they cannot be mistaken:
OpenRouter's `metadata` and `availability`, Azure's `innererror`.

Rows: upstreams.md C.2 and C.3 (OpenAI's help pages and SDK 3.52, OpenRouter, Azure, DeepSeek, Together, Codex), read 2026-11-20.
"""

from collections.abc import Mapping
from datetime import datetime

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.failures import ErrorBody, Trap, by_status, failed, instant, read_error, scoped, trapped
from quota_router.dialects.headers import after

_IN_STREAM_STATUS = 200

_BY_CODE: dict[str, FailureKind] = {
    "credit_balance_exhausted": FailureKind.BILLING,
    "organization_usage_limit_exceeded": FailureKind.BILLING,
    "organization_spend_limit_exceeded": FailureKind.BILLING,
    "project_spend_limit_exceeded": FailureKind.BILLING,
    "insufficient_quota": FailureKind.BILLING,
    "billing_hard_limit_reached": FailureKind.BILLING,
    "billing_not_active": FailureKind.BILLING,
    "usage_limit_reached": FailureKind.QUOTA_WINDOW,
    "usage_not_included": FailureKind.MODEL_UNAVAILABLE,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "server_is_overloaded": FailureKind.OVERLOADED,
    "nocapacity": FailureKind.OVERLOADED,
    "server_error": FailureKind.TRANSIENT,
    "invalid_api_key": FailureKind.AUTH,
    "unsupported_country_region_territory": FailureKind.AUTH,
    "model_not_found": FailureKind.MODEL_UNAVAILABLE,
    "deploymentnotfound": FailureKind.MODEL_UNAVAILABLE,
    "context_length_exceeded": FailureKind.CONTEXT_TOO_LONG,
    "content_policy_violation": FailureKind.CONTENT_POLICY,
    "content_filter": FailureKind.CONTENT_POLICY,
    "responsibleaipolicyviolation": FailureKind.CONTENT_POLICY,
    "cyber_policy": FailureKind.CONTENT_POLICY,
    "bio_policy": FailureKind.CONTENT_POLICY,
    "misalignment_policy_violation": FailureKind.CONTENT_POLICY,
    "invalid_prompt": FailureKind.CONTENT_POLICY,
}
"""Lower case, as compared."""

_BY_TYPE: dict[str, FailureKind] = {
    "insufficient_quota": FailureKind.BILLING,
    "usage_limit_reached": FailureKind.QUOTA_WINDOW,
    "usage_not_included": FailureKind.MODEL_UNAVAILABLE,
    "requests": FailureKind.RATE_LIMITED,
    "tokens": FailureKind.RATE_LIMITED,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "service_unavailable_error": FailureKind.OVERLOADED,
    "overloaded_error": FailureKind.OVERLOADED,
    "authentication_error": FailureKind.AUTH,
    "server_error": FailureKind.TRANSIENT,
}

_OPENROUTER_TYPES: dict[str, FailureKind] = {
    "context_length_exceeded": FailureKind.CONTEXT_TOO_LONG,
    "token_limit_exceeded": FailureKind.CONTEXT_TOO_LONG,
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
_OPENROUTER_LIMITS: dict[str, FailureKind] = {
    "openrouter_in_flight_budget": FailureKind.IN_FLIGHT_BUDGET,
    "openrouter_credits": FailureKind.BILLING,
    "openrouter_key_limit": FailureKind.BILLING,
    "openrouter_guardrail_budget": FailureKind.BILLING,
    "openrouter_workspace_budget": FailureKind.BILLING,
}
_OPENROUTER_AVAILABILITY: dict[str, FailureKind] = {
    "capacity_exhausted": FailureKind.RATE_LIMITED,
    "temporarily_unavailable": FailureKind.OVERLOADED,
    "model_not_found": FailureKind.MODEL_UNAVAILABLE,
    "no_endpoints": FailureKind.MODEL_UNAVAILABLE,
    "model_deprecated": FailureKind.MODEL_UNAVAILABLE,
    "privacy_restricted": FailureKind.MODEL_UNAVAILABLE,
    "constraint_filtered": FailureKind.MODEL_UNAVAILABLE,
    "free_variant_ended": FailureKind.MODEL_UNAVAILABLE,
    "region_restricted": FailureKind.MODEL_UNAVAILABLE,
    "wrong_endpoint": FailureKind.CLIENT_ERROR,
}

_OPEN = frozenset({400, 403, 413, 422})
_TRAPS = (
    Trap(statuses=_OPEN, starts="this model's maximum context length", kind=FailureKind.CONTEXT_TOO_LONG),
    Trap(statuses=_OPEN, starts="this endpoint's maximum context length", kind=FailureKind.CONTEXT_TOO_LONG),
    # Together answers 403 when input and max_tokens exceed the context.
    Trap(statuses=_OPEN, starts="input validation error: `inputs` tokens", kind=FailureKind.CONTEXT_TOO_LONG),
    # Azure tells capacity from allocation only in words.
    Trap(statuses=frozenset({429}), starts="system is experiencing high demand", kind=FailureKind.OVERLOADED),
    Trap(statuses=frozenset({429}), starts="the system is experiencing high demand", kind=FailureKind.OVERLOADED),
)


def classify(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Failure:
    """
    What an answer other than 2xx means.

    Args:
        status: HTTP status.
        headers: of the answer; names in lower case, or a mapping that ignores case.
        body: as it came, possibly cut or no JSON at all.
        now: aware UTC.
    """
    error = read_error(body)
    return failed(_judge(error, status, headers), status=status, headers=headers, now=now, said=_said(error, now))


def classify_event(data: bytes, now: datetime) -> Failure:
    """What an error inside a 200 means: *data* is an SSE event, or a whole body."""
    error = read_error(data)
    code = error.fields.get("code")
    if isinstance(code, int) and 400 <= code < 600:  # noqa: PLR2004 -- OpenRouter's codes are HTTP statuses
        stands_for = code
    else:
        stands_for = 400 if error.text("type") == "invalid_request_error" else 500
    return failed(_judge(error, stands_for, {}), status=_IN_STREAM_STATUS, headers={}, now=now, said=_said(error, now))


def _judge(error: ErrorBody, status: int, headers: Mapping[str, str]) -> tuple[FailureKind, Scope]:
    code = error.text("code")
    kind = _openrouter(error, status)
    if kind is None and code == "slow_down":
        kind = FailureKind.OVERLOADED if status == 503 else FailureKind.RATE_LIMITED  # noqa: PLR2004 -- a row
    kind = (
        kind
        or _BY_CODE.get(code)
        or _BY_CODE.get(error.text("innererror", "code"))
        or _BY_TYPE.get(error.text("type"))
        or trapped(error, status, _TRAPS)
    )
    # These two can never fit this rung's limit: others may serve it, and the rung is fine.
    is_too_large = kind is FailureKind.RATE_LIMITED and error.message.startswith("request too large for")
    is_too_dear = error.text("metadata", "reason") == "weight_exceeds_budget"
    if kind is not None and (is_too_large or is_too_dear):
        return kind, Scope.CALL
    return scoped(kind) if kind is not None else by_status(error, status, headers)


def _openrouter(error: ErrorBody, status: int) -> FailureKind | None:
    metadata = error.fields.get("metadata")
    if not isinstance(metadata, dict):
        return _OPENROUTER_AVAILABILITY.get(error.text("availability", "code"))
    if status == 403 and any(name in metadata for name in ("patterns", "reasons", "flagged_input")):  # noqa: PLR2004 -- a row
        return FailureKind.CONTENT_POLICY
    return (
        _OPENROUTER_LIMITS.get(error.text("metadata", "limit_source"))
        or _OPENROUTER_AVAILABILITY.get(error.text("availability", "code"))
        or _OPENROUTER_TYPES.get(error.text("metadata", "error_type"))
    )


def _said(error: ErrorBody, now: datetime) -> datetime | None:
    """When the body says to come back: Codex and OpenRouter name it there."""
    metadata, availability = error.fields.get("metadata"), error.fields.get("availability")
    inner = metadata if isinstance(metadata, dict) else {}
    wait_s = availability.get("retry_after") if isinstance(availability, dict) else None
    if isinstance(wait_s, int | float) and not isinstance(wait_s, bool):
        return after(wait_s, now)
    return instant(error.fields.get("resets_at"), now) or instant(inner.get("resets_at"), now)

"""
OpenAI's failures, as tables, and those of vendors that speak its dialect.

Law: `code` before `type` before status; where a message says more than its type it stands between them (`dialects/traps`). A
vendor's own fields are read before all of these, and only where they cannot be mistaken.

Rows: upstreams.md A.4, C.2 and C.3 (OpenAI's help pages and SDK 3.52, Azure, DeepSeek, Codex), read 2026-11-20; Groq, Cerebras,
Mistral, Moonshot, MiniMax and llama.cpp from the threads that the fixtures in `tests/wire/openai` name, read 2026-11-25.
"""

from collections.abc import Mapping
from datetime import datetime

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody, read_error
from quota_router.dialects.failures import GATEWAY_TYPES, Verdict, by_status, failed, instant, lowered, scoped, seconds_of
from quota_router.dialects.headers import after
from quota_router.dialects.traps import Row, trapped
from quota_router.dialects.vendors import aws, google, numbers, openrouter

_IN_STREAM_STATUS = 200
_STATUS_OF: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    **dict.fromkeys(("payment_required", "insufficient_credits"), 402),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "tokens", "requests"), 429),
}
"""By type or code, for errors inside a 200 that name no status; others are the server's."""

_BY_CODE: dict[str, Row] = {
    "credit_balance_exhausted": FailureKind.BILLING,
    "organization_usage_limit_exceeded": FailureKind.BILLING,
    "organization_spend_limit_exceeded": FailureKind.BILLING,
    "project_spend_limit_exceeded": (FailureKind.BILLING, Scope.PROVIDER),
    "insufficient_quota": FailureKind.BILLING,
    "billing_hard_limit_reached": FailureKind.BILLING,
    "billing_not_active": FailureKind.BILLING,
    "usage_limit_reached": FailureKind.QUOTA_WINDOW,
    "usage_not_included": FailureKind.MODEL_UNAVAILABLE,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "token_quota_exceeded": FailureKind.RATE_LIMITED,
    "request_quota_exceeded": FailureKind.RATE_LIMITED,
    "queue_exceeded": FailureKind.OVERLOADED,
    "server_is_overloaded": FailureKind.OVERLOADED,
    "nocapacity": FailureKind.OVERLOADED,
    "capacity_exceeded": FailureKind.OVERLOADED,
    "invalid_api_key": FailureKind.AUTH,
    "organization_restricted": (FailureKind.AUTH, Scope.ACCOUNT),
    "unsupported_country_region_territory": FailureKind.AUTH,
    "model_not_found": FailureKind.MODEL_UNAVAILABLE,
    "model_decommissioned": FailureKind.MODEL_UNAVAILABLE,
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

_BY_TYPE: dict[str, Row] = {
    **GATEWAY_TYPES,
    "insufficient_quota": FailureKind.BILLING,
    "exceeded_current_quota_error": FailureKind.BILLING,
    "insufficient_balance_error": FailureKind.BILLING,
    "usage_limit_reached": FailureKind.QUOTA_WINDOW,
    "usage_not_included": FailureKind.MODEL_UNAVAILABLE,
    "invalid_model": FailureKind.MODEL_UNAVAILABLE,
    "not_supported_error": (FailureKind.MODEL_UNAVAILABLE, Scope.CALL),
    "exceed_context_size_error": FailureKind.CONTEXT_TOO_LONG,
    "requests": FailureKind.RATE_LIMITED,
    "tokens": FailureKind.RATE_LIMITED,
    "rate_limited": FailureKind.RATE_LIMITED,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "rate_limit_reached_error": FailureKind.RATE_LIMITED,
    "service_unavailable_error": FailureKind.OVERLOADED,
    "overloaded_error": FailureKind.OVERLOADED,
    "engine_overloaded_error": FailureKind.OVERLOADED,
    "authentication_error": FailureKind.AUTH,
}


def classify(status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, vendor: str = "") -> Failure:
    """
    What an answer other than 2xx means.

    Args:
        status: HTTP status.
        headers: of the answer.
        body: as it came, possibly cut or no JSON at all.
        now: aware UTC.
        vendor: whose API it is, as the provider says; empty where nobody knows.
    """
    return _read(read_error(body), status, lowered(headers), now, vendor, shown=status)


def classify_event(data: bytes, now: datetime, *, vendor: str = "") -> Failure:
    """What an error inside a 200 means: *data* is an SSE event, or a whole body."""
    error = read_error(data)
    stands_for = error.status or _STATUS_OF.get(error.text("type")) or _STATUS_OF.get(error.text("code"), 500)
    return _read(error, stands_for, {}, now, vendor, shown=_IN_STREAM_STATUS)


def _read(error: ErrorBody, status: int, headers: Mapping[str, str], now: datetime, vendor: str, *, shown: int) -> Failure:
    googles, at = google.read(error, status, now)
    verdict = _judge(error, status, headers, googles or numbers.judge(error, vendor))
    said = _codex(error, now) or openrouter.said(error, now) or at or numbers.said(error, vendor, now)
    return failed(verdict, error, status=shown, headers=headers, now=now, said=said)


def _judge(error: ErrorBody, status: int, headers: Mapping[str, str], vendors: Row | None) -> Verdict:
    row = vendors or openrouter.judge(error, status) or aws.judge(error, headers) or _by_code(error, status)
    if row is None or row is FailureKind.RATE_LIMITED:  # the least that a 429 says: its words may say more
        row = trapped(error, status) or row
    row = row or _BY_TYPE.get(error.relayed_as) or _BY_TYPE.get(error.text("type")) or google.by_status_word(error)
    return scoped(row) if row is not None else by_status(error, status, headers)


def _by_code(error: ErrorBody, status: int) -> Row | None:
    code = error.text("code")
    if code == "slow_down":
        return FailureKind.OVERLOADED if status == 503 else FailureKind.RATE_LIMITED  # noqa: PLR2004 -- a row
    return _BY_CODE.get(code) or _BY_CODE.get(error.text("innererror", "code"))


def _codex(error: ErrorBody, now: datetime) -> datetime | None:
    """When the window of a ChatGPT subscription begins anew."""
    in_s = seconds_of(error.at("resets_in_seconds"))
    return instant(error.at("resets_at"), now) or (after(in_s, now) if in_s is not None else None)

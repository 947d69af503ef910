"""
Anthropic's failures, as tables.

Law: `error.details.error_code` before `error.type` before message before status. A window that the subscription headers call
rejected is an empty window, not a busy minute.

Rows: upstreams.md A.3, C.2 and C.3 (SDK 2.11, documentation, public clients), read 2026-11-20. "Message wording can change": the
trapped messages are those for which no code is sent.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.failures import ErrorBody, Trap, by_status, failed, instant, read_error, scoped, trapped

_IN_STREAM_STATUS = 200

_BY_CODE: dict[str, FailureKind] = {
    "enforced_spend_limit_reached": FailureKind.BILLING,
    "contract_spend_limit_reached": FailureKind.BILLING,
    "linked_organization_spend_limit_reached": FailureKind.BILLING,
    "linked_organization_billing_unavailable": FailureKind.BILLING,
    "ramp_limit_exceeded": FailureKind.RATE_LIMITED,
    "organization_on_hold": FailureKind.AUTH,
    "claude_code_version_too_old": FailureKind.AUTH,
    "claude_code_key_creator_not_member": FailureKind.AUTH,
    "cmek_key_disabled": FailureKind.AUTH,
    "cmek_key_network_blocked": FailureKind.AUTH,
    "user_profile_billing_not_authorized": FailureKind.AUTH,
    "user_profile_not_billable": FailureKind.AUTH,
    "sandbox_egress_restricted": FailureKind.AUTH,
    "compaction_unavailable": FailureKind.OVERLOADED,
    "cmek_context_unavailable": FailureKind.TRANSIENT,
    "cmek_key_unreachable": FailureKind.TRANSIENT,
    "request_body_too_large_after_decoding": FailureKind.CLIENT_ERROR,
}

_BY_TYPE: dict[str, FailureKind] = {
    "authentication_error": FailureKind.AUTH,
    "billing_error": FailureKind.BILLING,
    "permission_error": FailureKind.AUTH,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "request_too_large": FailureKind.CLIENT_ERROR,
    "conflict_error": FailureKind.TRANSIENT,
    "timeout_error": FailureKind.TRANSIENT,
    "api_error": FailureKind.TRANSIENT,
    "overloaded_error": FailureKind.OVERLOADED,
}
"""The two that are missing, `invalid_request_error` and `not_found_error`, leave it to message and status."""

_STATUS_OF_TYPE = {"invalid_request_error": 400, "not_found_error": 404}

_BAD_REQUEST = frozenset({400})
_TRAPS = (
    Trap(statuses=_BAD_REQUEST, starts="your credit balance is too low", kind=FailureKind.BILLING),
    Trap(statuses=_BAD_REQUEST, starts="you have reached your specified", kind=FailureKind.BILLING),
    Trap(statuses=_BAD_REQUEST, starts="prompt is too long", kind=FailureKind.CONTEXT_TOO_LONG),
    Trap(statuses=_BAD_REQUEST, starts="input length and `max_tokens` exceed", kind=FailureKind.CONTEXT_TOO_LONG),
)
_REGAIN = re.compile(r"regain access on (\d{4}-\d{2}-\d{2})(?: at (\d{2}:\d{2}) utc)?")

_UNIFIED = "anthropic-ratelimit-unified-"
_ACCOUNT_CLAIMS = frozenset({"5h", "7d"})
"""Windows of the whole account; any other claim is a model's own."""
_NO_CLAIMS = frozenset({"status", "overage", "grace"})
"""The rollup itself, and what stands beside the windows."""
_TOO_MANY = 429


def classify(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Failure:
    """
    What an answer other than 2xx means.

    Args:
        status: HTTP status.
        headers: of the answer.
        body: as it came, possibly cut or no JSON at all.
        now: aware UTC.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    error = read_error(body)
    code = error.text("details", "error_code")
    if status == _TOO_MANY and code not in _BY_CODE and (empty := _empty_window(lowered, now)) is not None:
        verdict, said = empty
    else:
        verdict, said = _judge(error, code, status, lowered), _said(error, code, now)
    return failed(verdict, status=status, headers=lowered, now=now, said=said)


def classify_event(data: bytes, now: datetime) -> Failure:
    """What an error inside a 200 means: *data* is an SSE event, or a whole body."""
    error = read_error(data)
    code = error.text("details", "error_code")
    verdict = _judge(error, code, _STATUS_OF_TYPE.get(error.text("type"), 500), {})
    return failed(verdict, status=_IN_STREAM_STATUS, headers={}, now=now, said=_said(error, code, now))


def _judge(error: ErrorBody, code: str, status: int, headers: Mapping[str, str]) -> tuple[FailureKind, Scope]:
    kind = _BY_CODE.get(code) or _BY_TYPE.get(error.text("type")) or trapped(error, status, _TRAPS)
    return scoped(kind) if kind is not None else by_status(error, status, headers)


def _said(error: ErrorBody, code: str, now: datetime) -> datetime | None:
    if code == "enforced_spend_limit_reached":
        # No header says so: the tier's monthly cap is back at 00:00 UTC on the 1st.
        return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    found = _REGAIN.search(error.message)
    return instant(f"{found[1]}T{found[2] or '00:00'}:00Z", now) if found else None


def _empty_window(headers: Mapping[str, str], now: datetime) -> tuple[tuple[FailureKind, Scope], datetime | None] | None:
    """
    The subscription window that is empty, and when it is back: windows hold together, so the latest of their resets.

    Returns:
        `None` when the headers reject nothing, or when paid overage stands in for the window.
    """
    overage = headers.get(_UNIFIED + "overage-status", "")
    if headers.get(_UNIFIED + "status") != "rejected" or overage.startswith("allowed"):
        return None
    claims = {
        name.removeprefix(_UNIFIED).removesuffix("-status")
        for name, value in headers.items()
        if name.startswith(_UNIFIED) and name.endswith("-status") and value == "rejected"
    } - _NO_CLAIMS
    resets = [_epoch(headers.get(f"{_UNIFIED}{claim}-reset"), now) for claim in claims]
    latest = max((reset for reset in resets if reset is not None), default=None)
    is_model_only = bool(claims) and not claims & _ACCOUNT_CLAIMS
    scope = Scope.ATTACHMENT if is_model_only else Scope.PROVIDER
    return (FailureKind.QUOTA_WINDOW, scope), latest or _epoch(headers.get(_UNIFIED + "reset"), now)


def _epoch(value: str | None, now: datetime) -> datetime | None:
    return instant(int(value), now) if value is not None and re.fullmatch(r"[0-9]{1,13}", value) else None

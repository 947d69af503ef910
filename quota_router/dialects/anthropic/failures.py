"""
Anthropic's failures, as tables, and those of vendors that speak its dialect.

Law: `error.details.error_code` before `error.type` before status; where a message says more than its type it stands between them
(`dialects/traps`). A window that the subscription headers call rejected is an empty window, not a busy minute.

Rows: upstreams.md A.2, A.3, C.2 and C.3 (SDK 2.11, documentation, public clients), read 2026-11-20; the endpoints of z.ai, MiniMax,
Moonshot, Vertex and Bedrock from the threads that the fixtures in `tests/wire/anthropic` name, read 2026-11-25.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody, read_error
from quota_router.dialects.failures import (
    GATEWAY_TYPES,
    Verdict,
    by_status,
    failed,
    instant,
    lowered,
    month_after,
    scoped,
)
from quota_router.dialects.headers import retry_after
from quota_router.dialects.traps import Row, trapped
from quota_router.dialects.vendors import aws, google, numbers

_IN_STREAM_STATUS = 200
_TOO_MANY = 429

EMPTY_WINDOW = "usage_limit_reached"
"""No vendor's code: a command-line tool tells an empty window in words, and `render_refusal` writes it down as this."""

_BY_CODE: dict[str, Row] = {
    EMPTY_WINDOW: FailureKind.QUOTA_WINDOW,
    "enforced_spend_limit_reached": FailureKind.BILLING,
    "contract_spend_limit_reached": FailureKind.BILLING,
    "linked_organization_spend_limit_reached": FailureKind.BILLING,
    "linked_organization_billing_unavailable": FailureKind.BILLING,
    "ramp_limit_exceeded": FailureKind.RATE_LIMITED,
    "organization_on_hold": (FailureKind.AUTH, Scope.ACCOUNT),
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

_BY_TYPE: dict[str, Row] = {
    **GATEWAY_TYPES,
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

_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
}
"""By type, for errors inside a 200 that name no status; others are the server's."""
_REGAIN = re.compile(r"regain access on (\d{4}-\d{2}-\d{2})(?: at (\d{2}:\d{2}) utc)?")

_UNIFIED = "anthropic-ratelimit-unified-"
_ACCOUNT_CLAIMS = frozenset({"5h", "7d"})
"""Windows of the whole account; any other claim is a model's own."""
_NO_CLAIMS = frozenset({"status", "overage", "grace"})
"""The rollup itself, and what stands beside the windows."""
_MINUTE = re.compile(r"anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-remaining")


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
    stands_for = error.status or _STATUS_OF.get(error.text("type"), 500)
    return _read(error, stands_for, {}, now, vendor, shown=_IN_STREAM_STATUS)


def _read(error: ErrorBody, status: int, headers: Mapping[str, str], now: datetime, vendor: str, *, shown: int) -> Failure:
    code = error.text("details", "error_code")
    googles, said = google.read(error, status, now)
    row = googles or numbers.judge(error, vendor) or aws.judge(error, headers) or _BY_CODE.get(code) or trapped(error, status)
    said = said or numbers.said(error, vendor, now) or _said(error, code, now)
    if row is None and status == _TOO_MANY and (empty := _empty_window(headers, now)) is not None:
        verdict, said = empty
    else:
        verdict = _judge(error, row, status, headers)
    if status == _TOO_MANY and said is None and retry_after(headers, now) is None:
        said = _minute_end(headers, now)
    return failed(verdict, error, status=shown, headers=headers, now=now, said=said)


def _judge(error: ErrorBody, row: Row | None, status: int, headers: Mapping[str, str]) -> Verdict:
    row = row or _BY_TYPE.get(error.relayed_as) or _BY_TYPE.get(error.text("type")) or google.by_status_word(error)
    return scoped(row) if row is not None else by_status(error, status, headers)


def _said(error: ErrorBody, code: str, now: datetime) -> datetime | None:
    if code == "enforced_spend_limit_reached":
        return month_after(now)  # no header says so: it is the tier's monthly cap
    found = _REGAIN.search(error.message)
    if found:
        return instant(f"{found[1]}T{found[2] or '00:00'}:00Z", now)
    details = error.fields.get("details")
    return instant(details.get("resets_at"), now) if isinstance(details, dict) else None


def _minute_end(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """When the last of the per-minute limits that are used up is full again; older answers name no other time."""
    spent = [found[1] for name, left in headers.items() if left == "0" and (found := _MINUTE.fullmatch(name))]
    resets = [instant(headers.get(f"anthropic-ratelimit-{name}-reset"), now) for name in spent]
    return max((reset for reset in resets if reset is not None), default=None)


def _empty_window(headers: Mapping[str, str], now: datetime) -> tuple[Verdict, datetime | None] | None:
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
    scope = Scope.ATTACHMENT if is_model_only else Scope.ACCOUNT
    return (FailureKind.QUOTA_WINDOW, scope), latest or _epoch(headers.get(_UNIFIED + "reset"), now)


def _epoch(value: str | None, now: datetime) -> datetime | None:
    return instant(int(value), now) if value is not None and re.fullmatch(r"[0-9]{1,13}", value) else None

"""What vendors' errors mean, row by row."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.catalog import Family
from quota_router.core.health import FailureKind as K
from quota_router.core.health import Scope
from quota_router.dialects import dialect_of
from quota_router.dialects.headers import retry_after

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SCOPES = {
    K.RATE_LIMITED: Scope.ATTACHMENT,
    K.QUOTA_WINDOW: Scope.PROVIDER,
    K.BILLING: Scope.PROVIDER,
    K.IN_FLIGHT_BUDGET: Scope.PROVIDER,
    K.AUTH: Scope.PROVIDER,
    K.OVERLOADED: Scope.ATTACHMENT,
    K.TRANSIENT: Scope.ATTACHMENT,
    K.MODEL_UNAVAILABLE: Scope.ATTACHMENT,
}


def error(**fields):
    return json.dumps({"error": fields}).encode()


def anthropic_error(kind, message="", code=None, **more):
    details = {"details": {"error_code": code}} if code else {}
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **details}, **more}).encode()


OPENAI_ROWS = [
    (429, error(type="insufficient_quota", code="credit_balance_exhausted"), K.BILLING),
    (429, error(type="insufficient_quota", code="organization_spend_limit_exceeded"), K.BILLING),
    (429, error(type="insufficient_quota", code="insufficient_quota"), K.BILLING),
    (429, error(type="insufficient_quota", code="something_new"), K.BILLING),
    (400, error(type="invalid_request_error", code="billing_hard_limit_reached"), K.BILLING),
    (429, error(type="tokens", code="rate_limit_exceeded"), K.RATE_LIMITED),
    (429, error(type="requests", code=None), K.RATE_LIMITED),
    (429, error(type="rate_limit_error", code="slow_down"), K.RATE_LIMITED),
    (503, error(type="service_unavailable_error", code="slow_down"), K.OVERLOADED),
    (503, error(type="service_unavailable_error", code="server_is_overloaded"), K.OVERLOADED),
    (429, error(type="usage_limit_reached", plan_type="plus"), K.QUOTA_WINDOW),
    (429, error(type="usage_not_included"), K.MODEL_UNAVAILABLE),
    (401, error(type="invalid_request_error", code="invalid_api_key"), K.AUTH),
    (401, b"", K.AUTH),
    (403, error(code="unsupported_country_region_territory"), K.AUTH),
    (403, error(type="invalid_request_error", code="model_not_found"), K.MODEL_UNAVAILABLE),
    (403, b"Forbidden", K.AUTH),
    (404, error(type="invalid_request_error", code="model_not_found"), K.MODEL_UNAVAILABLE),
    (404, error(message="model 'x' not found, try pulling it first"), K.MODEL_UNAVAILABLE),
    (404, json.dumps({"object": "error", "message": "The model `x` does not exist."}).encode(), K.MODEL_UNAVAILABLE),
    (404, b"404 page not found", K.MODEL_UNAVAILABLE),
    (404, error(message="No such File object: file-model"), K.CLIENT_ERROR),
    (400, error(type="invalid_request_error", code="context_length_exceeded"), K.CONTEXT_TOO_LONG),
    (400, error(message="This model's maximum context length is 8192 tokens.", code=400), K.CONTEXT_TOO_LONG),
    (400, error(code="content_policy_violation"), K.CONTENT_POLICY),
    (400, error(code="cyber_policy"), K.CONTENT_POLICY),
    (400, error(code="invalid_prompt"), K.CONTENT_POLICY),
    (400, error(type="invalid_request_error", code="string_above_max_length"), K.CLIENT_ERROR),
    (400, error(type="invalid_request_error", message="Unsupported value: 'x'"), K.CLIENT_ERROR),
    (413, b"", K.CLIENT_ERROR),
    (422, error(message="x"), K.CLIENT_ERROR),
    (408, b"", K.TRANSIENT),
    (409, b"", K.TRANSIENT),
    (500, error(type="server_error"), K.TRANSIENT),
    (502, b"<html>bad gateway", K.TRANSIENT),
    (504, b"", K.TRANSIENT),
    (307, b"", K.TRANSIENT),
    (503, b"", K.OVERLOADED),
    # Azure
    (400, error(code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), K.CONTENT_POLICY),
    (404, error(code="DeploymentNotFound", message="The API deployment does not exist"), K.MODEL_UNAVAILABLE),
    (429, error(code="429", message="Requests to the X have been limited"), K.RATE_LIMITED),
    (429, error(code="NoCapacity"), K.OVERLOADED),
    (429, error(code="429", message="The system is experiencing high demand"), K.OVERLOADED),
    # OpenRouter
    (402, error(code=402, message="x", metadata={"limit_source": "openrouter_credits"}), K.BILLING),
    (402, error(code=402, metadata={"limit_source": "openrouter_in_flight_budget"}), K.IN_FLIGHT_BUDGET),
    (403, error(code=403, metadata={"limit_source": "openrouter_key_limit"}), K.BILLING),
    (403, error(code=403, metadata={"reasons": ["x"], "flagged_input": "y"}), K.CONTENT_POLICY),
    (403, error(code=403, metadata={"patterns": ["x"]}), K.CONTENT_POLICY),
    (400, error(code=400, metadata={"error_type": "context_length_exceeded"}), K.CONTEXT_TOO_LONG),
    (502, error(code=502, metadata={"error_type": "provider_unavailable"}), K.TRANSIENT),
    (400, error(code=400, availability={"code": "model_not_found"}), K.MODEL_UNAVAILABLE),
    (429, error(code=429, availability={"code": "capacity_exhausted"}), K.RATE_LIMITED),
    (404, error(code=404, message="No endpoints found for x."), K.MODEL_UNAVAILABLE),
    # DeepSeek, whose code says nothing
    (402, error(message="Insufficient Balance", type="unknown_error", code="invalid_request_error"), K.BILLING),
    (401, error(message="x", type="authentication_error", code="invalid_request_error"), K.AUTH),
    # Together
    (403, error(message="Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097"), K.CONTEXT_TOO_LONG),
    (402, error(message="spend limit"), K.BILLING),
    # Gemini's compatible endpoint wraps it in a list
    (404, json.dumps([{"error": {"code": 404, "message": "models/x is not found"}}]).encode(), K.MODEL_UNAVAILABLE),
]

ANTHROPIC_ROWS = [
    (400, anthropic_error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), K.BILLING),
    (400, anthropic_error("invalid_request_error", "You have reached your specified API usage limits."), K.BILLING),
    (400, anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), K.CONTEXT_TOO_LONG),
    (400, anthropic_error("invalid_request_error", "input length and `max_tokens` exceed context limit"), K.CONTEXT_TOO_LONG),
    (400, anthropic_error("invalid_request_error", "messages: Field required"), K.CLIENT_ERROR),
    (400, anthropic_error("invalid_request_error", "x", "organization_on_hold"), K.AUTH),
    (401, anthropic_error("authentication_error"), K.AUTH),
    (402, anthropic_error("billing_error"), K.BILLING),
    (403, anthropic_error("permission_error"), K.AUTH),
    (404, anthropic_error("not_found_error", "model: claude-x"), K.MODEL_UNAVAILABLE),
    (404, anthropic_error("not_found_error", "file: file_1"), K.CLIENT_ERROR),
    (413, anthropic_error("request_too_large"), K.CLIENT_ERROR),
    (429, anthropic_error("rate_limit_error"), K.RATE_LIMITED),
    (429, anthropic_error("rate_limit_error", "x", "ramp_limit_exceeded"), K.RATE_LIMITED),
    (429, anthropic_error("rate_limit_error", "x", "contract_spend_limit_reached"), K.BILLING),
    (500, anthropic_error("api_error"), K.TRANSIENT),
    (504, anthropic_error("timeout_error"), K.TRANSIENT),
    (529, anthropic_error("overloaded_error"), K.OVERLOADED),
    (529, b"", K.OVERLOADED),
    (503, anthropic_error("api_error", "x", "cmek_key_unreachable"), K.TRANSIENT),
    (418, anthropic_error("brand_new_error"), K.CLIENT_ERROR),
    (502, b"<html>", K.TRANSIENT),
]


@pytest.mark.parametrize(
    ("dialect", "status", "body", "kind"),
    [(OPENAI, *row) for row in OPENAI_ROWS] + [(ANTHROPIC, *row) for row in ANTHROPIC_ROWS],
)
def test_each_row_of_the_table(dialect, status, body, kind):
    failure = dialect.classify(status, {}, body, NOW)
    assert (failure.kind, failure.scope, failure.status) == (kind, SCOPES.get(kind, Scope.CALL), status)


def test_what_can_never_fit_moves_on_without_cooling_the_rung():
    too_large = error(message="Request too large for gpt-x: Limit 10, Requested 20", type="tokens", code="rate_limit_exceeded")
    too_dear = error(code=402, metadata={"limit_source": "openrouter_in_flight_budget", "reason": "weight_exceeds_budget"})
    for status, body, kind in ((429, too_large, K.RATE_LIMITED), (402, too_dear, K.IN_FLIGHT_BUDGET)):
        failure = OPENAI.classify(status, {}, body, NOW)
        assert (failure.kind, failure.scope, failure.kind.moves_on) == (kind, Scope.CALL, True)


def test_a_caller_cannot_spell_a_billing_failure_into_an_echo():
    echo = "Invalid value: 'Your credit balance is too low to access the Anthropic API'"
    assert ANTHROPIC.classify(400, {}, anthropic_error("invalid_request_error", echo), NOW).kind is K.CLIENT_ERROR


def test_a_firewalls_page_judges_the_call_and_not_the_credential():
    failure = OPENAI.classify(403, {"content-type": "text/html; charset=utf-8"}, b"<html>blocked", NOW)
    assert (failure.kind, failure.scope) == (K.TRANSIENT, Scope.ATTEMPT)


UNIFIED = "anthropic-ratelimit-unified-"


def unified(**claims):
    headers = {f"{UNIFIED}status": "rejected", f"{UNIFIED}reset": str(int(NOW.timestamp()) + 60)}
    for claim, reset_s in claims.items():
        name = claim.removeprefix("w")
        headers |= {f"{UNIFIED}{name}-status": "rejected", f"{UNIFIED}{name}-reset": str(int(NOW.timestamp()) + reset_s)}
    return headers


@pytest.mark.parametrize(
    ("headers", "kind", "scope", "wait_s"),
    [
        (unified(w5h=3600), K.QUOTA_WINDOW, Scope.PROVIDER, 3600),
        (unified(w5h=3600, w7d=86400), K.QUOTA_WINDOW, Scope.PROVIDER, 86400),
        (unified(), K.QUOTA_WINDOW, Scope.PROVIDER, 60),
        (unified(w7d_oi=7200), K.QUOTA_WINDOW, Scope.ATTACHMENT, 7200),
        (unified(w5h=3600, woverage=99999), K.QUOTA_WINDOW, Scope.PROVIDER, 3600),
        (unified(w5h=3600) | {f"{UNIFIED}overage-status": "allowed"}, K.RATE_LIMITED, Scope.ATTACHMENT, 5),
        ({f"{UNIFIED}status": "allowed"}, K.RATE_LIMITED, Scope.ATTACHMENT, 5),
        ({f"{UNIFIED}status": "rejected", f"{UNIFIED}5h-reset": "soon"}, K.QUOTA_WINDOW, Scope.PROVIDER, 5),
    ],
)
def test_a_rejected_subscription_window_is_empty_until_its_latest_reset(headers, kind, scope, wait_s):
    failure = ANTHROPIC.classify(429, headers | {"Retry-After": "5"}, anthropic_error("rate_limit_error"), NOW)
    assert (failure.kind, failure.scope, failure.until) == (kind, scope, NOW + timedelta(seconds=wait_s))


SAID = [
    (OPENAI, 429, error(type="usage_limit_reached", resets_at=int(NOW.timestamp()) + 90), NOW + timedelta(seconds=90)),
    (
        OPENAI,
        403,
        error(metadata={"limit_source": "openrouter_key_limit", "resets_at": "2026-12-01T00:00:00Z"}),
        datetime(2026, 12, 1, tzinfo=UTC),
    ),
    (OPENAI, 429, error(availability={"code": "capacity_exhausted", "retry_after": 12}), NOW + timedelta(seconds=12)),
    (OPENAI, 429, error(resets_at=-5), None),
    (OPENAI, 429, error(resets_at=True), None),
    (OPENAI, 429, b'{"error":{"resets_at":%s}}' % (b"9" * 4_000), None),
    (OPENAI, 429, error(resets_at=10**400), None),
    (OPENAI, 429, error(resets_at="0001-01-01T00:00:00+14:00"), None),
    (OPENAI, 429, error(resets_at="never"), None),
    (ANTHROPIC, 429, anthropic_error("rate_limit_error", "x", "enforced_spend_limit_reached"), datetime(2026, 12, 1, tzinfo=UTC)),
    (
        ANTHROPIC,
        400,
        anthropic_error(
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 06:30 UTC.",
        ),
        datetime(2026, 12, 1, 6, 30, tzinfo=UTC),
    ),
]


@pytest.mark.parametrize(("dialect", "status", "body", "until"), SAID)
def test_a_time_stated_in_the_body_is_believed(dialect, status, body, until):
    assert dialect.classify(status, {}, body, NOW).until == until


def test_a_caller_error_has_no_time_to_come_back():
    assert OPENAI.classify(400, {"retry-after": "9"}, b"", NOW).until is None


EVENTS = [
    (ANTHROPIC, b"event: error\ndata: " + anthropic_error("overloaded_error") + b"\n\n", K.OVERLOADED),
    (ANTHROPIC, anthropic_error("invalid_request_error", "prompt is too long: x"), K.CONTEXT_TOO_LONG),
    (ANTHROPIC, b"data: garbage\n\n", K.TRANSIENT),
    (OPENAI, b"data: " + error(message="x", type="server_error") + b"\n\n", K.TRANSIENT),
    (OPENAI, b"data: " + error(code=429, message="x") + b"\n\n", K.RATE_LIMITED),
    (OPENAI, b"data: " + error(code=502, message="x") + b"\n\n", K.TRANSIENT),
    (OPENAI, error(type="invalid_request_error", message="x"), K.CLIENT_ERROR),
    (OPENAI, b'event: error\r\ndata: {"type":"error","code":"rate_limit_exceeded","message":"x"}\r\n\r\n', K.RATE_LIMITED),
    (OPENAI, b'data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n', K.TRANSIENT),
    (OPENAI, b'{"status":"failed","error":{"code":"invalid_prompt","message":"x"}}', K.CONTENT_POLICY),
    (OPENAI, b'{"choices":[{"finish_reason":"error","error":{"code":503,"message":"x"}}]}', K.OVERLOADED),
    (OPENAI, b'{"base_resp":{"status_code":1008},"choices":null}', K.TRANSIENT),
    (OPENAI, b'{"error":"overloaded"}', K.TRANSIENT),
]


@pytest.mark.parametrize(("dialect", "data", "kind"), EVENTS)
def test_an_error_inside_a_200_is_classified_like_any_other(dialect, data, kind):
    failure = dialect.classify_event(data, NOW)
    assert (failure.kind, failure.status) == (kind, 200)


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=50)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "error",
                        "code",
                        "type",
                        "message",
                        "metadata",
                        "availability",
                        "details",
                        "response",
                        "choices",
                        "resets_at",
                        "retry_after",
                    ]
                ),
                inner,
            )
        ),
    ).map(lambda value: json.dumps({"error": value}).encode()),
)
def test_no_body_whatever_makes_a_table_fail(status, body):
    for dialect in (OPENAI, ANTHROPIC):
        assert dialect.classify(status, {}, body, NOW).status == status
        assert dialect.classify_event(body, NOW).status == 200


DATE = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
WAITS = [
    ({"retry-after": "30"}, 30),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": " 7999 "}, 7999),
    ({"retry-after": DATE}, 90),
    ({"retry-after": DATE, "date": format_datetime(NOW + timedelta(seconds=60), usegmt=True)}, 30),
    ({"retry-after-ms": "1500", "retry-after": "30"}, 1.5),
    ({"x-ms-retry-after-ms": "250", "retry-after": "30"}, 0.25),
    ({"retry-after-ms": "-1", "retry-after": "30"}, 30),
    ({"retry-after-ms": "NaN", "retry-after": "30"}, 30),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "NaN"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "9999999999"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
    ({"retry-after": "Thu, 01 Jan 2099 00:00:00 GMT"}, None),
    ({"retry-after": "Fri, 99 Foo 2026 99:99:99 GMT"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "wait_s"), WAITS)
def test_when_to_come_back_is_read_and_nonsense_ignored(headers, wait_s):
    assert retry_after(headers, NOW) == (None if wait_s is None else NOW + timedelta(seconds=wait_s))


@given(value=st.text(), sent=st.text())
def test_no_header_makes_the_reading_fail_or_lie_in_the_past(value, sent):
    until = retry_after({"retry-after": value, "date": sent}, NOW)
    assert until is None or until >= NOW

"""How vendors' errors are read: the laws behind the tables. The rows are fixtures, see `test_failure_fixtures.py`."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.catalog import Family
from quota_router.core.health import FailureKind as K
from quota_router.core.health import Scope
from quota_router.dialects import dialect_of
from quota_router.dialects.error_bodies import read_error
from quota_router.dialects.failures import month_after, seconds_of
from quota_router.dialects.headers import retry_after
from quota_router.dialects.traps import trapped
from quota_router.dialects.vendors import google

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WIRE = Path(__file__).parent / "wire"


def error(**fields):
    return json.dumps({"error": fields}).encode()


def anthropic_error(kind, message="", code=None, **more):
    details = {"details": {"error_code": code}} if code else {}
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **details}, **more}).encode()


# --- what is believed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, K.AUTH),
        (402, K.BILLING),
        (403, K.AUTH),
        (404, K.MODEL_UNAVAILABLE),
        (405, K.CLIENT_ERROR),
        (415, K.CLIENT_ERROR),
        (429, K.RATE_LIMITED),
        (500, K.TRANSIENT),
        (503, K.OVERLOADED),
        (522, K.TRANSIENT),
    ],
)
@pytest.mark.parametrize("body", [b"", b"Forbidden", b"{", b"[]", b"null", b'{"error":null}', b"\xff\xfe"])
def test_without_a_word_the_status_decides(dialect, status, kind, body):
    assert dialect.classify(status, {}, body, NOW).kind is kind


def test_a_code_of_tomorrow_leaves_it_to_the_type():
    assert OPENAI.classify(429, {}, error(type="insufficient_quota", code="something_new"), NOW).kind is K.BILLING
    assert ANTHROPIC.classify(402, {}, anthropic_error("billing_error", "x", "something_new"), NOW).kind is K.BILLING


def test_a_code_is_believed_before_the_words():
    body = error(code="context_length_exceeded", message="Your credit balance is too low to access the Anthropic API.")
    assert OPENAI.classify(400, {}, body, NOW).kind is K.CONTEXT_TOO_LONG


def test_the_same_number_means_what_its_vendor_says():
    """
    Vendors contradict each other in bare numbers: without the vendor they say nothing, and the status decides.
    """
    kinds = {"zai": K.AUTH, "minimax": K.RATE_LIMITED, "mistral": K.TRANSIENT, "openai": K.TRANSIENT, "": K.TRANSIENT}
    for vendor, kind in kinds.items():
        assert OPENAI.classify(500, {}, error(code="1002", message="x"), NOW, vendor=vendor).kind is kind
        assert OPENAI.classify_event(error(code="1002", message="x"), NOW, vendor=vendor).kind is kind


def said_by_message():
    """The messages of all fixtures that a trap tells apart from their status."""
    for file in sorted(WIRE.glob("*/*.json")):
        said = json.loads(file.read_text())
        found = read_error(said["body"].encode())
        if trapped(found, said["status"]) is not None:
            yield pytest.param(said["status"], found.message, id=f"{file.parent.name}/{file.stem}")


@pytest.mark.parametrize(("status", "message"), list(said_by_message()))
def test_a_caller_cannot_spell_a_failure_into_an_echo(status, message):
    """
    What a vendor quotes of the caller stands behind his own first words, and is read by nobody.
    """
    echo = f"Invalid value: '{message}'"
    assert trapped(read_error(error(message=echo)), status) is None
    for dialect, body in ((OPENAI, error(message=echo)), (ANTHROPIC, anthropic_error("invalid_request_error", echo))):
        assert dialect.classify(400, {}, body, NOW).kind is K.CLIENT_ERROR


def test_a_relay_cannot_be_played_by_a_callers_quote():
    quoted = '{"error":{"message":"Your credit balance is too low to access the Anthropic API."}}'
    body = error(message=f"Invalid value: 'litellm.BadRequestError: AnthropicException - {quoted}'")
    assert OPENAI.classify(400, {}, body, NOW).kind is K.CLIENT_ERROR


@pytest.mark.parametrize("data", [b"data: garbage\n\n", b"", b'{"error":"overloaded"}', b'{"error":{}}', b": comment\n\n"])
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_an_error_inside_a_200_that_says_nothing_is_the_servers(dialect, data):
    failure = dialect.classify_event(data, NOW)
    assert (failure.kind, failure.scope, failure.status) == (K.TRANSIENT, Scope.ATTACHMENT, 200)


# --- when to come back --------------------------------------------------------------------------------------------------

UNIFIED = "anthropic-ratelimit-unified-"


def test_overage_and_grace_stand_beside_the_windows():
    """
    Their resets are none of a window's, however late.
    """
    resets = {"5h": 3600, "overage": 99_999, "grace": 88_888}
    headers = {f"{UNIFIED}status": "rejected"}
    for claim, reset_s in resets.items():
        headers |= {f"{UNIFIED}{claim}-status": "rejected", f"{UNIFIED}{claim}-reset": str(int(NOW.timestamp()) + reset_s)}
    failure = ANTHROPIC.classify(429, headers, anthropic_error("rate_limit_error"), NOW)
    assert (failure.kind, failure.scope, failure.until) == (K.QUOTA_WINDOW, Scope.ACCOUNT, NOW + timedelta(seconds=3600))


@pytest.mark.parametrize(
    "body",
    [
        error(resets_at=-5),
        error(resets_at=True),
        b'{"error":{"resets_at":%s}}' % (b"9" * 4_000),
        error(resets_at=10**400),
        error(resets_at="0001-01-01T00:00:00+14:00"),
        error(resets_at="never"),
        error(resets_in_seconds=-1),
        error(resets_in_seconds=10**12),
        error(metadata={"headers": {"X-RateLimit-Reset": "9" * 400}}),
        error(metadata={"headers": {"X-RateLimit-Reset": "soon"}}),
        error(availability={"retry_after": "soon"}),
        error(status="RESOURCE_EXHAUSTED", details=[{"retryDelay": "soon"}, {"retryDelay": None}, 7]),
        error(message="Please try again in 99999999999 days."),
        error(message="Please try again in a moment."),
    ],
)
def test_a_time_that_is_nonsense_is_no_time(body):
    assert OPENAI.classify(429, {}, body, NOW).until is None


def test_a_caller_error_has_no_time_to_come_back():
    assert OPENAI.classify(400, {"retry-after": "9"}, error(message="Please try again in 9s"), NOW).until is None


def test_fields_are_believed_before_headers_and_headers_before_words():
    words, headers = "Please try again in 3s.", {"retry-after": "2"}
    moments = [
        OPENAI.classify(429, headers, error(type="usage_limit_reached", message=words, resets_in_seconds=1), NOW).until,
        OPENAI.classify(429, headers, error(message=words), NOW).until,
        OPENAI.classify(429, {}, error(message=words), NOW).until,
    ]
    assert moments == [NOW + timedelta(seconds=seconds) for seconds in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("2m59.56s", 179.56),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("5 days 22 hours 11 minutes", 5 * 86400 + 22 * 3600 + 11 * 60),
        ("26 seconds", 26),
        (26.5, 26.5),
        ("soon", None),
        (True, None),
        (None, None),
    ],
)
def test_durations_as_go_google_and_people_write_them(text, seconds):
    found = seconds_of(text)
    assert found is None if seconds is None else found == pytest.approx(seconds)


moments = st.integers(1_600_000_000, 4_100_000_000).map(lambda epoch_s: datetime.fromtimestamp(epoch_s, UTC))


@given(moments)
def test_the_month_after_begins_on_its_first_day(now):
    first = month_after(now)
    assert (first.day, first.hour, first.minute, first.second, first.microsecond, first.tzinfo) == (1, 0, 0, 0, 0, UTC)
    assert timedelta(0) < first - now <= timedelta(days=31)


@given(moments)
def test_a_day_of_googles_ends_within_a_day_whatever_the_clocks_do(now):
    """
    It is the earlier of two midnights, across both changes of the clock.
    """
    end = google._day_end(now)
    assert timedelta(0) < end - now <= timedelta(days=1)
    assert (end.minute, end.second, end.hour in {0, 7, 8}) == (0, 0, True)


DATE = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
WAITS = [
    ({"retry-after": "30"}, 30),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": " 7999 "}, 7999),
    ({"retry-after": DATE}, 90),
    ({"retry-after-ms": "1500", "retry-after": "30"}, 1.5),
    ({"x-ms-retry-after-ms": "250", "retry-after": "30"}, 0.25),
    ({"retry-after-ms": "NaN", "retry-after": "30"}, 30),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "Fri, 99 Foo 2026 99:99:99 GMT"}, None),
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


# --- anything at all ----------------------------------------------------------------------------------------------------

NAMES = [
    "error",
    "code",
    "type",
    "message",
    "msg",
    "detail",
    "details",
    "metadata",
    "availability",
    "response",
    "choices",
    "resets_at",
    "resets_in_seconds",
    "retry_after",
    "base_resp",
    "status_code",
    "status_msg",
    "success",
    "status",
    "violations",
    "retryDelay",
    "quotaId",
    "reason",
    "limit_source",
    "innererror",
    "__type",
    "headers",
    "X-RateLimit-Reset",
    "error_code",
]
WORDS = [
    "litellm.X: ",
    "litellm.X: Y - {",
    "try again in ",
    "9s",
    "RESOURCE_EXHAUSTED",
    "429",
    "1113",
    "rate_limit_error",
    "2026-01-01",
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.lists(st.sampled_from(WORDS), max_size=4).map("".join),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
)


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=50) | values.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "X-Amzn-ErrorType", f"{UNIFIED}status", f"{UNIFIED}5h-reset"]), st.text()
    ),
    vendor=st.sampled_from(["", "zai", "minimax", "gemini", "nobody"]),
)
def test_no_answer_whatever_makes_a_table_fail(status, body, headers, vendor):
    for dialect in (OPENAI, ANTHROPIC):
        failure = dialect.classify(status, headers, body, NOW, vendor=vendor)
        assert failure.status == status
        assert failure.until is None or failure.until >= NOW
        assert dialect.classify_event(body, NOW, vendor=vendor).status == 200

"""What vendors say of their windows in headers: recorded answers, encodings, and laws."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from quota_router.core.readings import ReadingUnit, Said, Status
from quota_router.dialects.vendors import HEADERS_MAX, buckets, read_headers
from quota_router.dialects.vendors.values import (
    Told,
    any_reset,
    decimal,
    epoch,
    go_duration,
    nusd,
    rfc3339,
    seconds,
    share_ppm,
    whole,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WIRE = Path(__file__).parent / "wire" / "headers"
VENDORS = ("openai", "anthropic", "codex", "azure", "groq", "cerebras", "mistral", "fireworks", "together", "xai", "litellm", "?")


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    """One file of `wire/headers`."""

    origin: str
    read: str
    vendor: str
    now: datetime
    headers: dict[str, str]
    readings: list[dict[str, Any]]
    upstream_model: str = ""

    def said(self):
        return [msgspec.convert({**fields, "observed_at": self.now}, Said) for fields in self.readings]


def recorded():
    files = sorted(WIRE.rglob("*.json"))
    assert files
    return [
        pytest.param(msgspec.json.decode(file.read_bytes(), type=Recorded), id=f"{file.parent.name}/{file.stem}") for file in files
    ]


def told(**headers):
    return Told(headers=headers, now=NOW, model="m")


def unordered(said):
    return sorted(said, key=msgspec.json.encode)


@pytest.mark.parametrize("answer", recorded())
def test_a_recorded_answer_says_what_it_says(answer):
    said = read_headers(answer.vendor, answer.headers, answer.now, upstream_model=answer.upstream_model)
    assert unordered(said) == unordered(answer.said())


@pytest.mark.parametrize("answer", recorded())
def test_the_case_of_names_and_the_kind_of_mapping_do_not_matter(answer):
    for headers in (CIMultiDict(answer.headers), {name.upper(): value for name, value in answer.headers.items()}):
        said = read_headers(answer.vendor, headers, answer.now, upstream_model=answer.upstream_model)
        assert unordered(said) == unordered(answer.said())


def test_every_recorded_answer_names_its_origin():
    assert all(answer.values[0].origin and answer.values[0].read for answer in recorded())


# --- encodings ----------------------------------------------------------------------------------------------------------

RESETS = [
    (go_duration, "6m0s", 360),
    (go_duration, "2m59.56s", 179.56),
    (go_duration, "12ms", 0.012),
    (go_duration, "1h2m3.5s", 3723.5),
    (go_duration, "1d2h", 93_600),
    (go_duration, "250µs", 0.00025),
    (go_duration, "0s", 0),
    (go_duration, "60", None),
    (go_duration, "1m 5s", None),
    (go_duration, "-1s", None),
    (go_duration, "999999999h", None),
    (go_duration, "m", None),
    (seconds, "26.5", 26.5),
    (seconds, "0", 0),
    (seconds, " 40 ", 40),
    (seconds, "6m0s", None),
    (seconds, "-1", None),
    (seconds, "9" * 400, None),
    (seconds, "9999999999", None),
    (seconds, "NaN", None),
    (seconds, "1e3", None),
    (rfc3339, "2026-11-20T12:01:00Z", 60),
    (rfc3339, "2026-11-20T13:01:00+01:00", 60),
    (rfc3339, "2026-11-20T12:01:00.5", 60.5),
    (rfc3339, "2026-11-20T12:01:00.123456789Z", 60.123456),
    (rfc3339, "0001-01-01T00:00:00+14:00", None),
    (rfc3339, "9999-12-31T23:59:59Z", None),
    (rfc3339, "tomorrow", None),
    (epoch, str(int(NOW.timestamp()) + 60), 60),
    (epoch, str(int(NOW.timestamp() + 60) * 1000), 60),
    (epoch, "60", None),
    (epoch, "99999999999999", None),
    (epoch, "-1795176000", None),
    (any_reset, str(int(NOW.timestamp()) + 60), 60),
    (any_reset, "60", 60),
    (any_reset, "1m0s", 60),
    (any_reset, "2026-11-20T12:01:00Z", 60),
    (any_reset, "soon", None),
]


@pytest.mark.parametrize(("read", "value", "after_s"), RESETS)
def test_a_reset_is_read_in_the_encoding_of_its_family_and_no_other(read, value, after_s):
    assert read(value, told()) == (None if after_s is None else NOW + timedelta(seconds=after_s))


@pytest.mark.parametrize(
    ("sent", "after_s"),
    [
        ("20 Nov 2026 12:00:03", 60),
        ("20 Nov 2026 11:00:00", 3_660),
        ("20 Nov 2026 13:00:00", -3_540),
        ("20 Nov 2026 soon", 60),
        ("01 Jan 0001 00:00:00", 60),
        ("31 Dec 9999 23:59:59", 60),
    ],
)
def test_an_absolute_reset_is_moved_by_the_difference_of_the_clocks(sent, after_s):
    """A wait is what the vendor means; seconds of latency do not move it."""
    answer = told(date=f"Fri, {sent} GMT")
    assert rfc3339("2026-11-20T12:01:00Z", answer) == NOW + timedelta(seconds=after_s)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("80000", 80_000),
        ("5999.9", 5_999),
        (" 7 ", 7),
        ("0", 0),
        ("-1", None),
        ("", None),
        ("1e3", None),
        ("9" * 16, None),
        (None, None),
    ],
)
def test_a_count_is_rounded_down_and_nothing_negative(value, number):
    assert whole(value) == number


@pytest.mark.parametrize(
    ("value", "per", "ppm"),
    [("0.46", 1, 460_000), ("42.5", 100, 425_000), ("1.01", 1, 1_010_000), ("0.0000001", 1, 1), ("0", 1, 0), ("NaN", 1, None)],
)
def test_a_share_is_exact_and_rounded_up(value, per, ppm):
    assert share_ppm(decimal(value), per=per) == ppm


def test_money_is_exact_a_use_rounded_up_and_a_cap_down():
    assert nusd(Decimal("212.35"), is_cap=False) == 212_350_000_000
    assert nusd(Decimal("0.0000000001"), is_cap=False) == 1
    assert nusd(Decimal("0.0000000001"), is_cap=True) == 0
    assert nusd(Decimal("12345.00"), is_cap=True, per_usd=100) == 123_450_000_000
    assert nusd(Decimal("1e30"), is_cap=True) is None


# --- laws ---------------------------------------------------------------------------------------------------------------


def test_an_answer_without_such_headers_says_nothing():
    ordinary = {"Date": "Fri, 20 Nov 2026 12:00:00 GMT", "Content-Type": "application/json", "x-request-id": "r", "Via": "1.1 x"}
    assert all(read_headers(vendor, ordinary, NOW) == () for vendor in VENDORS)


def test_a_limit_of_one_model_is_not_said_of_another():
    headers = {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "0"}
    assert [said.model for said in read_headers("openai", headers, NOW, upstream_model="a")] == ["a"]


def test_a_header_that_stands_twice_is_ambiguous_and_not_said():
    twice = CIMultiDict([("x-ratelimit-limit-requests", "10"), ("x-ratelimit-limit-requests", "20")])
    assert read_headers("openai", twice, NOW) == ()


def test_a_policy_that_stands_in_two_lines_is_one_list():
    lines = CIMultiDict([("RateLimit", '"a";r=1;t=1'), ("RateLimit", '"b";r=2;t=2')])
    assert {said.window for said in read_headers("?", lines, NOW)} == {"a", "b"}


def test_what_is_looked_at_is_bounded():
    many = {f"x-ratelimit-limit-{number}-tokens": "1" for number in range(10_000)} | {"x-codex-credits-has-credits": "x" * 10**6}
    assert len(read_headers("?", many, NOW)) <= HEADERS_MAX
    families = {f"x-{number}-primary-used-percent": "1" for number in range(1_000)}
    assert len(read_headers("codex", families | {"x-codex-a": ""}, NOW)) <= HEADERS_MAX
    claims = {f"anthropic-ratelimit-unified-{number}h-utilization": "0.5" for number in range(1, 1_000)}
    assert len(read_headers("anthropic", claims, NOW)) <= HEADERS_MAX


def test_an_unknown_word_is_no_status():
    headers = {"anthropic-ratelimit-unified-5h-status": "throttled", "anthropic-ratelimit-unified-5h-utilization": "0.5"}
    assert [said.status for said in read_headers("anthropic", headers, NOW)] == [None]


def test_a_refusal_under_a_name_nobody_knows_is_of_the_model_that_was_called():
    headers = {
        f"anthropic-ratelimit-unified-{name}": value for name, value in [("status", "rejected"), ("representative-claim", "x_y")]
    }
    (said,) = read_headers("anthropic", headers, NOW, upstream_model="claude-x")
    assert (said.window, said.model, said.status) == ("x_y", "claude-x", Status.REJECTED)


def test_where_only_what_remains_is_told_nothing_remaining_is_empty_until_the_minute_is_over():
    (said,) = read_headers("xai", {"x-ratelimit-remaining-requests": "0"}, NOW)
    assert (said.left, said.resets_at) == (0, NOW + timedelta(minutes=1))


def test_a_new_claim_is_read_by_its_form():
    headers = {"anthropic-ratelimit-unified-30d_nova-utilization": "0.5", "anthropic-ratelimit-unified-30d_nova-status": "rejected"}
    (said,) = read_headers("anthropic", headers, NOW)
    assert (said.window, said.model, said.share_ppm, said.status) == ("30d", "*nova*", 500_000, Status.REJECTED)


NAMES = sorted(
    {name for answer in recorded() for name in answer.values[0].headers}
    | {name for row in buckets.ANTHROPIC.rows for name in (row.limit, row.remaining, row.reset)}
    | {
        "date",
        "x-codex--primary-used-percent",
        "-primary-used-percent",
        "anthropic-ratelimit-unified-",
        "anthropic-ratelimit-unified--status",
    }
)
values = (
    st.text(max_size=30)
    | st.sampled_from(
        ["-1", "0", "1", "NaN", "inf", "1e99", "9" * 400, "0x10", "1_0", "٣", "², ", '"a";r=1', ";;;", "a=b;=,", "=;,"]
    )
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(datetime.isoformat)
)


@given(
    vendor=st.sampled_from(VENDORS),
    headers=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20).map("x-ratelimit-limit-".__add__), values, max_size=12),
    model=st.text(max_size=10),
)
def test_no_headers_whatever_make_the_reading_fail(vendor, headers, model):
    """And what is said is never negative, and always of this moment."""
    for said in read_headers(vendor, headers, NOW, upstream_model=model):
        assert said.observed_at == NOW
        assert all(number is None or number >= 0 for number in (said.used, said.limit, said.share_ppm, said.left))
        assert said.unit in ReadingUnit

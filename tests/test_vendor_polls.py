"""What quota endpoints are asked and what they answer: recorded bodies, requests, refusals, and pollers that are configuration."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_router.core.readings import ReadingUnit, Said
from quota_router.dialects.vendors import (
    ENDPOINTS,
    Auth,
    CredentialKind,
    PointedPoll,
    PointedWindow,
    UnreadablePoll,
    poll_of,
    read_poll,
)
from quota_router.errors import UpstreamError

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
WIRE = Path(__file__).parent / "wire" / "polls"


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    """One file of `wire/polls`; its folder is the poller. The body is taken as it stands there, digit by digit."""

    origin: str
    read: str
    now: datetime
    body: msgspec.Raw
    readings: list[dict[str, Any]]

    def said(self):
        return [msgspec.convert({**fields, "observed_at": self.now}, Said) for fields in self.readings]


def recorded():
    files = sorted(WIRE.rglob("*.json"))
    assert files
    return [
        pytest.param(file.parent.name, msgspec.json.decode(file.read_bytes(), type=Recorded), id=f"{file.parent.name}/{file.stem}")
        for file in files
    ]


@pytest.mark.parametrize(("name", "answer"), recorded())
def test_a_recorded_answer_says_what_it_says(name, answer):
    assert answer.origin
    assert list(read_poll(name, bytes(answer.body), answer.now)) == answer.said()


def test_every_endpoint_has_a_recorded_answer():
    assert {folder.name for folder in WIRE.iterdir()} == set(ENDPOINTS)


# --- what is asked ------------------------------------------------------------------------------------------------------

REQUESTS = [
    ("openrouter-key", "https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/key"),
    ("deepseek", "https://api.deepseek.com/v1", "https://api.deepseek.com/user/balance"),
    ("kimi", "https://api.kimi.com/coding/v1", "https://api.kimi.com/coding/v1/usages"),
    ("zai", "https://api.z.ai/api/paas/v4", "https://api.z.ai/api/monitor/usage/quota/limit"),
    ("litellm-key", "http://10.0.0.5:4000/v1", "http://10.0.0.5:4000/key/info"),
    ("litellm-key", "https://proxy.example/litellm/v1/", "https://proxy.example/litellm/key/info"),
    (
        "openai-costs",
        "https://api.openai.com/v1",
        "https://api.openai.com/v1/organization/costs?start_time=1793491200&bucket_width=1d&limit=31",
    ),
    (
        "anthropic-costs",
        "https://api.anthropic.com",
        "https://api.anthropic.com/v1/organizations/cost_report?starting_at=2026-11-01T00%3A00%3A00Z&bucket_width=1d&limit=31",
    ),
    ("anthropic-subscription", "https://api.anthropic.com", "https://api.anthropic.com/api/oauth/usage"),
    ("codex-subscription", "https://chatgpt.com/backend-api/codex", "https://chatgpt.com/backend-api/wham/usage"),
]


@pytest.mark.parametrize(("name", "base_url", "url"), REQUESTS)
def test_a_poll_goes_to_the_path_of_its_endpoint(name, base_url, url):
    poll = poll_of(name, base_url, NOW)
    assert (poll.method, poll.url) == ("GET", url)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_poll_goes_to_the_host_of_its_provider_and_to_no_other(name):
    """A poller named for the wrong provider shows the provider's credential to nobody new."""
    assert poll_of(name, "https://host.example:8443/some/v1", NOW).url.startswith("https://host.example:8443/")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_interval_has_a_bound_and_the_bound_a_source(name):
    endpoint = ENDPOINTS[name]
    assert endpoint.interval_min_s >= 60
    assert endpoint.interval_source
    assert poll_of(name, "https://a.example", NOW).interval_min_s == endpoint.interval_min_s


def test_nobody_poses_as_a_vendors_client():
    assert not any("user-agent" in {header.lower() for header in endpoint.headers} for endpoint in ENDPOINTS.values())


def test_a_credential_stands_in_one_header_and_in_no_repr():
    bearer = poll_of("deepseek", "https://api.deepseek.com", NOW)
    admin = poll_of("anthropic-costs", "https://api.anthropic.com", NOW)
    assert bearer.signed("s3cret") == {"Accept": "application/json", "Authorization": "Bearer s3cret"}
    assert admin.signed("s3cret")["x-api-key"] == "s3cret"
    assert "s3cret" not in repr(bearer) + repr(admin)


def test_tokens_of_personal_plans_are_never_the_calls_own():
    """Subscription and administration are polled only with what the operator gives the poller for it."""
    kinds = {name: endpoint.credential for name, endpoint in ENDPOINTS.items()}
    plans = {name for name in kinds if name.endswith("-subscription")}
    organisations = {name for name in kinds if name.startswith(("openai-", "anthropic-"))} - plans
    assert {kinds[name] for name in plans} == {CredentialKind.SUBSCRIPTION}
    assert {kinds[name] for name in organisations} == {CredentialKind.ADMIN}


def test_an_option_becomes_the_header_or_the_field_that_it_is_for():
    codex = poll_of("codex-subscription", "https://chatgpt.com", NOW, {"account_id": "account-1"})
    member = poll_of("anthropic-member-spend", "https://api.anthropic.com", NOW, {"user_id": "user_1&x=y"})
    assert codex.headers["ChatGPT-Account-Id"] == "account-1"
    assert member.url.endswith("user_ids%5B%5D=user_1%26x%3Dy")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [("deepsek", {}, "did you mean 'deepseek'"), ("codex-subscription", {"acount_id": "a"}, "did you mean 'account_id'")],
)
def test_a_wrong_word_is_met_with_the_nearest_right_one(name, options, says):
    with pytest.raises(ValueError, match=says):
        poll_of(name, "https://a.example", NOW, options)


# --- what is not understood ---------------------------------------------------------------------------------------------

REFUSED = [
    ("openrouter-key", "<html>", "no JSON"),
    ("openrouter-key", "{}", "has no `data`"),
    ("openrouter-key", "[1]", "has no `data`"),
    ("openrouter-key", '{"data": {"limit": "much"}}', "`limit` is no number"),
    ("openrouter-key", '{"data": {"limit": true}}', "`limit` is no number"),
    ("openrouter-key", '{"data": {"limit": 1e999999999}}', "`limit` is no number"),
    ("openrouter-key", '{"data": {"limit": ' + "9" * 5_000 + "}}", "no JSON"),
    ("openrouter-key", '{"data": {"limit": NaN}}', "no JSON"),
    ("openrouter-key", '{"data": {"limit": "NaN"}}', "`limit` is no number"),
    ("openrouter-key", "[" * 100_000, "no JSON"),
    ("openrouter-credits", '{"data": {"total_credits": 5}}', "has no `total_usage`"),
    ("deepseek", '{"balance_infos": []}', "has no `is_available`"),
    ("deepseek", '{"is_available": true, "balance_infos": [{"currency": "USD"}]}', "has no `total_balance`"),
    ("moonshot", '{"code": 5, "error": "secret words"}', "answers with code 5"),
    ("siliconflow", '{"code": 50000, "data": null}', "answers with code 50000"),
    ("litellm-key", '{"info": {}}', "has no `spend`"),
    ("openai-costs", '{"data": [], "has_more": true}', "further pages"),
    ("openai-costs", '{"data": {}}', "no list"),
    ("openai-costs", '{"data": [{"results": [{"amount": {"value": 1, "currency": "eur"}}]}]}', "not in USD"),
    ("openai-spend-limit", '{"currency": "USD"}', "has no `threshold_amount`"),
    ("anthropic-costs", '{"data": [{"results": [{"currency": "USD"}]}]}', "has no `amount`"),
    (
        "anthropic-member-spend",
        '{"data": [{"actor": {"user_id": "a"}, "period": "daily"}, {"actor": {"user_id": "b"}, "period": "daily"}]}',
        "several members",
    ),
    ("zai", '{"code": 1001, "success": false}', "answers with code 1001"),
    ("zai", '{"code": 200, "success": true, "data": {}}', "has no `limits`"),
    ("minimax", '{"base_resp": {"status_code": 1004}}', "answers with code 1004"),
    ("minimax", '{"base_resp": {"status_code": 0}}', "has no `model_remains`"),
    ("kimi", '{"usage": {"used": "1"}}', "has no `limit`"),
    ("anthropic-subscription", '{"error": {"type": "authentication_error"}}', "neither `five_hour` nor `limits`"),
    ("codex-subscription", '{"detail": "Unauthorized"}', "has no `rate_limit`"),
]


@pytest.mark.parametrize(("name", "body", "says"), REFUSED)
def test_a_body_that_is_not_understood_is_refused_by_naming_what_is_missing(name, body, says):
    with pytest.raises(UnreadablePoll, match=says) as refused:
        read_poll(name, body.encode(), NOW)
    assert isinstance(refused.value, UpstreamError)
    assert "secret" not in refused.value.message


members = st.sampled_from(
    sorted({name for answer in recorded() for name in json.dumps(json.loads(bytes(answer.values[1].body))).split('"')[1::2]})
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10)
    | st.sampled_from(["1e400", "-1", "2026-11-20T12:00:00Z", "USD", "session", "general"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=5),
    max_leaves=20,
)


@given(
    name=st.sampled_from(sorted(ENDPOINTS)), body=st.binary(max_size=30) | anything.map(lambda value: json.dumps(value).encode())
)
def test_no_body_whatever_raises_anything_else(name, body):
    try:
        said = read_poll(name, body, NOW)
    except UnreadablePoll:
        return
    assert all(number is None or number >= 0 for one in said for number in (one.used, one.limit, one.share_ppm))


@pytest.mark.parametrize(("name", "answer"), recorded())
@settings(max_examples=25)  # for each of them
@given(data=st.data())
def test_a_recorded_body_with_one_member_replaced_is_read_or_refused(name, answer, data):
    """Whatever changes in a vendor's answer, the poller ends in readings or in one kind of error."""
    body = json.loads(bytes(answer.body))
    place = body
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(anything)
            break
        place = place[key]
    try:
        read_poll(name, json.dumps(body).encode(), NOW)
    except UnreadablePoll as refused:
        assert refused.message  # noqa: PT017 -- either outcome is right


# --- pollers that are configuration -------------------------------------------------------------------------------------

BODY = b"""{"data": {"limit": "20.50", "spent": 1234, "left": 75.5, "reset": 1795176060000, "a/b": {"m~n": [10, 20]}, "none": null},
  "total": {"val": "-1000"}}"""


def pointed(**fields):
    poll = PointedPoll(url="https://billing.example/quota", windows=(PointedWindow(window="w", **fields),))
    (said,) = poll.read(BODY, NOW)
    return said


def test_a_window_in_dollars():
    said = pointed(unit=ReadingUnit.USD, used="/data/spent", limit="/data/limit", scale=Decimal("0.01"), resets_at="/data/reset")
    assert (said.used, said.limit) == (12_340_000_000, 205_000_000)
    assert said.resets_at == datetime(2026, 11, 20, 12, 1, tzinfo=UTC)


def test_a_balance_and_one_whose_sign_is_turned():
    assert (
        pointed(unit=ReadingUnit.USD, remaining="/data/limit").used,
        pointed(unit=ReadingUnit.USD, remaining="/data/limit").limit,
    ) == (
        0,
        20_500_000_000,
    )
    # xAI tells cents, and -1000 for ten dollars left (upstreams.md B16).
    assert pointed(unit=ReadingUnit.USD, remaining="/total/val", scale=Decimal("-0.01")).limit == 10_000_000_000
    debt = pointed(unit=ReadingUnit.USD, remaining="/total/val", scale=Decimal("0.01"))
    assert (debt.used, debt.limit, debt.left) == (10_000_000_000, 0, 0)


def test_a_share_in_percent_as_what_is_left_or_of_a_count():
    assert pointed(unit=ReadingUnit.SHARE, share="/data/left", scale=Decimal("0.01")).share_ppm == 755_000
    assert pointed(unit=ReadingUnit.SHARE, remaining="/data/left", scale=Decimal("0.01")).share_ppm == 245_000
    assert pointed(unit=ReadingUnit.SHARE, used="/data/a~1b/m~0n/0", limit="/data/a~1b/m~0n/1").share_ppm == 500_000


def test_counts_are_rounded_to_the_careful_side():
    said = pointed(unit=ReadingUnit.TOKENS, used="/data/left", limit="/data/limit", scale=Decimal(1))
    assert (said.used, said.limit) == (76, 20)


def test_null_is_not_said_and_a_pointer_to_nowhere_is_an_error():
    assert pointed(unit=ReadingUnit.REQUESTS, used="/data/none").used is None
    for pointer in ("/data/spend", "/data/a~1b/m~0n/2", "/data/a~1b/m~0n/01", "/data/a~1b/m~0n/-", "/data/spent/0", "//"):
        with pytest.raises(UnreadablePoll, match="leads nowhere"):
            pointed(unit=ReadingUnit.REQUESTS, used=pointer)


def test_an_empty_pointer_is_the_whole_answer():
    (said,) = PointedPoll(url="https://a.example", windows=(PointedWindow(window="w", unit=ReadingUnit.USD, remaining=""),)).read(
        b"12.5", NOW
    )
    assert said.limit == 12_500_000_000


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"used": "data/limit"}, "no JSON pointer"),
        ({"used": "/data/~2"}, "no JSON pointer"),
        ({}, "points at nothing"),
        ({"share": "/a"}, "not at share"),
        ({"unit": ReadingUnit.SHARE, "used": "/a"}, "points at nothing"),
        ({"used": "/a", "scale": Decimal(0)}, "needs a scale"),
        ({"used": "/a", "scale": Decimal("NaN")}, "needs a scale"),
    ],
)
def test_a_window_that_cannot_be_read_is_refused_when_it_is_written(fields, says):
    with pytest.raises(ValueError, match=says):
        PointedWindow(**{"window": "w", "unit": ReadingUnit.USD} | fields)


def test_a_poller_of_the_operators_own_asks_with_its_own_credential_and_not_too_often():
    window = PointedWindow(window="w", unit=ReadingUnit.USD, used="/a")
    poll = PointedPoll(url="https://a.example/x?y=1", windows=(window,), auth=Auth.X_API_KEY, headers={"x": "y"}).poll()
    assert (poll.url, poll.credential) == ("https://a.example/x?y=1", CredentialKind.OWN)
    assert poll.signed("s") == {"Accept": "application/json", "x": "y", "x-api-key": "s"}
    with pytest.raises(ValueError, match="too often"):
        PointedPoll(url="https://a.example", windows=(window,), interval_min_s=1)
    with pytest.raises(ValueError, match="no windows"):
        PointedPoll(url="https://a.example", windows=())

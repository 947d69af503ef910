"""
The quota endpoints that can be polled: which request each takes, how often, and who reads its answer.

Law: a request goes to the host of the provider it is made for, and nowhere else: a poller that is named for the wrong provider
shows its credential to nobody new. How often is bounded from below, by the vendor's word where there is one.
Never: sends anything; holds a secret longer than it takes to write one header; follows pages.

Source: upstreams.md B, read 2026-11-20; each row says what its interval rests on.

Decision 2026-11 -- no `User-Agent` of a vendor's own client, although public clients send one to the private endpoints: we do not
    pose.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from quota_router.core.readings import Said
from quota_router.dialects.vendors import balances, organisations, plans, subscriptions
from quota_router.dialects.vendors.answers import Node, month_start, read_json
from quota_router.errors import did_you_mean


class Auth(StrEnum):
    """The header that carries the credential."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"


class CredentialKind(StrEnum):
    """Which credential an endpoint takes. All but `CALLS` are the operator's to give to the poller itself."""

    CALLS = "calls"
    """the one that calls are made with"""
    MANAGEMENT = "management"
    ADMIN = "admin"
    SUBSCRIPTION = "subscription"
    """a token of a personal plan; the vendor's terms decide whether it may be used here"""
    OWN = "own"
    """of an endpoint that the operator chose: its own"""


class Endpoint(Struct, frozen=True, kw_only=True):
    """One quota endpoint, as data."""

    path: str
    """below the provider's host, or below its base URL without `/v1` where `is_below_base`"""
    read: Callable[[Node, datetime], Iterator[Said]]
    credential: CredentialKind
    auth: Auth = Auth.BEARER
    headers: Mapping[str, str] = {}
    query: Callable[[datetime], Mapping[str, str]] | None = None
    options: Mapping[str, str] = {}
    """what an operator may add: its name -> the header, or `?field` of the query, that it becomes"""
    is_below_base: bool = False
    interval_min_s: int
    interval_source: str
    """what the least interval rests on"""


class Poll(Struct, frozen=True, kw_only=True):
    """The request to make. It has no body."""

    method: str
    url: str
    headers: Mapping[str, str]
    """all but the one with the credential"""
    auth: Auth
    credential: CredentialKind
    interval_min_s: int

    def signed(self, secret: str) -> dict[str, str]:
        """All headers, the one with the credential among them."""
        if self.auth is Auth.BEARER:
            return {**self.headers, "Authorization": f"Bearer {secret}"}
        return {**self.headers, "x-api-key": secret}


def poll_of(name: str, base_url: str, now: datetime, options: Mapping[str, str] | None = None) -> Poll:
    """
    The request that the poller *name* makes for a provider.

    Args:
        name: one of `ENDPOINTS`.
        base_url: the provider's.
        now: aware UTC; some endpoints are asked for the month that it lies in.
        options: of the endpoint, as the operator gave them.

    Raises:
        ValueError: there is no such endpoint or option; the message is a sentence.
    """
    endpoint = _endpoint(name)
    headers, query = {"Accept": "application/json", **endpoint.headers}, dict(endpoint.query(now)) if endpoint.query else {}
    for option, value in (options or {}).items():
        field = endpoint.options.get(option)
        if field is None:
            raise ValueError(f"poller {name!r} has no option {option!r}: {did_you_mean(option, endpoint.options)}")
        if field.startswith("?"):
            query[field[1:]] = value
        else:
            headers[field] = value
    parts = urlsplit(base_url)
    below = parts.path.rstrip("/").removesuffix("/v1") if endpoint.is_below_base else ""
    return Poll(
        method="GET",
        url=f"{parts.scheme}://{parts.netloc}{below}{endpoint.path}" + (f"?{urlencode(query)}" if query else ""),
        headers=headers,
        auth=endpoint.auth,
        credential=endpoint.credential,
        interval_min_s=endpoint.interval_min_s,
    )


def read_poll(name: str, body: bytes, now: datetime) -> tuple[Said, ...]:
    """
    What the answer of an endpoint says of the account's windows.

    Args:
        name: of the endpoint.
        body: of a 200; any other status has no readings.
        now: when it arrived, aware UTC.

    Returns:
        one for each window; none when the account has no limits.

    Raises:
        UnreadablePoll: it is not understood; the message names what is missing.
        ValueError: there is no such endpoint.
    """
    return tuple(_endpoint(name).read(read_json(body), now))


def _endpoint(name: str) -> Endpoint:
    endpoint = ENDPOINTS.get(name)
    if endpoint is None:
        raise ValueError(f"there is no poller {name!r}: {did_you_mean(name, ENDPOINTS)}")
    return endpoint


# --- the endpoints ----------------------------------------------------------------------------------------------------

_UNSTATED = "no interval is documented; five minutes is ours"
_ANTHROPIC_VERSION = {"anthropic-version": "2023-06-01"}
_BUCKETS_MAX = "31"
"""Days of a month: the most that Anthropic gives on a page."""


def _openai_month(now: datetime) -> Mapping[str, str]:
    return {"start_time": str(int(month_start(now).timestamp())), "bucket_width": "1d", "limit": _BUCKETS_MAX}


def _anthropic_month(now: datetime) -> Mapping[str, str]:
    return {"starting_at": f"{month_start(now):%Y-%m-%dT%H:%M:%SZ}", "bucket_width": "1d", "limit": _BUCKETS_MAX}


def _anthropic_beta(_now: datetime) -> Mapping[str, str]:
    return {"beta": "true", "limit": "100"}


def _balance(path: str, read: Callable[[Node, datetime], Iterator[Said]]) -> Endpoint:
    """An endpoint that takes the key of the calls, and whose vendor does not say how often it may be asked."""
    return Endpoint(path=path, read=read, credential=CredentialKind.CALLS, interval_min_s=300, interval_source=_UNSTATED)


ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        "openrouter-key": Endpoint(
            path="/api/v1/key",
            read=balances.read_openrouter_key,
            credential=CredentialKind.CALLS,
            interval_min_s=60,
            interval_source="balances may lag a minute (observed): asking sooner tells nothing new",
        ),
        "openrouter-credits": Endpoint(
            path="/api/v1/credits",
            read=balances.read_openrouter_credits,
            credential=CredentialKind.MANAGEMENT,
            interval_min_s=60,
            interval_source="balances may lag a minute (observed): asking sooner tells nothing new",
        ),
        "deepseek": _balance("/user/balance", balances.read_deepseek),
        "moonshot": _balance("/v1/users/me/balance", balances.read_moonshot),
        "moonshot-cn": _balance("/v1/users/me/balance", balances.read_moonshot_cn),
        "siliconflow": _balance("/v1/user/info", balances.read_siliconflow),
        "siliconflow-cn": _balance("/v1/user/info", balances.read_siliconflow_cn),
        "zai": _balance("/api/monitor/usage/quota/limit", plans.read_zai),
        "minimax": _balance("/v1/token_plan/remains", plans.read_minimax),
        "kimi": _balance("/coding/v1/usages", plans.read_kimi),
        "litellm-key": Endpoint(
            path="/key/info",
            read=balances.read_litellm_key,
            credential=CredentialKind.CALLS,
            is_below_base=True,
            interval_min_s=60,
            interval_source="the operator's own proxy",
        ),
        "openai-costs": Endpoint(
            path="/v1/organization/costs",
            read=organisations.read_openai_costs,
            credential=CredentialKind.ADMIN,
            query=_openai_month,
            interval_min_s=900,
            interval_source="costs are told by the day; a quarter of an hour is ours",
        ),
        "openai-spend-limit": Endpoint(
            path="/v1/organization/spend_limit",
            read=organisations.read_openai_spend_limit,
            credential=CredentialKind.ADMIN,
            interval_min_s=300,
            interval_source=_UNSTATED,
        ),
        "anthropic-costs": Endpoint(
            path="/v1/organizations/cost_report",
            read=organisations.read_anthropic_costs,
            credential=CredentialKind.ADMIN,
            auth=Auth.X_API_KEY,
            headers=_ANTHROPIC_VERSION,
            query=_anthropic_month,
            interval_min_s=60,
            interval_source="platform.claude.com, usage and cost API: once a minute for sustained use, data some minutes late",
        ),
        "anthropic-spend-limits": Endpoint(
            path="/v1/organizations/spend_limits",
            read=organisations.read_anthropic_spend_limits,
            credential=CredentialKind.ADMIN,
            auth=Auth.X_API_KEY,
            headers={**_ANTHROPIC_VERSION, "anthropic-beta": "spend-limit-reads-2026-09-26"},
            query=_anthropic_beta,
            interval_min_s=300,
            interval_source=_UNSTATED,
        ),
        "anthropic-member-spend": Endpoint(
            path="/v1/organizations/spend_limits/effective",
            read=organisations.read_anthropic_member_spend,
            credential=CredentialKind.ADMIN,
            auth=Auth.X_API_KEY,
            headers=_ANTHROPIC_VERSION,
            query=_anthropic_beta,
            options={"user_id": "?user_ids[]"},
            interval_min_s=300,
            interval_source=_UNSTATED,
        ),
        "anthropic-subscription": Endpoint(
            path="/api/oauth/usage",
            read=subscriptions.read_anthropic_subscription,
            credential=CredentialKind.SUBSCRIPTION,
            headers={"anthropic-beta": "oauth-2025-04-20"},
            interval_min_s=900,
            interval_source="observed: six probes 45 s apart all met 429, once with a wait of 1,963 s",
        ),
        "codex-subscription": Endpoint(
            path="/backend-api/wham/usage",
            read=subscriptions.read_codex_subscription,
            credential=CredentialKind.SUBSCRIPTION,
            options={"account_id": "ChatGPT-Account-Id"},
            interval_min_s=300,
            interval_source=_UNSTATED,
        ),
    }
)
"""By name, as `quota_sources` and a poller's `name` say it."""

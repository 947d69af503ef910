"""
Anthropic's requests: what a body asks for, and how it goes upstream.

Law: every member but `model` keeps its bytes.
Never: sends a caller's credential upstream.

Decision 2026-11 -- a caller that names no `anthropic-version` gets 2023-06-01: upstream refuses a call without one, and the
    newer version takes parameters away (upstreams.md G, read 2026-11-20).
Decision 2026-11 -- the bound errs upward: server tools, compaction, and everything that multiplies the price list count as
    open-ended, and only strict limits refuse them.
"""

from collections.abc import Mapping

import msgspec

from quota_router.core.calls import CallFacts, Operation
from quota_router.dialects.base import Parsed
from quota_router.dialects.bounds import file_id, input_bound
from quota_router.dialects.fields import CapOrZero, Name, read_fields
from quota_router.dialects.headers import allowed
from quota_router.dialects.json import read_object

PATHS: dict[Operation, str] = {
    Operation.MESSAGES: "/v1/messages",
    Operation.COUNT_TOKENS: "/v1/messages/count_tokens",
}
"""Below a base URL without /v1."""

DEFAULT_VERSION = "2023-06-01"
REQUEST_HEADERS = frozenset({"accept", "anthropic-version", "anthropic-beta"})
RESPONSE_HEADERS = frozenset({"content-type", "cache-control", "retry-after", "retry-after-ms", "x-should-retry"})
RESPONSE_PREFIXES = ("anthropic-ratelimit-",)
"""Not among them: cookies, lengths and codings (ours differ), `request-id` (ours), `anthropic-organization-id` (the operator's)."""

_PLAIN_TIERS = frozenset({None, "auto", "standard_only"})
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
"""Tools with the vendor's schema that the caller runs: they cost their tokens and nothing else."""
_COMPACTION = b'"compact_'
_MUST_BE = {"max_tokens": "zero or a positive integer"}
"""Zero fills the cache and writes nothing (SDK 2.11, read 2026-11-20)."""


class _Tool(msgspec.Struct):
    type: str | None = None


class _Messages(msgspec.Struct):
    model: Name | None = None
    stream: bool | None = None
    max_tokens: CapOrZero | None = None
    tools: list[_Tool] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    mcp_servers: list[msgspec.Raw] | None = None


_MESSAGES = msgspec.json.Decoder(_Messages)


def read(operation: Operation, body: bytes) -> Parsed:
    """
    Read a body once.

    Raises:
        MalformedBody: it is not one JSON object.
        InvalidRequest: a field we route by is wrong.
    """
    top = read_object(body)
    asked = read_fields(body, _MESSAGES, _MUST_BE)
    is_count = operation is Operation.COUNT_TOKENS
    kinds = [tool.type for tool in asked.tools or () if tool.type not in {None, "custom"}]
    open_ended = {
        "server tools in `tools`": any(not kind.startswith(_CLIENT_TOOLS) for kind in kinds if kind is not None),
        "this `speed`": asked.speed not in {None, "standard"},
        "this `inference_geo`": asked.inference_geo not in {None, "global"},
        "this `service_tier`": asked.service_tier not in _PLAIN_TIERS,
        "`mcp_servers`": bool(asked.mcp_servers),
        "compaction in `context_management`": _COMPACTION in body,
    }
    reasons = () if is_count else tuple([what for what, is_there in open_ended.items() if is_there])
    facts = CallFacts(
        model=asked.model,
        stream=bool(asked.stream) and not is_count,
        max_output_tokens=0 if is_count else asked.max_tokens,
        input_tokens=input_bound(body, tools=len(asked.tools or ()), vendor_tools=len(kinds)),
        is_open_ended=bool(reasons),
        open_ended_by=reasons,
        leans_on=file_id(body),
    )
    return Parsed(facts=facts, top=top)


def upstream_path(operation: Operation) -> str:
    """The path below the provider's base URL."""
    return PATHS[operation]


def _credential_headers(secret: str) -> dict[str, str]:
    """How this family carries a credential."""
    return {"x-api-key": secret}


def outgoing_headers(incoming: Mapping[str, str], secret: str | None) -> dict[str, str]:
    """
    The headers for upstream, from the allow list.

    Args:
        incoming: the caller's, names in lower case.
        secret: the provider's; `None` for one that needs none.
    """
    return {
        "anthropic-version": DEFAULT_VERSION,
        **allowed(incoming, REQUEST_HEADERS),
        "content-type": "application/json",
        "accept-encoding": "identity",
        **(_credential_headers(secret) if secret is not None else {}),
    }


def answer_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """What of an upstream's headers reaches the caller, names in lower case."""
    return allowed(upstream, RESPONSE_HEADERS, RESPONSE_PREFIXES)

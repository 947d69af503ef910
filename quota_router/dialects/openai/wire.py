"""
OpenAI's requests: what a body asks for, and how it goes upstream.

Law: every member but `model` keeps its bytes; `stream_options.include_usage` is the one addition.
Never: sends a caller's credential, organisation or project upstream: those choose who pays.

Decision 2026-11 -- the bound errs upward: whatever might run tools at the vendor's, cost by another list, or lean on text that
    is not in the body counts as open-ended or unbounded, and only strict limits refuse it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from quota_router.core.calls import CallFacts, Operation
from quota_router.dialects.base import Parsed
from quota_router.dialects.bounds import file_id, input_bound
from quota_router.dialects.fields import Cap, Choices, Name, labels_of, read_fields
from quota_router.dialects.headers import allowed
from quota_router.dialects.json import is_given, read_object
from quota_router.errors import InvalidRequest

PATHS: dict[Operation, str] = {
    Operation.CHAT: "/chat/completions",
    Operation.COMPLETIONS: "/completions",
    Operation.RESPONSES: "/responses",
    Operation.EMBEDDINGS: "/embeddings",
}
"""Below a base URL that ends in /v1."""

REQUEST_HEADERS = frozenset({"accept", "openai-beta"})
RESPONSE_HEADERS = frozenset({"content-type", "cache-control", "retry-after", "retry-after-ms", "x-should-retry"})
RESPONSE_PREFIXES = ("x-ratelimit-", "openai-processing-ms", "openai-version", "openai-model")
"""Not among them: cookies, lengths and codings (ours differ), `x-request-id` (ours), `openai-organization` (the operator's)."""

_PLAIN_TIERS = frozenset({None, "auto", "default", "standard"})
_OWN_TOOLS = frozenset({None, "function", "custom"})


class _Tool(msgspec.Struct):
    type: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Kept(msgspec.Struct):
    id: str | None = None


class _Fields(msgspec.Struct):
    model: Name | None = None
    metadata: dict[str, msgspec.Raw] | None = None


class _Chat(_Fields):
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Cap | None = None
    max_completion_tokens: Cap | None = None
    n: Choices | None = None
    tools: list[_Tool] | None = None
    modalities: list[str] | None = None
    service_tier: str | None = None
    web_search_options: msgspec.Raw = msgspec.Raw()
    plugins: msgspec.Raw = msgspec.Raw()


class _Completions(_Fields):
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Cap | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    prompt: str | list[msgspec.Raw] | None = None
    service_tier: str | None = None


class _Responses(_Fields):
    stream: bool | None = None
    max_output_tokens: Cap | None = None
    tools: list[_Tool] | None = None
    input: str | list[_Item] | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | _Kept | None = None
    service_tier: str | None = None


_CHAT = msgspec.json.Decoder(_Chat)
_COMPLETIONS = msgspec.json.Decoder(_Completions)
_RESPONSES = msgspec.json.Decoder(_Responses)
_EMBEDDINGS = msgspec.json.Decoder(_Fields)


def read(operation: Operation, body: bytes) -> Parsed:
    """
    Read a body once.

    Raises:
        MalformedBody: it is not one JSON object.
        InvalidRequest: a field we route by is wrong, or asks for what is not served here.
    """
    top = read_object(body)
    replacements: dict[str, bytes] = {}
    match operation:
        case Operation.CHAT:
            chat = read_fields(body, _CHAT)
            facts = _chat_facts(chat, body)
        case Operation.COMPLETIONS:
            facts = _completions_facts(read_fields(body, _COMPLETIONS), body)
        case Operation.RESPONSES:
            facts = _responses_facts(read_fields(body, _RESPONSES), body)
        case Operation.EMBEDDINGS:
            facts = _facts(read_fields(body, _EMBEDDINGS), body, max_output_tokens=0)
        case _:
            raise AssertionError(f"not an operation of this dialect: {operation}")
    if not facts.asks_usage:
        options = top.raw("stream_options")
        has_options = options is not None and options != b"null"
        replacements["stream_options"] = read_object(options if options and has_options else b"{}").replaced(
            {"include_usage": b"true"}
        )
    return Parsed(facts=facts, top=top, replacements=replacements)


def upstream_path(operation: Operation) -> str:
    """The path below the provider's base URL."""
    return PATHS[operation]


def _credential_headers(secret: str) -> dict[str, str]:
    """How this family carries a credential."""
    return {"authorization": f"Bearer {secret}"}


def outgoing_headers(incoming: Mapping[str, str], secret: str | None) -> dict[str, str]:
    """
    The headers for upstream, from the allow list.

    Args:
        incoming: the caller's, names in lower case.
        secret: the provider's; `None` for one that needs none.
    """
    return {
        **allowed(incoming, REQUEST_HEADERS),
        "content-type": "application/json",
        "accept-encoding": "identity",
        **(_credential_headers(secret) if secret is not None else {}),
    }


def answer_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """What of an upstream's headers reaches the caller, names in lower case."""
    return allowed(upstream, RESPONSE_HEADERS, RESPONSE_PREFIXES)


def _chat_facts(chat: _Chat, body: bytes) -> CallFacts:
    caps = [cap for cap in (chat.max_tokens, chat.max_completion_tokens) if cap is not None]
    speaks_otherwise = any(modality != "text" for modality in chat.modalities or ())
    return _facts(
        chat,
        body,
        tools=chat.tools,
        service_tier=chat.service_tier,
        open_ended_by={
            "`modalities` other than text": speaks_otherwise,
            "`web_search_options`": is_given(chat.web_search_options),
            "`plugins`": is_given(chat.plugins),
        },
        stream=bool(chat.stream),
        asks_usage=_asks_usage(chat),
        max_output_tokens=min(caps, default=None),
        choices=chat.n or 1,
    )


def _completions_facts(asked: _Completions, body: bytes) -> CallFacts:
    # A list of texts, or of token lists, is a batch of prompts; each is answered `n` times.
    prompts = asked.prompt if isinstance(asked.prompt, list) else []
    is_batch = bool(prompts) and bytes(prompts[0]).startswith((b'"', b"["))
    return _facts(
        asked,
        body,
        service_tier=asked.service_tier,
        stream=bool(asked.stream),
        asks_usage=_asks_usage(asked),
        max_output_tokens=asked.max_tokens,
        choices=max(asked.n or 1, asked.best_of or 1) * (len(prompts) if is_batch else 1),
    )


def _responses_facts(asked: _Responses, body: bytes) -> CallFacts:
    if asked.background:
        raise InvalidRequest(
            "`background` is not served here: its answer would outlive the call. Leave it out, or stream.",
            param="background",
        )
    conversation = asked.conversation.id if isinstance(asked.conversation, _Kept) else asked.conversation
    items = asked.input if isinstance(asked.input, list) else []
    has_bare_ids = any(item.type is None and item.role is None for item in items)
    leans_on = asked.previous_response_id or conversation
    return _facts(
        asked,
        body,
        tools=asked.tools,
        service_tier=asked.service_tier,
        leans_on=leans_on,
        refers=leans_on is not None or is_given(asked.prompt) or has_bare_ids,
        stream=bool(asked.stream),
        max_output_tokens=asked.max_output_tokens,
    )


def _facts(
    fields: _Fields,
    body: bytes,
    *,
    tools: list[_Tool] | None = None,
    service_tier: str | None = None,
    open_ended_by: Mapping[str, bool] = {},
    leans_on: str | None = None,
    refers: bool = False,
    **more: Any,  # noqa: ANN401 -- further members of CallFacts, as they are
) -> CallFacts:
    hosted = sum(tool.type not in _OWN_TOOLS for tool in tools or ())
    is_other_tier = service_tier not in _PLAIN_TIERS
    known = {**open_ended_by, "hosted tools in `tools`": hosted > 0, "this `service_tier`": is_other_tier}
    reasons = tuple([what for what, is_there in known.items() if is_there])
    return CallFacts(
        model=fields.model,
        input_tokens=None if refers else input_bound(body, tools=len(tools or ()), vendor_tools=hosted),
        is_open_ended=bool(reasons),
        open_ended_by=reasons,
        leans_on=leans_on or file_id(body),
        labels=labels_of(fields.metadata),
        **more,
    )


def _asks_usage(asked: _Chat | _Completions) -> bool:
    return not asked.stream or bool(asked.stream_options and asked.stream_options.include_usage)

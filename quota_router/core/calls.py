"""
What a caller sent, as values.

Law: everything the router needs to know of a body is read once, into `CallFacts`; the bytes themselves are only forwarded.
Never: keeps prompts; a body lives as long as its call and is written nowhere.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

from quota_router.core.catalog import Caller, Family


class Operation(StrEnum):
    """Which endpoint of the dialect was called."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    ROUTE = "route"
    """a decision only: the caller makes the call itself"""


class Plane(StrEnum):
    """Who makes the call upstream: we (`DATA`), or the caller with our decision (`DECISION`)."""

    DATA = "data"
    DECISION = "decision"


class CallFacts(Struct, frozen=True, kw_only=True):
    """The routing fields of a body. Nothing here is ever a prompt."""

    model: str | None = None
    stream: bool = False
    asks_usage: bool = True
    """False when it is an OpenAI stream whose caller did not ask for the usage chunk"""
    max_output_tokens: int | None = None
    """the smallest output cap that was stated; `None`: none was"""
    choices: int = 1
    """how many answers were asked for (`n`, `best_of`)"""
    input_tokens: int | None = None
    """the upper bound of the input; `None`: content by reference, the model's context is the bound"""
    is_open_ended: bool = False
    """hosted tools or an unknown service tier: what it may cost has no bound we know"""
    open_ended_by: tuple[str, ...] = ()
    """what makes it so, as the caller may be told: `service_tier`, …"""
    leans_on: str | None = None
    """the upstream state it leans on (`previous_response_id`, …): pinned to the provider that made it"""
    labels: tuple[str, ...] = ()
    """from OpenAI `metadata`, as `key:value`"""


class Body(Protocol):
    """What was sent. Beyond `CallFacts`, it is looked at only where that makes a difference to this call."""

    @property
    def size(self) -> int:
        """In bytes; 0: the caller makes the call himself, and nothing was sent."""

    def for_model(self, upstream_model: str) -> bytes:
        """The bytes to send, given the upstream's name of the model; everything else in them is as the caller sent it."""

    def named_session(self) -> str | None:
        """The session that it names; `None`: it names none."""

    def prefix(self) -> bytes:
        """How the prompt begins, as far as it stays the same for a whole conversation; empty: too short for any cache."""

    def needs(self) -> frozenset[str]:
        """The capabilities that it asks of a model: `vision`, `audio`, `files`, `tools`, `json_schema`, `reasoning`."""

    def members(self) -> dict[str, Any]:
        """What it holds, decoded anew: whoever asks may change it."""

    def rewritten(self, members: Mapping[str, Any]) -> bytes:
        """The bytes of another body, with these members; those that stay the same keep their bytes."""


class NoBody:
    """Stands in where the caller makes the call himself."""

    size = 0

    def for_model(self, upstream_model: str) -> bytes:  # noqa: ARG002 -- as `Body`
        """Nothing is sent."""
        return b""

    def named_session(self) -> str | None:
        """None is named here."""
        return None

    def prefix(self) -> bytes:
        """We never see it."""
        return b""

    def needs(self) -> frozenset[str]:
        """The caller says what it needs."""
        return frozenset()

    def members(self) -> dict[str, Any]:
        """There is nothing in it."""
        return {}

    def rewritten(self, members: Mapping[str, Any]) -> bytes:  # noqa: ARG002 -- as `Body`
        """Nothing is sent."""
        return b""


NO_BODY = NoBody()


class Call(Struct, frozen=True, kw_only=True):
    """One call, as the way of a call sees it."""

    id: str
    caller: Caller
    family: Family
    operation: Operation
    facts: CallFacts
    plane: Plane = Plane.DATA
    model: str | None = None
    """the model asked for; `None`: the default decides"""
    body: Body = NO_BODY
    query: str = ""
    """the query string, without the question mark, forwarded as it came"""
    headers: Mapping[str, str] = {}
    """the incoming headers, lower-case; the dialect's allow list decides what is forwarded"""
    labels: tuple[str, ...] = ()
    session: str | None = None
    """as the caller names it himself"""
    priority: int | None = None
    task_id: str | None = None
    retry_count: int | None = None
    """how often the caller has tried before; these three are for rules"""
    requires: frozenset[str] = frozenset()
    """capabilities that the caller asks for by name"""
    max_wait_s: float = 0.0
    """how long the call may wait for a rung to become usable"""
    pinned_provider: str | None = None
    is_of_router: bool = False
    """made by a router on its way to an answer: no router is asked about it, nor a rule"""
    workflow: str | None = None
    stage: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    """digest of what was asked, compared when the key comes again"""
    deadline: datetime | None = None
    """the caller's own, aware UTC"""
    max_cost_nusd: int | None = None

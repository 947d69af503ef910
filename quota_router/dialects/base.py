"""
The values that pass between a dialect and its callers.

Law: these are the same for every family; what differs between vendors stays inside the family's room.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.json import encode

from quota_router.core.calls import CallFacts
from quota_router.core.usage import Usage
from quota_router.dialects.glances import named_session, needs, prefix
from quota_router.dialects.json import TopLevel
from quota_router.errors import UpstreamError


class UnreadableAnswer(UpstreamError):
    """The provider's answer cannot be read."""

    code = "upstream_invalid"


class Parsed(Struct, frozen=True, kw_only=True):
    """A body that was read once: its facts, and the body that `core/calls` knows."""

    facts: CallFacts
    top: TopLevel
    replacements: Mapping[str, bytes] = {}
    """members besides `model` whose value differs upstream"""

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.top.body)

    def for_model(self, upstream_model: str) -> bytes:
        """The bytes to send: every member but `model` and the replacements keeps its own."""
        return self.top.replaced({"model": encode(upstream_model), **self.replacements})

    def named_session(self) -> str | None:
        """The session that it names."""
        return named_session(self.top)

    def prefix(self) -> bytes:
        """How the prompt begins."""
        return prefix(self.top)

    def needs(self) -> frozenset[str]:
        """What its media ask of a model."""
        return needs(self.top)

    def members(self) -> dict[str, Any]:
        """What it holds, decoded anew."""
        return self.top.members()

    def rewritten(self, members: Mapping[str, Any]) -> bytes:
        """The bytes of another body; raises `TypeError` for what JSON cannot carry."""
        return self.top.rewritten(members)


class Answer(Struct, frozen=True, kw_only=True):
    """What a body that did not stream tells us."""

    usage: Usage | None
    """`None`: nobody said, or the counts were absurd"""
    cost_nusd: int | None
    """as the upstream reported it, rounded up; `None`: it does not"""
    failed: bool
    """an error inside a 200: `classify_event` reads it from the same bytes"""
    answer_id: str | None
    """the upstream's own id of the answer, which a later call may lean on"""


class EventKind(StrEnum):
    """What an event of a stream means for us."""

    OPENING = "opening"
    """before any content: may be held back while another rung can still be tried"""
    CONTENT = "content"
    TERMINAL = "terminal"
    """the end marker, and whatever follows it"""
    ERROR = "error"
    """`classify_event` reads the failure from its data"""
    HIDDEN = "hidden"
    """the usage chunk that we asked for and the caller did not: counted, not forwarded"""


class Event(Struct, frozen=True, kw_only=True):
    """One event. `data`: the bytes as they came, blank line included."""

    kind: EventKind
    data: bytes


class Spoken(Struct, frozen=True, kw_only=True):
    """An answer that came as text, not in a dialect: what a dialect needs to tell it."""

    id: str
    """without a dialect's prefix"""
    created: int
    """seconds since 1970"""
    model: str
    text: str
    usage: Usage
    """of quality `estimated` where nobody reported one"""
    cost_nusd: int | None
    """as the tool reported it; `None`: it does not"""


class Refusal(Struct, frozen=True, kw_only=True):
    """An error answer in a dialect, which that dialect's own tables read as the failure it was made of."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a model list tells of one model. `None`: unknown, and left out."""

    id: str
    display_name: str
    created_at: datetime
    context_tokens: int | None = None
    max_output_tokens: int | None = None

"""
The wire dialects: bytes to values and back.

Law: pure. What a vendor's bytes mean is known here and nowhere above; what differs between families stays inside a family's
room, and both rooms offer the functions of `Dialect`.
Never: opens connections, reads the clock, decides where a call goes.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, assert_never

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Family
from quota_router.core.health import Failure
from quota_router.core.usage import Usage
from quota_router.dialects import anthropic, openai
from quota_router.dialects.base import Answer, Event, EventKind, ModelCard, Parsed, Refusal, Spoken, UnreadableAnswer
from quota_router.dialects.prompts import Prompt
from quota_router.dialects.stream import StreamReader
from quota_router.errors import QuotaRouterError

__all__ = [
    "Answer",
    "Dialect",
    "Event",
    "EventKind",
    "ModelCard",
    "Parsed",
    "Prompt",
    "Refusal",
    "Spoken",
    "StreamReader",
    "UnreadableAnswer",
    "dialect_of",
]


class Dialect(Protocol):
    """What a family's room offers; the functions' own docstrings say the rest."""

    def read(self, operation: Operation, body: bytes) -> Parsed:
        """Read a caller's body once; raises `MalformedBody` or `InvalidRequest`."""

    def upstream_path(self, operation: Operation) -> str:
        """The path below the provider's base URL."""

    def outgoing_headers(self, incoming: Mapping[str, str], secret: str | None) -> dict[str, str]:
        """The headers for upstream; `secret` is `None` for a keyless provider."""

    def answer_headers(self, upstream: Mapping[str, str]) -> dict[str, str]:
        """What of an upstream's headers reaches the caller."""

    def read_answer(self, operation: Operation, body: bytes) -> Answer:
        """Read an answer that did not stream; raises `UnreadableAnswer`."""

    def reader(self, operation: Operation, facts: CallFacts) -> StreamReader:
        """A reader for one stream."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, vendor: str = "") -> Failure:
        """What an answer other than 2xx means; `vendor` is the provider's."""

    def classify_event(self, data: bytes, now: datetime, *, vendor: str = "") -> Failure:
        """What an error inside a 200 means: an event of a stream, or a whole body."""

    def render_error(self, error: QuotaRouterError, call_id: str | None) -> bytes:
        """The body of our own error."""

    def error_event(self, operation: Operation, error: QuotaRouterError, call_id: str | None) -> bytes:
        """The event with which we end a stream that broke."""

    def prompt_of(self, operation: Operation, body: bytes) -> Prompt:
        """A caller's body as a plain prompt; raises `InvalidRequest` for what such a prompt cannot carry."""

    QUESTION: Operation
    """the operation of a question in text"""

    def render_question(
        self, model: str, prompt: str, *, system: str | None, max_output_tokens: int | None, vendors: Collection[str]
    ) -> bytes:
        """The body of a question in text."""

    def text_of(self, body: bytes) -> str:
        """The text of its answer; raises `UnreadableAnswer`."""

    def render_answer(self, operation: Operation, spoken: Spoken) -> bytes:
        """An answer that came as text."""

    def render_stream(self, operation: Operation, spoken: Spoken, *, with_usage: bool = True) -> bytes:
        """The same as a whole stream."""

    def render_refusal(self, failure: Failure, usage: Usage | None, cost_nusd: int | None) -> Refusal:
        """A failure that came in words."""

    def models_page(self, cards: Sequence[ModelCard]) -> bytes:
        """The list of models."""

    def model_page(self, card: ModelCard) -> bytes:
        """One model."""


def dialect_of(family: Family) -> Dialect:
    """The dialect that a family speaks."""
    match family:
        case Family.OPENAI:
            return openai
        case Family.ANTHROPIC:
            return anthropic
        case _:
            assert_never(family)

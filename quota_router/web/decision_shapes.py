"""
What the decision plane may be asked.

Law: every field is bounded in kind and size; a missing number is missing, an explicit 0 is 0.
Never: decides anything.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import to_json

from quota_router.web.asked import HEADER_MAX_CHARS, LABEL_MAX_CHARS, LABELS_MAX
from quota_router.web.strict import Strict

TOKENS_MAX = 10**9
"""In one count: more than any model reads or writes."""
TTL_S = 300
TTL_MAX_S = 86_400
HEADERS_MAX = 100
HEADER_VALUE_MAX_CHARS = 8_192
ERROR_MAX_CHARS = 131_072
"""Of the upstream's error that a caller passes on."""


def printable(text: str) -> str:
    """Refuse what a terminal or a log would not show as it is."""
    if not text.isprintable():
        raise ValueError("must be printable.")
    return text


def _as_text(body: object) -> object:
    """An error's body as SDKs hand it out: text, or the JSON they read from it."""
    return to_json(body).decode() if isinstance(body, dict) else body


Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=HEADER_MAX_CHARS), AfterValidator(printable)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=LABEL_MAX_CHARS), AfterValidator(printable)]
Headers = Annotated[dict[str, Annotated[str, StringConstraints(max_length=HEADER_VALUE_MAX_CHARS)]], Field(max_length=HEADERS_MAX)]
ErrorText = Annotated[str, BeforeValidator(_as_text), StringConstraints(max_length=ERROR_MAX_CHARS)]


class Task(Strict):
    """What the caller is working on."""

    id: Word | None = None


class RouteAsked(Strict):
    """
    Who could take a call.

    `priority`, `task`, `retry_count`, `requires` and `session` are for routing rules and affinity; where there are none they decide
    nothing.
    """

    model: Word | None = None
    input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    labels: Annotated[tuple[Label, ...], Field(max_length=LABELS_MAX)] = ()
    priority: Annotated[int, Field(ge=-TOKENS_MAX, le=TOKENS_MAX)] | None = None
    task: Task | None = None
    retry_count: Tokens | None = None
    requires: Annotated[tuple[Label, ...], Field(max_length=LABELS_MAX)] = ()
    session: Word | None = None
    provider: Word | None = None
    workflow: Word | None = None
    stage: Word | None = None
    ttl_s: Annotated[int, Field(ge=1, le=TTL_MAX_S)] = TTL_S
    dry_run: bool = False


class UsageSaid(Strict):
    """Token counts in buckets that do not overlap. `input_tokens`: neither read from a cache nor written to one."""

    input_tokens: Tokens
    output_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_write_5m_tokens: Tokens = 0
    cache_write_1h_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0


class FailureSaid(Strict):
    """How the attempt failed. `status` null: no answer came."""

    status: Annotated[int, Field(ge=100, le=599)] | None
    headers: Headers = Field(default_factory=dict)
    body: ErrorText = ""


class SettleAsked(Strict):
    """What became of a hold: one of the first three."""

    usage: UsageSaid | None = None
    cost_usd: Annotated[str, StringConstraints(max_length=64)] | None = None
    failure: FailureSaid | None = None
    headers: Headers = Field(default_factory=dict)
    """of the answer"""

    @model_validator(mode="after")
    def _one_word(self) -> "SettleAsked":
        if [self.usage, self.cost_usd, self.failure].count(None) != 2:  # noqa: PLR2004 -- two of three
            raise ValueError("send exactly one of `usage`, `cost_usd` and `failure`.")
        return self


class EstimateSaid(Strict):
    """What the caller now expects to use."""

    input_tokens: Tokens
    output_tokens: Tokens


class ExtendAsked(Strict):
    """More time for a hold, counted from now, and another estimate."""

    ttl_s: Annotated[int, Field(ge=1, le=TTL_MAX_S)]
    estimate: EstimateSaid | None = None

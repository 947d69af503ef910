"""
What the control plane may be asked to keep: rows in the words of the configuration file.

Law: every field is bounded in kind and size, and named as in the file; what is absent or null is not said.
Never: knows what a value means: `core/edits` does.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, PlainValidator, StringConstraints, Tag

from quota_router.core.limits import Kind
from quota_router.web.asked import LABELS_MAX
from quota_router.web.decision_shapes import Label, Task, Tokens, Word
from quota_router.web.strict import Strict

NAME_MAX_CHARS = 200
TEXT_MAX_CHARS = 4_096
CONDITION_MAX_CHARS = 1_000
NUMBER_MAX_CHARS = 64
LIST_MAX = 200
COUNT_MAX = 2**53 - 1
"""What JSON and every database carry exactly."""


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must have no NUL characters.")
    return text


def _number(value: object) -> int | str | Decimal:
    """A number in quotes or not; one with a point is taken as it was written."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal) or len(str(value)) > NUMBER_MAX_CHARS:
        raise ValueError("must be a number, in quotes or not.")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_no_nul)]
Clearable = Annotated[str, StringConstraints(max_length=NAME_MAX_CHARS), AfterValidator(_no_nul)]
"""A name; where something is changed, an empty text takes it away."""
Note = Annotated[str, StringConstraints(max_length=TEXT_MAX_CHARS), AfterValidator(_no_nul)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MAX_CHARS), AfterValidator(_no_nul)]
Number = Annotated[Any, PlainValidator(_number)]
Count = Annotated[int, Field(gt=0, le=COUNT_MAX)]
Names = Annotated[list[Name], Field(max_length=LIST_MAX)]


# --- providers --------------------------------------------------------------------------------------------------------


class PollerSaid(Strict):
    """A quota endpoint; as `[[providers.X.pollers]]`."""

    name: Name
    preset: Name | None = None
    url: Text | None = None
    credential: Text | None = None
    used: Note | None = None
    limit: Note | None = None
    share: Note | None = None
    remaining: Note | None = None
    resets_at: Note | None = None
    scale: Number | None = None
    unit: Name | None = None
    window: Name | None = None
    every_s: Annotated[int, Field(gt=0, le=604_800)] | None = None


class ProviderChanged(Strict):
    """What a provider may say; as `[providers.NAME]`."""

    vendor: Name | None = None
    family: Name | None = None
    base_url: Text | None = None
    credential: Text | None = None
    api_key_env: Text | None = None
    network: Name | None = None
    allow: Names | None = None
    billing: Name | None = None
    account: Name | None = None
    enabled: bool | None = None
    display_name: Note | None = None
    description: Note | None = None
    model: Clearable | None = None
    reserve: Number | None = None
    pause_at: Number | None = None
    pace: bool | None = None
    quota_sources: Names | None = None
    pollers: Annotated[list[PollerSaid], Field(max_length=LIST_MAX)] | None = None
    command_template: Annotated[list[Note], Field(max_length=LIST_MAX)] | None = None
    env: Annotated[dict[Name, Note], Field(max_length=LIST_MAX)] | None = None


class ProviderCreated(ProviderChanged):
    """A new provider."""

    name: Name


class PauseAsked(Strict):
    """Why a provider is paused, in the operator's words."""

    reason: Note = ""


# --- models -----------------------------------------------------------------------------------------------------------


class Prices(Strict):
    """USD per million tokens, exact."""

    cost_per_million_input: Number | None = None
    cost_per_million_output: Number | None = None
    cost_per_million_cache_read: Number | None = None
    cost_per_million_cache_write_5m: Number | None = None
    cost_per_million_cache_write_1h: Number | None = None
    cost_per_million_reasoning: Number | None = None


class AttachmentSaid(Prices):
    """One rung, when its provider's name does not say all."""

    provider: Name
    upstream_model: Name | None = None
    priority: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    weight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    unmetered: bool | None = None
    enabled: bool | None = None


def _form(*, is_nested: bool) -> Callable[[object], str | None]:
    def form(entry: object) -> str | None:
        if isinstance(entry, list) and not is_nested:
            return "<tier>"
        return "<name>" if isinstance(entry, str) else "<table>" if isinstance(entry, dict | AttachmentSaid) else None

    return form


_Member = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated[AttachmentSaid, Tag("<table>")],
    Discriminator(_form(is_nested=True)),
]
_Entry = Annotated[
    Annotated[Name, Tag("<name>")]
    | Annotated[AttachmentSaid, Tag("<table>")]
    | Annotated[list[_Member], Field(max_length=LIST_MAX), Tag("<tier>")],
    Discriminator(_form(is_nested=False)),
]
Ladder = Annotated[list[_Entry], Field(max_length=LIST_MAX)]
"""In the order to be tried; a nested list is one tier."""


class ModelChanged(Prices):
    """What a model may say; as `[[models]]`. Attachments that are sent replace all that there were."""

    attachments: Ladder | None = None
    family: Name | None = None
    strategy: Name | None = None
    display_name: Note | None = None
    aliases: Names | None = None
    fallbacks: Names | None = None
    capabilities: Names | None = None
    tags: Names | None = None
    context_tokens: Count | None = None
    max_output_tokens: Count | None = None
    unmetered: bool | None = None


class ModelCreated(ModelChanged):
    """A new model."""

    name: Name


class LadderReplaced(Strict):
    """Every attachment of a model, in the order to be tried."""

    attachments: Ladder


# --- limits, rules, workflows, callers --------------------------------------------------------------------------------


class LimitChanged(Strict):
    """What a limit may say; as `[[budgets]]`."""

    subject: Text | None = None
    unit: Name | None = None
    limit: Number | None = None
    window: Name | None = None
    anchor: Name | int | None = None
    timezone: Name | None = None
    enforcement: Name | None = None


class LimitCreated(LimitChanged):
    """A new limit: a budget with a name, or a quota of an account, which makes its own."""

    kind: Kind = Kind.BUDGET
    name: Name | None = None
    unit: Name
    limit: Number


class RuleChanged(Strict):
    """What a rule may say; as `[[routing.rules]]`. `position`: counted from 1."""

    condition: Annotated[str, StringConstraints(max_length=CONDITION_MAX_CHARS), AfterValidator(_no_nul)] | None = None
    model: Clearable | None = None
    provider: Clearable | None = None
    strategy: Clearable | None = None
    share: Number | None = None
    on_unusable: Name | None = None
    reason: Note | None = None
    position: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None


class StageSaid(Strict):
    """One stage of a workflow."""

    name: Name
    model: Name


class WorkflowChanged(Strict):
    """Every stage of a workflow, in order."""

    stages: Annotated[list[StageSaid], Field(max_length=LIST_MAX)] | None = None


class WorkflowCreated(Strict):
    """A new workflow."""

    name: Name
    stages: Annotated[list[StageSaid], Field(max_length=LIST_MAX)]


class CallerChanged(Strict):
    """What a caller may do, and by which token it is known."""

    scopes: Names | None = None
    token_sha256: Name | None = None


class CallerCreated(CallerChanged):
    """A new caller; without a digest it is given a token, which is told once."""

    name: Name


class RuleTested(Strict):
    """A call that might be made, for `rules/test`."""

    model: Word | None = None
    labels: Annotated[tuple[Label, ...], Field(max_length=LABELS_MAX)] = ()
    priority: Annotated[int, Field(ge=-COUNT_MAX, le=COUNT_MAX)] | None = None
    task: Task | None = None
    retry_count: Tokens | None = None
    requires: Annotated[tuple[Label, ...], Field(max_length=LABELS_MAX)] = ()
    input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    stream: bool | None = None
    workflow: Word | None = None
    stage: Word | None = None
    caller: Word | None = None


def said(shape: Strict, *apart: str) -> dict[str, Any]:
    """What was said of a row, without what is null and without *apart*, as a table of the file."""
    return shape.model_dump(exclude_unset=True, exclude_none=True, exclude=set(apart))

"""
What a condition may ask about: every field, its type, and the values of one call.

Law: `FIELDS` is the whole vocabulary; each field is one attribute of `Facts`, and `Facts` has no other. `None` is "not known".
Never: computes a value. Hour, weekday, statuses and shares are worked out by whoever knows the clock and the balances.

Decision 2026-11 -- `weekday` is the English name in small letters, as in the anchor of a window: everybody numbers the days of a
    week differently, and nobody misreads 'monday'.
Decision 2026-11 -- shares are exact fractions of whole numbers, so that 0.2 in a condition is a fifth and nothing beside it.
Decision 2026-11 -- `labels` and `requires` of a call that names none are empty, not unknown: a caller who sends no label has none.
"""

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction

from msgspec import Struct

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""What `weekday` may be, in the order of `datetime.weekday()`."""


class ProviderStatus(StrEnum):
    """How a provider stands, as far as conditions tell."""

    OK = "ok"
    LIMITED = "limited"
    """cooling, exhausted or over budget"""
    DOWN = "down"
    """breaker open, or its credential was refused"""
    DISABLED = "disabled"
    """disabled, paused, or without a credential"""


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of one call when rules are asked. A map may leave out what no rule asks for."""

    priority: int | None = None
    labels: tuple[str, ...] = ()
    retry_count: int | None = None
    hour: int | None = None
    """0 to 23, in `[routing] timezone`"""
    weekday: str | None = None
    """one of `WEEKDAYS`, in `[routing] timezone`"""
    task_id: str | None = None
    provider_status: Mapping[str, ProviderStatus] = {}
    """by provider"""
    model: str | None = None
    """the name the caller asked for; `None`: none was given"""
    caller: str | None = None
    stream: bool | None = None
    input_tokens: int | None = None
    requires: tuple[str, ...] = ()
    headroom: Mapping[str, Fraction | None] = {}
    """by provider: the share of its binding window that is left; `None`: unknown"""
    budget_used: Mapping[str, Fraction | None] = {}
    """by limit: the share of it that is posted or held; above 1 after an overrun"""
    workflow: str | None = None
    stage: str | None = None


class Kind(StrEnum):
    """The type of a value, in the words of an error."""

    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "true or false"
    NUMBERS = "a list of numbers"
    TEXTS = "a list of texts"


class Field(Struct, frozen=True, kw_only=True):
    """One name that a condition may use."""

    name: str
    """as it is written"""
    kind: Kind
    example: str
    """a comparison that runs, for errors"""
    keys: str = ""
    """what is named in its `[ ]`: `provider` or `limit`; empty: it takes none"""
    words: tuple[str, ...] = ()
    """the only values it has; empty: any"""
    least: int | None = None
    most: int | None = None
    """the largest number it can sensibly be; `None`: any"""
    end: int | None = None
    """one behind `most`, which `<` and its like may name; `None`: they may not either"""
    is_whole: bool = True
    """of numbers: it never has a fraction"""
    range: str = "a whole number"
    """which numbers it can be, for errors"""

    @property
    def attribute(self) -> str:
        """Its attribute of `Facts`."""
        return self.name.replace(".", "_")


_SHARE = "a share of 1, so write 0.2 for 20 %"
_NOT_NEGATIVE = "a whole number from 0 on"

FIELDS = (
    Field(name="priority", kind=Kind.NUMBER, example="priority == 0"),
    Field(name="labels", kind=Kind.TEXTS, example="labels contains 'documentation'"),
    Field(name="retry_count", kind=Kind.NUMBER, example="retry_count >= 2", least=0, range=_NOT_NEGATIVE),
    Field(name="hour", kind=Kind.NUMBER, example="hour >= 22", least=0, most=23, end=24, range="a whole number from 0 to 23"),
    Field(name="weekday", kind=Kind.TEXT, example="weekday == 'monday'", words=WEEKDAYS),
    Field(name="task.id", kind=Kind.TEXT, example="task.id ends_with '0'"),
    Field(
        name="provider_status",
        kind=Kind.TEXT,
        example="provider_status['NAME'] == 'down'",
        keys="provider",
        words=tuple(status.value for status in ProviderStatus),
    ),
    Field(name="model", kind=Kind.TEXT, example="model starts_with 'claude'"),
    Field(name="caller", kind=Kind.TEXT, example="caller == 'ci'"),
    Field(name="stream", kind=Kind.TRUTH, example="stream == true"),
    Field(name="input_tokens", kind=Kind.NUMBER, example="input_tokens > 100_000", least=0, range=_NOT_NEGATIVE),
    Field(name="requires", kind=Kind.TEXTS, example="requires contains 'vision'"),
    Field(
        name="headroom",
        kind=Kind.NUMBER,
        example="headroom['NAME'] < 0.2",
        keys="provider",
        least=0,
        most=1,
        is_whole=False,
        range=_SHARE,
    ),
    # Overruns and advisory limits go above 1. Nobody asks for ten times a budget: whoever writes 80 means percent.
    Field(
        name="budget_used",
        kind=Kind.NUMBER,
        example="budget_used['NAME'] > 0.8",
        keys="limit",
        least=0,
        most=10,
        is_whole=False,
        range=_SHARE,
    ),
    Field(name="workflow", kind=Kind.TEXT, example="workflow == 'standard'"),
    Field(name="stage", kind=Kind.TEXT, example="stage == 'plan'"),
)

FIELD_OF = {field.name: field for field in FIELDS}
"""By the name that is written."""

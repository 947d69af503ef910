"""
What a call may use, and what it will likely use, said before it is sent.

Law: what an answer uses never exceeds its upper bound, and the likely amount never does either. No bound is `None`, not a guess.
Never: reads a body (its facts are passed in), or learns from what was not reported.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Billing, Model
from quota_router.core.limits import Amounts
from quota_router.core.pricing import PriceTable, upper_bound_nusd
from quota_router.core.usage import Quality, Usage

ANSWERS_NEEDED = 20
"""Answers that must be known before a quantile of them is believed."""
LIKELY_PERMILLE = 950
"""The quantile that a `bounded` limit holds."""
UNBOUNDED_OUTPUT_TOKENS = 4_096
"""Per choice, likely, where neither the call nor the model says how long an answer may grow."""
HISTOGRAM_BUCKETS = 64

_KB = 1_000


def _edges() -> tuple[int, ...]:
    # Each edge is a quarter above the last, so that a quantile is at most a quarter too high: 0, 1, 2, … 4, 5, 7, … 3 million.
    edges = [0]
    while len(edges) < HISTOGRAM_BUCKETS:
        edges.append(max(edges[-1] + 1, -(-edges[-1] * 5 // 4)))
    return tuple(edges)


_EDGES = _edges()
_Counts = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=HISTOGRAM_BUCKETS)]


class Histogram(Struct, frozen=True):
    """How often a number was seen, in buckets that widen with it. What lies above the last edge counts in the last bucket."""

    counts: tuple[int, ...] = ()
    """up to the last bucket in which anything was counted"""
    answers: int = 0
    """how many numbers were seen: the sum of the counts"""

    def add(self, number: int) -> Self:
        """A new histogram with *number* in it; a negative one counts as 0."""
        bucket = min(bisect_left(_EDGES, number), HISTOGRAM_BUCKETS - 1)
        counts = list(self.counts)
        if bucket >= len(counts):
            counts += [0] * (bucket + 1 - len(counts))
        counts[bucket] += 1
        return type(self)(tuple(counts), self.answers + 1)

    def quantile(self, q_permille: int) -> int:
        """The upper edge of the bucket below which, or in which, that share of what was seen lies; 0 when nothing was."""
        # Counted down from the top, where a high quantile is found in a step or two.
        above = self.answers - -(-self.answers * q_permille // 1_000)
        for bucket in range(len(self.counts) - 1, -1, -1):
            above -= self.counts[bucket]
            if above < 0:
                return _EDGES[bucket]
        return 0

    def to_json(self) -> str:
        """As text that `from_json` reads back."""
        return msgspec.json.encode(self.counts).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        Read back what `to_json` wrote.

        Raises:
            msgspec.ValidationError: a `ValueError`: this is no histogram.
        """
        counts = msgspec.json.decode(text, type=_Counts)
        return cls(counts, sum(counts))


class Learned(Struct, frozen=True, kw_only=True):
    """What the answers of one attachment used."""

    input_per_kb: Histogram = Histogram()
    """input tokens per 1,000 bytes of body"""
    output: Histogram = Histogram()
    """output tokens of an answer, all its choices together"""

    def add(self, body_bytes: int, usage: Usage) -> Self:
        """
        With one more answer in it. Only reported usage teaches.

        Args:
            body_bytes: of the call; 0 where we never saw the body, then nothing is learned of the input.
            usage: what the answer used.
        """
        if usage.quality is not Quality.REPORTED:
            return self
        per_kb = -(-usage.input_tokens * _KB // body_bytes) if body_bytes > 0 else None
        return type(self)(
            input_per_kb=self.input_per_kb if per_kb is None else self.input_per_kb.add(per_kb),
            output=self.output.add(usage.output_tokens),
        )

    def to_row(self) -> dict[str, Any]:
        """As the columns in which it is kept."""
        return {
            "answers": self.output.answers,
            "input_histogram": self.input_per_kb.to_json(),
            "output_histogram": self.output.to_json(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_row` laid out."""
        return cls(
            input_per_kb=Histogram.from_json(row["input_histogram"]),
            output=Histogram.from_json(row["output_histogram"]),
        )


class Bound(Struct, frozen=True, kw_only=True):
    """The most tokens a call may use, each alone. `None`: nobody said."""

    input_tokens: int | None
    output_tokens: int | None


class Estimate(Struct, frozen=True, kw_only=True):
    """The amounts set aside before an attempt."""

    likely: Amounts
    upper: Amounts | None
    """`None`: there is no bound that we know"""
    is_priced: bool
    """False when the price is unknown: then both costs are 0 and mean nothing"""

    @property
    def most(self) -> Amounts:
        """The upper bound, or the likely amount where there is none."""
        return self.upper or self.likely

    @property
    def likely_nusd(self) -> int | None:
        """The likely cost; `None`: the price is unknown."""
        return self.likely.cost_nusd if self.is_priced else None

    def with_output(self, output_tokens: int, price: PriceTable | None) -> Self:
        """The same with another likely output; *price* `None`: the cost stays what it was."""
        likely = _amounts(self.likely.input_tokens, output_tokens, price)
        if price is None:
            likely = replace(likely, cost_nusd=self.likely.cost_nusd)
        return replace(self, likely=likely)

    def to_json(self) -> str:
        """As text that `from_json` reads back."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        Read back what `to_json` wrote.

        Raises:
            msgspec.ValidationError: a `ValueError`: this is no estimate.
        """
        return msgspec.json.decode(text, type=cls)


def estimate(
    facts: CallFacts,
    operation: Operation,
    model: Model,
    billing: Billing,
    price: PriceTable | None,
    learned: Learned | None,
    *,
    body_bytes: int,
) -> Estimate:
    """
    What one attempt may use and will likely use.

    Args:
        facts: of the call.
        operation: `count_tokens` is free: it asks for one request and nothing else.
        model: its context and maximum output stand in for what the call leaves open.
        billing: flat asks for 0 usd.
        price: of the attachment; `None`: unknown.
        learned: of the attachment; `None`: nothing yet.
        body_bytes: size of the body; 0 when we do not see it. That of a route request says nothing of the call to come.
    """
    is_free = operation is Operation.COUNT_TOKENS or billing is Billing.FLAT
    charged = None if is_free else price
    bound = bound_of(facts, operation, model)
    seen_bytes = 0 if operation is Operation.ROUTE else body_bytes
    return Estimate(
        likely=likely(bound, charged, learned or Learned(), choices=facts.choices, body_bytes=seen_bytes),
        upper=upper_bound(bound, charged),
        is_priced=is_free or price is not None,
    )


def bound_of(facts: CallFacts, operation: Operation, model: Model) -> Bound:
    """The bounds on tokens that the call states, or else the model has. Hosted tools may add to both: then there is none."""
    if operation is Operation.COUNT_TOKENS:
        return Bound(input_tokens=0, output_tokens=0)
    if facts.is_open_ended:
        return Bound(input_tokens=None, output_tokens=None)
    input_tokens = model.context_tokens if facts.input_tokens is None else facts.input_tokens
    if operation is Operation.EMBEDDINGS:
        return Bound(input_tokens=input_tokens, output_tokens=0)
    cap = model.max_output_tokens if facts.max_output_tokens is None else facts.max_output_tokens
    return Bound(input_tokens=input_tokens, output_tokens=None if cap is None else cap * facts.choices)


def upper_bound(bound: Bound, price: PriceTable | None) -> Amounts | None:
    """What the call cannot exceed; `None` when its input or its output has no bound. Without a *price* the cost is 0."""
    if bound.input_tokens is None or bound.output_tokens is None:
        return None
    return _amounts(bound.input_tokens, bound.output_tokens, price)


def likely(bound: Bound, price: PriceTable | None, learned: Learned, *, choices: int, body_bytes: int) -> Amounts:
    """
    What all but one call in twenty stay below.

    Until enough answers are known it is the bound, and where there is none, the body's bytes and `UNBOUNDED_OUTPUT_TOKENS`.
    Tokens are priced as in the upper bound: which bucket they will fall into is as unknown here.
    """
    usual_input: int | None = None
    if learned.input_per_kb.answers >= ANSWERS_NEEDED and body_bytes > 0:
        usual_input = -(-learned.input_per_kb.quantile(LIKELY_PERMILLE) * body_bytes // _KB)
    usual_output: int | None = None
    if learned.output.answers >= ANSWERS_NEEDED:
        usual_output = learned.output.quantile(LIKELY_PERMILLE) * choices
    return _amounts(
        _smallest_known(bound.input_tokens, usual_input, otherwise=body_bytes),
        _smallest_known(bound.output_tokens, usual_output, otherwise=UNBOUNDED_OUTPUT_TOKENS * choices),
        price,
    )


def _smallest_known(bound: int | None, usual: int | None, *, otherwise: int) -> int:
    if bound is None:
        return otherwise if usual is None else usual
    return bound if usual is None else min(bound, usual)


def _amounts(input_tokens: int, output_tokens: int, price: PriceTable | None) -> Amounts:
    return Amounts(
        cost_nusd=0 if price is None else upper_bound_nusd(input_tokens, output_tokens, price),
        requests=1,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )

"""
Ordered rules: which of them match a call, which is tried first, and why the others are not.

Law: rules are asked in their order and the first that matches is tried first. The next one is tried only when nobody was usable for
the one before, and never behind one that says `refuse`. The same rules, facts and id give the same answer, on every daemon.
Never: resolves a model, judges a provider, computes a fact, or draws at random.

Decision 2026-11 -- a share is drawn from a digest of the rule and the task, against a counter or chance: a task stays on its side
    through retries, restarts and replicas, and who is in a share stays in it when the share grows. A call without a task is drawn
    by its own id.
Decision 2026-11 -- in that digest a rule is what it says (condition, model, provider, strategy), not its place: a rule added above
    moves nobody, and two shares of the same traffic are drawn apart from each other. An edited condition draws anew.
    Look again when rules get names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from hashlib import sha256

from msgspec import Struct

from quota_router.core.conditions import Condition, Facts, show_number
from quota_router.core.words import OnUnusable, Strategy

__all__ = ["RULES_MAX", "OnUnusable", "Rule", "RuleBook", "RuleTrace", "Standing"]

RULES_MAX = 200

_DRAW_BYTES = 8
_DRAWS = 1 << 8 * _DRAW_BYTES
"""How many different draws there are: a share is exact to one in so many."""


class Standing(StrEnum):
    """What becomes of one rule for one call."""

    FIRST = "first"
    """it matches and is tried first"""
    LATER = "later"
    """it matches and is tried if nobody is usable for those before it"""
    NO_MATCH = "no_match"
    OUTSIDE_SHARE = "outside_share"
    """its condition holds, but the call is not in its share"""
    UNREACHED = "unreached"
    """it would match, but one before it does and says `refuse`"""


class Rule(Struct, frozen=True, kw_only=True):
    """
    Where calls of a kind go.

    Raises:
        ValueError: it changes nothing, or its share is none; the message is a sentence.
    """

    condition: Condition
    model: str | None = None
    """`None`: the model that the caller asked for"""
    provider: str | None = None
    """the only provider to be used; `None`: any of the model's"""
    strategy: Strategy | None = None
    """how rungs of a tier are ordered; `None`: as the model says"""
    share: Fraction | None = None
    """the part of matching tasks that it takes, 0 to 1; `None`: all"""
    on_unusable: OnUnusable = OnUnusable.FALL_THROUGH
    reason: str | None = None
    """why, in the operator's words"""

    def __post_init__(self) -> None:
        if self.model is None and self.provider is None and self.strategy is None:
            raise ValueError("a rule that matches has to change something: add model, provider or strategy.")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share {show_number(self.share)} is no part of 1: write 0.1 for 10 %.")

    def model_for(self, asked: str | None) -> str | None:
        """The model of a call that it matches; *asked* is what the caller named. `None`: nobody named any, the default decides."""
        return asked if self.model is None else self.model


class RuleTrace(Struct, frozen=True, kw_only=True):
    """What became of one rule, for `rules test`."""

    position: int
    """counted from 1"""
    rule: Rule
    standing: Standing
    because: tuple[str, ...]
    """the comparisons and the draw that decided, in words"""

    @property
    def is_match(self) -> bool:
        """Whether it is among the rules that are tried."""
        return self.standing in (Standing.FIRST, Standing.LATER)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """
    The rules of a catalog, in their order.

    Raises:
        ValueError: there are too many; the message is a sentence.
    """

    rules: tuple[Rule, ...] = ()
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """every fact that some rule asks for, with the keys of maps: the others need not be known"""

    def __post_init__(self) -> None:
        if len(self.rules) > RULES_MAX:
            raise ValueError(f"there are {len(self.rules)} rules, and at most {RULES_MAX} are asked for each call: join some.")
        fields: dict[str, frozenset[str]] = {}
        for rule in self.rules:
            for name, keys in rule.condition.fields.items():
                fields[name] = fields.get(name, frozenset()) | keys
        object.__setattr__(self, "fields", fields)

    def matches(self, facts: Facts, *, call_id: str) -> Iterator[Rule]:
        """
        The rules to be tried, the next one only when nobody was usable for the last. Each is asked when it is reached.

        It ends behind a rule that says `refuse`: whoever took that one and found nobody refuses the call.

        Args:
            facts: what is known of the call; of maps at least what `fields` names.
            call_id: stands in for the task where the call names none.
        """
        for rule in self.rules:
            if rule.condition.holds(facts) and _is_in_share(rule, facts, call_id):
                yield rule
                if rule.on_unusable is OnUnusable.REFUSE:
                    return

    def trace(self, facts: Facts, *, call_id: str) -> tuple[RuleTrace, ...]:
        """Every rule, in order, with what `matches` does with it and why. For people: it explains also what is not reached."""
        traces: list[RuleTrace] = []
        tried: Rule | None = None
        for position, rule in enumerate(self.rules, start=1):
            told = rule.condition.explain(facts)
            because = told.because
            if told.holds and rule.share is not None:
                because = (*because, _tell_draw(rule, rule.share, facts, call_id))
            if not told.holds:
                standing = Standing.NO_MATCH
            elif not _is_in_share(rule, facts, call_id):
                standing = Standing.OUTSIDE_SHARE
            else:
                standing = _stand_behind(tried)
            traces.append(RuleTrace(position=position, rule=rule, standing=standing, because=because))
            if traces[-1].is_match:
                tried = rule
        return tuple(traces)


def _stand_behind(tried: Rule | None) -> Standing:
    """How a rule that matches stands when *tried* is the last that is tried before it."""
    if tried is None:
        return Standing.FIRST
    return Standing.UNREACHED if tried.on_unusable is OnUnusable.REFUSE else Standing.LATER


# --- shares -----------------------------------------------------------------------------------------------------------


def _is_in_share(rule: Rule, facts: Facts, call_id: str) -> bool:
    """Whether the task, or the call without one, falls into the share of *rule*."""
    if rule.share is None:
        return True
    return _draw(rule, facts, call_id) * rule.share.denominator < rule.share.numerator * _DRAWS


def _draw(rule: Rule, facts: Facts, call_id: str) -> int:
    """A number below `_DRAWS`, always the same for one task and rule, and evenly spread over tasks."""
    drawn_by = ("task", facts.task_id) if facts.task_id else ("call", call_id)
    said = (rule.condition.text, rule.model or "", rule.provider or "", rule.strategy or "", *drawn_by)
    # Lengths before texts, so that no two lists of texts read the same. A lone surrogate is text like any other here.
    row = b"".join(b"%d:%b" % (len(part), part) for part in (text.encode("utf-8", "surrogatepass") for text in said))
    return int.from_bytes(sha256(row).digest()[:_DRAW_BYTES], "big")


def _tell_draw(rule: Rule, share: Fraction, facts: Facts, call_id: str) -> str:
    drawn = show_number(Fraction(_draw(rule, facts, call_id), _DRAWS))
    return f"the {'task' if facts.task_id else 'call'} drew {drawn}, and the share takes what is below {show_number(share)}"

"""
The language in which rules ask about a call.

Law: a text either compiles or is refused with one sentence and a column; what compiled says true or false of any call, never
raises, and looks only at the fields it names.
Never: knows clocks, catalogs or rules; reads or changes anything.

    values      'text' or "text" (a backslash before a quote or itself), 12, -3, 100_000, 0.25, true, false, ['a', 'b'], [1, 2]
    fields      the table in `fields`; `provider_status['NAME']`, `headroom['NAME']`, `budget_used['NAME']`
    numbers     == != < <= > >= in, not in
    texts       == != in, not in, contains, starts_with, ends_with; small and capital letters differ
    lists       contains; 'x' in labels
    joined by   or, and, not; the later bind tighter; ( )

A comparison with anything that is not known is false, `!=` and `not in` too; `not (…)` of it is true. `priority == priority` holds
exactly when the priority is known.

Decision 2026-11 -- a language of our own, against a template engine or a restricted eval: both of those have been broken out of
    for as long as they exist, and neither says 'did you mean'.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from quota_router.core.conditions.checks import check
from quota_router.core.conditions.cursor import DEPTH_MAX, NODES_MAX
from quota_router.core.conditions.evaluation import Explanation, Test, build_test, explain
from quota_router.core.conditions.fields import FIELDS, WEEKDAYS, Facts, Field, Kind, ProviderStatus
from quota_router.core.conditions.lexer import CHARACTERS_MAX
from quota_router.core.conditions.names import KnownNames
from quota_router.core.conditions.parser import parse
from quota_router.core.conditions.refusals import ConditionError, show_number
from quota_router.core.conditions.tree import Node, looks_of

__all__ = [
    "CHARACTERS_MAX",
    "DEPTH_MAX",
    "FIELDS",
    "NODES_MAX",
    "WEEKDAYS",
    "Condition",
    "ConditionError",
    "Explanation",
    "Facts",
    "Field",
    "Kind",
    "ProviderStatus",
    "compile_condition",
    "compile_kept",
    "show_number",
]

_KEPT_CACHED = 1_024
"""How many kept conditions are remembered: more than any catalog has, so that a new snapshot compiles only what is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A text that compiled. Two of the same text are equal: what they say does not depend on the names known then."""

    text: str
    fields: Mapping[str, frozenset[str]] = field(compare=False, repr=False)
    """the fields it looks at, by their names in `FIELDS`, with the keys of maps: nothing else need be known of a call"""
    _tree: Node = field(compare=False, repr=False)
    _test: Test = field(compare=False, repr=False)

    def holds(self, facts: Facts) -> bool:
        """Whether it is true of a call."""
        return self._test(facts)

    def explain(self, facts: Facts) -> Explanation:
        """Whether it is true of a call, and why. Slower than `holds`; for people."""
        return explain(self._tree, facts, self.text)


def compile_condition(text: str, *, providers: Collection[str], limits: Collection[str]) -> Condition:
    """
    Read a condition once, for any number of calls.

    Args:
        text: as the operator wrote it.
        providers: the names that `provider_status` and `headroom` may be asked for.
        limits: the names that `budget_used` may be asked for.

    Raises:
        ConditionError: it is no condition; says where, and what to write instead.
    """
    tree = parse(text, KnownNames(providers=providers, limits=limits))
    check(tree, text)
    # From here on it must succeed.
    fields: dict[str, frozenset[str]] = {}
    for look in looks_of(tree):
        keys = set() if look.key is None else {look.key}
        fields[look.field.name] = fields.get(look.field.name, frozenset()) | keys
    return Condition(text=text, fields=fields, _tree=tree, _test=build_test(tree))


@lru_cache(maxsize=_KEPT_CACHED)
def compile_kept(text: str) -> Condition:
    """
    Read a condition that was checked against the catalog when it was saved.

    A provider or limit that it names and that is gone since is not known of any call, which makes its comparisons false.

    Raises:
        ConditionError: it is no condition of this version's language.
    """
    return compile_condition(text, providers=_AnyName(), limits=_AnyName())


class _AnyName(Collection[str]):
    """Every name there could be."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

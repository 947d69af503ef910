"""
A tree as a function of facts, and why it said yes or no.

Law: total: for facts of their declared types, a test returns a bool, in time bounded by the size of the tree.
A comparison is false when either side is not known, whatever the operator; `not` of that is true.
Never: raises, waits, or looks at more than the tree names.

Decision 2026-11 -- two values of truth, not three: `not (priority == 0)` matches a call without a priority, and `priority != 0`
    does not. So a comparison never matches what nobody said, and `not` is always the opposite.
"""

import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, assert_never

from msgspec import Struct

from quota_router.core.conditions.fields import Facts
from quota_router.core.conditions.refusals import shorten, show_number
from quota_router.core.conditions.tree import Comparison, Junction, Literal, Look, Negation, Node, Operator, looks_of

Test = Callable[[Facts], bool]
_Get = Callable[[Facts], Any]
_Compare = Callable[[Any, Any], bool]

_COMPARE: Mapping[Operator, _Compare] = {
    Operator.EQUAL: operator.eq,
    Operator.UNEQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.MORE: operator.gt,
    Operator.AT_LEAST: operator.ge,
    Operator.IN: lambda item, whole: item in whole,
    Operator.NOT_IN: lambda item, whole: item not in whole,
    Operator.CONTAINS: operator.contains,
    Operator.STARTS_WITH: str.startswith,
    Operator.ENDS_WITH: str.endswith,
}


class Explanation(Struct, frozen=True, kw_only=True):
    """What a condition said of a call, and the comparisons that decided, in words."""

    holds: bool
    because: tuple[str, ...]


def build_test(node: Node) -> Test:
    """The function that says whether *node*, which passed the checks, holds."""
    match node:
        case Junction(is_and=is_and, parts=parts):
            return _joined(tuple(build_test(part) for part in parts), ends_at=not is_and)
        case Negation(part=part):
            return _negated(build_test(part))
        case Comparison():
            return _compared(node)
        case Look():
            return _is_true(_getter(node))
        case Literal(value=value):
            return _always(holds=value is True)
        case _:
            assert_never(node)


def explain(node: Node, facts: Facts, text: str) -> Explanation:
    """
    Say whether *node*, read from *text*, holds, and which comparisons decided.

    Where one part decides the rest (`or` with one that holds, `and` with one that does not) it is the only one told.
    """
    match node:
        case Junction(is_and=is_and, parts=parts):
            told = [explain(part, facts, text) for part in parts]
            decided = next((part for part in told if part.holds is not is_and), None)
            if decided is not None:
                return decided
            return Explanation(holds=is_and, because=tuple(line for part in told for line in part.because))
        case Negation(part=part):
            inner = explain(part, facts, text)
            return Explanation(holds=not inner.holds, because=inner.because)
        case _:
            holds = build_test(node)(facts)
            return Explanation(holds=holds, because=(_tell(node, facts, text, holds=holds),))


# --- tests ------------------------------------------------------------------------------------------------------------


def _joined(tests: tuple[Test, ...], *, ends_at: bool) -> Test:
    """`or` ends at the first that is true, `and` at the first that is false."""

    def test(facts: Facts) -> bool:
        for part in tests:
            if part(facts) is ends_at:
                return ends_at
        return not ends_at

    return test


def _negated(inner: Test) -> Test:
    return lambda facts: not inner(facts)


def _always(*, holds: bool) -> Test:
    return lambda _: holds


def _is_true(get: _Get) -> Test:
    return lambda facts: get(facts) is True


def _compared(node: Comparison) -> Test:
    compare, left = _COMPARE[node.operator], _getter(node.left)
    if isinstance(node.right, Literal):
        return _compared_with(compare, left, node.right.value)
    right = _getter(node.right)

    def test(facts: Facts) -> bool:
        one, other = left(facts), right(facts)
        return one is not None and other is not None and compare(one, other)

    return test


def _compared_with(compare: _Compare, get: _Get, constant: Any) -> Test:  # noqa: ANN401 -- the checks know its type
    def test(facts: Facts) -> bool:
        value = get(facts)
        return value is not None and compare(value, constant)

    return test


def _getter(node: Node) -> _Get:
    match node:
        case Literal(value=value):
            return lambda _: value
        case Look(field=field, key=str(key)):
            return _keyed(operator.attrgetter(field.attribute), key)
        case Look(field=field):
            return operator.attrgetter(field.attribute)
        case _:
            return build_test(node)


def _keyed(get: Callable[[Facts], Mapping[str, Any]], key: str) -> _Get:
    return lambda facts: get(facts).get(key)


# --- words ------------------------------------------------------------------------------------------------------------


def _tell(node: Node, facts: Facts, text: str, *, holds: bool) -> str:
    """One comparison, and the values it was made with."""
    values = ", ".join(dict.fromkeys(f"{shorten(look.name)} is {_show(_getter(look)(facts))}" for look in looks_of(node)))
    verdict = f"`{shorten(text[node.start : node.end])}` {'holds' if holds else 'does not hold'}"
    return f"{verdict}: {values}" if values else verdict


def _show(value: object) -> str:
    """A fact in words, short whatever it is."""
    match value:
        case None:
            return "not known"
        case bool():
            return "true" if value else "false"
        case int() | Fraction():
            return show_number(value)
        case tuple():
            return f"[{shorten(', '.join(repr(str(element)) for element in value))}]"
        case _:
            return repr(shorten(str(value)))

"""
Whether a condition can mean anything: types fit, words exist, numbers are in reach.

Law: what passes here is evaluated for any facts without an error; what could never be true by its types is refused.
Never: looks at a call.

Decision 2026-11 -- `null` is not compared with: design 9 makes every such comparison false, so `priority == null` would be a rule
    that never matches and looks as if it did. The remedy is a field compared with itself, which holds exactly when it is known.
    Look again if people ask for it: an operator `is known` would read better.
Decision 2026-11 -- only numbers have an order. Texts would have one by code point, in which 'friday' comes before 'monday'.
Decision 2026-11 -- two values that are both written out are refused: it is a field's name in quotes more often than a joke.
"""

from fractions import Fraction
from typing import NoReturn

from msgspec import Struct

from quota_router.core.conditions.fields import FIELD_OF, Field, Kind
from quota_router.core.conditions.refusals import refuse, shorten, show_number
from quota_router.core.conditions.tree import Comparison, Constant, Junction, Literal, Look, Negation, Node, Operator
from quota_router.errors import did_you_mean

_EQUALITY = (Operator.EQUAL, Operator.UNEQUAL)
_ORDER = (Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST)
_ELEMENTS = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER}
"""What the elements of a list are."""


class _Side(Struct, frozen=True, kw_only=True):
    """One side of a comparison."""

    node: Node
    kind: Kind
    written: str
    """as the operator wrote it, for errors"""

    @property
    def constant(self) -> Constant:
        """What is written out; `None`: nothing is."""
        return self.node.value if isinstance(self.node, Literal) else None

    @property
    def field(self) -> Field | None:
        """The field it is."""
        return self.node.field if isinstance(self.node, Look) else None

    @property
    def described(self) -> str:
        """What it is, for errors."""
        return f"{self.written} is {self.kind}"

    def refuse(self, message: str) -> NoReturn:
        """Refuse it."""
        refuse(message, self.node.start)


def check(node: Node, text: str, before: Node | None = None) -> None:
    """
    Refuse *node* if it is nothing that is true or false.

    Args:
        node: read from *text*.
        text: the whole condition.
        before: what stands left of it, behind the same `and` or `or`.

    Raises:
        ConditionError: with the remedy.
    """
    match node:
        case Junction(parts=parts):
            for earlier, part in zip((None, *parts), parts, strict=False):
                check(part, text, earlier)
        case Negation(part=part):
            check(part, text)
        case Comparison():
            _check_comparison(node, text)
        case Look(field=field) if field.kind is not Kind.TRUTH:
            refuse(f"{field.name} is {field.kind} and no condition: compare it, such as {field.example}.", node.start)
        case Literal(value=value) if not isinstance(value, bool):
            _refuse_constant(node, text, before)
        case _:
            pass  # true, false, or a field that is one of them


def _refuse_constant(node: Literal, text: str, before: Node | None) -> NoReturn:
    """`labels contains 'a' or 'b'` is how one speaks, but not what is meant by it here."""
    written = _quote(node, text)
    if isinstance(before, Comparison):
        again = f"{_quote(before.left, text)} {before.operator} {written}"
        refuse(f"{written} stands alone: repeat the comparison, such as {again}.", node.start)
    refuse(f"{written} is no condition: compare a field with it.", node.start)


def _check_comparison(node: Comparison, text: str) -> None:
    _refuse_null(node.left, node.right)
    left, right = _side(node.left, text), _side(node.right, text)
    if isinstance(node.left, Literal) and isinstance(node.right, Literal):
        _refuse_two_constants(left, right)
    match node.operator:
        case Operator.EQUAL | Operator.UNEQUAL:
            _check_equality(left, right)
        case Operator.IN | Operator.NOT_IN:
            _check_membership(right, left)
        case Operator.CONTAINS:
            _check_membership(left, right)
        case Operator.STARTS_WITH | Operator.ENDS_WITH:
            _check_both(left, right, Kind.TEXT, f"{node.operator} stands between texts")
        case _:
            _check_both(left, right, Kind.NUMBER, "only numbers have an order")
    if node.operator in (*_EQUALITY, *_ORDER):
        _check_reach(left, right, node.operator)
        _check_reach(right, left, node.operator)


def _side(node: Node, text: str) -> _Side:
    """One side, and if it is a condition in parentheses, checked as such."""
    match node:
        case Look(field=field):
            kind = field.kind
        case Literal(value=value):
            kind = _kind_of(value)
        case _:
            check(node, text)
            kind = Kind.TRUTH
    return _Side(node=node, kind=kind, written=_quote(node, text))


def _kind_of(value: Constant) -> Kind:
    match value:
        case bool():  # before the numbers: to Python it is one
            return Kind.TRUTH
        case str():
            return Kind.TEXT
        case int() | Fraction():
            return Kind.NUMBER
        case (str(), *_):
            return Kind.TEXTS
        case _:
            return Kind.NUMBERS


# --- types ----------------------------------------------------------------------------------------------------------


def _check_equality(left: _Side, right: _Side) -> None:
    for side in (left, right):
        if side.kind in _ELEMENTS:
            side.refuse(f"{side.described}, and lists are not compared as a whole{_such_as(left, right)}.")
    if left.kind is not right.kind:
        wrong = right if right.constant is not None else left
        wrong.refuse(f"{left.described} and {right.described}, so they are never equal{_such_as(left, right)}.")


def _check_both(left: _Side, right: _Side, kind: Kind, law: str) -> None:
    for side in (left, right):
        if side.kind is not kind:
            side.refuse(f"{law}, and {side.described}{_such_as(left, right)}.")


def _check_membership(whole: _Side, item: _Side) -> None:
    """Check `item in whole`, which is `whole contains item`."""
    if item.kind in _ELEMENTS:
        item.refuse(f"{item.described}: ask for one at a time, joined by 'or'{_such_as(item, whole)}.")
    if whole.constant is not None and whole.kind in _ELEMENTS.values():
        whole.refuse(f"{whole.written} is no list: write [{whole.written}].")
    if whole.kind not in (*_ELEMENTS, Kind.TEXT):
        whole.refuse(f"{whole.described} and holds nothing{_such_as(whole)}.")
    if item.kind is not _ELEMENTS.get(whole.kind, Kind.TEXT):
        item.refuse(f"{whole.described}, and {item.described}, so it is never in it{_such_as(whole, item)}.")
    _check_reach(item, whole, Operator.EQUAL)


def _such_as(*sides: _Side) -> str:
    """The end of a sentence: how the first field among *sides* is used."""
    examples = [side.field.example for side in sides if side.field]
    return f": write such as {examples[0]}" if examples else ""


# --- values ---------------------------------------------------------------------------------------------------------


def _check_reach(side: _Side, other: _Side, operator: Operator) -> None:
    """Refuse what is written out in *other* if the field of *side* is never anything like it."""
    field, values = side.field, other.constant
    if field is None or values is None:
        return
    for value in values if isinstance(values, tuple) else (values,):
        if isinstance(value, str):
            if field.words and value not in field.words:
                other.refuse(f"{field.name} is never {shorten(value)!r}: {did_you_mean(value.lower(), field.words)}")
        elif not _is_in_reach(field, value, operator):
            other.refuse(f"{show_number(value)} is out of reach: {field.name} is {field.range}.")


def _is_in_reach(field: Field, value: int | Fraction, operator: Operator) -> bool:
    if operator not in _ORDER and field.is_whole and isinstance(value, Fraction):
        return False
    most = field.end if operator in _ORDER and field.end is not None else field.most
    return (field.least is None or value >= field.least) and (most is None or value <= most)


# --- constants ------------------------------------------------------------------------------------------------------


def _refuse_null(left: Node, right: Node) -> None:
    for node, other in ((left, right), (right, left)):
        if not isinstance(node, Literal) or node.value is not None:
            continue
        if not isinstance(other, Look) or other.field.kind in _ELEMENTS:
            refuse("a comparison with null is always false: leave it out.", node.start)
        known = shorten(f"{other.name} == {other.name}")
        message = (
            f"a comparison with null is always false: write {known} to ask whether it is known, not ({known}) whether it is absent."
        )
        refuse(message, node.start)


def _refuse_two_constants(left: _Side, right: _Side) -> NoReturn:
    for side in (left, right):
        if side.constant in FIELD_OF:
            side.refuse(f"{side.written} in quotes is a text: write {side.constant} for the field.")
    left.refuse("both sides are written out: compare a field, or write true for a rule that always matches.")


def _quote(node: Node, text: str) -> str:
    return shorten(text[node.start : node.end])

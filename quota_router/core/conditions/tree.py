"""
A condition as a tree, after its words were read and before its types are checked.

Law: every node knows the piece of text it was written as, so that errors and traces quote the operator's own words.
Never: holds a value of a call.
"""

from enum import StrEnum
from fractions import Fraction

from msgspec import Struct

from quota_router.core.conditions.fields import Field

Constant = str | int | Fraction | bool | None | tuple[str, ...] | tuple[int | Fraction, ...]
"""What can be written out. A number with a fraction is exact; a whole one is an int."""


class Operator(StrEnum):
    """What stands between two values, as it is written."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    IN = "in"
    NOT_IN = "not in"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"


class Span(Struct, frozen=True, kw_only=True):
    """Where in the text: `[start, end)`, counted from 0, with the parentheses around it."""

    start: int
    end: int


class Literal(Span, frozen=True, kw_only=True):
    """A value that is written out."""

    value: Constant


class Look(Span, frozen=True, kw_only=True):
    """A field, and of a map the key."""

    field: Field
    key: str | None = None

    @property
    def name(self) -> str:
        """As it is written where no space is wasted."""
        return f"{self.field.name}[{self.key!r}]" if self.key is not None else self.field.name


class Comparison(Span, frozen=True, kw_only=True):
    """Two values and what stands between them."""

    operator: Operator
    left: "Node"
    right: "Node"


class Negation(Span, frozen=True, kw_only=True):
    """`not` and what follows."""

    part: "Node"


class Junction(Span, frozen=True, kw_only=True):
    """Two or more parts joined by the same word."""

    is_and: bool
    """`and`; else `or`"""
    parts: tuple["Node", ...]


Node = Literal | Look | Comparison | Negation | Junction


def looks_of(node: Node) -> tuple[Look, ...]:
    """Every place at which *node* looks at a fact, from left to right."""
    match node:
        case Junction(parts=parts):
            return tuple(look for part in parts for look in looks_of(part))
        case Negation(part=part):
            return looks_of(part)
        case Comparison(left=left, right=right):
            return looks_of(left) + looks_of(right)
        case Look():
            return (node,)
        case _:
            return ()

"""
A row of tokens as a tree: `or` binds loosest, then `and`, then `not`, then one comparison.

Law: every text is read to its end or refused where it stops being a condition; the tree is within the bounds of `cursor`.
Never: calls, calculates, or reads what is not a declared field.

    any         all ('or' all)*
    all         negation ('and' negation)*
    negation    'not' negation | comparison
    comparison  value (operator value)?
    value       literal | list | field | '(' any ')'
"""

from collections.abc import Callable
from fractions import Fraction

from msgspec.structs import replace

from quota_router.core.conditions.cursor import Cursor
from quota_router.core.conditions.lexer import Token, TokenKind
from quota_router.core.conditions.names import KnownNames, Suffix, find_field
from quota_router.core.conditions.refusals import KEYWORDS, is_null_word, refuse
from quota_router.core.conditions.tree import Comparison, Junction, Literal, Look, Negation, Node, Operator

_SIGN_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_WORD_OPERATORS = ("in", "contains", "starts_with", "ends_with")


def parse(text: str, known: KnownNames) -> Node:
    """
    Read *text*, names resolved, types not yet checked.

    Raises:
        ConditionError: it is no condition.
    """
    row = Cursor(text)
    if row.has_ended:
        refuse("the condition is empty: write one such as priority == 0, or true for always.", 0)
    node = _Parser(row, known).any()
    if not row.has_ended:
        row.refuse_next()
    return node


class _Parser:
    """One function for each line of the grammar."""

    def __init__(self, row: Cursor, known: KnownNames) -> None:
        self._row = row
        self._known = known

    def any(self) -> Node:
        return self._joined("or", self._all)

    def _all(self) -> Node:
        return self._joined("and", self._negation)

    def _joined(self, word: str, read_part: Callable[[], Node]) -> Node:
        parts = [read_part()]
        while self._row.next.is_word(word):
            self._row.take_node()
            parts.append(read_part())
        if len(parts) == 1:
            return parts[0]
        return Junction(is_and=word == "and", parts=tuple(parts), start=parts[0].start, end=parts[-1].end)

    def _negation(self) -> Node:
        if not self._row.next.is_word("not"):
            return self._comparison()
        start = self._row.take_node().start
        self._row.descend()
        part = self._negation()
        self._row.ascend()
        return Negation(part=part, start=start, end=part.end)

    def _comparison(self) -> Node:
        left = self._value()
        operator = self._operator(left)
        if operator is None:
            return left
        right = self._value()
        if self._is_at_operator():
            refuse("comparisons do not chain: join two of them with 'and'.", self._row.next.start)
        return Comparison(operator=operator, left=left, right=right, start=left.start, end=right.end)

    def _operator(self, left: Node) -> Operator | None:
        if self._row.next.is_word("not"):
            return self._not_in(left)
        return Operator(self._row.take_node().source) if self._is_at_operator() else None

    def _is_at_operator(self) -> bool:
        return self._row.next.is_sign(*_SIGN_OPERATORS) or self._row.next.is_word(*_WORD_OPERATORS)

    def _not_in(self, left: Node) -> Operator:
        negation = self._row.take()
        if not self._row.next.is_word("in"):
            quoted = self._row.quote(left.start, left.end)
            refuse(f"'not' stands before the whole comparison, unless it is 'not in': write it before {quoted}.", negation.start)
        self._row.take_node()
        return Operator.NOT_IN

    # --- values -------------------------------------------------------------------------------------------------------

    def _value(self) -> Node:
        token = self._row.next
        if token.kind in (TokenKind.TEXT, TokenKind.NUMBER):
            return self._literal(token.value)
        if token.is_sign("("):
            return self._parentheses()
        if token.is_sign("["):
            return self._list()
        if token.kind is not TokenKind.WORD:
            self._row.refuse_value()
        return self._word()

    def _word(self) -> Node:
        word = self._row.next.source
        if word in ("true", "false"):
            return self._literal(word == "true")
        if is_null_word(word):
            return self._literal(None)
        if word.lower() in KEYWORDS:
            self._row.refuse_value()
        return self._field()

    def _literal(self, value: str | int | Fraction | None) -> Literal:
        token = self._row.take_node()
        return Literal(value=value, start=token.start, end=token.end)

    def _parentheses(self) -> Node:
        opened = self._row.take()
        self._row.descend()
        node = self.any()
        self._row.ascend()
        if self._row.next.is_sign(","):
            refuse("a list stands in [ ], not in ( ).", opened.start)
        if self._row.has_ended:
            refuse(f"the ( of column {opened.start + 1} is never closed: add ).", self._row.next.start)
        if not self._row.next.is_sign(")"):
            self._row.refuse_next()
        return replace(node, start=opened.start, end=self._row.take().end)

    def _list(self) -> Literal:
        opened = self._row.take_node()
        values: list[str | int | Fraction] = []
        while not self._row.next.is_sign("]"):
            values.append(self._element(opened))
            if isinstance(values[-1], str) != isinstance(values[0], str):
                refuse("a list holds texts or numbers, not both.", self._row.last.start)
            if self._row.next.is_sign(","):
                self._row.take()
            elif not self._row.next.is_sign("]"):
                self._row.refuse_in_list(opened, "a ',' or the closing ]")
        if not values:
            refuse("the list is empty: write what it holds, such as ['a', 'b'].", opened.start)
        # One kind only, as was checked above, which the type cannot say.
        return Literal(value=tuple(values), start=opened.start, end=self._row.take().end)  # type: ignore[arg-type]

    def _element(self, opened: Token) -> str | int | Fraction:
        if self._row.next.kind not in (TokenKind.TEXT, TokenKind.NUMBER):
            self._row.refuse_in_list(opened, "a text or a number")
        return self._row.take_node().value

    # --- fields -------------------------------------------------------------------------------------------------------

    def _field(self) -> Look:
        name = self._row.take_node()
        suffixes: list[Suffix] = []
        while self._row.next.is_sign(".", "["):
            suffixes.append(self._key() if self._row.take().source == "[" else self._part())
        if self._row.next.is_sign("("):
            self._row.refuse_call(name, suffixes)
        field, key = find_field(name, suffixes, self._known)
        return Look(field=field, key=key, start=name.start, end=self._row.last.end)

    def _part(self) -> Suffix:
        if self._row.next.kind is not TokenKind.WORD:
            refuse("a name follows the point, such as task.id.", self._row.next.start)
        token = self._row.take()
        return Suffix(is_key=False, word=token.source, start=token.start)

    def _key(self) -> Suffix:
        if self._row.next.kind is not TokenKind.TEXT:
            refuse(
                "a name in quotes stands in [ ], and only of fields that take one, such as headroom['NAME'].", self._row.last.start
            )
        token = self._row.take()
        if not self._row.next.is_sign("]"):
            refuse("the [ of this name is not closed: add ].", self._row.next.start)
        self._row.take()
        return Suffix(is_key=True, word=str(token.value), start=token.start)

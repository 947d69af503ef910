"""
The place in a row of tokens: what comes next, how much was taken, and what is said where nothing fits.

Law: at most `NODES_MAX` nodes and `DEPTH_MAX` deep, refused before anything descends further; so every tree is small, and every
walk over one ends.
Never: knows the grammar.
"""

from typing import NoReturn

from quota_router.core.conditions.lexer import Token, TokenKind, tokenize
from quota_router.core.conditions.names import Suffix
from quota_router.core.conditions.refusals import KEYWORDS, find_right_word, refuse, shorten

NODES_MAX = 100
"""Values, elements of lists, and operators."""
DEPTH_MAX = 20
"""Of parentheses and `not`."""


class Cursor:
    """One pass over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._at = 0
        self._nodes = 0
        self._depth = 0

    # --- where we are -------------------------------------------------------------------------------------------------

    @property
    def next(self) -> Token:
        """The token that comes; `END` for ever when there is none."""
        return self._tokens[self._at]

    @property
    def last(self) -> Token:
        """The token that was taken last; one was."""
        return self._tokens[self._at - 1]

    @property
    def has_ended(self) -> bool:
        """Whether everything was taken."""
        return self.next.kind is TokenKind.END

    def take(self) -> Token:
        """Step over the next token."""
        # END is looked at, never taken: every step that takes has seen what it takes.
        assert not self.has_ended
        self._at += 1
        return self.last

    def take_node(self) -> Token:
        """Step over a token that makes a node of the tree."""
        token = self.take()
        self._nodes += 1
        if self._nodes > NODES_MAX:
            refuse(f"a condition has at most {NODES_MAX} values and operators: make two rules of it.", token.start)
        return token

    def descend(self) -> None:
        """Go one level down, into what the last token opened."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            refuse(f"( ) and 'not' go at most {DEPTH_MAX} deep: leave out those that change nothing.", self.last.start)

    def ascend(self) -> None:
        """Come back up."""
        self._depth -= 1

    def quote(self, start: int, end: int) -> str:
        """A piece of the text, short enough for an error."""
        return shorten(self._text[start:end])

    # --- what is said where nothing fits ------------------------------------------------------------------------------

    def refuse_value(self) -> NoReturn:
        """Something else stands where a value should."""
        token = self.next
        if token.kind is TokenKind.WORD and token.source not in KEYWORDS:
            refuse(f"{token.source!r} is written in small letters: write {token.source.lower()!r}.", token.start)
        found = "the end" if self.has_ended else repr(shorten(token.source))
        where = f"behind {shorten(self.last.source)!r}" if self._at else "at the beginning"
        refuse(f"a field, a text, a number or ( is expected {where}, not {found}.", token.start)

    def refuse_next(self) -> NoReturn:
        """Something stands behind a value or a comparison that cannot go on there."""
        token = self.next
        if token.is_sign(")", "]"):
            refuse(f"this {token.source} closes nothing: leave it out.", token.start)
        if token.is_sign("("):
            refuse("conditions have no functions: leave out the ( ).", token.start)
        if token.is_sign(","):
            refuse("a list stands in [ ]: write such as model in ['a', 'b'].", token.start)
        if token.kind is TokenKind.NUMBER and token.source.startswith("-"):
            refuse("conditions do not calculate: write the number that '-' would give.", token.start)
        if token.kind is TokenKind.WORD:
            is_not = token.source == "is" and self._tokens[self._at + 1].is_word("not")
            remedy = "'!='" if is_not else find_right_word(token.source)
            if remedy is not None:
                refuse(f"{shorten(token.source)!r} is no operator: write {remedy}.", token.start)
        refuse(f"an operator such as ==, 'and' or 'or' is expected before {shorten(token.source)!r}.", token.start)

    def refuse_in_list(self, opened: Token, expected: str) -> NoReturn:
        """Something stands in the list that was *opened* and is no part of it."""
        token = self.next
        if self.has_ended:
            refuse(f"the [ of column {opened.start + 1} is never closed: add ].", token.start)
        if token.is_sign("["):
            refuse("a list holds no lists: write all in one.", token.start)
        if token.is_word(*KEYWORDS):
            refuse(f"a list holds texts or numbers, not {token.source}.", token.start)
        if token.kind is TokenKind.WORD:
            refuse(f"a list holds what is written out: write {shorten(token.source)!r} in quotes if it is a text.", token.start)
        refuse(f"{expected} is expected in the list, not {shorten(token.source)!r}.", token.start)

    def refuse_call(self, name: Token, suffixes: list[Suffix]) -> NoReturn:
        """`model.startswith('x')` and its like."""
        called = suffixes[-1] if suffixes else None
        right = find_right_word(called.word) if called and not called.is_key else None
        if called is None or right is None:
            refuse("conditions have no functions: leave out the ( ).", self.next.start)
        base = self.quote(name.start, called.start).rstrip(" .")
        refuse(f"conditions have no functions: write {right} behind {base}, without ( ).", called.start)

"""
A condition's text as a row of words, texts, numbers and signs.

Law: linear in the text; every character is part of a token, a space between two, or the one that is complained of.
Never: knows which names there are.

Decision 2026-11 -- a backslash escapes a quote or itself and nothing else: names and labels are printable, so nothing else is
    needed, and what is needed can be read in the text.
"""

import re
from collections.abc import Iterator
from enum import Enum
from fractions import Fraction

from msgspec import Struct

from quota_router.core.conditions.refusals import RIGHT_SIGNS, ConditionError, refuse, shorten

CHARACTERS_MAX = 1_000

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"-?[0-9](?:_?[0-9])*(?:\.[0-9](?:_?[0-9])*)?")
_BEHIND_NUMBER = re.compile(r"[\w.]+")
_SIGNS = ("==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", ".")
_ALL_SIGNS = sorted((*_SIGNS, *RIGHT_SIGNS), key=len, reverse=True)
_ARITHMETIC = "+-*/^"
_QUOTES = "'\""
_ESCAPED = {"'", '"', "\\"}


class TokenKind(Enum):
    """What a piece of the text is."""

    WORD = "word"
    TEXT = "text"
    NUMBER = "number"
    SIGN = "sign"
    END = "end"


class Token(Struct, frozen=True, kw_only=True):
    """One piece, where it stands, and its value if it is a literal."""

    kind: TokenKind
    source: str
    """as it is written; empty for `END`"""
    start: int
    end: int
    value: str | int | Fraction = ""

    def is_sign(self, *signs: str) -> bool:
        """Whether it is one of these signs."""
        return self.kind is TokenKind.SIGN and self.source in signs

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words."""
        return self.kind is TokenKind.WORD and self.source in words


def tokenize(text: str) -> list[Token]:
    """
    Take *text* apart. The last token is `END`, right behind the last other one.

    Raises:
        ConditionError: too long, a sign that means nothing here, or a quote that is never closed.
    """
    if len(text) > CHARACTERS_MAX:
        message = f"a condition has at most {CHARACTERS_MAX} characters, this one has {len(text)}: make two rules of it."
        refuse(message, CHARACTERS_MAX)
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    end = 0
    while (start := _skip_space(text, end)) < len(text):
        token = _token(text, start)
        yield token
        end = token.end
    yield Token(kind=TokenKind.END, source="", start=end, end=end)


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _token(text: str, start: int) -> Token:
    if text[start] in _QUOTES:
        return _text(text, start)
    if word := _WORD.match(text, start):
        return Token(kind=TokenKind.WORD, source=word[0], start=start, end=word.end())
    if number := _NUMBER.match(text, start):
        return _number(text, start, number[0])
    for sign in _ALL_SIGNS:
        if text.startswith(sign, start):
            if sign in RIGHT_SIGNS:
                refuse(f"{sign!r} is no sign of conditions: write {RIGHT_SIGNS[sign]}.", start)
            return Token(kind=TokenKind.SIGN, source=sign, start=start, end=start + len(sign))
    raise ConditionError(_complain(text[start]), start + 1)


def _complain(sign: str) -> str:
    """What is said of a *sign* that begins no token."""
    if sign in _ARITHMETIC:
        return f"conditions do not calculate: write the number that {sign!r} would give."
    if sign == "%":
        return "'%' is no sign of conditions: write 0.2 for 20 %."
    if not sign.isprintable():
        return f"the invisible sign U+{ord(sign):04X} stands here: leave it out or write an ordinary space."
    return f"{sign!r} means nothing in a condition: leave it out, or put the text it belongs to in quotes."


def _number(text: str, start: int, source: str) -> Token:
    end = start + len(source)
    if behind := _BEHIND_NUMBER.match(text, end):
        written = shorten(source + behind[0])
        refuse(f"{written!r} is no number: write digits, with one point at most, such as 100_000 or 0.25.", start)
    exact = Fraction(source.replace("_", ""))
    value = exact.numerator if exact.denominator == 1 else exact
    return Token(kind=TokenKind.NUMBER, source=source, start=start, end=end, value=value)


def _text(text: str, start: int) -> Token:
    """The quoted text that begins at *start*."""
    written: list[str] = []
    quote, at = text[start], start + 1
    while at < len(text) and text[at] not in "\r\n":
        sign = text[at]
        if sign == quote:
            return Token(kind=TokenKind.TEXT, source=text[start : at + 1], start=start, end=at + 1, value="".join(written))
        if sign == "\\":
            at += 1
            sign = text[at : at + 1]
            if sign not in _ESCAPED:
                refuse(r"a backslash stands only before a quote or another backslash: write \\ for one.", at - 1)
        elif not sign.isprintable():
            refuse(f"the invisible sign U+{ord(sign):04X} stands in this text: leave it out.", at)
        written.append(sign)
        at += 1
    message = f"this quote is never closed: add {quote} where the text ends, and write \\{quote} for one inside it."
    raise ConditionError(message, start + 1)

"""
How a condition is refused: one sentence that ends with the remedy, and the column it speaks of.

Law: a text that is no condition raises `ConditionError` and nothing else, with a column from 1 to one behind the last character.
Never: echoes more than a few words of the text, nor a sign that a terminal would obey.
"""

from difflib import get_close_matches
from fractions import Fraction
from typing import NoReturn

ECHO_MAX = 60
"""Characters of a text that an error repeats."""
_NUMBER_MAX = 10**18
"""Where a number is told as very large: Python refuses to write out those of some thousand digits."""
_DECIMALS = 10**4

OPERATOR_WORDS = ("and", "or", "not", "in", "contains", "starts_with", "ends_with")
KEYWORDS = (*OPERATOR_WORDS, "true", "false", "null")

RIGHT_SIGNS = {
    "===": "'=='",
    "!==": "'!='",
    "<>": "'!='",
    "=<": "'<='",
    "=>": "'>='",
    "=~": "'contains', 'starts_with' or 'ends_with'",
    "&&": "'and'",
    "||": "'or'",
    "≠": "'!='",
    "≤": "'<='",
    "≥": "'>='",
    "=": "'=='",
    "!": "'not'",
    "&": "'and'",
    "|": "'or'",
    "~": "'contains', 'starts_with' or 'ends_with'",
    # Curly, low, angled and leaning: what word processors make of a quote.
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u00ab\u00bb\u00b4`", "a straight quote, ' or \""),
}
"""Signs of other languages, the longer before those they begin with."""
_RIGHT_WORDS = {
    "is": "'=='",
    "equals": "'=='",
    "eq": "'=='",
    "ne": "'!='",
    "lt": "'<'",
    "le": "'<='",
    "gt": "'>'",
    "ge": "'>='",
    "like": "'contains', 'starts_with' or 'ends_with'",
    "matches": "'contains', 'starts_with' or 'ends_with'",
    "has": "'contains'",
    "have": "'contains'",
    "includes": "'contains'",
    "include": "'contains'",
    "begins_with": "'starts_with'",
    "beginswith": "'starts_with'",
    "between": "two comparisons, such as hour >= 9 and hour < 17",
}
_NULL_WORDS = {"null", "none", "nil", "undefined"}


class ConditionError(ValueError):
    """
    A text that is no condition.

    Args:
        message: one sentence that ends with the remedy.
        column: where, counted from 1; one behind the last character when something is missing at the end.
    """

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"column {column}: {message}")
        self.message = message
        self.column = column


def refuse(message: str, at: int) -> NoReturn:
    """Refuse the text at *at*, counted from 0."""
    raise ConditionError(message, at + 1)


def shorten(text: str) -> str:
    """*text* on one line, cut where it is long."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= ECHO_MAX else f"{line[: ECHO_MAX - 1]}…"


def show_number(value: int | Fraction) -> str:
    """A number in decimals, `about` it where four of them do not tell all."""
    size = abs(Fraction(value))
    if size >= _NUMBER_MAX:
        return "a very large number" if value > 0 else "a very large negative number"
    whole, rest = divmod(size * _DECIMALS, 1)
    units, decimals = divmod(whole, _DECIMALS)
    written = f"{'-' if value < 0 else ''}{units}.{decimals:04d}".rstrip("0").rstrip(".")
    return f"about {written}" if rest else written


def is_null_word(word: str) -> bool:
    """Whether *word* is how somebody writes that there is no value."""
    return word.lower() in _NULL_WORDS


def find_right_word(word: str) -> str | None:
    """What to write instead of a *word* that stands where an operator should; `None`: nothing comes near."""
    if word.lower() in _RIGHT_WORDS:
        return _RIGHT_WORDS[word.lower()]
    near = get_close_matches(word.lower(), OPERATOR_WORDS, n=1)
    return repr(near[0]) if near else None

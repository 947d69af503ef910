"""
Shares of a whole, exactly.

Law: a share is a fraction from 0 to 1 in millionths: what is written is what is kept, in memory, in a row and in the file.
Never: rounds; a share that is finer than a millionth is refused.
"""

from decimal import Decimal, InvalidOperation
from fractions import Fraction

PPM = 10**6
"""Millionths of a whole."""

_DECIMALS = 9
_LONGEST = 32
"""Characters of a share: more is none, and would cost time to read."""


def read_share(written: Decimal | int | str) -> Fraction:
    """
    Read a share of 1.

    Args:
        written: a decimal number, as text or not.

    Raises:
        ValueError: it is none; the message is a sentence.
    """
    text = str(written)
    try:
        number = Decimal(text) if len(text) <= _LONGEST else None
    except InvalidOperation:
        number = None
    # Compared as a decimal: `1e-999999` as a fraction would be a number of a million digits.
    if number is None or not number.is_finite() or not 0 <= number <= 1 or (number and number.adjusted() < -len(str(PPM))):
        raise ValueError(f"{text[:_LONGEST]!r} is no share of 1: write 0.2 for 20 %.")
    share = Fraction(number)
    if (share * PPM).denominator != 1:
        raise ValueError(f"a share has at most six decimals, not {text}.")
    return share


def to_ppm(share: Fraction) -> int:
    """A share as it is stored."""
    return int(share * PPM)


def from_ppm(ppm: int) -> Fraction:
    """A share as it was stored."""
    return Fraction(ppm, PPM)


def show_share(share: Fraction) -> str:
    """A share as an exact decimal, without zeros at its end: `0.02`, `1`."""
    return show_decimal(share)


def show_decimal(number: Fraction) -> str:
    """A number that is not negative and has at most nine decimals, exactly and without zeros at its end."""
    whole, rest = divmod(number * 10**_DECIMALS, 10**_DECIMALS)
    return f"{whole}.{int(rest):0{_DECIMALS}d}".rstrip("0").rstrip(".")

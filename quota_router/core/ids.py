"""
Names for what we make: calls and holds.

Law: an id is a pure function of an instant and of random bytes, both drawn before the work begins.
Never: draws either of them.
"""

from datetime import UTC, datetime, timedelta

RANDOM_BYTES = 10
"""How many random bytes an id takes; 74 of their 80 bits are used."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LATEST_MS = (1 << 48) - 1
_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RAND_A = (1 << 12) - 1
_RAND_B = (1 << 62) - 1


def uuid7(at: datetime, random_bytes: bytes) -> str:
    """
    A UUID of version 7, in lower-case text: sorts by its millisecond, then at random.

    Args:
        at: aware, not before 1970.
        random_bytes: `RANDOM_BYTES` of them, unpredictable.

    Source: RFC 9562 section 5.7 (48 bits of Unix milliseconds, version, 12 random bits, variant, 62 random bits), read
    2026-11-20.
    """
    milliseconds = (at - _EPOCH) // _MILLISECOND
    assert 0 <= milliseconds <= _LATEST_MS
    assert len(random_bytes) == RANDOM_BYTES
    random = int.from_bytes(random_bytes, "big")
    value = milliseconds << 80 | _VERSION_7 | (random >> 62 & _RAND_A) << 64 | _VARIANT | random & _RAND_B
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

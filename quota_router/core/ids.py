"""
Names for what we make: calls and holds.

Law: an id is a pure function of an instant and of random bytes, both drawn before the work begins.
Never: draws either of them.
"""

RANDOM_BYTES = 10
"""How many random bytes an id takes; 74 of their 80 bits are used."""

_LATEST_MS = (1 << 48) - 1
_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RAND_A = (1 << 12) - 1
_RAND_B = (1 << 62) - 1


def uuid7(at_ms: int, random_bytes: bytes) -> str:
    """
    A UUID of version 7, in lower-case text: sorts by its millisecond, then at random.

    Args:
        at_ms: milliseconds since 1970, UTC.
        random_bytes: `RANDOM_BYTES` of them, unpredictable.

    Source: RFC 9562 section 5.7 (48 bits of Unix milliseconds, version, 12 random bits, variant, 62 random bits), read
    2026-11-20.
    """
    assert 0 <= at_ms <= _LATEST_MS
    assert len(random_bytes) == RANDOM_BYTES
    random = int.from_bytes(random_bytes, "big")
    value = at_ms << 80 | _VERSION_7 | (random >> 62 & _RAND_A) << 64 | _VARIANT | random & _RAND_B
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

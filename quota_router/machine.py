"""
What only the machine can tell: the time, and what nobody can guess.

Law: nobody but `daemon` asks; it hands the answers down, so that every other room can be given a clock and a dice of a test's own.
"""

import os
import time
from datetime import UTC, datetime

from quota_router.core.ids import uuid7

ID_RANDOM_BYTES = 10
IDS_PER_FETCH = 64
NS_PER_MS = 1_000_000


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


class Ids:
    """
    Draws UUIDv7s.

    Randomness is fetched for many at a time: each fetch lets go of the interpreter, and getting it back costs more than the id.
    """

    def __init__(self) -> None:
        self._random = b""

    def __call__(self) -> str:
        """Draw one."""
        if len(self._random) < ID_RANDOM_BYTES:
            self._random = os.urandom(ID_RANDOM_BYTES * IDS_PER_FETCH)
        drawn, self._random = self._random[:ID_RANDOM_BYTES], self._random[ID_RANDOM_BYTES:]
        return uuid7(time.time_ns() // NS_PER_MS, drawn)

"""
Places at which a test lets the process die, as a loss of power would let it.

Law: a point does nothing unless $QUOTA_ROUTER_CRASH_AT names it; then the process ends there, at once, with nothing cleaned up.
Never: stands between a check and its act by more than one comparison.
"""

import os
from enum import StrEnum

VARIABLE = "QUOTA_ROUTER_CRASH_AT"
EXIT_CODE = 9


class CrashPoint(StrEnum):
    """Each is reached by every call that goes that far, in this order."""

    BEFORE_HOLD_COMMIT = "before_hold_commit"
    AFTER_HOLD_COMMIT = "after_hold_commit"
    """durable, and the router does not know it yet"""
    BEFORE_SEND = "before_send"
    AFTER_HEAD = "after_head"
    """the upstream has begun to answer"""
    AFTER_FIRST_WRITE = "after_first_write"
    """the caller has the first piece of a stream"""
    BEFORE_POST_COMMIT = "before_post_commit"
    AFTER_POST_COMMIT = "after_post_commit"
    """durable, and the caller does not have the last byte yet"""
    AFTER_LAST_BYTE = "after_last_byte"
    AFTER_SPILL = "after_spill"
    """a settlement is in the spill file, and its caller does not know it yet"""
    IN_REPLAY = "in_replay"
    """spilled settlements are booked, and still in the file"""
    BEFORE_RECONCILE = "before_reconcile"
    """the ledger is open, and the holds of the last run still are"""
    AFTER_RECONCILE = "after_reconcile"


_armed = os.environ.get(VARIABLE)


def reach(point: CrashPoint) -> None:
    """End the process here, if this is the point it was told to die at."""
    if _armed is not None and _armed == point:
        os._exit(EXIT_CODE)

"""
Closed lists of words that several rooms of the catalog share.

Law: a word means the same in the file, in the API and in a row; what is not listed here is refused where it comes in.
Never: imports anything of ours, so that every file of the core may use it.
"""

from enum import StrEnum


class ManagedBy(StrEnum):
    """Who may edit a row."""

    FILE = "file"
    API = "api"


class Strategy(StrEnum):
    """How rungs of one tier are ordered."""

    PRIORITY = "priority"
    """as they are written"""
    ROUND_ROBIN = "round_robin"
    """each in turn"""
    WEIGHTED = "weighted"
    """drawn by weight"""
    RANDOM = "random"
    LEAST_USED = "least_used"
    """the most headroom first"""
    SOONEST_RESET = "soonest_reset"
    """whose window ends first, so that what would be lost is used"""
    CHEAPEST = "cheapest"
    FASTEST = "fastest"


class OnUnusable(StrEnum):
    """What happens when a rule matched and nobody it allows is usable, fallbacks included."""

    FALL_THROUGH = "fall_through"
    """the next matching rule is tried, and behind the last one what holds without rules"""
    REFUSE = "refuse"

"""
What verifying a ledger found.

Law: each finding is a sentence that stands alone, with its numbers beside it; beyond a bound findings are counted and not kept.
Never: looks for any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from quota_router.store.chain import Walk

FINDINGS_KEPT = 1_000
"""The rest are counted."""


class Kind(StrEnum):
    """What a finding is about."""

    FILE = "file"
    """the database itself is damaged"""
    SCHEMA = "schema"
    """tables or triggers are not what the revisions made"""
    CHAIN = "chain"
    """entries are not what was booked"""
    HEAD = "head"
    """entries are not what was kept elsewhere"""
    BALANCE = "balance"
    """a balance is not what entries and open holds come to"""
    HOLD = "hold"
    """a hold cannot be read, or has lost its entry"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, as a sentence, and its numbers."""

    kind: Kind
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was read, and what is wrong with it."""

    walks: list[Walk] = field(default_factory=list)
    """each journal, to its end"""
    balances: int = 0
    """how many rows were compared"""
    limits: int = 0
    """of how many limits"""
    findings: list[Finding] = field(default_factory=list)
    """the first `FINDINGS_KEPT`"""
    found: int = 0
    """how many there are"""

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return self.found == 0

    def add(self, kind: Kind, text: str, **numbers: object) -> None:
        """Note one thing."""
        self.found += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(Finding(kind=kind, text=text, numbers=numbers))

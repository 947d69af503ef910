"""
The ways to a ledger that every database offers.

Law: what is opened here is closed by the one who opened it; the lane's engine belongs to the lane's thread.
Never: says how: each database has a room of its own.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from quota_router.errors import LedgerUnavailable
from quota_router.store.tenure import Tenure


class Durability(StrEnum):
    """What a commit survives: `POWER` a loss of power, `PROCESS` only the death of the daemon."""

    POWER = "power"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The open ways to one ledger."""

    lane: Engine
    """the lane's own: one connection, used in the lane's thread"""
    write: AsyncEngine
    """for migrations, before the lane opens"""
    read: AsyncEngine
    """a small pool that cannot write; a transaction sees one snapshot"""
    tenure: Tenure
    name: str
    """the ledger, as it may be shown: never a password"""
    spill_folder: Path | None = None
    """where its spill file lies; `None`: the ledger lies on no disk of ours"""
    edits: Callable[[], AsyncIterator[None]] | None = None
    """comes round whenever another daemon may have edited the catalog; `None`: there is no other"""

    async def reach(self) -> None:
        """
        See whether anybody answers there, and a file lets itself be written.

        Raises:
            LedgerUnavailable: nobody does; the sentence says what came instead.
        """
        try:
            async with self.write.begin():
                pass
        except (SQLAlchemyError, OSError) as exc:
            told = str(getattr(exc, "orig", exc)).strip().partition("\n")[0]
            raise LedgerUnavailable(f"The ledger {self.name} cannot be used: {told}.") from exc

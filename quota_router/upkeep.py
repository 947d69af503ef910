"""
What goes on beside the calls.

Law: each loop has a name, and ends only when its owner cancels it: a failure is logged and tried again, and never touches a call.
"""

import asyncio

import structlog

from quota_router.errors import QuotaRouterError
from quota_router.store.lane import Lane
from quota_router.store.ledger import Sweep

log = structlog.get_logger()


async def reconcile(lane: Lane) -> int:
    """
    Book what the last daemon of this journal left open as assumed; done twice it is done once.

    Returns:
        how many holds expired.
    """
    expired = 0
    while found := await lane.run(Sweep(orphans=True)):
        expired += found
    return expired


async def sweep(lane: Lane, every_s: float) -> None:
    """Expire holds past their time and forget ended cooldowns, every *every_s* seconds, for ever."""
    while True:
        await asyncio.sleep(every_s)
        try:
            expired = await lane.run(Sweep())
        except QuotaRouterError as error:
            log.warning("the sweep has to wait", action="sweep_failed", error=error.code)
            continue
        if expired:
            log.info("holds expired and were booked as assumed", action="holds_expired", holds=expired)

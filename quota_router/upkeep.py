"""
What goes on beside the calls.

Law: each loop has a name, and ends only when its owner cancels it: a failure is logged and tried again, and never touches a call.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

from quota_router.errors import QuotaRouterError
from quota_router.router import Router
from quota_router.store.holding import Sweep
from quota_router.store.lane import Lane
from quota_router.store.price_file import PriceFile
from quota_router.store.prices import PriceBook
from quota_router.underway import Underway

LISTEN_PAUSE_S = 5.0
"""Before we listen again on a server that has hung up."""
PRICES_LOOK_S = 5.0
"""Between two looks at the list of prices."""
LEAVE_LOOK_S = 1.0
"""Between two looks for callers that have left."""

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


async def follow_edits(lane: Lane, edits: Callable[[], AsyncIterator[None]]) -> None:
    """Look at the catalog whenever another daemon may have edited it, for ever."""
    while True:
        try:
            async for _ in edits():
                await lane.refresh()
        except QuotaRouterError as error:
            log.warning("edits by others are seen with the next call only", action="edits_unheard", error=error.code)
        await asyncio.sleep(LISTEN_PAUSE_S)


async def take_prices(prices: PriceBook, file: PriceFile) -> None:
    """Take the fetched list, if it is another one than at the last look. One that cannot be read changes nothing."""
    if not await asyncio.to_thread(file.has_changed):
        return
    try:
        fetched = await asyncio.to_thread(file.load)
    except ValueError as error:
        log.warning("the list of prices was not taken", action="prices_unread", reason=str(error))
        return
    if fetched is not None or prices.fetched is not None:
        prices.take(fetched)
        source, version = ("bundled", "") if fetched is None else (fetched.source, fetched.version)
        log.info("prices are those of another list now", action="prices_taken", source=source, version=version)


async def follow_prices(prices: PriceBook, file: PriceFile) -> None:
    """Look for another list of prices, for ever."""
    while True:
        await asyncio.sleep(PRICES_LOOK_S)
        await take_prices(prices, file)


async def hang_up(underway: Underway) -> None:
    """End attempts whose caller has left before an answer came, for ever."""
    while True:
        await asyncio.sleep(LEAVE_LOOK_S)
        underway.leave()


async def sweep(lane: Lane, router: Router, every_s: float) -> None:
    """Renew the holds of running calls, expire those past their time, forget ended cooldowns; every *every_s* seconds, for ever."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await router.renew_holds(2 * every_s)
            expired = await lane.run(Sweep())
        except QuotaRouterError as error:
            log.warning("the sweep has to wait", action="sweep_failed", error=error.code)
            continue
        if expired:
            log.info("holds expired and were booked as assumed", action="holds_expired", holds=expired)

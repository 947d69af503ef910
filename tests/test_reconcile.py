"""
A start on what a crash left open: however many holds there are, each is booked as assumed, once; another start finds nothing.
"""

import asyncio

from books_kit import read_books
from database_kit import url_of
from ledger_kit import Clock, admit, catalog, limit, open_ledger

from quota_router.core.limits import Unit
from quota_router.upkeep import reconcile

MANY, AT_ONCE = 10_000, 1_000
"""How long it takes is shown by benchmarks/reconcile.py."""


async def test_ten_thousand_holds_of_a_dead_daemon_are_booked_as_assumed_and_once(tmp_path, database):
    """
    In one step, and nothing is held behind it; neither a second step nor a second start books anything more.
    """
    clock = Clock()
    of = catalog(
        limit("usd", unit=Unit.USD, limit=10**15), limit("places", unit=Unit.CONCURRENCY, window="forever", anchor=None, limit=MANY)
    )
    async with open_ledger(tmp_path, clock, of) as lane:
        for _ in range(MANY // AT_ONCE):
            await asyncio.gather(*(lane.run(admit(of)) for _ in range(AT_ONCE)))
        assert len((await lane.snapshot()).holds) == MANY
    for expired in (MANY, 0):
        async with open_ledger(tmp_path, clock) as lane:
            assert await reconcile(lane) == expired
            assert await reconcile(lane) == 0
            state = await lane.snapshot()
            assert {state.gauge(cap, clock()).held for cap in lane.catalog.limits} == {0}
    books = await read_books(url_of(tmp_path), clock())
    books.check()
    assert books.open_holds == set()
    assert {(hold.state, *books_of) for hold, books_of in zip(books.holds, booked_once(books), strict=True)} == {
        ("expired", "expire", "assumed")
    }


def booked_once(books):
    """Kind and quality of the one line of each hold."""
    lines = {entry.hold_id: (entry.kind, entry.quality) for entry in books.entries}
    assert len(lines) == len(books.entries)
    return [lines[hold.id] for hold in books.holds]

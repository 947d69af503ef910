"""Balances are the projection of entries and open holds: each row whole, or not there."""

from datetime import timedelta

import pytest
from ledger_kit import NOON, Clock, admit, catalog, limit, open_ledger, post
from sqlalchemy import select

from quota_router.core.limits import Unit
from quota_router.store.holding import Sweep
from quota_router.store.ledger import Settle
from quota_router.store.projection import project
from quota_router.store.tables import balances

pytestmark = pytest.mark.usefixtures("database")
TODAY = NOON.replace(hour=0)
USD = {"unit": Unit.USD, "limit": 10**9}


async def kept(lane):
    async with lane.reader.connect() as conn:
        return {(row.limit_name, row.bucket): (row.posted, row.held) for row in await conn.execute(select(balances))}


async def test_a_late_word_leaves_a_window_alone_that_was_over_before_its_limit_was_made(tmp_path):
    """
    A row made of the correction alone would say that less than nothing was spent.
    """
    clock = Clock()
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        hold = (await lane.run(admit(catalog(), ttl_s=60))).hold
        clock.forward(days=1)
        await lane.run(Sweep())
        await lane.edit_catalog(catalog(limit("day", window="day", **USD)))
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        assert await kept(lane) == {}


async def test_a_window_that_is_over_but_holds_something_is_counted_whole(tmp_path):
    """
    A limit that was edited is projected anew: what an open hold will post into must not have lost what was posted before.
    """
    clock, of = Clock(), catalog(limit("day", window="day", **USD), limit("hour", window="24h", anchor="first_use", **USD))
    async with open_ledger(tmp_path, clock, of) as lane:
        done, still_open = [(await lane.run(admit(of, ttl_s=10**6))).hold for _ in range(2)]
        await lane.run(Settle(hold_id=done.id, settlement=post()))
        before = await kept(lane)
        assert before == {("day", TODAY): (60_000, 120_000), ("hour", NOON): (60_000, 120_000)}
        clock.forward(days=2)
        await lane.edit_catalog(
            catalog(*(limit(cap.name, window=cap.window, anchor=cap.anchor, unit=Unit.USD) for cap in of.limits))
        )
        assert await kept(lane) == before
        await lane.run(Settle(hold_id=still_open.id, settlement=post()))
        assert await kept(lane) == {("day", TODAY): (120_000, 0), ("hour", NOON): (120_000, 0)}


@pytest.mark.parametrize("anchor", ["rolling", "first_use", "2026-01-01T00:00:00Z"])
async def test_windows_that_are_over_go_or_stay_as_they_are(tmp_path, anchor):
    """
    An edit forgets them: the limit may have other windows now. Kept, they are worked out anew and come to the same.
    """
    clock, cap = Clock(), limit("cap", window="60m", anchor=anchor, **USD)
    of = catalog(cap)
    async with open_ledger(tmp_path, clock, of) as lane:
        for tokens in range(6):
            hold = (await lane.run(admit(of))).hold
            clock.forward(minutes=17)
            await lane.run(Settle(hold_id=hold.id, settlement=post(tokens, 0)))
        before = await kept(lane)
        assert sum(posted for posted, _ in before.values()) == 15_000

        def again(conn, *, keeps_past):
            project(conn, [cap], clock(), keeps_past=keeps_past)
            return {(row.limit_name, row.bucket): (row.posted, row.held) for row in conn.execute(select(balances))}

        async with lane.writer.begin() as conn:
            assert await conn.run_sync(again, keeps_past=True) == before
            now = await conn.run_sync(again, keeps_past=False)
        assert set(now) < set(before)
        assert min(bucket for _, bucket in now) >= clock() - timedelta(minutes=61)

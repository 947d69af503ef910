"""
Time in the ledger: whoever writes, and whatever his clock says, it does not go back before what is counted already.
"""

import asyncio

import database_kit
import psycopg
import pytest
from laws_kit import SECOND, check_caps, check_laws, read_disk, us
from ledger_kit import NOON, Clock, admit, catalog, limit, open_ledger, post
from waiting_kit import until

from quota_router.core.decision import NoneUsable
from quota_router.store.ledger import Admission, Settle

WAITS_S = 10
"""A daemon waits for a row by then."""
FIRST_USE = limit("five", window="5h", anchor="first_use", limit=1)
ROLLING = limit("roll", window="1m", limit=1)


@pytest.fixture
def clock():
    return Clock()


async def test_a_clock_set_back_before_a_restart_opens_no_second_window(tmp_path, clock, database):
    """
    The last line of money held time back, the holds after it did not: a window that was open had not begun yet.
    """
    of = catalog(FIRST_USE)
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(admit(of)), Admission)
    clock.forward(minutes=-10)
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(admit(of)), NoneUsable)
    found = read_disk(tmp_path)
    check_laws(found, us(NOON))
    assert len(found.windows) == 1


@pytest.mark.parametrize("is_settled", [False, True], ids=["held", "posted"])
async def test_a_clock_set_back_before_a_restart_lets_nothing_more_into_a_rolling_window(tmp_path, clock, database, is_settled):
    """
    What was held in the minute to come was not counted, and a moment later both were.
    """
    of = catalog(ROLLING)
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        if is_settled:
            await lane.run(Settle(hold_id=hold.id, settlement=post()))
    clock.forward(seconds=-30)
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(admit(of)), NoneUsable)
    check_caps(read_disk(tmp_path), us(NOON))


@pytest.mark.parametrize("cap", [FIRST_USE, ROLLING], ids=["first use", "rolling"])
async def test_who_had_to_wait_for_another_daemon_counts_what_it_booked_meanwhile(tmp_path, clock, postgres, cap):
    """
    The moment was read before the limit's row was had: a window that the other opened had not begun yet, and was opened again.
    """
    of, url = catalog(cap), database_kit.plain_url_of(tmp_path)
    async with open_ledger(tmp_path, clock, of) as lane:
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM limits FOR NO KEY UPDATE")
            waiting = asyncio.ensure_future(lane.run(admit(of)))
            await until_one_waits(url)
            book_as_another(other, cap.name, us(NOON) + 2 * SECOND)
            other.commit()
        assert isinstance(await waiting, NoneUsable)
    assert len(read_disk(tmp_path).windows) == (cap is FIRST_USE)


async def until_one_waits(url):
    with psycopg.connect(url, autocommit=True) as conn:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

        async def is_waiting():
            return (await asyncio.to_thread(conn.execute, asked)).fetchone() == (1,)

        await until(is_waiting, WAITS_S)


def book_as_another(conn, limit_name, at_us):
    """Use the limit up at a later moment, which begins a second: the pieces of a minute are as long."""
    if limit_name == FIRST_USE.name:
        conn.execute("INSERT INTO windows VALUES (%s, %s, %s, 'other')", (limit_name, at_us, at_us + 5 * 3_600 * SECOND))
    conn.execute("INSERT INTO balances VALUES (%s, %s, 0, 1)", (limit_name, at_us))

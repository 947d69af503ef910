"""
A daemon that dies at any point of its way loses nothing that a caller has, doubles nothing, and leaves nothing held.

Every member of `CrashPoint` is visited, on each database, by a real process that ends there at once. A member that no scenario
reaches fails: whoever adds one says here how it is come by.
"""

import asyncio
import signal
from dataclasses import replace

import pytest
import pytest_asyncio
from crash_kit import KINDS, Crashed, House, open_house
from faults_kit import BOUND_S, refusing

from quota_router.crashpoints import EXIT_CODE, CrashPoint

pytestmark = pytest.mark.usefixtures("database")


@pytest_asyncio.fixture
async def house(tmp_path):
    async with open_house(tmp_path) as opened:
        yield opened


async def crash(house: House, point: CrashPoint) -> Crashed:
    """
    Let a daemon process come by *point*, which ends it: at start, at one of many calls, or while its database takes no writes.

    Returns:
        what it left behind.
    """
    daemon = await house.start(point)
    if daemon is not None:
        try:
            if await house.call_all(daemon.url, first=list(CrashPoint).index(point)):
                async with refusing(house.url, "entries"):
                    await house.call_all(daemon.url)
            async with asyncio.timeout(BOUND_S):
                assert await daemon.process.wait() == EXIT_CODE
        except TimeoutError:
            pytest.fail(f"nothing here comes by {point!r}")
        finally:
            await daemon.stop(signal.SIGKILL)
    return await house.crashed()


@pytest.mark.parametrize("point", CrashPoint)
async def test_a_crash_at_any_point_loses_and_doubles_nothing(house, point):
    """
    And a second start books nothing that the first has not.
    """
    await house.serve_all()
    assert len(house.acknowledged) == len(KINDS)
    crash_left = await crash(house, point)
    async with house.open():
        booked = (await house.check([crash_left])).lines
    async with house.open():
        assert (await house.check([crash_left])).lines == booked


IN_RECOVERY = (CrashPoint.BEFORE_RECONCILE, CrashPoint.BEFORE_POST_COMMIT, CrashPoint.AFTER_POST_COMMIT, CrashPoint.AFTER_RECONCILE)


async def test_a_crash_in_mid_recovery_is_recovered_from(house):
    """
    The holds of the first crash are booked once, by whichever start comes so far.
    """
    crashes = [await crash(house, CrashPoint.AFTER_HEAD)]
    assert crashes[0].books.open_holds
    for point in IN_RECOVERY:
        crashes.append(await crash(house, point))
        is_booked = point in IN_RECOVERY[2:]
        assert crashes[-1].books.open_holds == (set() if is_booked else crashes[0].books.open_holds)
    async with house.open():
        assert (await house.check(crashes)).lines == crashes[-1].books.lines


# --- the checks can fail ------------------------------------------------------------------------------------------------------

CONTROLS = {
    "a lost line": lambda books: replace(books, entries=books.entries[1:]),
    "a doubled line": lambda books: replace(books, entries=[*books.entries, books.entries[0]]),
    "a balance that is off": lambda books: replace(books, balances={}),
    "a broken chain": lambda books: replace(books, chains=[replace(chain, broken_at=1) for chain in books.chains]),
}


async def test_books_that_are_wrong_are_seen_to_be(house):
    await house.serve_all()
    books = await house.check()
    for spoil in CONTROLS.values():
        with pytest.raises(AssertionError):
            spoil(books).check()
    house.acknowledged.append(house.acknowledged[0])
    with pytest.raises(AssertionError):
        await house.check()

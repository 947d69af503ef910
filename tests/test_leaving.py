"""
Callers who leave, and calls that are cancelled, at every step of the way: what was spent is booked once, and nothing stays held.
"""

import asyncio
from typing import Any

import aiohttp
import pytest
from books_kit import Books, read_books
from caller_kit import post
from faults_kit import holding, until
from gate_kit import FIRST_WORDS, INPUT_TOKENS, OUTPUT_TOKENS
from outage_kit import House, open_house

from quota_router.store.holding import Sweep

pytestmark = pytest.mark.usefixtures("database")

MODELS = {"openai": "openai", "anthropic": "anthropic", "drained": "openai"}
"""And the dialect each is asked for in."""
models = pytest.mark.parametrize("model", MODELS)
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path) as opened:
        yield opened


def begin(house: House, model: str, *, stream: bool) -> Any:
    return post(house.http, house.url, MODELS.get(model, "openai"), model, stream=stream)


def under_way(house: House) -> list[Any]:
    """Each call under way: its task, and its attempt of the moment. Nothing else here looks into the router."""
    return list(house.daemon.router.underway)


def running(house: House) -> Any:
    """The one call under way."""
    (found,) = under_way(house)
    return found


def has_answer(house: House) -> bool:
    """Whether the head of the upstream's answer is here."""
    attempt = running(house).attempt
    return attempt is not None and attempt.first_byte_ms is not None


async def until_idle(house: House) -> None:
    await until(lambda: not under_way(house))


async def settled(house: House) -> Books:
    """The books, once no call runs and what is queued is written."""
    house.gate.speaks.set()
    house.gate.is_open.set()
    await until_idle(house)
    for _ in range(2):  # a hold that nobody claims becomes durable in the first, and is given back in the second
        await house.daemon.lane.run(Sweep())
    books = await read_books(house.ledger)
    books.check()
    assert books.open_holds == set()
    return books


def told(books: Books) -> list[tuple[str, str, str]]:
    """State and outcome of each hold, and the quality of what was booked for it."""
    quality = {entry.hold_id: entry.quality for entry in books.entries}
    return [(hold.state, hold.outcome, quality.get(hold.id, "nothing")) for hold in books.holds]


# --- the caller leaves --------------------------------------------------------------------------------------------------------


@models
@deliveries
async def test_a_caller_who_leaves_before_the_first_byte_is_booked(house, model, stream):
    """
    The upstream has the call. It is hung up on where that stops the bill; else its answer is read, and booked as it says.
    """
    house.gate.speaks.clear()
    asking = asyncio.create_task(begin(house, model, stream=stream).__aenter__())
    await house.gate.wait_for_calls(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await hang_up(house)
    is_drained = model == "drained"
    if not is_drained:
        await until_idle(house)
    books = await settled(house)
    assert told(books) == [("posted", "ok", "reported") if is_drained else ("posted", "cancelled", "estimated")]
    (entry,) = books.entries
    assert entry.cost_nusd > 0
    if is_drained:
        assert (entry.input, entry.output) == (INPUT_TOKENS, OUTPUT_TOKENS)


async def hang_up(house: House) -> None:
    """Let every connection of the callers go, and let the daemon see it."""
    await house.http.close()
    async with aiohttp.ClientSession() as other:
        for _ in range(3):
            async with other.get(f"{house.url}/healthz") as answer:
                assert answer.status == 200


@models
async def test_a_caller_who_leaves_in_mid_stream_is_booked(house, model):
    house.gate.more.clear()
    answer = await begin(house, model, stream=True)
    words = b""
    while FIRST_WORDS not in words:
        words += await answer.content.readany()
    answer.close()
    await hang_up(house)
    house.gate.more.set()
    if model != "drained":
        await until_idle(house)
    books = await settled(house)
    outcome = ("ok", "reported") if model == "drained" else ("cancelled", "estimated")
    assert told(books) == [("posted", *outcome)]
    (entry,) = books.entries
    assert entry.input > 0
    assert entry.output > 0


@models
@deliveries
async def test_a_caller_who_leaves_at_the_last_byte_is_booked_as_the_upstream_said(house, model, stream):
    """
    The upstream has told it all; the post is just being committed.
    """
    answer = asyncio.create_task(begin(house, model, stream=stream).__aenter__())
    await house.gate.wait_for_calls(1)
    await until(lambda: has_answer(house))
    with holding(house.ledger):
        house.gate.is_open.set()
        await until(lambda: running(house).attempt.is_settled)
        answer.cancel()
        await asyncio.wait({answer})
        if not answer.cancelled():
            answer.result().close()
        await hang_up(house)
    assert told(await settled(house)) == [("posted", "ok", "reported")]


# --- the call is cancelled ----------------------------------------------------------------------------------------------------


async def cancelled(house: House, asking: "asyncio.Task[Any]") -> None:
    running(house).task.cancel()
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        await asking


async def read(house: House, model: str, *, stream: bool) -> bytes:
    async with begin(house, model, stream=stream) as answer:
        return await answer.read()


@deliveries
async def test_a_call_cancelled_while_its_hold_is_committed_gives_it_back(house, stream):
    with holding(house.ledger):
        asking = asyncio.create_task(read(house, "openai", stream=stream))
        await until(lambda: under_way(house))
        await cancelled(house, asking)
    assert told(await settled(house)) == [("voided", "cancelled", "nothing")]
    assert house.gate.begun == 0


@models
@deliveries
@pytest.mark.parametrize("speaks", [False, True], ids=["before the head", "after the head"])
async def test_a_call_cancelled_while_its_answer_is_awaited_is_booked(house, model, stream, speaks):
    """
    The upstream has the call: what it will charge is not known, and not nothing.
    """
    if not speaks:
        house.gate.speaks.clear()
    asking = asyncio.create_task(read(house, model, stream=stream))
    await house.gate.wait_for_calls(1)
    if speaks:
        await until(lambda: has_answer(house))
    await cancelled(house, asking)
    books = await settled(house)
    assert told(books) == [("posted", "cancelled", "estimated")]
    (entry,) = books.entries
    assert entry.cost_nusd > 0


@deliveries
async def test_a_call_cancelled_while_its_next_rung_is_committed_gives_that_back(house, stream):
    """
    The first refused it: nothing is owed for either, and the second is never asked.
    """
    house.gate.speaks.clear()
    asking = asyncio.create_task(read(house, "moves", stream=stream))
    await house.gate.wait_for_calls(1)
    with holding(house.ledger):
        house.gate.speaks.set()
        await until(lambda: running(house).attempt.is_settled)
        await cancelled(house, asking)
    assert told(await settled(house)) == [("voided", "failed", "nothing"), ("voided", "cancelled", "nothing")]
    assert house.gate.begun == 1


@deliveries
async def test_a_call_cancelled_on_its_next_rung_is_booked_there(house, stream):
    """
    The first could not be reached: nothing is owed for it.
    """
    house.gate.speaks.clear()
    asking = asyncio.create_task(read(house, "falls", stream=stream))
    await house.gate.wait_for_calls(1)
    await cancelled(house, asking)
    assert told(await settled(house)) == [("voided", "failed", "nothing"), ("posted", "cancelled", "estimated")]


@models
@deliveries
async def test_a_call_cancelled_while_its_post_is_committed_is_booked_as_the_upstream_said(house, model, stream):
    asking = asyncio.create_task(read(house, model, stream=stream))
    await house.gate.wait_for_calls(1)
    await until(lambda: has_answer(house))
    with holding(house.ledger):
        house.gate.is_open.set()
        await until(lambda: running(house).attempt.is_settled)
        await cancelled(house, asking)
    assert told(await settled(house)) == [("posted", "ok", "reported")]

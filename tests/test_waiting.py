"""
Callers that would rather wait than be refused, over real sockets, on a clock that the tests move.

Law: at a cooldown's end one of all that waited tries the rung, and the others follow in the order in which they came; nobody waits
longer than he said, and who has left stands in nobody's way.
"""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from between_kit import SAID, SERVER, Between, model_toml, open_between
from daemon_kit import get, provider_toml
from ledger_kit import Clock

from quota_router import upkeep
from quota_router.simulator import Refusal

LONG_S = "300"
"""No caller of these tests waits so long."""
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
COOLING_S = 60


@dataclass
class Gate:
    """An upstream that answers when it is let; it refuses first, and says until when."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    came: list[int] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0
    refusals: int = 1

    async def answer(self, request: web.BaseRequest) -> web.Response:
        asked = json.loads(await request.read())
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=429, headers={"retry-after": str(COOLING_S)})
        self.came.append(int(asked["user"]))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await self.is_open.wait()
        self.inside -= 1
        return web.json_response(ANSWER)


@dataclass
class House:
    """The daemon, the gate behind it, and those that wait before it."""

    between: Between
    gate: Gate
    clock: Clock
    waiting: list[asyncio.Task] = field(default_factory=list)

    @property
    def room(self):
        return self.between.daemon.router.admissions.waiting

    async def ask(self, number: int, *, model: str = "gated", max_wait: str = LONG_S, **how: str):
        asked = {"model": model, "messages": SAID, "max_tokens": 5, "user": str(number)}
        return await self.between.send("/v1/chat/completions", json.dumps(asked), x_quota_router_max_wait=max_wait, **how)

    async def stand_in_line(self, number: int, **how: str) -> asyncio.Task:
        """Let one more caller wait; returns when he stands in line."""
        before = self.room.waiting
        task = asyncio.create_task(self.ask(number, **how))
        self.waiting.append(task)
        await until(lambda: self.room.waiting > before)
        return task

    async def look_around(self) -> None:
        """Let whoever has his turn look, and be answered."""
        for _ in range(3):
            self.room.stir()
            await asyncio.sleep(0)
            await self.between.daemon.lane.snapshot()


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- nobody signals it
            await asyncio.sleep(0.001)


@pytest.fixture
async def house(tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "LEAVE_LOOK_S", 0.01)
    gate, clock = Gate(), Clock()
    runner = web.ServerRunner(web.Server(gate.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    more = provider_toml("gate", f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    more += model_toml("gated", "gate") + model_toml("narrow", "gate") + model_toml("few", "chat-1")
    more += '[[budgets]]\nname = "one"\nsubject = "model:narrow"\nunit = "concurrency"\nlimit = 1\nwindow = "day"\n'
    more += '[[budgets]]\nname = "few"\nsubject = "model:few"\nunit = "requests"\nlimit = 1\nwindow = "hour"\n'
    server = SERVER.replace("first_byte_timeout_s = 0.4", "first_byte_timeout_s = 60")
    async with open_between(tmp_path, server=server, more=more, keys={"KEY_GATE": "gate"}, clock=clock) as between:
        found = House(between=between, gate=gate, clock=clock)
        yield found
        gate.is_open.set()
        for task in found.waiting:
            task.cancel()
        await asyncio.gather(*found.waiting, return_exceptions=True)
    await runner.cleanup()


async def test_row_1_5_a_hundred_that_waited_for_a_cooldowns_end_become_one_call_until_it_answers(house):
    callers = 100
    refused = await house.ask(999, max_wait="0")
    assert (refused.status, refused.headers["Retry-After"]) == (429, str(COOLING_S))
    for number in range(callers):
        await house.stand_in_line(number)
    assert (house.room.waiting, house.gate.came) == (callers, [])
    house.clock.forward(seconds=COOLING_S)
    await until(lambda: house.gate.came)
    await house.look_around()
    assert (house.gate.came, house.room.waiting) == ([0], callers - 1)
    house.gate.is_open.set()
    told = await asyncio.gather(*house.waiting)
    assert [answer.status for answer in told] == [200] * callers
    assert sorted(house.gate.came) == list(range(callers))
    assert house.room.waiting == 0


async def test_if_the_one_fails_the_others_wait_on(house):
    await house.ask(999, max_wait="0")
    for number in range(3):
        await house.stand_in_line(number)
    house.gate.refusals = 1
    house.clock.forward(seconds=COOLING_S)
    await until(lambda: not house.gate.refusals)
    await house.look_around()
    assert (house.gate.came, house.room.waiting) == ([], 3)
    house.gate.is_open.set()
    house.clock.forward(seconds=COOLING_S)
    assert [answer.status for answer in await asyncio.gather(*house.waiting)] == [200] * 3


async def test_what_becomes_free_is_handed_out_in_order_and_one_at_a_time(house):
    """
    Thirty callers for one place.
    """
    house.gate.refusals = 0
    first = asyncio.create_task(house.ask(0, model="narrow"))
    house.waiting.append(first)
    await until(lambda: house.gate.came)
    for number in range(1, 30):
        await house.stand_in_line(number, model="narrow")
    house.gate.is_open.set()
    assert [answer.status for answer in await asyncio.gather(*house.waiting)] == [200] * 30
    assert (house.gate.came, house.gate.most_inside) == (list(range(30)), 1)


async def test_one_callers_crowd_does_not_keep_the_only_call_of_another_waiting(house):
    house.gate.refusals = 0
    house.waiting.append(asyncio.create_task(house.ask(0, model="narrow", x_quota_router_labels="crowd")))
    await until(lambda: house.gate.came)
    for number in range(1, 10):
        await house.stand_in_line(number, model="narrow", x_quota_router_labels="crowd")
    await house.stand_in_line(100, model="narrow", x_quota_router_labels="other")
    house.gate.is_open.set()
    assert [answer.status for answer in await asyncio.gather(*house.waiting)] == [200] * 11
    assert house.gate.came.index(100) <= 2
    assert [number for number in house.gate.came if number != 100] == list(range(10)), "in his own line everybody keeps his place"


async def test_nobody_waits_longer_than_he_said(house):
    """
    Also who stands behind somebody with more time. What he is told is true at that moment, and recorded once.
    """
    await house.ask(999, max_wait="0")
    patient = await house.stand_in_line(0)
    hasty = [await house.stand_in_line(number, max_wait="0.3") for number in (1, 2, 3)]
    house.clock.forward(seconds=10)
    for answer in await asyncio.gather(*hasty):
        assert (answer.status, answer.headers["Retry-After"]) == (429, str(COOLING_S - 10))
        assert answer.headers["x-should-retry"] == "false"
        story = await get(house.between.daemon.url, f"/api/v1/calls/{answer.ours('call')}")
        assert (story["state"], story["attempts"]) == ("refused", [])
    assert (house.room.waiting, patient.done(), house.gate.came) == (1, False, [])


async def test_nobody_waits_beyond_his_own_deadline(house):
    """
    What he is told is why nothing could be done until then.
    """
    await house.ask(999, max_wait="0")
    told = await house.ask(0, x_quota_router_timeout="0.2")
    assert (told.status, told.headers["Retry-After"]) == (429, str(COOLING_S))
    assert (house.room.waiting, house.gate.came) == (0, [])


async def test_the_time_in_line_takes_nothing_of_the_time_to_be_served_in(house):
    """
    `max_call_s` is 900.
    """
    router, loop, passed = house.between.daemon.router, asyncio.get_running_loop(), [0.0]
    for timed in (router, router.admissions, router.underway, house.room):
        timed.time = lambda: loop.time() + passed[0]
    await house.ask(999, max_wait="0")
    task = await house.stand_in_line(0, max_wait="3000")
    passed[0] = 1_000.0
    house.clock.forward(seconds=COOLING_S)
    house.room.stir()
    await until(lambda: house.gate.came)
    (running,) = router.underway
    assert running.ends_at - router.time() > 800
    house.gate.is_open.set()
    assert (await task).status == 200


@pytest.mark.parametrize("leaver", [0, 1, 2], ids=["first", "middle", "last"])
async def test_who_leaves_is_dropped_from_the_line(house, leaver):
    await house.ask(999, max_wait="0")
    tasks = [await house.stand_in_line(number) for number in range(3)]
    tasks[leaver].cancel()
    await until(lambda: house.room.waiting == 2)
    assert len(house.between.daemon.router.underway) == 2
    house.gate.is_open.set()
    house.clock.forward(seconds=COOLING_S)
    rest = [task for number, task in enumerate(tasks) if number != leaver]
    assert [answer.status for answer in await asyncio.gather(*rest)] == [200, 200]
    assert sorted(house.gate.came) == [number for number in range(3) if number != leaver]
    (limit,) = [limit for limit in (await get(house.between.daemon.url, "/api/v1/limits"))["items"] if limit["name"] == "all"]
    assert limit["held"] == 0


async def test_a_full_room_refuses_at_once(house):
    await house.ask(999, max_wait="0")
    house.room._places_max = 2
    for number in range(2):
        await house.stand_in_line(number)
    told = await house.ask(2)
    assert (told.status, told.headers["Retry-After"]) == (429, str(COOLING_S))
    assert house.room.waiting == 2


async def test_a_call_that_fails_over_to_nobody_waits_too(house):
    """
    It stands in line after its own attempt was refused, and tries that rung again.
    """
    task = await house.stand_in_line(0)
    assert house.gate.refusals == 0
    house.gate.is_open.set()
    house.clock.forward(seconds=COOLING_S)
    told = await task
    assert (told.status, told.ours("attempts")) == (200, "2")
    story = await house.between.story(told)
    assert [attempt["outcome"] for attempt in story["attempts"]] == ["failed", "ok"]


async def test_who_waits_for_a_budget_is_served_when_its_window_begins_anew(house):
    body = json.dumps({"model": "few", "messages": SAID, "max_tokens": 5})
    assert (await house.between.send("/v1/chat/completions", body)).status == 200
    waiting = asyncio.create_task(house.between.send("/v1/chat/completions", body, x_quota_router_max_wait=LONG_S))
    house.waiting.append(waiting)
    await until(lambda: house.room.waiting)
    house.clock.forward(hours=1)
    await house.look_around()
    assert (await waiting).status == 200


async def test_who_does_not_wait_passes_nobody_who_does_and_is_refused(house):
    """
    While the one call is under way there is nothing for him either.
    """
    await house.ask(999, max_wait="0")
    await house.stand_in_line(0)
    house.clock.forward(seconds=COOLING_S)
    await until(lambda: house.gate.came)
    assert (await house.ask(1, max_wait="0")).status == 429
    assert house.gate.came == [0]


async def test_only_a_said_time_keeps_callers_waiting(house):
    """
    A pause that nobody asked for keeps nobody out of the last rung: `core/decision`.
    """
    house.between.script("chat-1", Refusal(status=503))
    house.between.script("chat-2", Refusal(status=503))
    body = json.dumps({"model": "chat", "messages": SAID, "max_tokens": 5})
    assert (await house.between.send("/v1/chat/completions", body)).status == 503
    assert (await house.between.send("/v1/chat/completions", body, x_quota_router_max_wait=LONG_S)).status == 200

"""
Laws that were broken once: each test is the smallest way in which it happened.
"""

import asyncio
import json
import socket
import sqlite3

import pytest
from between_kit import ASKED, SETTLED_S, open_between
from daemon_kit import AUTH
from ledger_kit import Clock, admit, call, catalog, limit, new_id, open_ledger, post, provider, void
from sqlalchemy import select
from yarl import URL

from quota_router.attempts import Attempt
from quota_router.core.calls import Plane
from quota_router.core.estimates import Bound
from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.core.holds import Event, Outcome, Settlement
from quota_router.core.limits import Unit
from quota_router.core.usage import Usage
from quota_router.decisions import Decisions
from quota_router.errors import NoUsableProvider, UnknownHold
from quota_router.ladder import Ladders
from quota_router.own_routers import OwnRouters
from quota_router.routing import Routing
from quota_router.simulator import Fault, FaultKind, Reply
from quota_router.store.holding import Sweep
from quota_router.store.ledger import Admit, Settle
from quota_router.store.prices import PriceBook
from quota_router.store.projection import project
from quota_router.store.tables import balances
from quota_router.web import sink

LATER = {"hours": 2}


pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def clock():
    return Clock()


def decisions(lane, clock):
    ladders = Ladders(prices=PriceBook(), credential_of=lambda _: None, draw=lambda: 0, stale_after_s=900.0)
    routing = Routing(lane=lane, ladders=ladders, own=OwnRouters(draw=lambda: 0.0, new_id=new_id), clock=clock)
    return Decisions(lane=lane, routing=routing, ladders=ladders, clock=clock, new_id=new_id, draw=lambda: 0.0)


async def read(lane, table):
    async with lane.reader.connect() as conn:
        return (await conn.execute(select(table))).all()


@pytest.mark.parametrize("window", ["1m", "hour"])
async def test_a_hold_whose_window_has_ended_expires_all_the_same(tmp_path, clock, window):
    """
    The sweep let go of the bucket that it had just charged, and could never be written.
    """
    of = catalog(limit(window=window))
    async with open_ledger(tmp_path, clock, of) as lane:
        await lane.run(admit(of, ttl_s=300))
        clock.forward(**LATER)
        assert await lane.run(Sweep()) == 1
        assert [(row.posted, row.held) for row in await read(lane, balances)] == [(1, 0)]


async def test_a_daemon_starts_again_after_the_window_of_its_orphans_has_ended(tmp_path, clock):
    of = catalog(limit(window="1m"))
    async with open_ledger(tmp_path, clock, of) as lane:
        await lane.run(admit(of))
    clock.forward(**LATER)
    async with open_ledger(tmp_path, clock, of) as lane:
        assert await lane.run(Sweep(orphans=True)) == 1


async def test_a_late_void_takes_what_was_assumed_out_of_the_balances_too(tmp_path, clock):
    of = catalog(limit("usd", unit=Unit.USD, limit=10**9), limit("tokens", unit=Unit.TOKENS, limit=10**6))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of, ttl_s=10))).hold
        clock.forward(seconds=20)
        await lane.run(Sweep())
        assert all(row.posted for row in await read(lane, balances))
        assert (await lane.run(Settle(hold_id=hold.id, settlement=void()))).state == "late"
        assert [row.posted for row in await read(lane, balances)] == [0, 0]


async def test_a_cooldown_outlives_a_restart_also_where_one_batch_ended_the_one_before(tmp_path, clock):
    of = catalog()
    busy = Failure(kind=FailureKind.RATE_LIMITED, scope=Scope.ATTACHMENT, status=429)
    failed = Settlement(event=Event.VOID, outcome=Outcome.FAILED, failure=busy)
    async with open_ledger(tmp_path, clock, of) as lane:
        first, second, third = [(await lane.run(admit(of))).hold.id for _ in range(3)]
        await lane.run(Settle(hold_id=first, settlement=failed))
        clock.forward(minutes=10)
        one_batch = [Settle(hold_id=second, settlement=post()), Settle(hold_id=third, settlement=failed)]
        await asyncio.gather(*(lane.submit(job) for job in one_batch))
        before = (await lane.snapshot()).cooldowns
    async with open_ledger(tmp_path, clock, of) as lane:
        assert (await lane.snapshot()).cooldowns == before != {}


@pytest.mark.parametrize("enforcement", ["strict", "bounded"])
async def test_a_hold_cannot_be_extended_beyond_a_limit(tmp_path, clock, enforcement):
    of = catalog(limit("usd", unit=Unit.USD, limit=200_000, enforcement=enforcement))
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of, call(plane=Plane.DECISION)))).hold
        extend = decisions(lane, clock).extend
        with pytest.raises(NoUsableProvider) as refused:
            await extend(hold.id, None, 5_000, Bound(input_tokens=1_000, output_tokens=0))
        assert (refused.value.status, lane.state.holds[hold.id].hold) == (429, hold)
        longer = await extend(hold.id, None, 5_000, Bound(input_tokens=200, output_tokens=0))
        assert (longer.estimate.likely.cost_nusd, longer.expires_at > hold.expires_at) == (200_000, True)


async def test_what_has_no_price_any_more_is_booked_as_it_was_held(tmp_path, clock):
    """
    Unknown is not zero: the attachment was taken out of the file while the caller was at it.
    """
    cap = limit("usd", unit=Unit.USD, limit=200_000)
    async with open_ledger(tmp_path, clock, catalog(cap)) as lane:
        hold = (await lane.run(admit(catalog(cap), call(plane=Plane.DECISION)))).hold
        await lane.edit_catalog(catalog(cap, providers=(provider("two"),)))
        said = decisions(lane, clock)
        longer = await said.extend(hold.id, None, 60, Bound(input_tokens=1, output_tokens=1))
        assert longer.estimate.likely.cost_nusd == hold.estimate.likely.cost_nusd
        booked = await said.settle_usage(hold.id, None, Usage(input=1, output=1))
        assert booked.cost_nusd == hold.estimate.likely.cost_nusd
        assert [(row.posted, row.held) for row in await read(lane, balances)] == [(booked.cost_nusd, 0)]


async def test_a_hold_of_a_relayed_call_is_not_its_callers_to_settle(tmp_path, clock):
    """
    A caller that voids the hold of its own running call would be served for nothing.
    """
    async with open_ledger(tmp_path, clock, catalog()) as lane:
        hold = (await lane.run(admit(catalog()))).hold
        said = decisions(lane, clock)
        for whose in ("ci", None):
            with pytest.raises(UnknownHold):
                await said.void(hold.id, whose)
            with pytest.raises(UnknownHold):
                await said.settle_cost(hold.id, whose, 0)


@pytest.mark.parametrize("end", ["post", "void"])
async def test_a_settlement_whose_commit_was_made_without_a_word_is_found_and_answered(tmp_path, clock, monkeypatch, end):
    """
    COMMIT may fail and be durable: tried again, the settlement finds itself.
    """
    of = catalog(limit())
    async with open_ledger(tmp_path, clock, of) as lane:
        asked = admit(of)
        admitted = await lane.run(asked)
        attempt = Attempt(
            call=asked.call,
            number=1,
            hold=admitted.hold,
            candidate=admitted.decision.candidate,
            rungs=(),
            time=lambda: 0.0,
            started=0.0,
        )
        commit = lane._writer.commit

        def commit_and_break(batch):
            monkeypatch.setattr(lane._writer, "commit", commit)
            commit(batch)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(lane._writer, "commit", commit_and_break)
        settlement = attempt.post(Usage(input=5)) if end == "post" else attempt.void(None)
        booked = await lane.run(Settle(hold_id=admitted.hold.id, settlement=settlement), settles=True)
        assert (booked.state, booked.replayed) == ("posted" if end == "post" else "voided", True)


async def test_balances_equal_their_projection_after_expiries_and_late_words(tmp_path, clock):
    limits = [
        limit(unit.value, unit=unit, window=window, limit=10**12) for unit, window in zip(Unit, ["1m", "hour"] * 3, strict=True)
    ]
    async with open_ledger(tmp_path, clock, catalog(*limits)) as lane:
        for word in (void(), post(), post(5_000, 0)):
            hold = (await lane.run(admit(catalog(*limits), ttl_s=10))).hold
            clock.forward(seconds=20)
            await lane.run(Sweep())
            await lane.run(Settle(hold_id=hold.id, settlement=word))

        def shown(rows):
            return {(row.limit_name, row.bucket): (row.posted, row.held) for row in rows if row.posted or row.held}

        before = shown(await read(lane, balances))
        with lane._writer._conn.begin():
            project(lane._writer._conn, limits, clock())
        assert shown(await read(lane, balances)) == before != {}


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def between(tmp_path):
    async with open_between(tmp_path) as opened:
        yield opened


async def test_a_call_cut_at_the_moment_its_hold_is_durable_gives_it_back(between, monkeypatch):
    lane, submit = between.daemon.lane, between.daemon.lane.submit

    def cut_when_answered(job, **how):
        answer = submit(job, **how)
        if isinstance(job, Admit):
            answer.add_done_callback(lambda _: between.daemon.router.underway.cut())
        return answer

    monkeypatch.setattr(lane, "submit", cut_when_answered)
    assert (await between.ask("chat")).status == 503
    await between.settled()
    await lane.run(Sweep())
    assert (await lane.snapshot()).holds == {}
    assert between.sim.requests == []


async def test_the_kind_of_a_stream_is_told_in_any_case(between):
    between.script("chat-1", Reply(headers={"content-type": "Text/Event-Stream"}))
    told = await between.ask("chat", stream=True)
    assert (told.status, told.ours("provider"), told.body.endswith(b"data: [DONE]\n\n")) == (200, "chat-1", True)


async def test_tokens_that_a_failed_answer_reports_are_booked(between):
    broken = {"error": {"message": "no", "type": "server_error"}, "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    between.script("chat-1", Fault(kind=FaultKind.GARBAGE, body=json.dumps(broken)))
    told = await between.ask("chat")
    first, second = (await between.story(told))["attempts"]
    assert (first["outcome"], first["usage"]["input_tokens"], first["usage"]["output_tokens"]) == ("failed", 10, 5)
    assert second["outcome"] == "ok"


async def test_who_stops_reading_is_hung_up_on(between, monkeypatch):
    """
    His call was settled in time, but his connection stayed for as long as he kept it, and what he read at last seemed to be whole.
    """
    monkeypatch.setattr(sink, "WRITE_TIMEOUT_S", 0.2)
    between.script("chat-1", Reply(text="x" * 20_000_000, chunks=100))
    path, asked = ASKED["chat"]
    body = json.dumps({**asked, "stream": True}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTH['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, ("127.0.0.1", URL(between.daemon.url).port))
        await loop.sock_sendall(caller, head.encode() + body)
        async with asyncio.timeout(SETTLED_S):
            await loop.sock_recv(caller, 1)
            await between.settled()
            received = bytearray()
            while piece := await loop.sock_recv(caller, 1_000_000):
                received += piece
    assert not received.endswith(b"0\r\n\r\n")
    assert (await between.daemon.lane.snapshot()).holds == {}

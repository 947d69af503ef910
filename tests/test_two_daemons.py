"""
Two daemons on one PostgreSQL ledger: one catalog, one set of limits, one name for each key; two journals, two lives.

Law: what one has booked binds the other's very next word, and the death of one costs the other nothing.
"""

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import database_kit
import psycopg
import pytest
from caller_kit import ask, budget_toml, model_toml, post
from daemon_kit import AUTH, Process, environ, get
from fleet_kit import VENDORS, open_fleet
from laws_kit import check_caps, check_laws, read_disk, us
from ledger_kit import Clock, admit, call, catalog, open_ledger
from plane_kit import open_plane
from waiting_kit import until

from quota_router.errors import Conflict
from quota_router.simulator import Fault, FaultKind, Reply
from quota_router.store.holding import Sweep

NOTICED_S = 20
"""The other daemon has noticed a death by then."""
PROVIDER = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "m"
provider = "one"
cost_per_million_input = "1"
cost_per_million_output = "2"
"""
CAP = '[[budgets]]\nname = "calls"\nsubject = "everyone"\nunit = "requests"\nlimit = {}\nwindow = "month"\nenforcement = "strict"\n'
SMALL = {"model": "m", "input_tokens": 100, "max_output_tokens": 10}
SPENT = {"usage": {"input_tokens": 50, "output_tokens": 5}}
"""60,000 nano-USD of 120,000 held."""

pytestmark = pytest.mark.usefixtures("postgres")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def planes(tmp_path, clock):
    """Two daemons in this process, under one clock that the test moves."""
    async with AsyncExitStack() as stack:
        opened = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            opened.append(await stack.enter_async_context(open_plane(tmp_path / name, PROVIDER, clock, ledger=tmp_path)))
        yield opened


async def route(plane, **how):
    return await plane.ask("POST", "/api/v1/route", SMALL, **how)


async def held(plane, **how):
    told = await route(plane, **how)
    assert told.status == 201, told
    return told.body["hold"]["id"]


async def settle(plane, hold_id, body=SPENT):
    return await plane.ask("POST", f"/api/v1/holds/{hold_id}/settle", body)


# --- one catalog --------------------------------------------------------------------------------------------------------


async def test_an_edit_at_one_daemon_binds_the_very_next_hold_at_the_other(planes, tmp_path):
    """
    Added, raised, lowered below what is taken, taken away: nobody is told, the next batch looks.
    """
    for turn, cap in enumerate([1, 3, 2, None, 4, 9, 0, None, 1] * 3):
        editing, holding = planes[turn % 2], planes[1 - turn % 2]
        taken = len((await holding.daemon.lane.snapshot()).holds)
        editing.file.write_text(editing.file.read_text().partition("[[budgets]]")[0] + (CAP.format(cap) if cap is not None else ""))
        told = await editing.ask("POST", "/api/v1/reload", {}, token="qr_admin_test")
        assert told.status == 200, told
        assert (await route(holding)).status == (201 if cap is None or taken < cap else 429), (turn, cap, taken)
    check_laws(read_disk(tmp_path), us(planes[0].daemon.services.clock()))


async def test_edits_at_both_under_load_are_all_seen(planes, tmp_path, clock):
    """
    Holds at both while a limit is put up one by one: as many are held in the end as the last edit lets in.
    """

    async def edit(plane):
        for cap in range(0, 12, 3):
            plane.file.write_text(plane.file.read_text().partition("[[budgets]]")[0] + CAP.format(cap))
            assert (await plane.ask("POST", "/api/v1/reload", {}, token="qr_admin_test")).status == 200

    async def hold(plane):
        return [(await route(plane)).status for _ in range(40)]

    editing, holding = planes
    await edit(editing)  # a limit before the first call: none of them may pass it
    await asyncio.gather(edit(editing), hold(holding), hold(editing), hold(holding))
    await hold(holding)
    found = read_disk(tmp_path)
    check_laws(found, us(clock()))
    check_caps(found, us(clock()))
    assert Counter(row["state"] for row in found.holds) == {"held": 9}


# --- one name for each hold and key -------------------------------------------------------------------------------------


async def test_a_hold_of_one_daemon_is_settled_at_the_other_and_once(planes, tmp_path, clock):
    hold_ids = [await held(planes[n % 2]) for n in range(10)]
    told = await asyncio.gather(*(settle(planes[n % 2], hold_id) for hold_id in hold_ids for n in range(4)))
    assert {answer.status for answer in told} == {200}
    assert Counter((answer.body["hold_id"], answer.body["replayed"]) for answer in told) == {
        **{(hold_id, False): 1 for hold_id in hold_ids},
        **{(hold_id, True): 3 for hold_id in hold_ids},
    }
    for plane in planes:
        assert {(await settle(plane, hold_id, {"cost_usd": "1"})).status for hold_id in hold_ids} == {409}
        assert {(await plane.ask("POST", f"/api/v1/holds/{hold_id}/void")).status for hold_id in hold_ids} == {409}
    found = read_disk(tmp_path)
    check_laws(found, us(clock()))
    assert [row["cost_nusd"] for row in found.entries] == [60_000] * 10


async def test_every_word_about_a_hold_may_be_said_at_the_other_daemon(planes, tmp_path, clock):
    """
    Extended, voided, expired, late; each of them said again where the hold was taken.
    """
    first, second = planes
    extended, voided, late = [await held(first) for _ in range(3)]
    assert (await second.ask("POST", f"/api/v1/holds/{extended}/extend", {"ttl_s": 3_600})).status == 200
    for plane, replayed in ((second, False), (first, True)):
        told = await plane.ask("POST", f"/api/v1/holds/{voided}/void")
        assert (told.body["state"], told.body["replayed"]) == ("voided", replayed)
    clock.forward(seconds=301)
    assert await second.daemon.lane.run(Sweep()) == 1
    for plane, replayed in ((second, False), (first, True)):
        told = await settle(plane, late)
        assert (told.body["state"], told.body["cost_nusd"], told.body["replayed"]) == ("late", -60_000, replayed)
    assert (await settle(second, extended)).body["state"] == "posted"
    check_laws(read_disk(tmp_path), us(clock()))


async def test_two_contradicting_settlements_at_once_book_one(planes, tmp_path, clock):
    for _ in range(10):
        hold_id = await held(planes[0])
        told = await asyncio.gather(settle(planes[0], hold_id), settle(planes[1], hold_id, {"cost_usd": "0.5"}))
        assert sorted(answer.status for answer in told) == [200, 409]
    found = read_disk(tmp_path)
    check_laws(found, us(clock()))
    assert len(found.entries) == 10


async def test_a_key_is_one_call_at_both_daemons(planes, tmp_path):
    """
    Asked at both at once: one hold, and every answer is that one; other words under it contradict at either.
    """
    for turn in range(10):
        told = await asyncio.gather(*(route(planes[n % 2], Idempotency_Key=f"k{turn}") for n in range(6)))
        assert {answer.status for answer in told} == {201}
        assert len({answer.body["hold"]["id"] for answer in told}) == 1
        for plane in planes:
            other = await plane.ask("POST", "/api/v1/route", {**SMALL, "input_tokens": 7}, Idempotency_Key=f"k{turn}")
            assert other.status == 409
    assert len(read_disk(tmp_path).holds) == 10


async def test_a_daemon_that_loses_the_race_for_a_key_keeps_its_journal(tmp_path, clock):
    """
    It let go of its connection, and with it of its journal: its running calls were then booked as assumed, by itself or by others.
    """
    of, url = catalog(), database_kit.plain_url_of(tmp_path)
    async with open_ledger(tmp_path, clock, of) as lane, open_ledger(tmp_path, clock, of) as other:
        running = (await lane.run(admit(of))).hold
        with psycopg.connect(url, autocommit=True) as looking, psycopg.connect(url) as racing:
            owners = "SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory' ORDER BY objid"
            before = looking.execute(owners).fetchall()
            racing.execute(
                "INSERT INTO calls (id, caller, idempotency_key, fingerprint, plane, operation, decision, at)"
                " VALUES ('first', 'ci', 'k', 'x', 'data', 'chat', '[]', 0)"
            )
            asked = asyncio.ensure_future(lane.run(admit(of, call(idempotency_key="k", fingerprint="x"))))

            async def is_waiting():
                count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                return (await asyncio.to_thread(looking.execute, count)).fetchone() == (1,)

            await until(is_waiting, NOTICED_S)
            racing.commit()
            with pytest.raises(Conflict) as lost:
                await asked
            assert lost.value.call_id == "first"
            assert looking.execute(owners).fetchall() == before
        assert [await each.run(Sweep()) for each in (lane, other)] == [0, 0]
        assert set((await other.snapshot()).holds) == {running.id}


async def test_each_daemon_writes_a_journal_of_its_own_and_both_are_whole(planes, tmp_path, clock):
    for n in range(12):
        await settle(planes[n % 2], await held(planes[n // 2 % 2]))
    found = read_disk(tmp_path)
    check_laws(found, us(clock()))
    assert Counter(row["journal"] for row in found.entries) == {"main": 6, "main-2": 6}
    told = [(await plane.read("/api/v1/entries")).body["items"] for plane in planes]
    assert told[0] == told[1]
    assert len(told[0]) == 12


# --- the death of one ---------------------------------------------------------------------------------------------------

CATALOG = model_toml("openai", "openai") + model_toml("anthropic", "anthropic") + budget_toml("usd", "everyone", "usd", "1000")


@pytest.fixture
async def fleet(tmp_path):
    async with open_fleet(tmp_path, CATALOG, many=2, server="sweep_s = 0.2\n") as opened:
        yield opened


async def decide(fleet, daemon, ttl_s):
    asked = {"model": "openai", "input_tokens": 100, "max_output_tokens": 10, "ttl_s": ttl_s}
    async with fleet.http.post(f"{daemon.url}/api/v1/route", json=asked, headers=AUTH) as answer:
        assert answer.status == 201
        return (await answer.json())["hold"]["id"]


async def test_the_death_of_one_daemon_books_what_it_relayed_and_leaves_the_other_alone(fleet, tmp_path):
    """
    Each relays four streams that do not end, and has given out two decisions: one for a second, one for an hour.
    """
    dead, alive = fleet.daemons
    fleet.sim.script(None, Fault(kind=FaultKind.HEARTBEATS, after_chunks=1, delay_s=0.05, times=None))
    streams = [
        [await post(fleet.http, daemon.url, name, name, stream=True) for name in VENDORS for _ in range(2)]
        for daemon in fleet.daemons
    ]
    ended_by_death, left_alone = ({stream.headers["x-quota-router-call"] for stream in own} for own in streams)
    short, long = [await decide(fleet, dead, ttl_s) for ttl_s in (1, 3_600)]
    assert await dead.stop(signal.SIGKILL) == -signal.SIGKILL

    def holds():
        return {row["id"]: row for row in read_disk(tmp_path).holds}

    async def is_booked():
        found = await asyncio.to_thread(holds)
        orphans = [row for row in found.values() if row["call_id"] in ended_by_death]
        return {row["state"] for row in [*orphans, found[short]]} == {"expired"}

    await until(is_booked, NOTICED_S)
    found = read_disk(tmp_path)
    check_laws(found, us(datetime.now(UTC)))
    states = {row["call_id"]: row["state"] for row in found.holds}
    assert {states[call_id] for call_id in left_alone} == {"held"}
    assert {row["id"]: row["state"] for row in found.holds}[long] == "held"
    booked = [row for row in found.entries if row["kind"] == "expire"]
    assert {(row["quality"], row["journal"]) for row in booked} == {("assumed", "main-2")}
    assert len(booked) == len(ended_by_death) + 1

    # The other daemon's streams end as if nothing had happened, and it answers for what the dead one had decided.
    for stream in streams[1]:
        stream.close()
    await fleet.sim.quiet(NOTICED_S)
    for replayed in (False, True):
        async with fleet.http.post(f"{alive.url}/api/v1/holds/{long}/settle", json=SPENT, headers=AUTH) as answer:
            assert (await answer.json())["replayed"] is replayed

    async def is_all_ended():
        return not [row for row in (await asyncio.to_thread(holds)).values() if row["state"] == "held"]

    await until(is_all_ended, NOTICED_S)
    ended = {row["call_id"]: (row["state"], row["outcome"]) for row in holds().values()}
    assert {ended[call_id] for call_id in left_alone} == {("posted", "cancelled")}

    # Who comes back takes the journal of the dead one up, and books nothing a second time.
    before = read_disk(tmp_path).entries
    again = await Process.start(tmp_path / "daemon-0" / "quota-router.toml", environ(tmp_path / "daemon-0", KEY_OPENAI="openai"))
    try:
        fleet.sim.reset()
        assert (await ask(fleet.http, again.url, "openai", "openai")).status == 200
        after = read_disk(tmp_path)
        check_laws(after, us(datetime.now(UTC)))
        new = [row for row in after.entries if row not in before]
        assert [(row["journal"], row["kind"]) for row in new] == [("main", "post")]
        shown = [(await get(daemon.url, "/api/v1/limits"))["items"][0] for daemon in (alive, again)]
        assert shown[0] == shown[1]
        assert shown[0]["held"] == 0
    finally:
        await again.kill()


async def test_one_key_at_two_daemons_reaches_the_upstream_once(fleet):
    """
    Fifty callers, half at each: one is served, the others are told which call it is, that it runs, and not to try again.
    """
    fleet.sim.script(None, Reply(first_byte_delay_s=0.3, times=None))
    told = await asyncio.gather(*(fleet.ask(n, "openai", "openai", Idempotency_Key="k") for n in range(50)))
    assert Counter(answer.status for answer in told) == {200: 1, 409: 49}
    assert fleet.arrived("openai") == 1
    (served,) = (answer for answer in told if answer.status == 200)
    for answer in (answer for answer in told if answer.status == 409):
        assert answer.error["call_id"] == served.call_id
        assert answer.error["state"] in {"running", "done"}
        assert answer.headers["x-should-retry"] == "false"
    for place in range(2):
        after = await fleet.ask(place, "openai", "openai", Idempotency_Key="k")
        assert (after.status, after.error["call_id"], after.error["state"]) == (409, served.call_id, "done")

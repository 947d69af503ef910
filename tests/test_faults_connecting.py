"""
Faults in connecting, over real sockets: nothing was sent, so nothing is booked, and the next rung answers.

Each model has a first rung that cannot be reached in its own way, and the same second one, which is well.
"""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, ExitStack

import pytest
import pytest_asyncio
from aiohttp.abc import AbstractResolver
from between_kit import SAID, Between, model_toml, open_between
from daemon_kit import provider_toml
from tls_kit import self_signed

from quota_router import router
from quota_router.core.health import CooldownSource, FailureKind

SOON_S = 0.2
PATIENT_S = 3_600
"""Nothing ends by this in a test."""
BOUND_S = 20
"""By this a test that would wait for it fails."""


class Names(AbstractResolver):
    """A name server that knows some names, and counts what it is asked."""

    def __init__(self, **addresses):
        self.addresses = addresses
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_INET):  # noqa: ARG002 -- aiohttp's signature
        self.asked.append(host)
        if host == "silent.example":
            await asyncio.get_running_loop().create_future()
        address = self.addresses.get(host.partition(".")[0])
        if address is None:
            raise OSError(None, "no such name")
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self):
        pass


async def _hang(reader, writer):
    await reader.read()
    writer.close()


HEARD = []
"""The first byte that each connection to the plain port sent."""


async def _answer_plainly(reader, writer):
    HEARD.append(await reader.read(1))
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


class Doors:
    """Ports that let nobody in."""

    def __init__(self, stack: ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.closed = closed.getsockname()[1]
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        self.full = full.getsockname()[1]
        for _ in range(2):  # with nobody to take them off, these fill the queue: whoever comes next is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self.full))


ADDRESSES = {
    "gone": "http://gone.example:{sim}/v1",
    "silent": "http://silent.example:{sim}/v1",
    "inside": "http://inside.example:{sim}/v1",
    "metadata": "http://metadata.example:{sim}/v1",
    "closed": "http://127.0.0.1:{closed}/v1",
    "full": "http://127.0.0.1:{full}/v1",
    "untrusted": "https://127.0.0.1:{untrusted}/v1",
    "plain": "https://127.0.0.1:{plain}/v1",
    "stalled": "https://127.0.0.1:{stalled}/v1",
}
KEYS = {f"KEY_{name.upper()}": f"key-of-{name}" for name in ADDRESSES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connecting")
    async with AsyncExitStack() as stack:
        doors = Doors(stack.enter_context(ExitStack()))
        ports = {"closed": doors.closed, "full": doors.full}
        servers = {"untrusted": (_hang, self_signed(folder)), "plain": (_answer_plainly, None), "stalled": (_hang, None)}
        for name, (serve, tls) in servers.items():
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
            stack.callback(server.close)
            ports[name] = server.sockets[0].getsockname()[1]
        yield folder, ports


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def between_of_all(shared):
    folder, ports = shared
    async with open_beside(folder, ports, connect_timeout_s=SOON_S) as between:
        yield between


def open_beside(folder, ports, *, connect_timeout_s, retries_lone=0):
    """A daemon whose models are named for the door that their first rung stands at."""
    server = f'connect_timeout_s = {connect_timeout_s}\ndurability = "process"\nretries_lone = {retries_lone}\n'

    def catalog(sim_port: int) -> str:
        text = ""
        for name, url in ADDRESSES.items():
            network = "private" if name == "inside" else "loopback"
            told = provider_toml(name, url.format(sim=sim_port, **ports)).replace('network = "loopback"', f'network = "{network}"')
            text += told + model_toml(name, name, "well-1") + model_toml(f"only-{name}", name)
        return text

    return open_between(folder, models={"well": "openai"}, rungs=1, server=server, more=catalog, keys=KEYS)


@pytest.fixture
def names():
    return Names(inside="127.0.0.1", metadata="169.254.169.254")


@pytest_asyncio.fixture(loop_scope="module")
async def between(between_of_all, names):
    """With no cooldown standing, and names that were never looked up."""
    between_of_all.forget()
    await look_up_with(between_of_all, names)
    return between_of_all


async def look_up_with(between: Between, names: Names) -> None:
    upstream = between.daemon.router.outbound.upstream
    upstream._resolver = names
    for session in upstream._sessions.values():
        await session.close()
    upstream._sessions.clear()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(between, model, **how):
    asked = {"model": model, "messages": SAID, "max_tokens": 50}
    return await between.send("/v1/chat/completions", json.dumps(asked), **how)


CAUSES = {
    "F1 unknown name": ("gone", "dns"),
    "F1 silent name server": ("silent", "connect_timeout"),
    "F2 address inside": ("inside", "network_refused"),
    "F2 address of metadata": ("metadata", "network_refused"),
    "F3 closed port": ("closed", "refused"),
    "F4 full queue": ("full", "connect_timeout"),
    "F5 unknown certificate": ("untrusted", "tls"),
    "F5 no tls": ("plain", "tls"),
    "F5 stalled handshake": ("stalled", "connect_timeout"),
}


@pytest.mark.parametrize("fault", CAUSES)
async def test_who_cannot_be_reached_costs_nothing_and_the_next_rung_answers(between, fault):
    name, cause = CAUSES[fault]
    told = await ask(between, name)
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, "well-1", "2")
    assert told.ours("skipped") == f"{name}=already_tried"
    story = await between.story(told)
    failed, answered = story["attempts"]
    assert (failed["outcome"], failed["failure"], failed["status"]) == ("failed", "transient", None)
    assert (failed["cost_nusd"], failed["usage"], answered["outcome"]) == (0, None, "ok")
    assert [entry["provider"] for entry in story["entries"]] == ["well-1"]
    assert [seen.key for seen in between.sim.requests] == ["well-1"], "no key crossed the wire to anybody else"

    again = await ask(between, name)
    assert (again.status, again.ours("attempts"), again.ours("skipped")) == (200, "1", f"{name}=cooldown")
    refused = await ask(between, name, x_quota_router_provider=name)
    (rung,) = [rung for rung in refused.json["error"]["rungs"] if rung["provider"] == name]
    assert (refused.status, rung["reason"], rung["detail"]["cause"]) == (503, "already_tried", cause)


async def test_f01_a_name_is_looked_up_again_when_its_rung_is_due(between, names):
    """
    That it is not known is not kept: the vendor may be back in a moment.
    """
    for looked_up in (1, 2):
        assert (await ask(between, "gone")).ours("attempts") == "2"
        assert names.asked == ["gone.example"] * looked_up
        cooldown = await between.cooldown("gone")
        assert (cooldown.cause, cooldown.source, cooldown.strikes) == (FailureKind.TRANSIENT, CooldownSource.ASSUMED, 1)
        between.forget()


async def test_f02_a_forbidden_address_is_not_tried_again(shared, names, tmp_path):
    """
    What the policy forbids now it forbids in a second: a lone rung is not repeated either.
    """
    async with open_beside(tmp_path, shared[1], connect_timeout_s=SOON_S, retries_lone=5) as between:
        await look_up_with(between, names)
        told = await ask(between, "only-inside")
        assert (told.status, told.ours("skipped")) == (503, "inside=already_tried")
        assert names.asked == ["inside.example"]
        assert between.sim.requests == []
        assert len((await between.story(told))["attempts"]) == 1


async def test_f03_five_refused_connections_in_a_row_open_the_breaker(between):
    for number in range(1, 6):
        told = await ask(between, "only-closed")
        assert told.status == 503
        assert (await between.cooldown("closed")).strikes == number
    told = await ask(between, "closed")
    assert (told.status, told.ours("attempts"), told.ours("skipped")) == (200, "1", "closed=breaker_open")


async def test_f04_where_others_remain_nobody_waits_long_for_a_connection(shared, names, tmp_path, monkeypatch):
    """
    `connect_timeout_s` is for the last one.
    """
    monkeypatch.setattr(router, "CONNECT_SOON_S", SOON_S)
    async with open_beside(tmp_path, shared[1], connect_timeout_s=PATIENT_S) as between:
        async with asyncio.timeout(BOUND_S):
            told = await ask(between, "full")
        assert (told.status, told.ours("provider")) == (200, "well-1")


async def test_f05_a_handshake_that_fails_is_not_repeated_in_the_clear(between):
    """
    The same port would take plain HTTP: nobody asks it so.
    """
    HEARD.clear()
    for _ in range(3):
        assert (await ask(between, "plain")).ours("provider") == "well-1"
        between.forget()
    assert HEARD == [b"\x16"] * 3, "each connection began with a handshake"

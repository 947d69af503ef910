"""
The outgoing side over real sockets: what is sent, what is refused, and what each way of breaking is called.

Servers play a script and wait for their client to hang up: nothing sleeps.
"""

import asyncio
import gzip
import socket
import struct
import traceback
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from tls_kit import self_signed

from quota_router.core.catalog import Family, Network, Provider
from quota_router.core.networks import judge
from quota_router.errors import AddressRefused, InvalidRequest, UpstreamCut, UpstreamUnavailable
from quota_router.upstream import QuotaAnswer, QuotaRequest, Upstream, UpstreamRequest

SHORT_S = 0.05
"""A time-out that is meant to pass."""
LONG_S = 30.0
"""A time-out that must not pass: a test that needs it hangs, and fails."""
KEY = "CANARY-key-7f3a"
HOLD = "0192-hold"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Scripted:
    """
    Reads each request whole, then plays its script.

    Bytes are sent; `pause` waits for the test, `hang` for the client to leave; `close` and `reset` leave; `flood` never ends.
    """

    def __init__(self, *script):
        self.script = script
        self.connections = 0
        self.requests = []
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()

    async def play(self, reader, writer):
        self.connections += 1
        try:
            while await self.read_request(reader) and await self.answer(reader, writer):
                pass
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()

    async def read_request(self, reader):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            self.left.set()
            return False
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.requests.append((head.decode(), await reader.readexactly(length)))
        self.asked.set()
        return True

    async def answer(self, reader, writer):
        for act in self.script:
            match act:
                case bytes():
                    writer.write(act)
                case "pause":
                    await self.go_on.wait()
                case "hang":
                    await reader.read()
                    self.left.set()
                case "close":
                    return False
                case "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return False
                case "flood":
                    while True:
                        writer.write(b"1\r\nx\r\n")
                        await writer.drain()
                        await asyncio.sleep(0)
        return True

    def header_names(self, which=0):
        lines = self.requests[which][0].split("\r\n")[1:-2]
        return [line.partition(":")[0].lower() for line in lines]


@pytest.fixture
async def house():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def serve(house):
    async def serve(*script, **options):
        scripted = Scripted(*script)
        server = await asyncio.start_server(scripted.play, "127.0.0.1", 0, **options)
        house.callback(server.close)
        scripted.port = server.sockets[0].getsockname()[1]
        return scripted

    return serve


@pytest.fixture
async def upstream():
    async with Upstream() as upstream:
        yield upstream


def request(port, *, host="127.0.0.1", scheme="http", network=Network.LOOPBACK, allow=(), query="", headers=None, **timeouts):
    provider = Provider(
        name="work",
        family=Family.OPENAI,
        vendor="openai",
        account="work",
        base_url=f"{scheme}://{host}:{port}/v1",
        credential_ref="env:KEY",
        network=network,
        allow=allow,
    )
    bounds = dict.fromkeys(("connect_timeout_s", "first_byte_timeout_s", "gap_timeout_s", "total_timeout_s"), LONG_S) | timeouts
    return UpstreamRequest(
        provider=provider,
        url=f"{provider.base_url}/chat/completions{query}",
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json", **(headers or {})},
        body=b'{"model":"m"}',
        **bounds,
    )


class Answers(AbstractResolver):
    """A name server that gives each answer once, and the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET):  # noqa: ARG002 -- aiohttp's signature
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(addresses, Exception):
            raise addresses
        return [
            {"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for address in addresses
        ]

    async def close(self):
        pass


# --- what is sent, and what comes back ------------------------------------------------------------------------------------


async def test_an_answer_comes_back_as_it_is(upstream, serve):
    server = await serve(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow")
    answer = await upstream.send(request(server.port, query="?beta=%7Etrue"), HOLD)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert await answer.read(100) == b"slow"
    assert answer.is_eof
    head, body = server.requests[0]
    assert head.startswith("POST /v1/chat/completions?beta=%7Etrue HTTP/1.1\r\n"), "the query is sent as it came"
    assert body == b'{"model":"m"}'


async def test_only_the_headers_that_were_given_are_sent(upstream, serve):
    """
    No user agent, no accepted encodings, no cookies: the dialect's allow list is the whole list.
    """
    server = await serve(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n")
    for _ in range(2):
        answer = await upstream.send(request(server.port, headers={"x-trace": "1"}), HOLD)
        await answer.read(0)
    for which in range(2):
        assert sorted(server.header_names(which)) == ["authorization", "content-length", "content-type", "host", "x-trace"]


async def test_a_call_without_a_hold_connects_to_nothing(upstream, serve):
    server = await serve(OK)
    with pytest.raises(AssertionError, match="no hold, no connection"):
        await upstream.send(request(server.port), "")
    assert server.connections == 0


async def test_a_connection_is_used_again(upstream, serve):
    server = await serve(OK)
    for _ in range(3):
        answer = await upstream.send(request(server.port), HOLD)
        assert await answer.read(5) == b"hello"
        answer.close()
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_it_talks_to_a_real_server(upstream, house):
    async def echo(request):
        return web.Response(body=await request.read(), headers={"x-length": request.headers["content-length"]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    house.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answer = await upstream.send(request(runner.addresses[0][1]), HOLD)
    assert (await answer.read(100), answer.headers["x-length"]) == (b'{"model":"m"}', "13")


async def test_a_redirect_is_an_answer_and_the_key_stays_here(upstream, serve):
    elsewhere = await serve(OK)
    location = f"Location: http://127.0.0.1:{elsewhere.port}/v1\r\n".encode()
    for status in (b"301", b"302", b"303", b"307", b"308"):
        server = await serve(b"HTTP/1.1 " + status + b" Elsewhere\r\n" + location + b"Content-Length: 0\r\n\r\n")
        answer = await upstream.send(request(server.port), HOLD)
        assert answer.status == int(status)
    assert elsewhere.connections == 0


async def test_proxies_of_the_environment_are_ignored(upstream, serve, monkeypatch, tmp_path):
    proxy, server = await serve(OK), await serve(OK)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine")
    monkeypatch.setenv("NETRC", str(netrc))
    answer = await upstream.send(request(server.port), HOLD)
    assert await answer.read(5) == b"hello"
    assert proxy.connections == 0


@pytest.mark.parametrize("how", ["read", "chunks"])
async def test_a_compressed_answer_is_cut_unread(upstream, serve, how):
    """
    Ten kilobytes may be ten megabytes: the head is told, the body is not unpacked.
    """
    bomb = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 429 Too Many\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    server = await serve(head + bomb)
    answer = await upstream.send(request(server.port), HOLD)
    assert (answer.status, answer.headers["content-encoding"]) == (429, "gzip")
    with pytest.raises(UpstreamCut, match="compressed"):
        await (answer.read(10**9) if how == "read" else anext(answer.chunks()))


@pytest.mark.parametrize(
    "odd", [{"query": "?a=b c"}, {"query": "?a=\r\nx: y"}, {"query": "?a=ü"}, {"headers": {"x-odd": "a\r\nb: c"}}]
)
async def test_what_cannot_be_written_is_the_callers_fault(upstream, serve, odd):
    server = await serve(OK)
    with pytest.raises(InvalidRequest):
        await upstream.send(request(server.port, **odd), HOLD)
    assert server.requests == []


# --- the body as it comes -------------------------------------------------------------------------------------------------


async def test_pieces_come_as_they_are_sent(upstream, serve):
    server = await serve(ENDLESS, b"3\r\none\r\n", "pause", b"3\r\ntwo\r\n0\r\n\r\n")
    answer = await upstream.send(request(server.port), HOLD)
    pieces = answer.chunks()
    assert await anext(pieces) == b"one"
    assert not answer.is_eof
    server.go_on.set()
    assert [piece async for piece in pieces] == [b"two"]
    assert answer.is_eof


async def test_a_body_that_is_too_long_is_cut(upstream, serve):
    server = await serve(ENDLESS, "flood")
    answer = await upstream.send(request(server.port), HOLD)
    with pytest.raises(UpstreamCut, match="longer than 1000 bytes"):
        await answer.read(1000)
    await asyncio.wait_for(server.left.wait(), LONG_S)


async def test_closing_in_the_middle_hangs_up(upstream, serve):
    server = await serve(ENDLESS, b"3\r\none\r\n", "hang")
    answer = await upstream.send(request(server.port), HOLD)
    assert await anext(answer.chunks()) == b"one"
    answer.close()
    answer.close()
    await asyncio.wait_for(server.left.wait(), LONG_S)
    with pytest.raises(UpstreamCut):
        await answer.read(100)
    assert upstream._watches == {}, "nothing is kept of a connection that is gone"


async def test_a_cancelled_call_hangs_up(upstream, serve):
    server = await serve("hang")
    call = asyncio.create_task(upstream.send(request(server.port), HOLD))
    await asyncio.wait_for(server.asked.wait(), LONG_S)
    call.cancel()
    await asyncio.wait_for(server.left.wait(), LONG_S)
    assert call.cancelled()


@pytest.mark.parametrize(
    "script",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "close"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "reset"),
        (ENDLESS, b"5\r\nhello\r\n", "close"),
        (ENDLESS, b"5\r\nhello\r\n", "reset"),
        (ENDLESS, b"5\r\nhello\r\n", "pause", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "hang"),
    ],
)
async def test_a_body_that_breaks_off_is_cut(upstream, serve, script):
    server = await serve(*script)
    answer = await upstream.send(request(server.port), HOLD)
    server.go_on.set()
    with pytest.raises(UpstreamCut, match="broke off"):
        await answer.read(1000)


async def test_a_body_may_break_off_on_a_connection_that_served_before(upstream, serve):
    server = await serve(ENDLESS, "pause", b"2\r\nok\r\n0\r\n\r\n")
    first = await upstream.send(request(server.port), HOLD)
    server.go_on.set()
    assert await first.read(2) == b"ok"
    server.go_on.clear()
    server.script = (ENDLESS, b"5\r\nhello\r\n", "pause", b"not a length\r\n", "hang")
    second = await upstream.send(request(server.port), HOLD)
    server.go_on.set()
    with pytest.raises(UpstreamCut, match="broke off"):
        await second.read(1000)
    assert server.connections == 1


async def test_a_body_ended_by_its_connection_looks_complete(upstream, serve):
    """
    aiohttp cannot tell a cut here, nor can anybody but the dialect, who knows what must stand at the end.
    """
    server = await serve(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel", "close")
    answer = await upstream.send(request(server.port), HOLD)
    assert await answer.read(1000) == b"hel"


async def test_a_gap_between_pieces_is_bounded(upstream, serve):
    server = await serve(ENDLESS, b"3\r\none\r\n", "hang")
    answer = await upstream.send(request(server.port, gap_timeout_s=SHORT_S), HOLD)
    pieces = answer.chunks()
    assert await anext(pieces) == b"one"
    with pytest.raises(UpstreamCut, match="stopped coming"):
        await anext(pieces)
    await asyncio.wait_for(server.left.wait(), LONG_S)


async def test_once_the_answer_has_begun_the_first_bytes_time_counts_no_more(upstream, serve):
    server = await serve(ENDLESS, "pause", b"3\r\none\r\n0\r\n\r\n")
    answer = await upstream.send(request(server.port, first_byte_timeout_s=SHORT_S), HOLD)
    pieces = answer.chunks()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(pieces), 3 * SHORT_S)
    server.go_on.set()
    assert [piece async for piece in pieces] == [b"one"]


async def test_an_endless_answer_ends_with_the_calls_time(upstream, serve):
    """
    Each gap of a drip is short: only the total ends it.
    """
    server = await serve(ENDLESS, "flood")
    answer = await upstream.send(request(server.port, total_timeout_s=10 * SHORT_S), HOLD)
    with pytest.raises(UpstreamCut, match="did not end in the call's time"):
        async for _ in answer.chunks():
            pass
    await asyncio.wait_for(server.left.wait(), LONG_S)


# --- when no answer comes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "asked", "cause", "dispatched"),
    [
        (("close",), {}, "closed", True),
        (("reset",), {}, "closed", True),
        ((b"HTTP/1.1 200 OK\r\nContent-", "close"), {}, "closed", True),
        ((b"220 smtp ready\r\n\r\n", "hang"), {}, "not_http", True),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", "hang"), {}, "not_http", True),
        (("hang",), {"first_byte_timeout_s": SHORT_S}, "first_byte_timeout", True),
        ((b"HTTP/1.1 200 OK\r\n", "hang"), {"first_byte_timeout_s": SHORT_S}, "first_byte_timeout", True),
        (("hang",), {"total_timeout_s": SHORT_S}, "total_timeout", True),
        (("hang",), {"total_timeout_s": 0.0}, "total_timeout", False),
        (("hang",), {"scheme": "https", "connect_timeout_s": SHORT_S}, "connect_timeout", False),
        (("hang",), {"scheme": "https", "total_timeout_s": SHORT_S}, "connect_timeout", False),
        (("hang",), {"host": "a" * 64 + ".example"}, "dns", False),
    ],
)
async def test_each_way_of_not_answering_has_a_name(upstream, serve, script, asked, cause, dispatched):
    server = await serve(*script)
    await expect_unavailable(upstream, request(server.port, query="?secret=CANARY-query", **asked), cause, dispatched=dispatched)


async def expect_unavailable(upstream, asked, cause, *, dispatched=False):
    with pytest.raises(UpstreamUnavailable) as raised:
        await upstream.send(asked, HOLD)
    assert (raised.value.cause, raised.value.dispatched) == (cause, dispatched)
    assert raised.value.message.startswith("Provider 'work' gave no answer: ")
    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__cause__)
    assert "CANARY" not in told, "neither the key nor the query is in any text"


async def test_a_closed_port_is_refused(upstream):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    await expect_unavailable(upstream, request(port), "refused")


async def test_a_name_that_is_not_known_is_a_dns_failure(serve):
    server = await serve(OK)
    async with Upstream(resolver=Answers(OSError(None, "no such name"))) as upstream:
        await expect_unavailable(upstream, request(server.port, host="gone.example"), "dns")


async def test_a_server_that_speaks_plain_is_never_asked_plainly(upstream, serve):
    """
    A handshake that fails ends the attempt; the key is not sent in the clear instead.
    """
    server = await serve(OK, "close")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        asked = request(plain.getsockname()[1], scheme="https")
        sending = asyncio.create_task(expect_unavailable(upstream, asked, "tls"))
        connection, _ = await asyncio.to_thread(plain.accept)
        with connection:
            hello = await asyncio.to_thread(connection.recv, 5)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await sending
    assert hello[:1] == b"\x16", "all that was sent is a TLS handshake"
    assert server.connections == 0


async def test_a_certificate_nobody_vouches_for_is_refused(upstream, serve, tmp_path):
    server = await serve(OK, ssl=self_signed(tmp_path))
    await expect_unavailable(upstream, request(server.port, scheme="https"), "tls")
    assert server.requests == []


# --- which addresses ------------------------------------------------------------------------------------------------------


SPELLINGS = "127.0.0.1 127.1 2130706433 0x7f000001 0177.0.0.1 [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] 0.0.0.0 localhost"


@pytest.mark.parametrize("host", SPELLINGS.split())
async def test_a_public_provider_never_reaches_this_machine_however_it_is_written(upstream, serve, host):
    server = await serve(OK)
    with pytest.raises(AddressRefused):
        await upstream.send(request(server.port, scheme="https", host=host, network=Network.PUBLIC), HOLD)
    assert server.connections == 0


async def test_a_name_that_moves_after_it_was_looked_at_is_judged_where_it_leads(serve):
    """
    DNS rebinding: whoever looks the name up first sees a public address; the connection would go to this machine.
    """
    server = await serve(OK)
    resolver = Answers(["93.184.215.14"], ["127.0.0.1"])
    looked_up = (await resolver.resolve("moves.example"))[0]["host"]
    assert judge(looked_up, server.port, Network.PUBLIC, (), frozenset()) is None
    async with Upstream(resolver=resolver) as upstream:
        asked = request(server.port, scheme="https", host="moves.example", network=Network.PUBLIC)
        with pytest.raises(AddressRefused, match=r"Provider 'work': 127\.0\.0\.1 is loopback") as refused:
            await upstream.send(asked, HOLD)
    assert (refused.value.code, server.connections) == ("network_refused", 0)


async def test_of_several_addresses_only_those_within_the_policy_are_tried(serve):
    server = await serve(OK)
    async with Upstream(resolver=Answers(["93.184.215.14", "169.254.169.254", "127.0.0.1"])) as upstream:
        answer = await upstream.send(request(server.port, host="many.example"), HOLD)
        assert await answer.read(5) == b"hello"


@pytest.mark.parametrize("addresses", [["10.0.0.1", "fe80::1"], ["::1", "127.0.0.1"], ["10.0.0.1", "169.254.169.254", "::1"]])
async def test_several_refusals_with_different_reasons_are_one_refusal(addresses):
    async with Upstream(resolver=Answers(addresses)) as upstream:
        with pytest.raises(AddressRefused):
            await upstream.send(request(443, scheme="https", host="many.example", network=Network.PUBLIC), HOLD)


async def test_a_public_provider_is_not_asked_over_plain_http():
    resolver = Answers(["93.184.215.14"])
    async with Upstream(resolver=resolver) as upstream:
        with pytest.raises(AddressRefused, match="https"):
            await upstream.send(request(80, host="plain.example", network=Network.PUBLIC), HOLD)
    assert resolver.asked == 0


async def test_a_connection_of_one_policy_is_not_lent_to_another(upstream, serve):
    server = await serve(OK)
    allow = (f"127.0.0.1:{server.port}",)
    for asked in (request(server.port), request(server.port, network=Network.PRIVATE, allow=allow)):
        answer = await upstream.send(asked, HOLD)
        assert await answer.read(5) == b"hello"
    with pytest.raises(AddressRefused, match="loopback"):
        await upstream.send(request(server.port, network=Network.PRIVATE), HOLD)
    assert server.connections == 2


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "::"])  # noqa: S104 -- said, not bound to
async def test_our_own_listen_address_is_refused_once_it_is_known(upstream, serve, listening):
    """
    A wildcard stands for every address of this machine.
    """
    server, neighbour = await serve(OK), await serve(OK)
    upstream.own_addresses = frozenset({(listening, server.port)})
    with pytest.raises(AddressRefused, match="our own listen address"):
        await upstream.send(request(server.port), HOLD)
    answer = await upstream.send(request(neighbour.port), HOLD)
    assert await answer.read(5) == b"hello"
    assert server.connections == 0


def test_another_machine_may_listen_on_the_same_port():
    """
    Only the socket is made, nothing is connected: the address is taken to be no address of this machine.
    """
    upstream = Upstream(own_addresses=frozenset({("0.0.0.0", 4141)}))  # noqa: S104 -- said, not bound to
    open_socket = upstream._guard(Network.PRIVATE, ())
    open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.213.77.191", 4141))).close()


# --- quota endpoints ------------------------------------------------------------------------------------------------------


def quota(port, *, max_bytes=1000, total_timeout_s=LONG_S, host="127.0.0.1", **changes):
    call = request(port, host=host, **changes)
    return QuotaRequest(
        provider=call.provider,
        url=f"http://{host}:{port}/quota?a=1",
        headers={"Authorization": f"Bearer {KEY}"},
        connect_timeout_s=LONG_S,
        total_timeout_s=total_timeout_s,
        max_bytes=max_bytes,
    )


async def test_a_quota_endpoint_is_asked_by_a_get_that_carries_what_it_was_given_and_no_more(upstream, serve):
    server = await serve(OK)
    answer = await upstream.ask(quota(server.port))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"hello", "5")
    head, body = server.requests[0]
    assert head.startswith("GET /quota?a=1 HTTP/1.1\r\n")
    assert (sorted(server.header_names()), body) == (["authorization", "host"], b"")


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 401, 429, 500])
async def test_what_is_no_200_is_told_without_its_body_and_never_followed(upstream, serve, status):
    elsewhere = await serve(OK)
    head = f"HTTP/1.1 {status} So\r\nRetry-After: 7\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\nContent-Length: 0\r\n\r\n"
    server = await serve(head.encode())
    answer = await upstream.ask(quota(server.port))
    assert isinstance(answer, QuotaAnswer)
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, b"", "7")
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ((ENDLESS, "flood"), "too_long"),
        ((b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",), "compressed"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "close"), "closed"),
        ((ENDLESS, b"3\r\none\r\n", "hang"), "total_timeout"),
    ],
)
async def test_an_answer_of_a_quota_endpoint_that_breaks_is_cut_and_its_connection_let_go(upstream, serve, script, cause):
    server = await serve(*script)
    bounds = {"total_timeout_s": SHORT_S} if cause == "total_timeout" else {}
    with pytest.raises(UpstreamCut) as broken:
        await upstream.ask(quota(server.port, **bounds))
    assert broken.value.cause in {cause, "gap_timeout" if cause == "total_timeout" else cause}
    assert KEY not in "".join(traceback.format_exception(broken.value))


async def test_the_network_policy_holds_for_quota_endpoints(upstream, serve):
    server = await serve(OK)
    with pytest.raises(AddressRefused):
        await upstream.ask(quota(server.port, network=Network.PRIVATE))
    assert server.connections == 0

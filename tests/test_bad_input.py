"""
What nobody should send, over real sockets.

Law: whatever comes, the answer is a refusal in the dialect of its path, which tells nothing of our insides; no upstream is
contacted, and nothing stays held.
"""

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from between_kit import ASKED, SAID, Told, open_between
from daemon_kit import TOKEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from yarl import URL

import quota_router
from quota_router.errors import InvalidRequest
from quota_router.web.app import all_routes
from quota_router.web.routes import Scope
from quota_router.web.strict import BODY_MAX_BYTES

CALLS = {
    **dict(ASKED.values()),
    "/v1/completions": {"model": "chat", "prompt": "hi", "max_tokens": 5},
    "/v1/embeddings": {"model": "chat", "input": "hi"},
    "/v1/messages/count_tokens": {"model": "messages", "messages": SAID},
}
"""Every path that is relayed, with a body that is good."""
OTHERS = [route for route in all_routes() if route.dialect is None and route.scope is not Scope.PUBLIC]
"""The decision and the control plane."""
INSIDES = re.compile(r"Traceback|File \"|\.py\b|site-packages|" + re.escape(str(Path(quota_router.__file__).parent.parent)))
READ_S = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    async with open_between(tmp_path_factory.mktemp("bad-input")) as between:
        yield between


@pytest.fixture
def between(shared):
    """The one daemon; at the end nothing is held, and no upstream was asked."""
    shared.forget()
    yield shared
    assert shared.sim.requests == []
    assert shared.daemon.lane.state.holds == {}
    assert len(shared.daemon.router.underway) == 0


pytestmark = pytest.mark.asyncio(loop_scope="module")
paths = pytest.mark.parametrize("path", CALLS)


def check_refused(told, path, status):
    """A refusal in the shape that the SDKs of the path read, and nothing of our insides."""
    text = told.body.decode()
    assert told.status == status, text
    assert INSIDES.search(text) is None
    assert INSIDES.search(str(told.headers)) is None
    found = json.loads(text)
    if not path.startswith("/v1/"):
        assert told.headers["content-type"] == "application/problem+json"
        assert (found["status"], found["call_id"]) == (status, told.headers["x-request-id"])
        assert found["type"] == f"urn:quota-router:{found['code']}"
        assert all(found[name] for name in ("title", "detail"))
        return
    kinds = {}
    if path.startswith("/v1/messages"):
        kinds = {401: "authentication_error", 404: "not_found_error", 413: "request_too_large"}
        assert (found["type"], found["request_id"]) == ("error", told.headers["request-id"])
    error = found["error"]
    assert told.headers["content-type"] == "application/json"
    assert error["type"] == kinds.get(status, "invalid_request_error")
    assert all(error[name] for name in ("message", "code"))
    assert (error["call_id"], error["rungs"]) == (told.headers["x-quota-router-call"], [])
    assert "param" in error


async def speak(between, data):
    """Send bytes as they are, and read one answer."""
    url = URL(between.daemon.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(data)
        async with asyncio.timeout(READ_S):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.close()
        await writer.wait_closed()
    return Told(status=int(first.split()[1]), headers=headers, body=body)


def request_bytes(path, body=b"", method="POST", **headers):
    """A request as bytes. `None` leaves a header out."""
    usual = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}", "Connection": "close", "Content-Length": len(body)}
    named = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


# --- bodies ----------------------------------------------------------------------------------------------------------------

NESTED = b"[" * 200_000
BODIES = {
    "nothing": b"",
    "a blank": b" \n",
    "an open brace": b"{",
    "a trailing comma": b'{"model": "chat",}',
    "two objects": b"{}{}",
    "a list": b"[]",
    "null": b"null",
    "not a number": b'{"model": "chat", "temperature": NaN}',
    "a form": b"model=chat&stream=true",
    "200,000 open brackets": NESTED,
    "200,000 brackets in a member": b'{"model": "chat", "x": ' + NESTED + b"]" * 200_000 + b"}",
    "200,000 objects in a member": b'{"model": "chat", "x": ' + b'{"x":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
    "a number of 6,000 digits": b'{"model": "chat", "x": ' + b"9" * 6_000 + b"}",
    "a fraction of 6,000 digits": b'{"model": "chat", "x": 0.' + b"9" * 6_000 + b"}",
    "a cap of 6,000 digits": b'{"model": "chat", "max_tokens": ' + b"9" * 6_000 + b"}",
    "invalid UTF-8": b'{"model": "chat", "x": "\xff\xfe"}',
    "an overlong NUL": b'{"model": "chat\xc0\x80"}',
    "UTF-16": '{"model": "chat"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"model": "chat"}',
    "a raw control character": b'{"model": "chat", "x": "\x01"}',
    "a model twice": b'{"model": "chat", "model": "messages"}',
    "a model twice, once escaped": b'{"model": "chat", "\\u006dodel": "messages"}',
    "an unknown member twice": b'{"x": 1, "model": "chat", "x": 1}',
    "a model that is a number": b'{"model": 7}',
    "a model with a NUL": b'{"model": "chat\\u0000"}',
    "a model with half a surrogate pair": b'{"model": "chat\\ud800"}',
    "a model of 300 letters": b'{"model": "' + b"m" * 300 + b'"}',
}


@paths
@pytest.mark.parametrize("body", BODIES)
async def test_a_body_that_is_not_one_good_object_is_a_400(between, path, body):
    check_refused(await between.send(path, BODIES[body]), path, 400)


CAPPED = {"/v1/chat/completions", "/v1/messages"}
WRONG = [
    *((path, {"stream": "yes"}, "stream") for path in CALLS if path != "/v1/embeddings"),
    *((path, {"max_tokens": cap}, "max_tokens") for path in CALLS if path in CAPPED for cap in (-1, 1.5, "5", 10**12)),
    ("/v1/chat/completions", {"n": 0}, "n"),
    ("/v1/chat/completions", {"metadata": ["a"]}, "metadata"),
    ("/v1/chat/completions", {"tools": {"type": "function"}}, "tools"),
    ("/v1/chat/completions", {"stream_options": {"include_usage": 1}}, "stream_options"),
    ("/v1/responses", {"max_output_tokens": 0}, "max_output_tokens"),
    ("/v1/responses", {"background": True}, "background"),
    ("/v1/responses", {"background": True, "stream": True}, "background"),
]


@pytest.mark.parametrize(("path", "changes", "param"), WRONG)
async def test_a_field_of_the_wrong_kind_is_named(between, path, changes, param):
    told = await between.send(path, json.dumps({**CALLS[path], **changes}))
    check_refused(told, path, 400)
    assert told.json["error"]["param"] == param
    assert f"`{param}`" in told.json["error"]["message"]


@paths
@pytest.mark.parametrize("model", ["nobody", "Chat", "chat ", "../chat", "chat/", "é" * 256, None])
async def test_a_model_nobody_serves_is_a_404(between, path, model):
    told = await between.send(path, json.dumps({**CALLS[path], "model": model}))
    check_refused(told, path, 404)
    assert (told.json["error"]["code"], told.json["error"]["param"]) == ("model_not_found", "model")


@paths
async def test_a_model_of_the_other_dialect_is_a_400_that_says_so(between, path):
    other = {"chat": "messages", "messages": "chat"}[CALLS[path]["model"]]
    told = await between.send(path, json.dumps({**CALLS[path], "model": other}))
    assert (told.status, INSIDES.search(told.body.decode())) == (400, None)
    assert {rung["reason"] for rung in told.json["error"]["rungs"]} == {"dialect_mismatch"}


@paths
async def test_a_body_that_is_too_large_is_a_413_whether_it_says_so_or_not(between, path):
    check_refused(await speak(between, request_bytes(path, Content_Length=2_000_001)), path, 413)

    async def pieces():
        for _ in range(20):
            yield b" " * 110_000

    check_refused(await between.send(path, pieces()), path, 413)


@paths
@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "nonsense"])
async def test_a_compressed_body_is_a_415_and_never_unpacked(between, path, coding):
    told = await speak(between, request_bytes(path, b"\x1f\x8b not gzip at all", Content_Encoding=coding))
    check_refused(told, path, 415)


# --- headers, hosts and paths ------------------------------------------------------------------------------------------------

HEADERS = [
    *(("x-quota-router-timeout", value) for value in ("", "soon", "0", "-1", "nan", "inf", "1e9")),
    *(("x-quota-router-max-cost-usd", value) for value in ("", "cheap", "-1", "NaN", "1e999999999", "0.0000000001")),
    *(("x-quota-router-labels", value) for value in (",".join(map(str, range(33))), "x" * 129)),
    *((f"x-quota-router-{name}", "x" * 257) for name in ("provider", "workflow", "stage")),
    ("idempotency-key", "x" * 257),
]


@paths
@pytest.mark.parametrize(("name", "value"), HEADERS)
async def test_a_header_of_ours_that_is_not_understood_is_refused_by_name(between, path, name, value):
    told = await between.send(path, json.dumps(CALLS[path]), **{name: value})
    check_refused(told, path, 400)
    assert told.json["error"]["param"].lower() == name


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
@pytest.mark.parametrize("path", [*CALLS, "/v1/models", "/api/v1/route"])
async def test_without_a_good_token_it_is_a_401_and_the_body_is_not_read(between, path, header):
    """
    The body never comes, and the answer does not wait for it.
    """
    method = "GET" if path == "/v1/models" else "POST"
    data = request_bytes(path, method=method, Authorization=header, Content_Length=900_000)
    check_refused(await speak(between, data), path, 401)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.2", "", "[::2]:80", "localhost@evil", "é"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/v1/route", "/healthz"])
async def test_a_host_that_is_not_ours_is_a_421(between, path, host):
    check_refused(await speak(between, request_bytes(path, Host=host)), path, 421)


NOWHERE = [
    *(("POST", f"/v1/{path}") for path in ("images/generations", "audio/speech", "files", "realtime", "moderations")),
    *(
        ("GET", path)
        for path in ("/v1/responses/resp_1", "/v1/files", "/v1/", "/v1/messages/batches", "/v1/models/nobody", "/v1/models/%ff")
    ),
    *(("POST", path) for path in ("/v1/messages/batches", "/v1/chat/completions/", "/v1/chat%2Fcompletions", "/v1/../v1/x")),
    *(("GET", path) for path in ("/api", "/api/v1/", "/api/v1/nothing", "/favicon.ico", "/%00", "/..%2f..%2fetc/passwd")),
]


@pytest.mark.parametrize(("method", "path"), NOWHERE)
async def test_a_path_that_is_not_served_is_a_404(between, method, path):
    check_refused(await between.fetch(method, path), path, 404)


def methods_of(path):
    """What some route takes at an address of that kind: a name may have slashes, so that one path may look like another."""
    address = re.sub(r"\{.*?\}", "x", path)
    patterns = [(route.method, re.sub(r"\{\w+(:(.*?))?\}", lambda part: part[2] or "[^/]+", route.path)) for route in all_routes()]
    return {str(method) for method, pattern in patterns if re.fullmatch(pattern, address)}


@pytest.mark.parametrize("path", [*CALLS, "/v1/models", *sorted({route.path for route in OTHERS})])
async def test_a_method_that_a_path_does_not_take_is_a_405(between, path):
    for method in sorted({"DELETE", "PATCH", "OPTIONS", "PUT", "POST"} - methods_of(path)):
        check_refused(await between.fetch(method, re.sub(r"\{.*?\}", "x", path)), path, 405)


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX\x00: x\r\n\r\n",
        request_bytes("/v1/messages", b"{}", Expect="nonsense"),
    ],
)
async def test_what_is_not_http_is_refused_without_a_word_about_us(between, data):
    told = await speak(between, data)
    assert 400 <= told.status < 500
    assert INSIDES.search(told.body.decode("latin-1")) is None


class Broken:
    """An upstream that no request can be written to."""

    def __init__(self, error):
        self.error = error

    async def send(self, *asked):  # noqa: ARG002 -- the signature of what it stands for
        raise self.error


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(("error", "status", "entries"), [(InvalidRequest(), 400, 0), (ZeroDivisionError(), 500, 1)])
async def test_a_call_that_breaks_in_our_own_hands_does_not_keep_its_hold(between, path, error, status, entries):
    """
    What was certainly not sent is given back; of anything else nobody knows, and the input is booked.
    """
    outbound = between.daemon.router.outbound
    upstream, outbound.upstream = outbound.upstream, Broken(error)
    with capture_logs() as logs:
        told = await between.send(path, json.dumps(CALLS[path]))
    outbound.upstream = upstream
    assert [entry["action"] for entry in logs] == ["handler_failed"] * entries
    assert (told.status, INSIDES.search(told.body.decode())) == (status, None)
    story = await between.story(told)
    assert (len(story["entries"]), [attempt["provider"] for attempt in story["attempts"]]) == (
        entries,
        [f"{CALLS[path]['model']}-1"],
    )
    assert story["attempts"][0]["outcome"] == {400: "failed", 500: "unknown"}[status]
    assert between.daemon.lane.state.cooldowns == {}


async def test_a_traceback_on_the_operators_terminal_shows_no_values():
    """
    Prompts and secrets are among them.
    """
    code = (
        "import structlog; from quota_router.cli.output import configure_logs; configure_logs()\n"
        "def handle(prompt): prompt.nothing\n"
        "try: handle('a ' + 'prompt')\n"
        "except Exception: structlog.get_logger().exception('it broke')\n"
    )
    master, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=terminal)
    os.close(terminal)
    assert await process.wait() == 0
    shown = os.read(master, 65_536).decode()
    os.close(master)
    assert "in handle" in shown
    assert "a prompt" not in shown


# --- the other planes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", OTHERS, ids=lambda route: f"{route.method} {route.path}")
async def test_the_other_planes_ask_for_a_token_first(between, route):
    for headers in ({}, {"x-api-key": "wrong"}):
        told = await between.fetch(route.method, re.sub(r"\{.*?\}", "x", route.path), headers)
        check_refused(told, route.path, 401)


@pytest.mark.parametrize("path", ["route", "holds/x/settle", "holds/x/extend", "reload"])
@pytest.mark.parametrize("body", sorted(BODIES.keys() - {"nothing"}))
async def test_the_other_planes_refuse_a_body_that_is_not_one_good_object(between, path, body):
    told = await between.send(f"/api/v1/{path}", BODIES[body])
    check_refused(told, f"/api/v1/{path}", 413 if len(BODIES[body]) > BODY_MAX_BYTES else 400)


# --- anything at all ------------------------------------------------------------------------------------------------------------

FIELDS = ("model", "stream", "max_tokens", "n", "messages", "metadata", "stream_options", "tools", "input", "prompt", "system", "x")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["chat", "messages"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)
ANYTHING = (
    st.binary(max_size=200) | OBJECTS.map(lambda body: json.dumps(body).encode()) | VALUES.map(lambda body: repr(body).encode())
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([*CALLS, "/api/v1/route", "/api/v1/apply"]), body=ANYTHING)
async def test_no_body_at_all_makes_us_fail(shared, path, body):
    """
    Some of these are good calls, and answered.
    """
    told = await shared.send(path, body)
    assert told.status < 500, told
    assert INSIDES.search(told.body.decode()) is None
    assert isinstance(told.json, dict)

"""
What is held comes back: within `max_call_s + sweep_s` after the last call began, whoever leaves, hangs or does not listen.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from books_kit import read_books
from caller_kit import PATHS, ask, asked, budget_toml, model_toml, open_http
from daemon_kit import AUTH, get, open_here, provider_toml
from database_kit import url_of
from faults_kit import BOUND_S, until
from gate_kit import Gate, open_gate

pytestmark = pytest.mark.usefixtures("database")

MAX_CALL_S, SWEEP_S = 1.5, 0.2
BUSY_S = 3.0
"""What a busy machine may take beside, to answer us and to write."""
DIALECTS = {"openai": "openai", "anthropic": "anthropic", "drained": "openai"}
"""And the one that each model is asked for in. Where hanging up does not stop the bill, an answer is `drained`."""
WORDS = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "on and on " * 400}}]}).encode() + b"\n\n"
DECISION = {"model": "mute-openai", "input_tokens": 10, "max_output_tokens": 50, "ttl_s": 1}


@dataclass(slots=True)
class Endless:
    """An upstream that talks as long as anybody takes it."""

    port: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(WORDS)
                await writer.drain()
                self.begun.set()
        writer.close()


@asynccontextmanager
async def open_endless() -> AsyncIterator[Endless]:
    endless = Endless()
    server = await asyncio.start_server(endless.answer, "127.0.0.1", 0)
    endless.port = server.sockets[0].getsockname()[1]
    try:
        yield endless
    finally:
        server.close()


@asynccontextmanager
async def a_caller_who_does_not_listen(url: str) -> AsyncIterator[None]:
    """Sends a call, and reads nothing of its answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    body = asked("endless", stream=True)
    head = f"POST {PATHS['openai']} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {AUTH['Authorization']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    try:
        yield
    finally:
        writer.transport.abort()


def catalog_of(mute: Gate, stuck: Gate, endless: Endless) -> tuple[str, dict[str, str]]:
    """One provider and model for each way of hanging; and the variables of their keys."""
    catalog = budget_toml("usd", "everyone", "usd", "1000", window="forever")
    catalog += budget_toml("places", "everyone", "concurrency", "1000", window="forever")
    urls = {"endless": ("openai", f"http://127.0.0.1:{endless.port}/v1")}
    for kind, gate in (("mute", mute), ("stuck", stuck)):
        urls[f"{kind}-openai"] = ("openai", gate.openai_base_url)
        urls[f"{kind}-anthropic"] = ("anthropic", gate.anthropic_base_url)
        urls[f"{kind}-drained"] = ("openrouter", gate.openai_base_url)
    for name, (vendor, url) in urls.items():
        catalog += provider_toml(name, url, vendor=vendor) + model_toml(name, name)
    return catalog, {f"KEY_{name.upper().replace('-', '_')}": "k" for name in urls}


async def held(url: str) -> set[int]:
    """What each limit holds."""
    return {limit["held"] for limit in (await get(url, "/api/v1/limits"))["items"]}


async def test_what_is_held_comes_back_in_time_whoever_leaves_hangs_or_does_not_listen(tmp_path):
    """
    Upstreams that never answer and such as never end; callers that stay, that leave, that do not read, that never settle.
    """
    async with AsyncExitStack() as stack:
        mute, stuck = await stack.enter_async_context(open_gate()), await stack.enter_async_context(open_gate())
        endless = await stack.enter_async_context(open_endless())
        mute.speaks.clear()
        catalog, keys = catalog_of(mute, stuck, endless)
        server = f"max_call_s = {MAX_CALL_S}\nsweep_s = {SWEEP_S}\n"
        daemon = await stack.enter_async_context(open_here(tmp_path, catalog, server=server, **keys))
        http = await stack.enter_async_context(open_http())
        kinds = [(name, model, stream) for name in ("mute", "stuck") for model in DIALECTS for stream in (False, True)]

        async def call(name: str, model: str, stream: bool) -> None:
            with suppress(aiohttp.ClientError):
                await ask(http, daemon.url, DIALECTS[model], f"{name}-{model}", stream=stream)

        staying, leaving = ([asyncio.create_task(call(*kind)) for kind in kinds] for _ in range(2))
        await stack.enter_async_context(a_caller_who_does_not_listen(daemon.url))
        await asyncio.gather(mute.wait_for_calls(len(kinds)), stuck.wait_for_calls(len(kinds)), endless.begun.wait())
        async with http.post(f"{daemon.url}/api/v1/route", json=DECISION, headers=AUTH) as answer:
            assert answer.status == 201, await answer.text()
        last = asyncio.get_running_loop().time()
        assert 0 not in await held(daemon.url)
        for caller in leaving:
            caller.cancel()
        async with asyncio.timeout(BOUND_S):
            while await held(daemon.url) != {0}:
                pass
        took_s = asyncio.get_running_loop().time() - last
        await asyncio.wait([*staying, *leaving])
        await until(lambda: not len(daemon.router.underway))
        books: Any = await read_books(url_of(tmp_path))
        books.check()
        assert books.open_holds == set()
        assert len(books.holds) == 2 * len(kinds) + 2
        assert took_s < MAX_CALL_S + SWEEP_S + BUSY_S

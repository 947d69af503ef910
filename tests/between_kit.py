"""A daemon in this process between a client and scripted upstreams, on real sockets: two providers for each of three models."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from daemon_kit import AUTH, get, open_here, provider_toml
from ledger_kit import ForgetCooldowns
from yarl import URL

from quota_router.core.health import Cooldown
from quota_router.daemon import Daemon
from quota_router.simulator import Account, Seen, Simulator, Step

INPUT_NUSD, OUTPUT_NUSD = 3_000, 15_000
"""Of one token, from the prices below."""
PRICES = 'cost_per_million_input = "3"\ncost_per_million_output = "15"\n'
VENDORS = {"chat": "openai", "messages": "anthropic", "drained": "openrouter"}
"""Of the two providers of each model; hanging up does not stop the bill of the last. The credential of a provider is its name."""
SERVER = 'first_byte_timeout_s = 0.4\ngap_timeout_s = 0.4\nmax_body_bytes = 2_000_000\ndurability = "process"\n'
SAID = [{"role": "user", "content": "hi"}]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "chat", "messages": SAID, "max_tokens": 50}),
    "responses": ("/v1/responses", {"model": "chat", "input": "hi", "max_output_tokens": 50}),
    "messages": ("/v1/messages", {"model": "messages", "messages": SAID, "max_tokens": 50}),
}
SETTLED_S = 5
"""A call that its caller left has ended by then."""


def model_toml(name: str, *providers: str, strategy: str | None = None) -> str:
    """A model with the prices above; its rungs are tiers, or with a *strategy* one tier of all."""
    rungs = ", ".join(f'{{ provider = "{provider}", upstream_model = "up-{provider}" }}' for provider in providers)
    order = f"attachments = [{rungs}]" if strategy is None else f'attachments = [[{rungs}]]\nstrategy = "{strategy}"'
    return f'[[models]]\nname = "{name}"\n{order}\n{PRICES}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def ours(self, name: str) -> str | None:
        return self.headers.get(f"x-quota-router-{name}")


async def read(answer: aiohttp.ClientResponse) -> Told:
    return Told(status=answer.status, headers=answer.headers.copy(), body=await answer.read())


@dataclass(slots=True, kw_only=True)
class Between:
    """The daemon, what stands behind it, and a client before it."""

    daemon: Daemon
    sim: Simulator
    http: aiohttp.ClientSession

    def script(self, provider: str, *steps: Step) -> None:
        self.sim.script(provider, *steps)

    def seen(self, provider: str) -> list[Seen]:
        return [request for request in self.sim.requests if request.key == provider]

    def post(self, path: str, body: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = BytesIO(body) if isinstance(body, bytes) else body
        return self.http.post(f"{self.daemon.url}{path}", data=data, headers={**AUTH, **named})

    async def send(self, path: str, body: Any, **headers: str) -> Told:
        async with self.post(path, body, **headers) as answer:
            return await read(answer)

    async def fetch(self, method: str, path: str, headers: Mapping[str, str] = AUTH) -> Told:
        async with self.http.request(method, URL(self.daemon.url + path, encoded=True), headers=headers) as answer:
            return await read(answer)

    async def ask(self, dialect: str, *, stream: bool = False, **how: str) -> Told:
        path, asked = ASKED[dialect]
        return await self.send(path, json.dumps({**asked, "stream": stream}), **how)

    async def story(self, told: Told) -> dict[str, Any]:
        return await get(self.daemon.url, f"/api/v1/calls/{told.ours('call')}")

    async def left(self, path: str, body: str, *, requests: int = 1, **headers: str) -> dict[str, Any]:
        """The story of a call whose caller leaves once *requests* more have come to the upstreams."""
        seen = self.sim.counters["requests"]
        asking = asyncio.create_task(self.send(path, body, **headers))
        await self.sim.wait_for_requests(seen + requests)
        (call_id,) = self.daemon.router.underway._calls
        asking.cancel()
        await asyncio.wait({asking})
        await self.settled()
        return await get(self.daemon.url, f"/api/v1/calls/{call_id}")

    async def cooldown(self, provider: str, model: str = "") -> Cooldown | None:
        """What stands on a rung; without a model, on its whole provider."""
        return (await self.daemon.lane.snapshot()).cooldowns.get((provider, model))

    async def settled(self) -> None:
        async with asyncio.timeout(SETTLED_S):
            await self.daemon.router.underway.wait_idle()

    def forget(self) -> None:
        """As if nobody had called: no steps, no requests, no cooldowns."""
        self.sim.reset()
        _ = self.daemon.lane.submit(ForgetCooldowns())


@asynccontextmanager
async def open_between(
    folder: Path,
    *,
    models: Mapping[str, str] = VENDORS,
    rungs: int = 2,
    strategy: str | None = None,
    server: str = SERVER,
    more: Callable[[int], str] | str = "",
    keys: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator[Between]:
    """
    Open all of it.

    Args:
        folder: where the ledger lies.
        models: each with the vendor of its providers, whose names are its own with a number from 1.
        rungs: how many providers each model has.
        strategy: of one tier with all of them; `None`: each is a tier of its own.
        server: what `[server]` says.
        more: what the file says beside; may want to know the upstream's port.
        keys: of what it says there.
        clock: aware UTC, for the daemon and the upstream; `None`: this machine's.
    """
    names = {f"{model}-{number}": vendor for model, vendor in models.items() for number in range(1, rungs + 1)}
    async with AsyncExitStack() as stack:
        timed = {} if clock is None else {"clock": clock}
        sim = await stack.enter_async_context(Simulator([Account(key=name) for name in names], **timed))
        urls = {"anthropic": sim.anthropic_base_url}
        catalog = "".join(
            provider_toml(name, urls.get(vendor, sim.openai_base_url), vendor=vendor)
            for name, vendor in {**names, "unset": "openai"}.items()
        )
        for model in models:
            catalog += model_toml(model, *(f"{model}-{number}" for number in range(1, rungs + 1)), strategy=strategy)
        catalog += model_toml("unset", "unset")
        catalog += '[[budgets]]\nname = "all"\nsubject = "everyone"\nunit = "usd"\nlimit = "1000"\nwindow = "month"\n'
        catalog += more if isinstance(more, str) else more(sim.port)
        own = {f"KEY_{name.upper().replace('-', '_')}": name for name in names}
        opened = open_here(folder, catalog, server=server, clock=clock, **own, **(keys or {}))
        daemon = await stack.enter_async_context(opened)
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0))
        http = await stack.enter_async_context(session)
        yield Between(daemon=daemon, sim=sim, http=http)

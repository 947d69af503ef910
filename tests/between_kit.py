"""A daemon in this process between a client and scripted upstreams, on real sockets: two providers for each of three models."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from daemon_kit import AUTH, get, open_here, provider_toml
from ledger_kit import ForgetCooldowns
from yarl import URL

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


def model_toml(name: str, *providers: str) -> str:
    rungs = ", ".join(f'{{ provider = "{provider}", upstream_model = "up-{provider}" }}' for provider in providers)
    return f'[[models]]\nname = "{name}"\nattachments = [{rungs}]\n{PRICES}'


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

    async def settled(self) -> None:
        async with asyncio.timeout(SETTLED_S):
            await self.daemon.router.underway.wait_idle()

    def forget(self) -> None:
        """As if nobody had called: no steps, no requests, no cooldowns."""
        self.sim.reset()
        _ = self.daemon.lane.submit(ForgetCooldowns())


@asynccontextmanager
async def open_between(folder: Path) -> AsyncIterator[Between]:
    """Open all of it."""
    names = {f"{model}-{number}": vendor for model, vendor in VENDORS.items() for number in (1, 2)}
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key=name) for name in names]))
        urls = {"anthropic": sim.anthropic_base_url}
        catalog = "".join(
            provider_toml(name, urls.get(vendor, sim.openai_base_url), vendor=vendor)
            for name, vendor in {**names, "unset": "openai"}.items()
        )
        catalog += "".join(model_toml(model, f"{model}-1", f"{model}-2") for model in VENDORS) + model_toml("unset", "unset")
        catalog += '[[budgets]]\nname = "all"\nsubject = "everyone"\nunit = "usd"\nlimit = "1000"\nwindow = "month"\n'
        keys = {f"KEY_{name.upper().replace('-', '_')}": name for name in names}
        daemon = await stack.enter_async_context(open_here(folder, catalog, server=SERVER, **keys))
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        yield Between(daemon=daemon, sim=sim, http=http)

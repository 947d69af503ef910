"""A vendor's quota endpoints over a real socket, for a whole daemon with a clock that the test moves."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from waiting_kit import until

NOTICED_S = 10.0
"""Real time: a poller looks every second at what is due."""


@dataclass(slots=True)
class Endpoints:
    """Answers GETs by path: with what was `say`d last, or a function of the request; 404 where nothing was."""

    url: str = ""
    requests: list[web.Request] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """how many requests were under way at once, by path"""
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, path: str, answer: Any) -> None:
        """From here on *path* answers so: JSON, `(status, headers)`, or a handler."""
        self.answers[path] = answer

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    async def asked(self, path: str, times: int) -> None:
        """Wait until *path* was asked so often."""
        await until(lambda: soon(lambda: self.count(path) >= times), NOTICED_S)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.running[request.path] += 1
        self.most[request.path] = max(self.most[request.path], self.running[request.path])
        try:
            answer = self.answers.get(request.path, (404, {}))
            if callable(answer):
                return await answer(request)
            if isinstance(answer, tuple):
                status, headers = answer
                return web.Response(status=status, headers=headers)
            return web.Response(text=json.dumps(answer), content_type="application/json")
        finally:
            self.running[request.path] -= 1


async def soon(holds: Callable[[], bool]) -> bool:
    """Look a moment later, so that others can go on."""
    await asyncio.sleep(0.02)
    return holds()


@asynccontextmanager
async def open_endpoints() -> AsyncIterator[Endpoints]:
    endpoints = Endpoints()
    runner = web.ServerRunner(web.Server(endpoints.handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoints.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield endpoints
    await runner.cleanup()


def provider_toml(name: str, url: str, *, vendor: str = "openai", more: str = "") -> str:
    """A provider at the endpoints' address, whose key is KEY_NAME."""
    address = f'vendor = "{vendor}"\nbase_url = "{url}"\nnetwork = "loopback"\ncredential = "env:KEY_{name.upper()}"'
    return f"[providers.{name}]\n{address}\n{more}\n"


def poller_toml(provider: str, name: str, **keys: Any) -> str:
    """A table of pollers."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return f'[[providers.{provider}.pollers]]\nname = "{name}"\n{lines}'

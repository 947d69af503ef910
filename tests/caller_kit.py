"""A caller for tests: one call in either dialect, read to its end."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from daemon_kit import AUTH

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
LAST_EVENTS = {"openai": b"data: [DONE]\n\n", "anthropic": b'data: {"type":"message_stop"}\n\n'}
PRICES = 'cost_per_million_input = "3"\ncost_per_million_output = "15"\n'
INPUT_NUSD, OUTPUT_NUSD = 3_000, 15_000
"""Of one token at these prices."""
MAX_TOKENS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def call_id(self) -> str:
        return self.headers["x-quota-router-call"]

    @property
    def provider(self) -> str | None:
        return self.headers.get("x-quota-router-provider")

    @property
    def skipped(self) -> str | None:
        return self.headers.get("x-quota-router-skipped")

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


def model_toml(name: str, *providers: str) -> str:
    """A model with the prices above, served by *providers* in this order."""
    return f'[[models]]\nname = "{name}"\nattachments = {json.dumps(providers)}\n{PRICES}'


def budget_toml(name: str, subject: str, unit: str, limit: str, **more: str) -> str:
    """A strict budget of a month."""
    values = {"name": name, "subject": subject, "unit": unit, "limit": limit, "window": "month", "enforcement": "strict", **more}
    return "[[budgets]]\n" + "".join(f'{key} = "{value}"\n' for key, value in values.items())


@asynccontextmanager
async def open_http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that opens as many connections as it is asked for."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


def asked(model: str, *, stream: bool = False) -> bytes:
    """A body that both dialects take."""
    said = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": model, "messages": said, "max_tokens": MAX_TOKENS, "stream": stream}).encode()


def post(http: aiohttp.ClientSession, url: str, dialect: str, model: str, *, stream: bool = False, **headers: str) -> Any:
    """Send a call; the answer is an async context."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post(url + PATHS[dialect], data=asked(model, stream=stream), headers={**AUTH, **named})


async def ask(http: aiohttp.ClientSession, url: str, dialect: str, model: str, **how: Any) -> Told:
    """Send a call and read its answer to the end. Raises `aiohttp.ClientError` where it broke off."""
    async with post(http, url, dialect, model, **how) as answer:
        return Told(status=answer.status, headers=answer.headers.copy(), body=await answer.read())

"""Daemon processes on one ledger: one on a file, many on a server. Each has a folder, a configuration and a log of its own."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from caller_kit import Told, ask, open_http
from daemon_kit import Process, environ, get, provider_toml, write_config

from quota_router.simulator import Account, Simulator

VENDORS = {"openai": "openai", "anthropic": "anthropic"}
"""The providers of a fleet, by name; the credential of each is its name."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Daemons that share a ledger, the upstream behind them and a caller before them."""

    folder: Path
    """of the ledger"""
    daemons: list[Process]
    sim: Simulator
    http: aiohttp.ClientSession

    async def ask(self, place: int, dialect: str, model: str, **how: Any) -> Told:
        """Call one of them; places go round."""
        return await ask(self.http, self.daemons[place % len(self.daemons)].url, dialect, model, **how)

    def arrived(self, model: str) -> int:
        """How many calls of a model reached the upstream."""
        return sum(request.model == model for request in self.sim.requests)

    async def limits(self) -> list[dict[str, dict[str, Any]]]:
        """What each daemon says of every limit, by name."""
        told = [(await get(daemon.url, "/api/v1/limits"))["items"] for daemon in self.daemons]
        return [{limit["name"]: limit for limit in items} for items in told]


@asynccontextmanager
async def open_fleet(folder: Path, catalog: str, *, many: int, server: str = "") -> AsyncIterator[Fleet]:
    """Start *many* daemons on the ledger of *folder*; *catalog* may name the providers of `VENDORS`."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key=name) for name in VENDORS]))
        urls = {"openai": sim.openai_base_url, "anthropic": sim.anthropic_base_url}
        providers = "".join(provider_toml(name, urls[vendor], vendor=vendor) for name, vendor in VENDORS.items())
        written = write_config(folder, providers + catalog, server)
        keys = {f"KEY_{name.upper()}": name for name in VENDORS}
        daemons = []
        for number in range(many):
            own = folder / f"daemon-{number}"
            own.mkdir()
            daemon = await Process.start(Path(shutil.copy(written, own)), environ(own, **keys))
            stack.push_async_callback(daemon.kill)
            daemons.append(daemon)
        http = await stack.enter_async_context(open_http())
        yield Fleet(folder=folder, daemons=daemons, sim=sim, http=http)

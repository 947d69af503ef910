"""A real daemon for tests: in this process (`open_here`), or as a process of its own (`Process`)."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
from database_kit import url_of

from quota_router import config
from quota_router.daemon import Daemon, open_daemon

TOKEN = "qr-test-admin-token"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20


def environ(folder: Path, **more: str) -> dict[str, str]:
    """An environment of its own: no variable of the machine leaks in but what a process needs to run."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "xdg-state"),
        "XDG_CONFIG_HOME": str(folder / "xdg-config"),
        "QUOTA_ROUTER_ADMIN_TOKEN": TOKEN,
        **more,
    }


def write_config(folder: Path, catalog: str, server: str = "", *, ledger: str | None = None, listen: str = "127.0.0.1:0") -> Path:
    """
    Write a file. A failed call is not repeated at its provider, unless *server* says so.

    *ledger*: a database's URL; `None`: that of *folder*.
    """
    path = folder / "quota-router.toml"
    if "retries_lone" not in server:
        server += "retries_lone = 0\n"
    path.write_text(f'[server]\nlisten = "{listen}"\ndatabase = "{ledger or url_of(folder)}"\n{server}\n{catalog}')
    return path


def provider_toml(name: str, base_url: str, *, vendor: str = "openai", more: str = "") -> str:
    """A loopback provider whose key is the variable KEY_<NAME>."""
    variable = f"KEY_{name.upper().replace('-', '_')}"
    address = f'vendor = "{vendor}"\nbase_url = "{base_url}"\nnetwork = "loopback"'
    return f'[providers.{name}]\n{address}\ncredential = "env:{variable}"\n{more}\n'


@asynccontextmanager
async def open_here(
    folder: Path,
    catalog: str,
    *,
    server: str = "",
    ledger: str | None = None,
    clock: Callable[[], datetime] | None = None,
    **variables: str,
) -> AsyncIterator[Daemon]:
    """A daemon in this loop: for laws that need to look inside. Keys are given as KEY_NAME="…"."""
    path, env = write_config(folder, catalog, server, ledger=ledger), environ(folder, **variables)
    async with open_daemon(config.load(path, env), env, clock=clock) as daemon:
        yield daemon
        if not daemon.services.is_draining:
            await daemon.drain()


@dataclass(slots=True)
class Process:
    """`quota-router serve` as a real process."""

    process: asyncio.subprocess.Process
    url: str

    @staticmethod
    async def launch(path: Path, env: Mapping[str, str]) -> tuple[asyncio.subprocess.Process, str]:
        """Start it, and return it with the line that it says once it listens; empty: it ended before."""
        command = (sys.executable, "-m", "quota_router.cli", "serve", "--config", str(path))
        with (path.parent / "daemon.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, env=dict(env), stdout=asyncio.subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            return process, (await process.stdout.readline()).decode().strip()

    @classmethod
    async def start(cls, path: Path, env: Mapping[str, str]) -> "Process":
        """Start it and wait for the line that tells its address."""
        process, line = await cls.launch(path, env)
        assert "http://" in line, f"no address: {line!r}; log: {(path.parent / 'daemon.log').read_text()[-2000:]}"
        return cls(process=process, url="http://" + line.split("http://", 1)[1])

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """End it now, if it still runs."""
        if self.process.returncode is None:
            await self.stop(signal.SIGKILL)


@asynccontextmanager
async def open_process(folder: Path, catalog: str, *, server: str = "", **variables: str) -> AsyncIterator[Process]:
    """A daemon process that is gone when the block ends, whatever happened."""
    daemon = await Process.start(write_config(folder, catalog, server), environ(folder, **variables))
    try:
        yield daemon
    finally:
        await daemon.kill()


async def get(url: str, path: str) -> dict:
    """Read one of the daemon's own resources as admin."""
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=AUTH) as answer:
        assert answer.status == 200, await answer.text()
        return json.loads(await answer.read())

"""A whole daemon in this process, on a real file and a real socket, and a client that speaks JSON to it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from database_kit import url_of
from ledger_kit import Clock
from yarl import URL

from quota_router import config
from quota_router.daemon import Daemon, open_daemon

ADMIN_TOKEN = "qr_admin_test"
TOKENS = {"ci": "t-ci", "other": "t-other", "reader": "t-reader"}
CALLERS = "".join(
    f'[[callers]]\nname = "{name}"\ntoken_sha256 = "{sha256(token.encode()).hexdigest()}"\nscopes = ["{scope}"]\n'
    for (name, token), scope in zip(TOKENS.items(), ("call", "call", "read"), strict=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer, read."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass(slots=True, kw_only=True)
class Plane:
    """The daemon under test, and how to ask it."""

    daemon: Daemon
    http: aiohttp.ClientSession
    file: Path

    async def ask(self, method: str, path: str, body: Any = None, *, token: str = TOKENS["ci"], **headers: str) -> Told:
        """Ask as a caller; *body* is sent as it is when it is bytes, else as JSON."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        data = None if raw is None else BytesIO(raw)
        sent = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.request(method, URL(self.daemon.url + path, encoded=True), data=data, headers=sent) as answer:
            text = await answer.read()
            lower = {name.lower(): value for name, value in answer.headers.items()}
            assert b"Traceback" not in text
            return Told(status=answer.status, headers=lower, body=json.loads(text))

    async def admin(self, method: str, path: str, body: Any = None, **headers: str) -> Told:
        """Ask as the admin."""
        return await self.ask(method, f"/api/v1/{path}", body, token=ADMIN_TOKEN, **headers)

    async def read(self, path: str) -> Told:
        """Ask as the one who reads."""
        return await self.ask("GET", path, token=TOKENS["reader"])


@asynccontextmanager
async def open_plane(
    folder: Path,
    catalog: str,
    clock: Clock,
    environ: dict[str, str] | None = None,
    *,
    server: str = "",
    ledger: Path | None = None,
) -> AsyncIterator[Plane]:
    """
    Serve *catalog*, a file without its `[server]`; the callers are added.

    Args:
        folder: where the file and the state lie.
        server: lines to add to `[server]`.
        ledger: the folder of a ledger that others share.
    """
    file = folder / "quota-router.toml"
    head = f'[server]\nlisten = "127.0.0.1:0"\ndatabase = "{url_of(ledger or folder)}"\n'
    head += f'durability = "process"\nretries_lone = 0\n{server}\n'
    file.write_text(head + catalog + CALLERS)
    variables = {"QUOTA_ROUTER_ADMIN_TOKEN": ADMIN_TOKEN, "XDG_STATE_HOME": str(folder), **(environ or {})}
    async with (
        open_daemon(config.load(file, variables), variables, clock=clock) as daemon,
        aiohttp.ClientSession() as http,
    ):
        yield Plane(daemon=daemon, http=http, file=file)

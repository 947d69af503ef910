"""
The sockets we are reached at, and what is answered there while the ledger cannot be opened yet.

Law: an address is taken before anything else is touched, and once: whoever cannot have it changes nothing. Nobody who connects
early is turned away: he waits, or is told why nothing works yet.
Never: handles a call.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
from aiohttp import web

from quota_router.errors import LedgerUnavailable, ShuttingDown
from quota_router.store.open import Engines
from quota_router.web.bodies import dialect_at, tell

BACKLOG = 1_024
KEEP_ALIVE_S = 15
"""Slow or partial request headers are cut after this, too."""
CLOSE_S = 1
"""What aiohttp may take to close connections once no call runs any more."""
START_PAUSE_S = 1.0
"""Between two tries to reach a ledger's server that was not there at start."""

log = structlog.get_logger()


def split_listen(listen: str) -> tuple[str, int]:
    """Split `HOST:PORT`; the host of IPv6 stands in brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def bind(host: str, port: int) -> list[socket.socket]:
    """
    Take every address that *host* stands for, at one port; 0 takes any free one.

    Raises:
        OSError: one of them cannot be had, or the name does not resolve.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    taken: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            taken.append(listening)
            listening.setblocking(False)  # noqa: FBT003 -- the one argument there is
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Port 0 means the same free port for all of them.
            own = taken[0].getsockname()[1] if len(taken) > 1 else port
            listening.bind((address[0], own, *address[2:]))
            listening.listen(BACKLOG)
    except BaseException:
        close(taken)
        raise
    return taken


def close(sockets: Sequence[socket.socket]) -> None:
    """Let go of the addresses."""
    for listening in sockets:
        listening.close()


@asynccontextmanager
async def answering(app: web.Application, sockets: Sequence[socket.socket]) -> AsyncIterator[list[web.SockSite]]:
    """
    Answer what comes in with *app*; the sockets stay open when this ends.

    A caller who hangs up does not cancel his handler: the router settles first.
    """
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=CLOSE_S, handler_cancellation=False
    )
    await runner.setup()
    try:
        sites = [web.SockSite(runner, listening.dup()) for listening in sockets]
        for site in sites:
            await site.start()
        yield sites
    finally:
        await runner.cleanup()


def waiting_room(why: Callable[[], str], new_id: Callable[[], str]) -> web.Application:
    """Make what answers until the ledger is open: alive, not ready, and no call is taken. *why* says what is waited for."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        body = msgspec.json.encode({"status": "unready", "reasons": [why()]})
        return web.Response(status=LedgerUnavailable.status, body=body, content_type="application/json")

    async def refuse(request: web.Request) -> web.Response:
        return tell(LedgerUnavailable(why()), dialect_at(request.path), new_id())

    async def hang_up(_request: web.Request, response: web.StreamResponse) -> None:
        """A connection that is kept would be cut when the ledger opens, under whoever is just sending on it."""
        response.headers["Connection"] = "close"
        response.force_close()

    app = web.Application()
    app.on_response_prepare.append(hang_up)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_route("*", "/{path:.*}", refuse)
    return app


async def wait_for_ledger(
    engines: Engines, sockets: Sequence[socket.socket], new_id: Callable[[], str], stop: asyncio.Event
) -> None:
    """
    Wait until the ledger can be reached. A server may start after us: meanwhile whoever asks is told what is waited for.

    Raises:
        LedgerUnavailable: it is a file that cannot be opened. ShuttingDown: we were told to stop.
    """
    try:
        return await engines.reach()
    except LedgerUnavailable as error:
        if engines.spill_folder is not None:
            raise
        why = error.message
    log.warning("waiting for the ledger's server", action="ledger_awaited", reason=why)
    async with answering(waiting_room(lambda: why, new_id), sockets):
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), START_PAUSE_S)
                raise ShuttingDown
            try:
                return await engines.reach()
            except LedgerUnavailable as error:
                why = error.message

"""
The yardstick: aiohttp on both sides and nothing between them.

Law: bytes are forwarded as they come. No access log, no cookie jar, no decompression, garbage collector frozen: what is
left is what any gateway built on aiohttp pays before it has done anything.

    python passthrough.py PORT UPSTREAM_BASE_URL [--uvloop]
"""

import argparse
import asyncio
import gc

import wire
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

UPSTREAM_KEY = "Bearer the-upstream-key"


class PassThrough:
    """Forwards every call to the same path of one upstream."""

    def __init__(self, session: ClientSession, base_url: str) -> None:
        self.session = session
        self.base_url = base_url

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Send the caller's bytes with our key, and the upstream's bytes back."""
        body = await request.read()
        headers = {"Content-Type": request.headers["Content-Type"], "Authorization": UPSTREAM_KEY}
        url = self.base_url + request.path
        async with self.session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            kept = {"Content-Type": answer.headers["Content-Type"]}
            if answer.content_length is not None:
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)
            relayed = web.StreamResponse(status=answer.status, headers=kept)
            await relayed.prepare(request)
            async for piece in answer.content.iter_any():
                await relayed.write(piece)
            await relayed.write_eof()
            return relayed


async def healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def serve(port: int, base_url: str) -> None:
    session = ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        timeout=ClientTimeout(total=None),
    )
    async with session:
        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_post("/{path:.*}", PassThrough(session, base_url).forward)
        runner = web.AppRunner(app, access_log=None, handle_signals=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
            gc.collect()
            gc.freeze()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A bare aiohttp pass-through.")
    parser.add_argument("port", type=int)
    parser.add_argument("base_url", help="the upstream's scheme, host and port")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    wire.run(serve(options.port, options.base_url), on_uvloop=options.uvloop)

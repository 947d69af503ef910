"""
The caller's connection, as the router sees it.

Law: an answer that comes in one piece is sent as one, with its length; one that comes in pieces is streamed, and a stream on which
nothing is sent for a while is kept alive with a comment, because proxies cut silent connections (faults.md F57). With the first
comment the status is said: what goes wrong later is told inside the stream.
Never: waits for a reader that has stopped reading.
"""

import asyncio
import contextlib
from collections.abc import Mapping

from aiohttp import web

from quota_router.errors import CallerGone
from quota_router.web.bodies import id_headers

WRITE_TIMEOUT_S = 60
"""A caller that takes nothing for this long has left."""
KEEPALIVE_S = 15.0
"""Between two signs of life of a stream."""
_COMMENT = b": keep-alive\n\n"
"""A line that every reader of server-sent events skips."""
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
"""Of an event."""


class HttpSink:
    """Writes one call's answer to one request. `is_stream`: the caller asked for one. `close` it when the call is over."""

    def __init__(self, request: web.Request, call_id: str, *, is_stream: bool) -> None:
        self._request = request
        self._call_id = call_id
        self._status = 0
        self._headers: dict[str, str] = {}
        self._response: web.StreamResponse | None = None
        self._beating: asyncio.Task[None] | None = None
        """sends a comment"""
        self._loop = asyncio.get_running_loop()
        self._wrote_at = self._loop.time()
        self._is_between = True
        """no event of the stream is half sent: a comment harms nothing"""
        self._beat: asyncio.TimerHandle | None = self._loop.call_later(KEEPALIVE_S, self._keep_alive) if is_stream else None

    @property
    def is_started(self) -> bool:
        """Whether `start` was called, or a comment sent."""
        return self._status != 0

    @property
    def is_gone(self) -> bool:
        """Whether the caller's connection is closed."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns, once the call was served."""
        if self._response is None:  # the caller left before the first piece: nobody will read this
            self._response = web.Response(status=CallerGone.status)
        return self._response

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the answer; sends nothing yet."""
        self._status, self._headers = status, {**headers, **id_headers(self._call_id)}

    async def write(self, data: bytes, within_s: float) -> None:
        """Send a piece, in *within_s* seconds at most."""
        self._wrote_at, self._is_between = self._loop.time(), data.endswith(_ENDS)
        try:
            async with asyncio.timeout(min(WRITE_TIMEOUT_S, within_s)):
                await (await self._streaming()).write(data)
        except (ConnectionError, TimeoutError) as gone:
            self._hang_up()
            raise CallerGone from gone

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece and end the answer. From here on no comment is sent: nothing may stand behind the end."""
        self.close()
        if self._response is None and self._beating is None:
            self._response = web.Response(status=self._status, headers=self._headers, body=data)
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await (await self._streaming()).write_eof(data)
        except (ConnectionError, TimeoutError) as gone:
            self._hang_up()
            raise CallerGone from gone

    def close(self) -> None:
        """No comment is sent any more."""
        if self._beat is not None:
            self._beat.cancel()

    def _keep_alive(self) -> None:
        """Send a comment if nothing else was sent lately; called again and again."""
        silent_s = self._loop.time() - self._wrote_at
        if silent_s >= KEEPALIVE_S:
            if self._is_between and not self.is_gone and (self._beating is None or self._beating.done()):
                self._beating = self._loop.create_task(self._comment())
            silent_s = 0.0
        self._beat = self._loop.call_later(KEEPALIVE_S - silent_s, self._keep_alive)

    async def _comment(self) -> None:
        self._wrote_at = self._loop.time()
        if not self.is_started:
            self.start(200, {"content-type": "text/event-stream; charset=utf-8"})
        with contextlib.suppress(ConnectionError):  # whoever writes next finds out
            await (await self._streaming()).write(_COMMENT)

    def _hang_up(self) -> None:
        """Drop the connection: else the server would wait for ever to send the rest to a reader that has stopped reading."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _streaming(self) -> web.StreamResponse:
        if self._beating is not None and self._beating is not asyncio.current_task():
            await self._beating
        if self._response is None:
            # A proxy that buffers would hold the first words back.
            headers = {**self._headers, "X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
            self._response = web.StreamResponse(status=self._status, headers=headers)
            await self._response.prepare(self._request)
        return self._response

"""
The caller's connection, as the router sees it.

Law: an answer that comes in one piece is sent as one, with its length; one that comes in pieces is streamed.
Never: waits for a reader that has stopped reading.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from quota_router.errors import CallerGone
from quota_router.web.bodies import id_headers

WRITE_TIMEOUT_S = 60
"""A caller that takes nothing for this long has left."""


class HttpSink:
    """Writes one call's answer to one request."""

    def __init__(self, request: web.Request, call_id: str) -> None:
        self._request = request
        self._call_id = call_id
        self._status = 0
        self._headers: dict[str, str] = {}
        self._response: web.StreamResponse | None = None

    @property
    def is_started(self) -> bool:
        """Whether `start` was called."""
        return self._status != 0

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns, once the call was served."""
        if self._response is None:  # the caller left before the first piece: nobody will read this
            self._response = web.Response(status=CallerGone.status)
        return self._response

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the answer; sends nothing yet."""
        self._status, self._headers = status, {**headers, **id_headers(self._call_id)}

    async def write(self, data: bytes) -> None:
        """Send a piece."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await (await self._streaming()).write(data)
        except (ConnectionError, TimeoutError) as gone:
            self._hang_up()
            raise CallerGone from gone

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece and end the answer."""
        if self._response is None:
            self._response = web.Response(status=self._status, headers=self._headers, body=data)
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._response.write_eof(data)
        except (ConnectionError, TimeoutError) as gone:
            self._hang_up()
            raise CallerGone from gone

    def _hang_up(self) -> None:
        """Drop the connection: else the server would wait for ever to send the rest to a reader that has stopped reading."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _streaming(self) -> web.StreamResponse:
        if self._response is None:
            # A proxy that buffers would hold the first words back.
            headers = {**self._headers, "X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
            self._response = web.StreamResponse(status=self._status, headers=headers)
            await self._response.prepare(self._request)
        return self._response

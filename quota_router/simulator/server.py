"""
The scripted upstream: a real HTTP server that plays OpenAI and Anthropic at once, for `demo`, tests and benchmarks.

Law: every request whose body arrived is recorded, before it is judged; how it ended is noted when it ends.
Never: judges (`vendor` does) or writes an answer (`sending` and `faults` do).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from quota_router.simulator import control
from quota_router.simulator.script import Account, Step
from quota_router.simulator.sending import send
from quota_router.simulator.vendor import Seen, Vendor

KEPT_REQUESTS = 10_000
"""requests remembered with their bodies; the counters go on"""
MAX_BODY_BYTES = 1 << 26
SHUTDOWN_S = 1.0
ENDINGS = ("answered", "client_left", "quota_refused")


def _now() -> datetime:
    return datetime.now(UTC)


class Simulator:
    """
    A vendor on a loopback port, from `async with` to its end.

    Args:
        accounts: whom it knows, everybody else gets 401; none at all: everybody is welcome, without quotas.
        port: 0 takes a free one; `port` tells which.
        clock: aware UTC now; windows follow it.
    """

    def __init__(
        self,
        accounts: Sequence[Account] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.host = host
        self.port = port
        self.counters: Counter[str] = Counter()
        """`requests`, `answered`, `client_left`, `quota_refused`, since the start or the last reset"""
        self._clock = clock
        self._vendor = Vendor(accounts)
        self._seen: deque[Seen] = deque(maxlen=KEPT_REQUESTS)
        self._running: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._is_closing = False
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = web.Server(
            self._handle,
            request_factory=_make_request,
            handler_cancellation=True,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, backlog=4096).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self._is_closing = True
        for task in self._running:
            task.cancel()
        await self._runner.cleanup()

    @property
    def openai_base_url(self) -> str:
        """What an OpenAI SDK takes."""
        return f"http://{self.host}:{self.port}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What an Anthropic SDK takes."""
        return f"http://{self.host}:{self.port}"

    @property
    def requests(self) -> list[Seen]:
        """The last 10,000 requests, oldest first; those to `/_sim/` are not among them."""
        return list(self._seen)

    def script(self, key: str | None, *steps: Step) -> None:
        """
        Queue *steps* for the next requests of an account; `None`: for whoever comes.

        Raises:
            ValueError: no account has that key.
        """
        if key is not None and self._vendor.meters and key not in self._vendor.meters:
            raise ValueError(f"no account has the key {key!r}")
        self._vendor.script.add(key, steps)

    def reset(self) -> None:
        """Forget requests, counters and steps, and what the accounts have used."""
        self._seen.clear()
        self.counters.clear()
        self._vendor.reset()

    async def wait_for_requests(self, count: int, timeout_s: float = 5.0) -> None:
        """Return once *count* requests have arrived since the start or the last reset; raises TimeoutError."""
        await self._until(lambda: self.counters["requests"] >= count, timeout_s)

    async def quiet(self, timeout_s: float = 5.0) -> None:
        """Return once no request is being answered; raises TimeoutError."""
        await self._until(lambda: not self._running, timeout_s)

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(control.PREFIX):
            return await control.answer(self, request)
        task = asyncio.current_task()
        assert task is not None
        seen = self._record(request, await request.read())
        self._running.add(task)
        try:
            response = await send(request, self._vendor.judge(seen))
            # A connection that is still open here has had its whole answer: faults close it.
            seen.answered = request.transport is not None and not request.transport.is_closing()
        except (ConnectionError, asyncio.CancelledError) as exc:
            seen.client_left = not self._is_closing
            if isinstance(exc, asyncio.CancelledError):
                raise
            return web.Response()
        finally:
            for ending in ENDINGS:
                self.counters[ending] += getattr(seen, ending)
            self._running.discard(task)
            self._changed.set()
        return response

    def _record(self, request: web.BaseRequest, body: bytes) -> Seen:
        bearer = request.headers.get("authorization", "")
        self.counters["requests"] += 1
        seen = Seen(
            number=self.counters["requests"],
            at=self._clock(),
            method=request.method,
            path=request.path,
            query=request.rel_url.raw_query_string,
            headers=request.headers,
            key=request.headers.get("x-api-key") or bearer.removeprefix("Bearer ") or None,
            body=body,
        )
        self._seen.append(seen)
        self._changed.set()
        return seen


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:  # noqa: ANN401 -- aiohttp hands through
    """The usual request, with our bound on bodies."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)

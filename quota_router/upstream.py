"""
The only file that opens connections to upstreams.

Law: no hold, no call; what is asked without one is a quota endpoint, by a GET without a body, which nobody charges for. Each
address is judged when it is connected to (`core/networks`), however it was written or found.
Never: follows a redirect, keeps a cookie, reads a proxy from the environment, unpacks a body, adds a header, or repeats a request.

    connect_timeout_s      a free place, the name, TCP and TLS, together
    first_byte_timeout_s   from the last byte of the request to the first of the answer
    gap_timeout_s          between two pieces of the answer
    total_timeout_s        all of it

Decision 2026-11 -- aiohttp's own timers and reader, with nothing of ours around each piece: this room is half the CPU of a call.
    Look again when a client of our own behind this interface is worth its parser.
"""

import asyncio
import errno
import math
import re
import socket
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from yarl import URL

from quota_router.core.catalog import Network, Provider
from quota_router.core.networks import judge, judge_url
from quota_router.errors import AddressRefused, InvalidRequest, QuotaRouterError, UpstreamCut, UpstreamUnavailable

CONNECTIONS_MAX = 1_000
"""Open connections per network policy; a call beyond waits, and its wait counts as connecting."""
CONNECTIONS_PER_HOST_MAX = 500
KEEPALIVE_S = 15
"""An idle connection is kept this long: shorter than most servers keep theirs, so that few calls meet one that is just closing."""
DNS_TTL_S = 30
CONNECT_MARGIN_S = 0.05
"""A call whose whole time goes into connecting ends this much later, so that it is known to have sent nothing."""
_URLS_CACHED = 1_024
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add by itself."""

_WRITABLE = re.compile(r"[\x21-\x7e]*")
_BREAKS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""All that aiohttp raises when an answer breaks; a `TimeoutError` is an `OSError`."""
_ANYWHERE = {"0.0.0.0", "::"}  # noqa: S104 -- compared with, not bound to

_CAUSES: tuple[tuple[type[Exception], str, bool], ...] = (
    (aiohttp.ClientSSLError, "tls", False),
    (aiohttp.ClientConnectorDNSError, "dns", False),
    (aiohttp.ClientConnectorError, "unreachable", False),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", False),
    (UnicodeError, "dns", False),
    (aiohttp.SocketTimeoutError, "first_byte_timeout", True),
    (TimeoutError, "total_timeout", True),
    (aiohttp.ClientResponseError, "not_http", True),
    (HttpProcessingError, "not_http", True),
    (Exception, "closed", True),
)
"""The first class that fits says what broke, and whether the request may have been received: what fails in connecting was not."""
_CAUSES_BY_ERRNO = {errno.ECONNREFUSED: "refused", errno.EMFILE: "no_sockets", errno.ENFILE: "no_sockets"}
"""What of `unreachable` has a name of its own."""
_SENTENCES = {
    "tls": "its certificate or TLS handshake is not good",
    "dns": "its name could not be resolved",
    "unreachable": "it could not be connected to",
    "refused": "it refused the connection",
    "no_sockets": "this machine has no socket left",
    "connect_timeout": "connecting took too long",
    "first_byte_timeout": "its answer did not begin in time",
    "total_timeout": "the call's time ran out",
    "not_http": "what it sent is not HTTP",
    "closed": "it closed the connection before it answered",
}


class UpstreamRequest(Struct, frozen=True, kw_only=True):
    """One POST to a provider. `headers`: all that are sent, beside `Host` and `Content-Length`."""

    provider: Provider
    url: str
    headers: Mapping[str, str]
    body: bytes
    connect_timeout_s: float
    first_byte_timeout_s: float
    gap_timeout_s: float
    total_timeout_s: float


class QuotaRequest(Struct, frozen=True, kw_only=True):
    """One GET of a quota endpoint, under the network policy of the provider it is asked for. `headers`: all that are sent."""

    provider: Provider
    url: str
    headers: Mapping[str, str]
    connect_timeout_s: float
    total_timeout_s: float
    max_bytes: int


class QuotaAnswer(Struct, frozen=True, kw_only=True):
    """What a quota endpoint said. `headers`: their case does not matter; `body`: only of a 200."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UpstreamAnswer:
    """
    The head of an answer, and its body as it comes. Whoever holds one closes it.

    A body that ends because its connection was closed looks complete here: only the dialect knows what must stand at its end.
    """

    __slots__ = ("_content", "_is_packed", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._content = response.content
        self._is_packed = self.headers.get("Content-Encoding", "identity").lower() != "identity"

    @property
    def is_eof(self) -> bool:
        """Whether the whole body has come, read or not."""
        return self._content.is_eof()

    async def read(self, max_bytes: int) -> bytes:
        """
        Read the whole body.

        Raises:
            UpstreamCut: it broke off, is longer than *max_bytes*, or is compressed.
        """
        pieces, size = [], 0
        while piece := await self._next():
            size += len(piece)
            if size > max_bytes:
                raise self._cut("too_long", f"The provider's answer is longer than {max_bytes} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """
        Iterate over the body in pieces, as they come.

        Raises:
            UpstreamCut: while iterating; it broke off, or is compressed.
        """
        return _Chunks(self)

    def close(self) -> None:
        """Hang up, unless the whole body has come: then the connection is already free for the next call. May be repeated."""
        if not self._content.is_eof():
            self._response.close()

    async def _next(self) -> bytes:
        """The next piece; empty at the end."""
        if self._is_packed:
            # A few bytes of it may be a gigabyte, and the caller did not ask for it.
            raise self._cut("compressed", "The provider's answer is compressed, which was not asked for.")
        try:
            return await self._content.readany()
        except aiohttp.SocketTimeoutError as exc:
            raise self._cut("gap_timeout", "The provider's answer stopped coming.") from exc
        except TimeoutError as exc:
            raise self._cut("total_timeout", "The provider's answer did not end in the call's time.") from exc
        except _BREAKS as exc:
            raise self._cut("closed") from exc

    def _cut(self, cause: str, message: str | None = None) -> UpstreamCut:
        self.close()
        return UpstreamCut(message, cause=cause)


class Upstream:
    """
    Sends calls to providers. One per daemon, entered before the first call.

    Args:
        own_addresses: addresses and ports that we listen on, as `getsockname` gives them; may be set again once they are known.
        resolver: finds the addresses of names; `None`: the system's.
    """

    def __init__(
        self, *, own_addresses: frozenset[tuple[str, int]] = frozenset(), resolver: AbstractResolver | None = None
    ) -> None:
        self.own_addresses = own_addresses
        self._resolver = resolver
        self._is_open = False
        self._sessions: dict[tuple[Network, tuple[str, ...]], aiohttp.ClientSession] = {}
        """One per network policy: a connection that one policy opened is never used under another."""
        self._watches = _Watches()

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def send(self, request: UpstreamRequest, hold_id: str) -> UpstreamAnswer:
        """
        Send one request, once, and wait for the head of its answer, whatever its status.

        Args:
            request: what to send.
            hold_id: of the committed hold that pays for it.

        Raises:
            AddressRefused: the provider's network policy forbids the address; nothing was sent.
            InvalidRequest: a header or the query cannot be written; nothing was sent.
            UpstreamUnavailable: no answer came; `dispatched` says whether the request may have been received.
        """
        assert hold_id, "no hold, no connection"
        if request.total_timeout_s <= 0:
            raise _unavailable(request.provider, "total_timeout", dispatched=False)
        connect_s = min(request.connect_timeout_s, request.total_timeout_s)
        timeout = _timeouts(max(request.total_timeout_s, connect_s + CONNECT_MARGIN_S), connect_s, request.first_byte_timeout_s)
        response = await self._request("POST", request, timeout, request.body)
        protocol = response.connection.protocol if response.connection is not None else None
        if protocol is not None:  # else a short answer has come whole, and its connection is free again
            # The timer that waited for the first byte goes on between the pieces.
            protocol.read_timeout = request.gap_timeout_s
            protocol.start_timeout()
            self._watches.add(protocol, response.content)
        return UpstreamAnswer(response)

    async def ask(self, request: QuotaRequest) -> QuotaAnswer:
        """
        Ask a quota endpoint, once, and read its answer, if it is a 200.

        Raises:
            AddressRefused, InvalidRequest, UpstreamUnavailable: as for `send`.
            UpstreamCut: the answer broke off, is longer than allowed, or is compressed.
        """
        timeout = _timeouts(request.total_timeout_s, request.connect_timeout_s, request.total_timeout_s)
        answer = UpstreamAnswer(await self._request("GET", request, timeout, None))
        try:
            body = await answer.read(request.max_bytes) if answer.status == HTTPStatus.OK else b""
        finally:
            answer.close()
        return QuotaAnswer(status=answer.status, headers=answer.headers, body=body)

    async def _request(
        self, method: str, request: UpstreamRequest | QuotaRequest, bounds: aiohttp.ClientTimeout, body: bytes | None
    ) -> aiohttp.ClientResponse:
        provider = request.provider
        url = _target(request.url, provider.network, provider.allow)
        session = self._sessions.get((provider.network, provider.allow)) or self._open_session(provider)
        try:
            return await session.request(method, url, data=body, headers=request.headers, allow_redirects=False, timeout=bounds)
        except (*_BREAKS, ValueError) as exc:
            # aiohttp's own errors quote the URL and the headers: the cause that is kept is the one below them.
            raise _explain(exc, provider) from exc.__cause__

    def _open_session(self, provider: Provider) -> aiohttp.ClientSession:
        assert self._is_open, "Upstream is entered before the first call and not used after it was left"
        connector = aiohttp.TCPConnector(
            socket_factory=self._guard(provider.network, provider.allow),
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_HOST_MAX,
            keepalive_timeout=KEEPALIVE_S,
            ttl_dns_cache=DNS_TTL_S,
            resolver=self._resolver,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTO_HEADERS,
            auto_decompress=False,
            trust_env=False,
        )
        self._sessions[provider.network, provider.allow] = session
        return session

    def _guard(self, network: Network, allow: tuple[str, ...]) -> aiohttp.SocketFactoryType:
        def open_socket(found: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, (address, port, *_) = found
            own = self.own_addresses
            if any((anywhere, port) in own for anywhere in _ANYWHERE) and _is_of_this_machine(family, address):
                own = own | {(address, port)}
            reason = judge(address, port, network, allow, own)
            if reason is not None:
                raise _Forbidden(reason)
            return socket.socket(family, kind, protocol)

        return open_socket


class _Chunks:
    """An iterator, not a generator: one that is left early has nothing to finish."""

    __slots__ = ("_answer",)

    def __init__(self, answer: UpstreamAnswer) -> None:
        self._answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._answer._next()  # noqa: SLF001 -- the answer's other half
        if not piece:
            raise StopAsyncIteration
        return piece


class _Watches(dict[ResponseHandler, aiohttp.StreamReader]):
    """
    The answer that each open connection carries, so that its reader is told when the connection is gone.

    aiohttp 3.14.5 does not, where a body stops being HTTP (a proxy's error page between two chunks): it hangs up and lets the
    reader wait until the call's time is over. Remove this when the test of a broken chunk passes without it.
    """

    def add(self, protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
        closed = protocol.closed
        if closed is not None and protocol not in self:
            closed.add_done_callback(partial(self._end, protocol))
        self[protocol] = content
        if closed is None or closed.done():
            self._end(protocol)

    def _end(self, protocol: ResponseHandler, closed: "asyncio.Future[None] | None" = None) -> None:
        if closed is not None and not closed.cancelled():
            closed.exception()  # asked for, or asyncio would log that nobody did
        content = self.pop(protocol, None)
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))


class _Forbidden(OSError):
    """What the guard raises. All read the same: of several that differ, aiohttp would make one nameless `OSError`."""

    def __init__(self, reason: str) -> None:
        super().__init__("forbidden")
        self.reason = reason


@lru_cache(maxsize=_URLS_CACHED)
def _timeouts(total_s: float, connect_s: float, first_byte_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=connect_s, sock_read=first_byte_s, ceil_threshold=math.inf)


@lru_cache(maxsize=_URLS_CACHED)
def _target(url: str, network: Network, allow: tuple[str, ...]) -> URL:
    reason = judge_url(url, network, allow)
    if reason is not None:
        raise AddressRefused(reason)
    if _WRITABLE.fullmatch(url) is None:
        raise InvalidRequest("The query string must be percent-encoded.")
    return URL(url, encoded=True)


def _is_of_this_machine(family: int, address: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Only an address of this machine can be bound to.
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _explain(exc: Exception, provider: Provider) -> QuotaRouterError:
    """Translate aiohttp's error."""
    if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, _Forbidden):
        return AddressRefused(f"Provider {provider.name!r}: {exc.os_error.reason}")
    if isinstance(exc, aiohttp.InvalidURL):
        return AddressRefused(f"Provider {provider.name!r}: its host is not a canonical address.")
    if isinstance(exc, ValueError) and not isinstance(exc, (OSError, UnicodeError)):
        return InvalidRequest("A header of this request holds a control character.")
    cause, dispatched = next((cause, dispatched) for kind, cause, dispatched in _CAUSES if isinstance(exc, kind))
    if isinstance(exc, aiohttp.ClientConnectorError) and cause == "unreachable":
        cause = _CAUSES_BY_ERRNO.get(exc.errno or 0, cause)
    return _unavailable(provider, cause, dispatched=dispatched)


def _unavailable(provider: Provider, cause: str, *, dispatched: bool) -> UpstreamUnavailable:
    text = f"Provider {provider.name!r} gave no answer: {_SENTENCES[cause]}."
    return UpstreamUnavailable(text, dispatched=dispatched, cause=cause)

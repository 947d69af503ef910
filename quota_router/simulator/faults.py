"""
Putting an answer on the wire as it should not be.

Law: what is promised by the head is kept, except where breaking it is the fault.
Never: waits for anything but the peer and the delays it was given.
"""

import asyncio
import socket
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from typing import NoReturn

from aiohttp import web

from quota_router.simulator.answers import EVENT_STREAM, JSON, Answer, Dialect
from quota_router.simulator.script import Fault, FaultKind

HTML = "<!DOCTYPE html>\n<html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>\n"
_PIECE_BYTES = 1 << 16


async def send_fault(  # noqa: PLR0911 -- a table of kinds
    request: web.BaseRequest, fault: Fault, answer: Answer, dialect: Dialect, headers: Mapping[str, str]
) -> web.StreamResponse:
    """The answer as *fault* spoils it."""
    is_at_once = fault.after_chunks is None
    match fault.kind:
        case FaultKind.CLOSE_BEFORE_ANSWER:
            return _close(request)
        case FaultKind.RESET if is_at_once:
            return _reset(request)
        case FaultKind.STALL if is_at_once:
            return await _wait_for_the_peer_to_leave()
        case FaultKind.DRIP:
            return await _drip(request, answer, headers, fault.delay_s)
        case FaultKind.CUT_BODY:
            await _begin_body(request, answer, headers)
            return _close(request)
        case FaultKind.TRUNCATED_BODY:
            return _truncate(request, answer, headers)
        case FaultKind.GARBAGE | FaultKind.ERROR_IN_200 | FaultKind.REDIRECT | FaultKind.GZIP_BOMB:
            return await _send_another(request, fault, answer, dialect, headers)
        case _ if answer.is_stream:
            return await _spoil_stream(request, fault, answer, dialect, headers)
        case _:
            return await _spoil_body(request, fault, answer, dialect, headers)


async def _send_another(
    request: web.BaseRequest, fault: Fault, answer: Answer, dialect: Dialect, headers: Mapping[str, str]
) -> web.StreamResponse:
    """A complete answer that is not the right one."""
    match fault.kind:
        case FaultKind.REDIRECT:
            return await send_body(request, b"", {"location": fault.location, **headers}, status=307)
        case FaultKind.GZIP_BOMB:
            told = {"content-type": answer.content_type, "content-encoding": "gzip", **headers}
            return await send_body(request, _bomb(fault.size_bytes), told)
        case FaultKind.GARBAGE if fault.body is None:
            return await send_body(request, HTML.encode(), {"content-type": "text/html", **headers})
        case _:
            body = dialect.error_body(fault.status, fault.code) if fault.body is None else fault.body.encode()
            return await send_body(request, body, {"content-type": JSON, **headers})


async def _spoil_stream(
    request: web.BaseRequest, fault: Fault, answer: Answer, dialect: Dialect, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Begin well, then go wrong after `after_chunks`."""
    response = await begin(request, EVENT_STREAM, headers)
    if fault.after_chunks is not None:
        for piece in (*answer.opening, *answer.chunks[: fault.after_chunks]):
            await response.write(piece)
    match fault.kind:
        case FaultKind.CUT_STREAM:
            return _close(request)
        case FaultKind.RESET:
            return _reset(request)
        case FaultKind.STALL:
            await _wait_for_the_peer_to_leave()
        case FaultKind.HEARTBEATS:
            await _write_forever(response, dialect.HEARTBEAT, fault.delay_s)
        case FaultKind.ERROR_IN_STREAM:
            usual_event = dialect.error_event(request.path, fault.status, fault.code)
            await response.write(usual_event if fault.body is None else fault.body.encode())
        case FaultKind.GIANT_LINE:
            await _write_giant(response, b"data: ", fault.size_bytes, b"")
        case _:
            assert fault.kind is FaultKind.END_STREAM
    await response.write_eof()
    return response


async def _spoil_body(
    request: web.BaseRequest, fault: Fault, answer: Answer, dialect: Dialect, headers: Mapping[str, str]
) -> web.StreamResponse:
    """The nearest thing to a spoilt stream where nothing streams."""
    match fault.kind:
        case FaultKind.ERROR_IN_STREAM:
            return await _send_another(request, fault, answer, dialect, headers)
        case FaultKind.END_STREAM:
            return _truncate(request, answer, headers)
        case FaultKind.HEARTBEATS:
            # Some vendors send blank lines while they think, before a JSON body.
            return await _write_forever(await begin(request, JSON, headers), b"\n", fault.delay_s)
        case FaultKind.GIANT_LINE:
            response = await begin(request, JSON, headers)
            await _write_giant(response, b'{"id":"', fault.size_bytes, b'"}')
            await response.write_eof()
            return response
        case _:
            await _begin_body(request, answer, headers)
            if fault.kind is FaultKind.STALL:
                await _wait_for_the_peer_to_leave()
            return _reset(request) if fault.kind is FaultKind.RESET else _close(request)


async def begin(request: web.BaseRequest, content_type: str, headers: Mapping[str, str]) -> web.StreamResponse:
    """Send the head of a 200."""
    response = web.StreamResponse(headers={"content-type": content_type, **headers})
    await response.prepare(request)
    return response


async def send_body(request: web.BaseRequest, body: bytes, headers: Mapping[str, str], *, status: int = 200) -> web.StreamResponse:
    """Send a whole answer at once."""
    response = web.Response(body=body, status=status, headers=headers)
    await response.prepare(request)
    await response.write_eof()
    return response


async def _begin_body(request: web.BaseRequest, answer: Answer, headers: Mapping[str, str]) -> None:
    """The head of the whole answer, and half its body."""
    body = answer.body
    response = await begin(request, answer.content_type, {"content-length": str(len(body)), **headers})
    await response.write(body[: len(body) // 2])


def _truncate(request: web.BaseRequest, answer: Answer, headers: Mapping[str, str]) -> web.StreamResponse:
    """Half a body whose end is the end of the connection. aiohttp would chunk it, so the head is written by hand."""
    told = {"content-type": answer.content_type, "connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    body = answer.body
    if request.transport is not None:
        request.transport.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body[: len(body) // 2])
    return _close(request)


async def _drip(request: web.BaseRequest, answer: Answer, headers: Mapping[str, str], delay_s: float) -> web.StreamResponse:
    response = await begin(request, answer.content_type, headers)
    body = answer.body
    for position in range(len(body)):
        await asyncio.sleep(delay_s)
        await response.write(body[position : position + 1])
    await response.write_eof()
    return response


async def _write_forever(response: web.StreamResponse, piece: bytes, delay_s: float) -> NoReturn:
    while True:
        await response.write(piece)
        await asyncio.sleep(delay_s)


async def _write_giant(response: web.StreamResponse, start: bytes, size_bytes: int, end: bytes) -> None:
    await response.write(start)
    for position in range(0, size_bytes, _PIECE_BYTES):
        await response.write(b"x" * min(_PIECE_BYTES, size_bytes - position))
    await response.write(end)


def _close(request: web.BaseRequest) -> web.StreamResponse:
    """Close once what was written has gone out. aiohttp finds the connection closed and writes no more."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """With no time to linger, the kernel ends the connection by RST."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


async def _wait_for_the_peer_to_leave() -> NoReturn:
    """The server cancels the handler of a lost connection."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves it")


@cache
def _bomb(size_bytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    blank = b" " * _PIECE_BYTES
    pieces = [packer.compress(blank[: size_bytes - position]) for position in range(0, size_bytes, _PIECE_BYTES)]
    return b"".join((*pieces, packer.flush()))

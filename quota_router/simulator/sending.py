"""
Putting a verdict on the wire as it should be: a refusal, or the right answer at its pace.

Law: one write per event, so that a stream arrives as a stream.
Never: decides what to say.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from quota_router.simulator.answers import EVENT_STREAM, JSON, Answer, Dialect
from quota_router.simulator.faults import begin, send_body, send_fault
from quota_router.simulator.script import Fault, Refusal, Reply
from quota_router.simulator.vendor import Verdict


async def send(request: web.BaseRequest, verdict: Verdict) -> web.StreamResponse:
    """Do as the verdict says; a connection that a fault closes is closed on return."""
    step, answer, headers = verdict.step, verdict.answer, verdict.headers
    if isinstance(step, Refusal):
        return await _send_refusal(request, step, verdict.dialect, headers)
    assert answer is not None
    if isinstance(step, Fault):
        return await send_fault(request, step, answer, verdict.dialect, _with(headers, step.reply.headers))
    return await _send_answer(request, answer, step, _with(headers, step.headers))


async def _send_refusal(
    request: web.BaseRequest, refusal: Refusal, dialect: Dialect, headers: Mapping[str, str]
) -> web.StreamResponse:
    told = {**headers, "content-type": JSON}
    if refusal.retry_after is not None:
        told["retry-after"] = str(refusal.retry_after)
    usual_body = dialect.error_body(refusal.status, refusal.code, refusal.message)
    body = usual_body if refusal.body is None else refusal.body.encode()
    return await send_body(request, body, _with(told, refusal.headers), status=refusal.status)


async def _send_answer(request: web.BaseRequest, answer: Answer, reply: Reply, headers: Mapping[str, str]) -> web.StreamResponse:
    if reply.first_byte_delay_s:
        await asyncio.sleep(reply.first_byte_delay_s)
    if not answer.is_stream:
        return await send_body(request, answer.body, {"content-type": JSON, **headers})
    response = await begin(request, EVENT_STREAM, headers)
    for piece in answer.opening:
        await response.write(piece)
    for piece in answer.chunks:
        if reply.chunk_delay_s:
            await asyncio.sleep(reply.chunk_delay_s)
        await response.write(piece)
    for piece in answer.closing:
        await response.write(piece)
    await response.write_eof()
    return response


def _with(headers: Mapping[str, str], scripted: Mapping[str, str]) -> dict[str, str]:
    """Scripted headers replace ours, in whatever case they are written; ours are in lower case."""
    return {**headers, **{name.lower(): value for name, value in scripted.items()}}

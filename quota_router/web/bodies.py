"""
Reading a request's body, and telling errors.

Law: a body is read once, after authentication, within a bound of size and of time; an error is told in the dialect of its path, and
no traceback reaches anyone.
"""

import asyncio
import math
from collections.abc import Mapping

import msgspec
from aiohttp import web

from quota_router.core.catalog import Family
from quota_router.core.verdict import STOP_RETRYING_AFTER_S
from quota_router.dialects import dialect_of
from quota_router.errors import (
    BodyTooLarge,
    CallerGone,
    EncodingRefused,
    InvalidRequest,
    NoUsableProvider,
    QuotaRouterError,
    RequestError,
)

BODY_TIMEOUT_S = 30
"""A body that is not here by then is not coming."""


class BodyTooSlow(RequestError):
    """The body did not arrive in time. Send it again."""

    status = 408
    code = "body_too_slow"


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """
    Read the whole body.

    Raises:
        EncodingRefused, BodyTooLarge, BodyTooSlow, CallerGone.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise EncodingRefused
    if (request.content_length or 0) > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes. Raise `[server] max_body_bytes`, or send less.")
    try:
        if request.content.is_eof():  # it came with its headers, as most do: no timer is needed
            return await request.read()
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise BodyTooSlow from None
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes. Raise `[server] max_body_bytes`, or send less.") from None
    except (ConnectionError, web.RequestPayloadError) as gone:
        raise CallerGone from gone


def id_headers(call_id: str) -> dict[str, str]:
    """Name the call, as the SDKs of both families look for it and as we do."""
    return {"x-request-id": call_id, "request-id": call_id, "x-quota-router-call": call_id}


def tell(error: QuotaRouterError, dialect: Family | None, call_id: str) -> web.Response:
    """Answer with *error* in that dialect; `None`: as `application/problem+json` (RFC 9457)."""
    headers = {**id_headers(call_id), **_retry_headers(error)}
    if isinstance(error, NoUsableProvider):
        skipped = ",".join(f"{rung['provider']}={rung['reason']}" for rung in error.rungs)
        headers["x-quota-router-skipped"] = skipped
    if dialect is not None:
        body, content_type = dialect_of(dialect).render_error(error, call_id), "application/json"
    else:
        body, content_type = msgspec.json.encode(_problem(error, call_id)), "application/problem+json"
    return web.Response(status=error.status, body=body, headers=headers, content_type=content_type)


def _retry_headers(error: QuotaRouterError) -> Mapping[str, str]:
    """Say when to come back, never clamped; a client that would have to wait long is told not to retry by itself."""
    after_s = error.retry_after_s
    headers = {} if after_s is None else {"Retry-After": str(max(1, math.ceil(after_s)))}
    waits_long = after_s is None or after_s > STOP_RETRYING_AFTER_S
    if error.status in {409, 429} or (error.status == web.HTTPServiceUnavailable.status_code and waits_long):
        headers["x-should-retry"] = "false" if waits_long else "true"
    return headers


def _problem(error: QuotaRouterError, call_id: str) -> Mapping[str, object]:
    problem: dict[str, object] = {
        "type": f"urn:quota-router:{error.code}",
        "title": " ".join((type(error).__doc__ or error.code).split()).partition(". ")[0],
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "call_id": call_id,
    }
    if isinstance(error, InvalidRequest) and error.param is not None:
        problem["param"] = error.param
    if isinstance(error, NoUsableProvider):
        problem |= {"outcome": "none_usable", "rungs": error.rungs, "retry_after_s": error.retry_after_s}
    return problem


def dialect_at(path: str) -> Family | None:
    """In which dialect an error on a path without a route is told: that of its neighbours."""
    if not path.startswith("/v1/"):
        return None
    return Family.ANTHROPIC if path.startswith("/v1/messages") else Family.OPENAI

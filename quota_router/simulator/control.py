"""
Steering the simulator from another process.

    POST /_sim/script    {"key": null | "…", "steps": [{"step": "reply" | "refusal" | "fault", …}]}
    GET  /_sim/requests  {"counters": {…}, "items": [{"path", "key", "model", "body", …}]}
    POST /_sim/reset

Law: does nothing that the `Simulator` object does not offer; is never recorded as a request.
"""

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from quota_router.simulator.answers import JSON, to_json
from quota_router.simulator.script import step_from_json
from quota_router.simulator.vendor import Seen

if TYPE_CHECKING:
    from quota_router.simulator.server import Simulator

PREFIX = "/_sim/"


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    key: str | None
    steps: list[dict[str, Any]]


async def answer(simulator: "Simulator", request: web.BaseRequest) -> web.Response:
    """Carry out one order: 200 with JSON, 400 with the reason, or 404."""
    match request.method, request.path.removeprefix(PREFIX):
        case "POST", "script":
            try:
                order = msgspec.json.decode(await request.read(), type=_Order)
                simulator.script(order.key, *(step_from_json(step) for step in order.steps))
            except ValueError as exc:
                return _json({"error": str(exc)}, status=400)
            return _json({"queued": len(order.steps)})
        case "GET", "requests":
            return _json({"counters": simulator.counters, "items": [_item(seen) for seen in simulator.requests]})
        case "POST", "reset":
            simulator.reset()
            return _json({})
        case _:
            return _json({"error": "there is script, requests and reset"}, status=404)


def _item(seen: Seen) -> dict[str, Any]:
    plain = {name: getattr(seen, name) for name in Seen.__slots__}
    return {**plain, "headers": dict(seen.headers), "body": seen.body.decode(errors="replace")}


def _json(value: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(body=to_json(value), status=status, content_type=JSON)

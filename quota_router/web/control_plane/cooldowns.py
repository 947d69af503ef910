"""
Clearing what is left alone for now, one rung or one provider at a time.

Law: it works whoever manages the provider, and stands on the trail.
"""

from http import HTTPMethod

from aiohttp import web

from quota_router.store.cooldown_edits import clear_cooldown
from quota_router.store.trail import Signature
from quota_router.web.control_plane.live import show_cooldown
from quota_router.web.routes import CALLER, SERVICES, Route, Scope
from quota_router.web.strict import answer, read_query

COOLDOWNS = "/api/v1/cooldowns"


def routes() -> list[Route]:
    """List the paths; a rung is named by its provider, then its model."""
    ends = (f"{COOLDOWNS}/{{provider}}", f"{COOLDOWNS}/{{provider}}/{{model:.+}}")
    return [Route(method=HTTPMethod.DELETE, path=path, handler=_clear_cooldown, scope=Scope.ADMIN) for path in ends]


async def _clear_cooldown(request: web.Request) -> web.Response:
    read_query(request, {})
    provider, model = request.match_info["provider"], request.match_info.get("model", "")
    signature = Signature(admin=request[CALLER].name)
    gone = await request.app[SERVICES].lane.edit(clear_cooldown(provider, model, signature, show_cooldown))
    return answer({"cleared": gone})

"""
Callers, and the trail of who edited what.

Law: a token that we draw is told once, in the answer that made it; what is kept is its digest, and no answer shows that.
"""

import secrets
from collections.abc import Mapping
from functools import partial
from http import HTTPMethod
from typing import Any

from aiohttp import web

from quota_router.core.catalog import Caller, Catalog
from quota_router.core.edits import callers
from quota_router.core.edits.common import find
from quota_router.store.trail import FILTERS
from quota_router.web.auth import digest
from quota_router.web.control_plane.editing import Shown, edit, read_if_match, tell_created, tell_row
from quota_router.web.control_plane.pages import show_page
from quota_router.web.control_plane.shapes import CallerChanged, CallerCreated, said
from quota_router.web.routes import SERVICES, Handler, Route, Scope
from quota_router.web.strict import answer, page_limit, printable, read_query, read_shape

CALLERS = "/api/v1/callers"
TOKEN_BYTES = 32
LINES_SHOWN = 100
"""Of the trail, on a page, when `limit` is not said."""


def routes() -> list[Route]:
    """List the paths of callers, and the trail."""
    paths: list[tuple[HTTPMethod, str, Handler, Scope]] = [
        (HTTPMethod.GET, CALLERS, _list_callers, Scope.READ),
        (HTTPMethod.POST, CALLERS, _create_caller, Scope.ADMIN),
        (HTTPMethod.GET, f"{CALLERS}/{{name}}", _tell_caller, Scope.READ),
        (HTTPMethod.PATCH, f"{CALLERS}/{{name}}", _change_caller, Scope.ADMIN),
        (HTTPMethod.DELETE, f"{CALLERS}/{{name}}", _delete_caller, Scope.ADMIN),
        (HTTPMethod.GET, "/api/v1/audit", _list_trail, Scope.ADMIN),
    ]
    return [Route(method=method, path=path, handler=handler, scope=scope) for method, path, handler, scope in paths]


async def _list_callers(request: web.Request) -> web.Response:
    return answer(show_page(request, request.app[SERVICES].lane.catalog.callers, _show_caller))


async def _tell_caller(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(_show_caller_of(request.app[SERVICES].lane.catalog, request.match_info["name"]))


async def _create_caller(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, CallerCreated)
    table, token = said(asked, "name"), None
    if asked.token_sha256 is None:
        token = f"qr_{secrets.token_urlsafe(TOKEN_BYTES)}"
        table["token_sha256"] = digest(token)
    edited = await edit(request, partial(callers.create_caller, name=asked.name, table=table))
    shown = _show_caller_of(request.app[SERVICES].lane.catalog, asked.name)
    # A token that was told before is known to nobody here: whoever lost it deletes the caller and makes it anew.
    told = {"token": None if edited.replayed is not None else token}
    return tell_created(CALLERS, asked.name, shown, edited, told)


async def _change_caller(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    patch = said(await read_shape(request, CallerChanged))
    await edit(request, partial(callers.change_caller, name=name, patch=patch, expected=expected))
    return tell_row(_show_caller_of(request.app[SERVICES].lane.catalog, name))


async def _delete_caller(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    await edit(request, partial(callers.delete_caller, name=name, expected=expected))
    return answer({"deleted": name})


def _show_caller_of(catalog: Catalog, name: str) -> Shown:
    caller = find("caller", name, catalog.callers)
    return _show_caller(caller), caller.version


def _show_caller(caller: Caller) -> Mapping[str, Any]:
    return {
        "name": caller.name,
        "scopes": caller.scopes,
        "enabled": caller.enabled,
        "managed_by": caller.managed_by,
        "version": caller.version,
    }


async def _list_trail(request: web.Request) -> web.Response:
    asked = read_query(request, {"limit": page_limit, "cursor": str, **dict.fromkeys(FILTERS, printable)})
    matching = {name: asked[name] for name in FILTERS if name in asked}
    trail = request.app[SERVICES].trail
    return answer(await trail.page(limit=asked.get("limit", LINES_SHOWN), cursor=asked.get("cursor"), matching=matching))

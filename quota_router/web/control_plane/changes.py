"""
Making the catalog what a file says: the daemon's own, or one that is sent. And the way back: the catalog as such a file.

Law: all of it or nothing, in one transaction; what changed is answered, row by row.
Never: reads a file whose path a request names.
"""

from collections.abc import Iterable
from http import HTTPMethod

from aiohttp import web

from quota_router.core.exported import export_catalog
from quota_router.core.toml_text import write_toml
from quota_router.errors import BodyTooLarge, InvalidRequest
from quota_router.store.catalog import Change
from quota_router.web.bodies import read_body
from quota_router.web.routes import CALLER, SERVICES, Route, Scope
from quota_router.web.strict import Strict, answer, flag, read_query, read_shape

CATALOG_MAX_BYTES = 1_048_576
"""Of a catalog that is sent: thousands of models."""


class ReloadAsked(Strict):
    """Read the file again. `dry_run`: only say what would change; `prune`: delete what it no longer names."""

    dry_run: bool = False
    prune: bool = False


def routes() -> list[Route]:
    """List what changes the catalog."""
    paths = {"/api/v1/reload": _reload, "/api/v1/apply": _apply}
    return [
        *(Route(method=HTTPMethod.POST, path=path, handler=handler, scope=Scope.ADMIN) for path, handler in paths.items()),
        # References to credentials, variables of commands and digests of tokens stand in it: not for every reader.
        Route(method=HTTPMethod.GET, path="/api/v1/export", handler=_export, scope=Scope.ADMIN),
    ]


async def _reload(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, ReloadAsked) if request.can_read_body else ReloadAsked()
    return answer(_show(await request.app[SERVICES].reload(asked.dry_run, asked.prune, request[CALLER].name)))


async def _apply(request: web.Request) -> web.Response:
    asked = read_query(request, {"dry_run": flag, "prune": flag})
    body = await read_body(request, CATALOG_MAX_BYTES)
    if len(body) > CATALOG_MAX_BYTES:
        raise BodyTooLarge(f"The body is larger than {CATALOG_MAX_BYTES} bytes. Put so large a catalog in the daemon's own file.")
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest("The body is not UTF-8 text. Send the catalog as TOML.") from exc
    if not text.strip():
        # It would be a catalog of nothing: a slip of the pen must not disable every provider.
        raise InvalidRequest("The body is empty. Send the catalog as TOML.")
    dry_run, prune = asked.get("dry_run", False), asked.get("prune", False)
    return answer(_show(await request.app[SERVICES].apply_text(text, dry_run, prune, request[CALLER].name)))


async def _export(request: web.Request) -> web.Response:
    read_query(request, {})
    tables, left_out = export_catalog(request.app[SERVICES].lane.catalog)
    return answer({"text": write_toml(tables), "left_out": left_out})


def _show(changes: Iterable[Change]) -> dict[str, object]:
    return {"changes": [change.show() for change in changes]}

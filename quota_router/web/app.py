"""
The application: every route, behind one guard.

Law: Host, then route, then token, then scope, and only then a handler; a route that is not in the table does not exist.
Never: looks at a path as text to decide who may pass; the matched route says it.
"""

import logging
from collections.abc import Iterable, Mapping

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from quota_router.errors import (
    InvalidRequest,
    MethodNotAllowed,
    Misdirected,
    NotFound,
    QuotaRouterError,
)
from quota_router.web import control_plane, data_plane, decision_plane, operations
from quota_router.web.auth import Authenticator, permit
from quota_router.web.bodies import dialect_at, tell
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Route, Scope, Services

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

log = structlog.get_logger()


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the traceback that aiohttp logs of everybody who sends something else than HTTP: they are told 400, that is enough."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logging.getLogger("aiohttp.server").addFilter(_is_news)


def build_app(services: Services, authenticator: Authenticator, allowed_hosts: Iterable[str]) -> web.Application:
    """
    Put the application together.

    Args:
        services: what the handlers use.
        authenticator: knows the tokens.
        allowed_hosts: names, without port, that a Host header may carry besides the local ones.
    """
    routes: dict[web.AbstractRoute, Route] = {}
    hosts = frozenset(host.lower() for host in (*LOCAL_HOSTS, *allowed_hosts))
    app = web.Application(
        middlewares=[_guard(routes, authenticator, hosts)],
        client_max_size=services.max_body_bytes,
        handler_args={"access_log": None, "auto_decompress": False},  # a compressed body is refused, not unpacked
    )
    app[SERVICES] = services
    for route in all_routes():
        routes[app.router.add_route(route.method, route.path, route.handler)] = route
    return app


def all_routes() -> list[Route]:
    """List every route there is, each with its scope and dialect."""
    return [*data_plane.routes(), *decision_plane.routes(), *control_plane.routes(), *operations.routes()]


def _guard(routes: Mapping[web.AbstractRoute, Route], authenticator: Authenticator, hosts: frozenset[str]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        services = request.app[SERVICES]
        call_id = request[CALL_ID] = services.new_id()
        route = routes.get(request.match_info.route)
        dialect = route.dialect if route is not None else dialect_at(request.path)
        try:
            _check_host(request, hosts)
            if route is None:
                return tell(_nothing_here(request), dialect, call_id)
            if route.scope is not Scope.PUBLIC:
                caller = request[CALLER] = authenticator.authenticate(request.headers, services.lane.catalog)
                permit(caller, route.scope)
            return await handler(request)
        except QuotaRouterError as error:
            return tell(error, dialect, call_id)
        except Exception as error:  # the boundary: whatever broke is logged here, and nobody outside sees it
            log.exception("a handler broke", action="handler_failed", call_id=call_id, error=type(error).__name__)
            return tell(QuotaRouterError(), dialect, call_id)

    return guard


def _check_host(request: web.Request, hosts: frozenset[str]) -> None:
    """
    Refuse names that are not ours: a page in somebody's browser may have rebound its name to our address.

    Raises:
        Misdirected: the Host is not allowed. InvalidRequest: not HTTP/1.
    """
    if request.version not in {HttpVersion10, HttpVersion11}:
        raise InvalidRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    host = request.headers.get("Host", "").lower()
    name = host[: host.rindex(":")] if ":" in host and not host.endswith("]") else host
    if name.rstrip(".") not in hosts:
        log.warning("a request for a host that is not ours", action="host_refused", host=host[:200])
        shown = name[:100] if name.isprintable() else "?"
        raise Misdirected(f'This daemon does not answer for {shown!r}. If it should: `[server] allowed_hosts = ["{shown}"]`.')


def _nothing_here(request: web.Request) -> QuotaRouterError:
    """Say what is wrong with a path that no route has, or a method that the path does not take."""
    allowed = request.match_info.http_exception
    if isinstance(allowed, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(f"{request.path} takes {', '.join(sorted(allowed.allowed_methods))}, not {request.method[:20]}.")
    if request.path.startswith("/v1/"):
        return NotFound(
            f"{request.path[:200]} is not served here: quota_router relays chat/completions, completions, responses, embeddings, "
            "messages, messages/count_tokens and models."
        )
    return NotFound(f"There is nothing at {request.path[:200]}. Paths begin with /v1 (calls) or /api/v1 (decisions and control).")

"""
Is it alive, is it ready.

Law: `/healthz` touches nothing; `/readyz` says in words what is missing, and exhaustion is never a reason.
"""

from http import HTTPMethod, HTTPStatus

import msgspec
from aiohttp import web

from quota_router.core.catalog import Catalog
from quota_router.web.routes import SERVICES, Route, Scope, Services


def routes() -> list[Route]:
    """List the public routes of an operator's probes."""
    return [
        Route(method=HTTPMethod.GET, path="/healthz", handler=_healthz, scope=Scope.PUBLIC),
        Route(method=HTTPMethod.GET, path="/readyz", handler=_readyz, scope=Scope.PUBLIC),
        Route(method=HTTPMethod.HEAD, path="/", handler=_root, scope=Scope.PUBLIC),
    ]


async def _root(request: web.Request) -> web.Response:  # noqa: ARG001 -- a handler's signature
    return web.Response()


async def _healthz(request: web.Request) -> web.Response:  # noqa: ARG001 -- likewise
    return web.json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    reasons = _unready(request.app[SERVICES])
    body = msgspec.json.encode({"status": "unready" if reasons else "ready", "reasons": reasons})
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return web.Response(status=status, body=body, content_type="application/json")


def _unready(services: Services) -> list[str]:
    reasons = []
    if services.is_draining:
        reasons.append("shutting down")
    if not services.lane.is_alive:
        reasons.append("the ledger is closed")
        return reasons
    if services.lane.trouble is not None:
        reasons.append(services.lane.trouble)
        return reasons
    if not _can_serve(services.lane.catalog, services):
        reasons.append("no enabled attachment has a credential: add a provider to the configuration, or set its key")
    return reasons


def _can_serve(catalog: Catalog, services: Services) -> bool:
    providers = catalog.providers
    return any(
        model.enabled
        and attachment.enabled
        and providers[attachment.provider].enabled
        and services.has_credential(providers[attachment.provider].credential_ref)
        for model in catalog.models.values()
        for attachment in model.attachments
    )

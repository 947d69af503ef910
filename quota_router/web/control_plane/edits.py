"""
Editing providers, models with their ladders, and limits.

Law: each path says what it edits; what came out is answered as a read would tell it.
Never: knows what may be edited: `core/edits` refuses.
"""

from functools import partial
from http import HTTPMethod

from aiohttp import web

from quota_router.core.catalog import Catalog
from quota_router.core.edits import limits, models, providers
from quota_router.web.control_plane.catalog import show_attachments, show_limit, show_model, show_provider
from quota_router.web.control_plane.editing import check_credentials, edit, read_if_match, tell_created, tell_row
from quota_router.web.control_plane.shapes import (
    LadderReplaced,
    LimitChanged,
    LimitCreated,
    ModelChanged,
    ModelCreated,
    PauseAsked,
    ProviderChanged,
    ProviderCreated,
    said,
)
from quota_router.web.routes import SERVICES, Handler, Route, Scope, Services
from quota_router.web.strict import answer, read_query, read_shape

PROVIDERS, MODELS, LIMITS = "/api/v1/providers", "/api/v1/models", "/api/v1/limits"
_NAME = "{name:.+}"


def routes() -> list[Route]:
    """List what edits these rows."""
    paths: list[tuple[HTTPMethod, str, Handler]] = [
        (HTTPMethod.POST, PROVIDERS, _create_provider),
        (HTTPMethod.POST, f"{PROVIDERS}/{_NAME}/pause", _pause_provider),
        (HTTPMethod.POST, f"{PROVIDERS}/{_NAME}/resume", _resume_provider),
        (HTTPMethod.PATCH, f"{PROVIDERS}/{_NAME}", _change_provider),
        (HTTPMethod.DELETE, f"{PROVIDERS}/{_NAME}", _delete_provider),
        (HTTPMethod.POST, MODELS, _create_model),
        (HTTPMethod.PUT, f"{MODELS}/{_NAME}/attachments", _replace_attachments),
        (HTTPMethod.PATCH, f"{MODELS}/{_NAME}", _change_model),
        (HTTPMethod.DELETE, f"{MODELS}/{_NAME}", _delete_model),
        (HTTPMethod.POST, LIMITS, _create_limit),
        (HTTPMethod.PATCH, f"{LIMITS}/{_NAME}", _change_limit),
        (HTTPMethod.DELETE, f"{LIMITS}/{_NAME}", _delete_limit),
    ]
    return [Route(method=method, path=path, handler=handler, scope=Scope.ADMIN) for method, path, handler in paths]


# --- providers --------------------------------------------------------------------------------------------------------


async def _create_provider(request: web.Request) -> web.Response:
    read_query(request, {})
    asked, services = await read_shape(request, ProviderCreated), request.app[SERVICES]
    table = said(asked, "name")
    check_credentials(request, table)
    edited = await edit(request, partial(providers.create_provider, name=asked.name, table=table, host=_host(services)))
    return tell_created(PROVIDERS, asked.name, await show_provider(services, asked.name), edited)


async def _change_provider(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, services, name = read_if_match(request), request.app[SERVICES], request.match_info["name"]
    patch = said(await read_shape(request, ProviderChanged))
    check_credentials(request, patch)
    host = _host(services)
    await edit(request, partial(providers.change_provider, name=name, patch=patch, expected=expected, host=host))
    return tell_row(await show_provider(services, name))


async def _pause_provider(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, PauseAsked) if request.can_read_body else PauseAsked()
    name = request.match_info["name"]
    await edit(request, partial(providers.pause_provider, name=name, reason=asked.reason))
    return tell_row(await show_provider(request.app[SERVICES], name))


async def _resume_provider(request: web.Request) -> web.Response:
    read_query(request, {})
    name = request.match_info["name"]
    await edit(request, partial(providers.resume_provider, name=name))
    return tell_row(await show_provider(request.app[SERVICES], name))


async def _delete_provider(request: web.Request) -> web.Response:
    """Answer with what went with it: models that lost a rung, models that lost their last one, limits that count nothing now."""
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    told: list[providers.Deleted] = []

    def plan(catalog: Catalog) -> Catalog:
        told[:] = [providers.delete_provider(catalog, name, expected)]
        return told[0].catalog

    await edit(request, plan)
    (gone,) = told
    went = {"models_changed": gone.shortened, "models_disabled": gone.disabled, "limits_idle": gone.idle_limits}
    return answer({"deleted": name, **went})


def _host(services: Services) -> providers.Host:
    return providers.Host(networks=services.api_networks, pollers=services.poller_presets)


# --- models -----------------------------------------------------------------------------------------------------------


async def _create_model(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, ModelCreated)
    edited = await edit(request, partial(models.create_model, name=asked.name, table=said(asked, "name")))
    return tell_created(MODELS, asked.name, await show_model(request.app[SERVICES], asked.name), edited)


async def _change_model(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    patch = said(await read_shape(request, ModelChanged))
    await edit(request, partial(models.change_model, name=name, patch=patch, expected=expected))
    return tell_row(await show_model(request.app[SERVICES], name))


async def _replace_attachments(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    patch = said(await read_shape(request, LadderReplaced))
    await edit(request, partial(models.change_model, name=name, patch=patch, expected=expected))
    return tell_row(await show_attachments(request.app[SERVICES], name))


async def _delete_model(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    told: list[models.Deleted] = []

    def plan(catalog: Catalog) -> Catalog:
        told[:] = [models.delete_model(catalog, name, expected)]
        return told[0].catalog

    await edit(request, plan)
    (gone,) = told
    return answer({"deleted": name, "limits_idle": gone.idle_limits})


# --- limits -----------------------------------------------------------------------------------------------------------


async def _create_limit(request: web.Request) -> web.Response:
    read_query(request, {})
    asked = await read_shape(request, LimitCreated)
    named: list[str] = []

    def plan(catalog: Catalog) -> Catalog:
        created, name = limits.create_limit(catalog, asked.kind, asked.name, said(asked, "kind", "name"))
        named[:] = [name]
        return created

    edited = await edit(request, plan)
    name = edited.replayed or named[0]
    return tell_created(LIMITS, name, await show_limit(request.app[SERVICES], name), edited)


async def _change_limit(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    patch = said(await read_shape(request, LimitChanged))
    await edit(request, partial(limits.change_limit, name=name, patch=patch, expected=expected))
    return tell_row(await show_limit(request.app[SERVICES], name))


async def _delete_limit(request: web.Request) -> web.Response:
    read_query(request, {})
    expected, name = read_if_match(request), request.match_info["name"]
    await edit(request, partial(limits.delete_limit, name=name, expected=expected))
    return answer({"deleted": name})

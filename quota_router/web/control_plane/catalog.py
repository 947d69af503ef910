"""
What is configured, and how it is doing: providers, models, limits, and all of it at a glance.

Law: each answer shows one snapshot of the lane.
Never: shows a credential or its reference.
"""

from collections import Counter
from datetime import datetime
from http import HTTPMethod
from typing import Any

from aiohttp import web

from quota_router import __version__
from quota_router.core.catalog import Attachment, Catalog, Model, Provider
from quota_router.core.edits.common import find
from quota_router.core.exported import price_keys
from quota_router.core.limits import Limit, Unit
from quota_router.core.pricing import format_usd
from quota_router.core.shares import show_decimal
from quota_router.store.reports import show_instant
from quota_router.store.state import State
from quota_router.store.survey import Status, Survey
from quota_router.web.control_plane.editing import Shown, tell_row
from quota_router.web.control_plane.live import show_providers, take_survey
from quota_router.web.control_plane.pages import show_page
from quota_router.web.routes import SERVICES, Route, Scope, Services
from quota_router.web.strict import answer, read_query


def routes() -> list[Route]:
    """List the reads of the catalog."""
    paths = {
        "/api/v1/providers": _list_providers,
        "/api/v1/providers/{name:.+}": _tell_provider,
        "/api/v1/models": _list_models,
        "/api/v1/models/{name:.+}/attachments": _list_attachments,
        "/api/v1/models/{name:.+}": _tell_model,
        "/api/v1/limits": _list_limits,
        "/api/v1/limits/{name:.+}": _tell_limit,
        "/api/v1/status": _tell_status,
    }
    return [Route(method=HTTPMethod.GET, path=path, handler=handler, scope=Scope.READ) for path, handler in paths.items()]


async def _list_providers(request: web.Request) -> web.Response:
    survey, catalog = await _survey(request.app[SERVICES])
    counts = _count_models(catalog)
    return answer(show_page(request, catalog.providers, lambda provider: _show_provider(provider, survey, counts)))


async def _tell_provider(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(await show_provider(request.app[SERVICES], request.match_info["name"]))


async def _list_models(request: web.Request) -> web.Response:
    survey, catalog = await _survey(request.app[SERVICES])
    return answer(show_page(request, catalog.models, lambda model: _show_model(model, survey)))


async def _tell_model(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(await show_model(request.app[SERVICES], request.match_info["name"]))


async def _list_attachments(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(await show_attachments(request.app[SERVICES], request.match_info["name"]))


async def _list_limits(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    state, now = await services.lane.snapshot(), services.clock()
    limits = {limit.name: limit for limit in state.catalog.limits}
    return answer(show_page(request, limits, lambda limit: _show_limit(limit, state, now)))


async def _tell_limit(request: web.Request) -> web.Response:
    read_query(request, {})
    return tell_row(await show_limit(request.app[SERVICES], request.match_info["name"]))


async def _tell_status(request: web.Request) -> web.Response:
    read_query(request, {})
    services = request.app[SERVICES]
    survey, catalog = await _survey(services)
    state = survey.state
    return answer(
        {
            "state": "draining" if services.is_draining else "ok",
            "version": __version__,
            "at": show_instant(survey.now),
            "calls_running": len(services.router.underway),
            "holds_open": len(state.holds),
            "journal": {"name": state.journal, "seq": state.head.seq, "hash": state.head.hash.hex()},
            "epoch": catalog.epoch,
            "providers": show_providers(survey, services.pollers.watched),
            "models": {name: _is_usable(catalog.models[name], survey) for name in sorted(catalog.models)},
        }
    )


async def _survey(services: Services) -> tuple[Survey, Catalog]:
    survey = await take_survey(services)
    return survey, survey.state.catalog


# --- one of them --------------------------------------------------------------------------------------------------------


async def show_provider(services: Services, name: str) -> Shown:
    """A provider and its version. Raises `NotFound`."""
    survey, catalog = await _survey(services)
    provider = find("provider", name, catalog.providers)
    return _show_provider(provider, survey, _count_models(catalog)), provider.version


async def show_model(services: Services, name: str) -> Shown:
    """A model with its attachments in order, and its version. Raises `NotFound`."""
    survey, catalog = await _survey(services)
    model = find("model", name, catalog.models)
    return _show_model(model, survey), model.version


async def show_attachments(services: Services, name: str) -> Shown:
    """A model's attachments in order, and the model's version. Raises `NotFound`."""
    survey, catalog = await _survey(services)
    model = find("model", name, catalog.models)
    return {"items": [_show_attachment(rung, model, survey) for rung in model.attachments], "next": None}, model.version


async def show_limit(services: Services, name: str) -> Shown:
    """A limit with what its window has taken, and its version. Raises `NotFound`."""
    state = await services.lane.snapshot()
    limit = find("limit", name, {known.name: known for known in state.catalog.limits})
    return _show_limit(limit, state, services.clock()), limit.version


# --- shapes -------------------------------------------------------------------------------------------------------------


def _count_models(catalog: Catalog) -> Counter[str]:
    return Counter(attachment.provider for model in catalog.models.values() for attachment in model.attachments)


def _show_provider(provider: Provider, survey: Survey, counts: Counter[str]) -> dict[str, Any]:
    return {
        "name": provider.name,
        "display_name": provider.display_name,
        "description": provider.description,
        "family": provider.family,
        "vendor": provider.vendor,
        "account": provider.account,
        "base_url": provider.base_url,
        "enabled": provider.enabled,
        "has_credential": survey.holds_credential(provider),
        "network": provider.network,
        "allow": provider.allow,
        "billing": provider.billing,
        "model": provider.default_upstream_model,
        "reserve": show_decimal(provider.reserve),
        "pause_at": None if provider.pause_at is None else show_decimal(provider.pause_at),
        "pace": provider.pace,
        "quota_sources": provider.quota_sources,
        "pollers": [poller.name for poller in provider.pollers],
        "command": provider.is_command,
        "paused": provider.paused,
        "paused_reason": provider.paused_reason,
        "models": counts[provider.name],
        "status": survey.status_of(provider),
        "managed_by": provider.managed_by,
        "version": provider.version,
    }


def _show_model(model: Model, survey: Survey) -> dict[str, Any]:
    return {
        "name": model.name,
        "display_name": model.display_name,
        "family": model.family,
        "strategy": model.strategy,
        "aliases": model.aliases,
        "capabilities": model.capabilities,
        "tags": model.tags,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "fallbacks": model.fallbacks,
        "prices": price_keys(model.price),
        "attachments": [_show_attachment(attachment, model, survey) for attachment in model.attachments],
        "usable": _is_usable(model, survey),
        "managed_by": model.managed_by,
        "version": model.version,
    }


def _show_attachment(attachment: Attachment, model: Model, survey: Survey) -> dict[str, Any]:
    provider = survey.state.catalog.providers[attachment.provider]
    return {
        "provider": attachment.provider,
        "display_name": provider.display_name,
        "description": provider.description,
        "family": provider.family,
        "priority": attachment.priority,
        "weight": attachment.weight,
        "upstream_model": attachment.upstream_model,
        "prices": price_keys(attachment.price),
        "unmetered": attachment.unmetered,
        "enabled": attachment.enabled,
        "has_credential": survey.holds_credential(provider),
        "status": survey.status_of_rung(attachment, model),
    }


def _is_usable(model: Model, survey: Survey) -> bool:
    """Whether a small call would find a rung of the model itself now."""
    return any(survey.status_of_rung(attachment, model) is Status.OK for attachment in model.attachments)


def _show_limit(limit: Limit, state: State, now: datetime) -> dict[str, Any]:
    """Show a limit and its window; a first-use window that nobody has opened has no times."""
    gauge = state.gauge(limit, now)
    start, end = (None, None) if gauge.opens else (gauge.window_start, gauge.window_end)
    return {
        "name": limit.name,
        "kind": limit.kind,
        "subject": limit.subject,
        "unit": limit.unit,
        "window": limit.window,
        "anchor": limit.anchor,
        "timezone": limit.timezone,
        "enforcement": limit.enforcement,
        "limit": format_usd(limit.limit) if limit.unit is Unit.USD else limit.limit,
        "posted": gauge.posted,
        "held": gauge.held,
        "remaining": gauge.remaining,
        "window_start": start and show_instant(start),
        "window_end": end and show_instant(end),
        "managed_by": limit.managed_by,
        "version": limit.version,
    }

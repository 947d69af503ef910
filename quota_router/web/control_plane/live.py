"""
What upstreams tell of themselves, as we believe it now: readings, cooldowns, and how each provider is doing.

Law: each answer shows one moment. What is not known is `null`, never 0; a number is shown with its age and its source.
Never: shows a credential, or what an upstream wrote.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from http import HTTPMethod
from typing import Any

from aiohttp import web

from quota_router.core.catalog import Provider
from quota_router.core.forecast import Forecast
from quota_router.core.health import Cooldown
from quota_router.core.outlook import Outlook, WindowState, binding_keys, restraint_word
from quota_router.core.pricing import format_usd
from quota_router.core.readings import PPM, Reading, ReadingUnit
from quota_router.core.restraints import caution_of
from quota_router.polling import Watch
from quota_router.store.reports import show_instant
from quota_router.store.survey import Status, Survey
from quota_router.web.control_plane.pages import show_page
from quota_router.web.routes import SERVICES, Route, Scope, Services
from quota_router.web.strict import answer

_BETWEEN = "\n"
"""Parts what a row is known by: no name holds it."""


def routes() -> list[Route]:
    """List the reads of what was told."""
    paths = {"/api/v1/readings": _list_readings, "/api/v1/cooldowns": _list_cooldowns}
    return [Route(method=HTTPMethod.GET, path=path, handler=handler, scope=Scope.READ) for path, handler in paths.items()]


async def take_survey(services: Services) -> Survey:
    """Look at the ledger of this moment."""
    return Survey(
        state=await services.lane.snapshot(),
        now=services.clock(),
        has_credential=services.has_credential,
        stale_after_s=services.stale_after_s,
    )


async def _list_readings(request: web.Request) -> web.Response:
    survey = await take_survey(request.app[SERVICES])
    found: dict[str, tuple[Reading, bool]] = {}
    for account in survey.state.readings.by_account.values():
        for key, known in account.items():
            reading = known.seen.believed(survey.now) or known.seen.newest
            if reading is not None:
                is_stale = reading.is_over(survey.now) or known.seen.is_stale(survey.now, survey.stale_after_s)
                found[_BETWEEN.join(key)] = reading, is_stale
    return answer(show_page(request, found, lambda row: {**show_reading(row[0]), "stale": row[1]}))


async def _list_cooldowns(request: web.Request) -> web.Response:
    survey = await take_survey(request.app[SERVICES])
    found = {_BETWEEN.join(key): cooldown for key, cooldown in survey.state.cooldowns.items() if not cooldown.is_stale(survey.now)}
    return answer(show_page(request, found, lambda cooldown: show_cooldown(cooldown, survey.now)))


def show_providers(survey: Survey, watched: Collection[Watch]) -> dict[str, Any]:
    """How each provider is doing, with its account's windows and what is polled for it."""
    providers = survey.state.catalog.providers
    return {name: _show_provider(provider, survey, watched) for name, provider in sorted(providers.items())}


# --- shapes -------------------------------------------------------------------------------------------------------------


def show_reading(reading: Reading) -> dict[str, Any]:
    """What was told of a window, in the shape of the contract but for its age."""
    return {
        "provider": reading.provider,
        "account": reading.account,
        "window": reading.window,
        "model": reading.model or None,
        "unit": reading.unit,
        "used": reading.used,
        "limit": _show_limit(reading.unit, reading.limit),
        "share": _show_share(_share_told(reading)),
        "status": reading.status,
        "resets_at": _show_moment(reading.resets_at),
        "observed_at": show_instant(reading.observed_at),
        "source": reading.source,
    }


def show_cooldown(cooldown: Cooldown, now: datetime) -> dict[str, Any]:
    """Whom nobody may try until when, and why."""
    probe = cooldown.probe_at(now)
    is_over = cooldown.until <= now
    state = "probing" if probe is not None else "due" if is_over else "open" if cooldown.is_open else "cooling"
    return {
        "provider": cooldown.provider,
        "model": cooldown.model or None,
        "state": state,
        "until": show_instant(cooldown.until),
        "source": cooldown.source,
        "cause": cooldown.cause,
        "failures": cooldown.failures,
        "breaker_open": cooldown.is_open,
        "probed_until": _show_moment(probe.until if probe is not None else None),
    }


def _show_provider(provider: Provider, survey: Survey, watched: Collection[Watch]) -> dict[str, Any]:
    rooms, now = survey.rooms_of(provider.account), survey.now
    models = survey.state.catalog.models.values()
    served = [rung.upstream_model for model in models for rung in model.attachments if rung.provider == provider.name]
    binds = binding_keys(rooms, served)
    outlooks = survey.state.readings.outlooks(provider.account, rooms, caution_of(provider), now, survey.stale_after_s)
    cooling = [cooldown for (name, _), cooldown in sorted(survey.state.cooldowns.items()) if name == provider.name]
    status = survey.status_of(provider)
    return {
        "status": status,
        "state": _state(provider, survey, status, [look for look in outlooks if look.reading.key in binds]),
        "account": provider.account,
        "reason": provider.paused_reason or None,
        "usable_at": _show_moment(_usable_at(provider, survey)),
        "windows": [{**_show_window(outlook, now), "binds": outlook.reading.key in binds} for outlook in outlooks],
        "cooldowns": [show_cooldown(cooldown, now) for cooldown in cooling if not cooldown.is_stale(now)],
        "pollers": [shown for watch in watched if watch.target.account == provider.account for shown in _show_pollers(watch)],
    }


def _state(provider: Provider, survey: Survey, status: Status, binding: Collection[Outlook]) -> str:
    """The status in a finer word: why it is limited, and whether what binds all its models is low or old."""
    if status not in {Status.OK, Status.LIMITED}:
        return status
    if status is Status.LIMITED:
        restraint = survey.restraint_of(provider)
        if survey.cooling(provider) is not None:
            return "cooling"
        return restraint_word(restraint) if restraint is not None else "over_budget"
    if not binding and survey.state.readings.by_account.get(provider.account):
        return WindowState.UNKNOWN
    states = {look.state for look in binding if not look.reading.model}
    return next((state for state in WindowState if state in states), WindowState.OK)


def _usable_at(provider: Provider, survey: Survey) -> datetime | None:
    """When the last of what keeps it from being used ends that ends by itself; `None`: nothing does, or nobody knows."""
    cooling, restraint = survey.cooling(provider), survey.restraint_of(provider)
    moments = [*([cooling.until] if cooling else []), *([restraint.usable_at] if restraint else [])]
    known = [moment for moment in moments if moment is not None]
    return max(known, default=None) if len(known) == len(moments) else None


def _show_window(outlook: Outlook, now: datetime) -> dict[str, Any]:
    reading, found, worth = outlook.reading, outlook.headroom, outlook.worth
    in_unit = found if reading.unit is not ReadingUnit.SHARE else None
    resets_at = reading.resets_at
    return {
        "window": reading.window,
        "model": reading.model or None,
        "unit": reading.unit,
        "state": outlook.state,
        "used": in_unit.used if in_unit is not None else None,
        "limit": _show_limit(reading.unit, reading.limit),
        "left": in_unit.left if in_unit is not None else None,
        "share": _show_share(found.share_used_ppm if found is not None else None),
        "status": reading.status,
        "resets_at": _show_moment(resets_at),
        "resets_in_s": None if resets_at is None else max(0, round((resets_at - now).total_seconds())),
        "observed_at": show_instant(reading.observed_at),
        "age_s": max(0, round((now - reading.observed_at).total_seconds())),
        "source": reading.source,
        "told_by": reading.provider,
        "stale": outlook.is_stale,
        "extra": reading.is_extra,
        "others_share": _show_share(worth.others_ppm if worth is not None else None),
        "forecast": _show_forecast(outlook.forecast, lasts=outlook.lasts),
        "worth": None
        if worth is None
        else {
            "tokens": worth.window_tokens,
            "list_price_nusd": worth.window_nusd,
            "error": _show_share(worth.error_ppm),
        },
    }


def _show_forecast(forecast: Forecast | None, *, lasts: bool | None) -> dict[str, Any] | None:
    """When it runs out: most likely, and the moments between which it does with some 95 %; `latest` null: perhaps never."""
    if forecast is None:
        return None
    return {
        "exhausted_at": show_instant(forecast.at),
        "earliest": show_instant(forecast.earliest),
        "latest": _show_moment(forecast.latest),
        "lasts_until_reset": lasts,
        "points": forecast.points,
    }


def _show_pollers(watch: Watch) -> list[Mapping[str, Any]]:
    pulse = watch.pulse
    return [
        {
            "source": source,
            "every_s": watch.target.interval_s,
            "asked_at": _show_moment(pulse.asked_at),
            "heard_at": _show_moment(pulse.heard_at),
            "due_at": _show_moment(pulse.due_at),
            "failures": pulse.failures,
            "cause": pulse.cause,
            "status": pulse.status,
            "message": pulse.message,
        }
        for source in watch.target.sources
    ]


def _share_told(reading: Reading) -> int | None:
    """The used part as it was told: as such, or as a number and its limit; rounded up."""
    if reading.share_ppm is not None or reading.used is None or not reading.limit:
        return reading.share_ppm
    return -(-reading.used * PPM // reading.limit)


def _show_share(ppm: int | None) -> float | None:
    return None if ppm is None else ppm / PPM


def _show_limit(unit: ReadingUnit, limit: int | None) -> str | int | None:
    return format_usd(limit) if unit is ReadingUnit.USD and limit is not None else limit


def _show_moment(at: datetime | None) -> str | None:
    return None if at is None else show_instant(at)

"""
What upstreams have told, for a person in a hurry: what is left, until when, how old the word is, and what holds a provider back.

Law: everything shown is one answer of the API; `--json` prints it as it came. A used share is rounded up to a tenth of a percent,
so that what is left is never overstated.
Never: changes anything.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any

import typer

from quota_router.cli.client import find_daemon, path_of
from quota_router.cli.common import ConfigOption, JsonOption, common_of
from quota_router.cli.output import NOTHING, UNKNOWN, print_json, print_table, show_amount, show_moment, show_span

NOTHING_TOLD = (
    "Live quota: nothing was told yet. Answers of providers bring it along; quota endpoints are asked where `pollers` or"
    " `quota_sources` name them."
)
NOTHING_COOLS = "Nothing cools down: every provider may be tried."
_DAY_S = 86_400


def readings(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What upstreams told of their windows, as it is believed now."""
    common = common_of(context, config, as_json=as_json)
    found = find_daemon(common.load(), os.environ).items(path_of("readings"))
    if common.as_json:
        print_json(found)
    elif not found:
        typer.echo(NOTHING_TOLD)
    else:
        columns = ("account", "window", "model", ">used", ">limit", ">share", "word", "resets", "told", "by")
        print_table("Readings", columns, [_reading_row(reading, _now()) for reading in found])


def cooldowns(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Whom no call may try now, until when, and why."""
    common = common_of(context, config, as_json=as_json)
    found = find_daemon(common.load(), os.environ).items(path_of("cooldowns"))
    if common.as_json:
        print_json(found)
    elif not found:
        typer.echo(NOTHING_COOLS)
    else:
        columns = ("provider", "model", "state", "until", "cause", "who says so", ">failures")
        print_table("Cooldowns", columns, [_cooldown_row(cooldown, _now()) for cooldown in found])


def print_providers(providers: list[dict[str, Any]], live: Mapping[str, dict[str, Any]]) -> None:
    """Print how each provider is doing, and when one that is held back may be used again."""
    rows = [
        (
            provider["name"],
            live[provider["name"]]["state"],
            _when(live[provider["name"]]["usable_at"], _now()),
            provider["family"],
            provider["account"],
            str(provider["models"]),
        )
        for provider in providers
        if provider["name"] in live
    ]
    print_table("Providers", ("provider", "state", "usable again", "family", "account", ">models"), rows)


def print_live(live: Mapping[str, dict[str, Any]]) -> None:
    """Print every window of every provider, and the quota endpoints that do not answer."""
    rows = [(name, *_window_row(window)) for name, provider in live.items() for window in provider["windows"]]
    if rows:
        columns = ("provider", "window", "state", ">used", ">left", "resets", "runs out", ">others use", "told")
        print_table("Live quota (* binds: the least is left of it)", columns, rows)
    else:
        typer.echo(NOTHING_TOLD)
    for name, provider in live.items():
        for line in _silent(name, provider["pollers"]):
            typer.echo(line)


# --- rows ---------------------------------------------------------------------------------------------------------------


def _window_row(window: dict[str, Any]) -> tuple[str, ...]:
    unit, left = window["unit"], window["left"]
    if unit == "share":
        told_left = UNKNOWN if window["share"] is None else _percent(max(0.0, 1 - window["share"]), up=False)
    else:
        told_left = f"{show_amount(unit, left)}{'' if unit == 'usd' else ' ' + unit.replace('_', ' ')}"
    named = window["window"] + (f" of {window['model']}" if window["model"] else "")
    marks = (" *" if window["binds"] else "") + (" (extra)" if window["extra"] else "")
    return (
        named + marks,
        window["state"],
        UNKNOWN if window["share"] is None else _percent(window["share"]),
        told_left,
        NOTHING if window["resets_at"] is None else f"in {show_span(window['resets_in_s'])}, {_clock_time(window)}",
        _forecast(window["forecast"]),
        NOTHING if window["others_share"] is None else _percent(window["others_share"]),
        f"{show_span(window['age_s'])} ago, {window['source']}",
    )


def _reading_row(reading: dict[str, Any], now: datetime) -> tuple[str, ...]:
    unit, limit = reading["unit"], reading["limit"]
    age_s = max(0.0, (now - datetime.fromisoformat(reading["observed_at"])).total_seconds())
    is_share = unit == "share"
    return (
        reading["account"],
        reading["window"],
        reading["model"] or "all",
        NOTHING if is_share else show_amount(unit, reading["used"]),
        NOTHING if is_share else UNKNOWN if limit is None else f"${limit}" if unit == "usd" else f"{limit:,} {unit}",
        UNKNOWN if reading["share"] is None else _percent(reading["share"]),
        reading["status"] or NOTHING,
        _when(reading["resets_at"], now),
        f"{show_span(age_s)} ago{' (stale)' if reading['stale'] else ''}",
        f"{reading['source']} of {reading['provider']}",
    )


def _cooldown_row(cooldown: dict[str, Any], now: datetime) -> tuple[str, ...]:
    says = {"said": "the upstream", "assumed": "our guess"}
    return (
        cooldown["provider"],
        cooldown["model"] or "all",
        cooldown["state"],
        _when(cooldown["until"], now),
        cooldown["cause"],
        says.get(cooldown["source"], cooldown["source"]),
        str(cooldown["failures"]),
    )


def _silent(provider: str, pollers: list[dict[str, Any]]) -> Iterator[str]:
    for poller in pollers:
        if poller["cause"] is not None:
            since = "never told anything" if poller["heard_at"] is None else f"last told at {show_moment(poller['heard_at'])}"
            yield f"{poller['source']} of {provider} fails ({poller['cause']}, {since}): {poller['message']}"


def _forecast(forecast: dict[str, Any] | None) -> str:
    """When it runs out, give or take half the span in which it does with some 95 %."""
    if forecast is None:
        return NOTHING
    if forecast["lasts_until_reset"]:
        return "lasts until then"
    at, earliest = (datetime.fromisoformat(forecast[name]) for name in ("exhausted_at", "earliest"))
    in_s = max(0.0, (at - _now()).total_seconds())
    return f"in {show_span(in_s)} ± {show_span((at - earliest).total_seconds())}"


def _when(text: str | None, now: datetime) -> str:
    """A moment, how far it is and on the clock; `-` where there is none."""
    if text is None:
        return NOTHING
    left_s = (datetime.fromisoformat(text) - now).total_seconds()
    return f"in {show_span(left_s)}, {show_moment(text)}" if left_s > 0 else f"over since {show_moment(text)}"


def _clock_time(window: dict[str, Any]) -> str:
    """On the reader's own clock; with the date where it is not within a day."""
    at = datetime.fromisoformat(window["resets_at"]).astimezone()
    return f"{at:%H:%M}" if window["resets_in_s"] < _DAY_S else f"{at:%Y-%m-%d %H:%M}"


def _percent(share: float, *, up: bool = True) -> str:
    tenths = round(share * 1_000_000)
    tenths = ceil(tenths / 1_000) if up else tenths // 1_000
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} %" if tenth else f"{whole} %"


def _now() -> datetime:
    return datetime.now(UTC)

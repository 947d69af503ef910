"""
Looking at a running daemon: how everything is doing, who would take a call, and what was spent.

Law: everything shown is one answer of the API, or several read one after the other; `--json` prints it as it came.
Never: changes anything; `route` books nothing unless `--hold` asks for it.
"""

import json
import os
from http import HTTPStatus
from typing import Annotated, Any

import typer

from quota_router.cli.client import Answer, find_daemon, path_of, refused
from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.output import NOTHING, UNKNOWN, print_json, print_table, show_amount, show_moment, show_usd
from quota_router.cli.watching import print_live, print_providers

NO_PROVIDERS = (
    "Nothing is configured yet. Write a file with `quota-router init --path quota-router.toml`, keep the providers you have,"
    " then restart with `quota-router serve --config quota-router.toml`."
)
_COUNTS = ("calls", "attempts", "failures", "input_tokens", "output_tokens")

ModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help="The model; without one the default decides.")]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Show every rung, and why it was passed over.", show_default=False)]
HoldOption = Annotated[bool, typer.Option("--hold", help="Take a hold for real; its id is printed.", show_default=False)]
InputTokensOption = Annotated[
    int | None, typer.Option("--input-tokens", metavar="N", min=0, help="How long the input is.", show_default=False)
]
OutputTokensOption = Annotated[
    int | None, typer.Option("--max-output-tokens", metavar="N", min=0, help="How long the answer may grow.", show_default=False)
]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="LABEL", help="May be given again.", show_default=False)]
ProviderOption = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="This one and no other.", show_default=False)
]
GroupOption = Annotated[
    str,
    typer.Option(
        "--group-by",
        metavar="KEYS",
        help="Some of provider,account,model,caller,label,workflow,stage,rule,day; '' for the total alone.",
    ),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="A date, or an instant of RFC 3339.", show_default=False)
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Likewise; not included.", show_default=False)]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", metavar="ZONE", help="Whose days: Europe/Berlin. Default: UTC.", show_default=False)
]


def status(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """How providers, models and limits are doing, and what is left of each subscription."""
    common = common_of(context, config, as_json=as_json)
    daemon = find_daemon(common.load(), os.environ)
    ready = daemon.ask("GET", "/readyz", is_public=True).value
    if not isinstance(ready, dict) or not {"status", "reasons"} <= ready.keys():
        raise CommandFailed(f"What answers at {daemon.url} is not quota_router.", Exit.UNREACHABLE)
    shown = {
        "url": daemon.url,
        "status": ready["status"],
        "reasons": ready["reasons"],
        **{name: daemon.items(path_of(name)) for name in ("providers", "models", "limits")},
        "live": daemon.get(path_of("status"))["providers"],
    }
    if common.as_json:
        print_json(shown)
        return
    typer.echo(f"{daemon.url} is {'; '.join([shown['status'], *shown['reasons']])}")
    if not shown["providers"]:
        typer.echo(NO_PROVIDERS)
        return
    print_providers(shown["providers"], shown["live"])
    models = [(m["name"], "yes" if m["usable"] else "no", _ladder(m), ", ".join(m["aliases"]) or NOTHING) for m in shown["models"]]
    print_table("Models", ("model", "usable", "tried in this order", "aliases"), models)
    if shown["limits"]:
        columns = ("limit", "of", ">limit", ">used", ">held", ">left", "unit", "window", "ends")
        print_table("Limits", columns, [_limit_row(limit) for limit in shown["limits"]])
    print_live(shown["live"])


def _ladder(model: dict[str, Any]) -> str:
    rungs = [
        attachment["provider"] if attachment["status"] == "ok" else f"{attachment['provider']} ({attachment['status']})"
        for attachment in model["attachments"]
    ]
    return ", ".join(rungs) or "nobody serves it"


def _limit_row(limit: dict[str, Any]) -> tuple[str, ...]:
    unit = limit["unit"]
    cap = f"${limit['limit']}" if unit == "usd" else show_amount(unit, limit["limit"])
    amounts = (show_amount(unit, limit[name]) for name in ("posted", "held", "remaining"))
    return limit["name"], limit["subject"], cap, *amounts, unit, limit["window"], show_moment(limit["window_end"])


def route(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    model: ModelArgument = None,
    *,
    explain: ExplainOption = False,
    hold: HoldOption = False,
    input_tokens: InputTokensOption = None,
    max_output_tokens: OutputTokensOption = None,
    label: LabelOption = None,
    provider: ProviderOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who would take a call to MODEL now, and why not the others. Books nothing unless --hold is given."""
    common = common_of(context, config, as_json=as_json)
    daemon = find_daemon(common.load(), os.environ)
    asked = {
        "model": model,
        "input_tokens": input_tokens,
        "max_output_tokens": max_output_tokens,
        "labels": label,
        "provider": provider,
        "dry_run": not hold,
    }
    body = json.dumps({name: value for name, value in asked.items() if value is not None})
    answer = daemon.ask("POST", path_of("route"), body.encode(), "application/json")
    none_usable = _is_none_usable(answer)
    if answer.status >= HTTPStatus.BAD_REQUEST and not none_usable:
        raise refused(answer, daemon)
    decision = answer.value
    if common.as_json:
        print_json(decision)
    elif explain or none_usable:
        print_rungs(decision["rungs"])
    if none_usable:
        raise CommandFailed(decision["detail"], Exit.NONE_USABLE)
    if not common.as_json:
        _print_choice(decision)


def _is_none_usable(answer: Answer) -> bool:
    return isinstance(answer.value, dict) and answer.value.get("outcome") == "none_usable"


def print_rungs(rungs: list[dict[str, Any]]) -> None:
    """Print a decision's rungs, with the reason and the numbers of each that was passed over."""
    rows = [
        (
            rung["provider"],
            rung["upstream_model"],
            rung["status"],
            rung["reason"] or NOTHING,
            ", ".join(f"{name} {value}" for name, value in rung["detail"].items()) or NOTHING,
            show_moment(rung["usable_at"]),
        )
        for rung in rungs
    ]
    print_table("Rungs, in the order of trying", ("provider", "upstream model", "status", "reason", "numbers", "usable at"), rows)


def _print_choice(decision: dict[str, Any]) -> None:
    typer.echo(f"{decision['provider']} takes it, as {decision['upstream_model']} at {decision['base_url']}.")
    held = decision["hold"]
    if held is not None:
        typer.echo(f"Hold {held['id']} sets {show_usd(held['estimate_nusd'])} aside until {show_moment(held['expires_at'])}.")


def usage(
    context: typer.Context,
    *,
    group_by: GroupOption = "provider",
    since: SinceOption = None,
    until: UntilOption = None,
    tz: ZoneOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was used and what it cost, summed from the ledger."""
    common = common_of(context, config, as_json=as_json)
    asked = {"group_by": group_by, "since": since, "until": until, "tz": tz}
    report = find_daemon(common.load(), os.environ).get(path_of("usage"), {name: text for name, text in asked.items() if text})
    if common.as_json:
        print_json(report)
        return
    print_usage(report, [key.strip() for key in group_by.split(",") if key.strip()])


def print_usage(report: dict[str, Any], keys: list[str]) -> None:
    """Print what `GET usage` answers, grouped by *keys*."""
    # An adjustment is money without an attempt.
    if not report["total"]["attempts"] and not report["total"]["cost_nusd"]:
        typer.echo("Nothing was used in that time.")
        return
    columns = (*keys, ">calls", ">attempts", ">failures", ">tokens in", ">tokens out", ">cost", ">list price of flat", ">p50 ms")
    rows = [(*(str(group[key] or NOTHING) for key in keys), *_numbers(group)) for group in report["groups"]]
    total = (*("total" if not index else "" for index, _ in enumerate(keys)), *_numbers(report["total"]))
    if keys:
        print_table("Usage", columns, rows, footer=total)
    else:
        print_table("Usage", columns, [total])
    if report["total"]["unpriced"]:
        typer.echo(f"{report['total']['unpriced']} answers have no known price and are not in the cost.")


def _numbers(group: dict[str, Any]) -> tuple[str, ...]:
    latency = group["latency_p50_ms"]
    return (
        *(f"{group[name]:,}" for name in _COUNTS),
        show_usd(group["cost_nusd"]),
        show_usd(group["shadow_cost_nusd"]),
        UNKNOWN if latency is None else f"{latency:,}",
    )

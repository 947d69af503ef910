"""
`demo`: the demonstration, told on a page.

Law: each call is printed as it ends, with the numbers its caller got; the last line says whether everything added up, and the exit
code says it too.
Never: computes what it prints.
"""

import asyncio
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quota_router.cli.client import TOKEN_VARIABLE, URL_VARIABLE
from quota_router.cli.common import CommandFailed, ConfigOption, JsonOption, common_of
from quota_router.cli.looking import print_usage
from quota_router.cli.output import NOTHING, configure_logs, print_json, show_amount, show_usd
from quota_router.cli.serving import export_lines, variables_for

if TYPE_CHECKING:
    from quota_router.demo import Served, Story

KeepOption = Annotated[bool, typer.Option("--keep", help="Stay up afterwards, and print the export lines.", show_default=False)]
_ROW = "{:>4}  {:<14} {:<16} {:<20} {}"


def demo(context: typer.Context, *, keep: KeepOption = False, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """See it at work in seconds, without a key or a network."""
    common = common_of(context, config, as_json=as_json)
    configure_logs()
    judge(asyncio.run(_play(keep=keep, as_json=common.as_json)))


def judge(story: "Story") -> None:
    """Raise `CommandFailed`, naming what does not hold, unless everything adds up."""
    if not story.is_true:
        wrong = "; ".join(f"{check.claim} ({check.found})" for check in story.checks if not check.holds)
        raise CommandFailed(f"The demonstration does not add up: {wrong or 'nothing was checked'}.")


async def _play(*, keep: bool, as_json: bool) -> "Story":
    from quota_router import config, demo  # noqa: PLC0415 -- the server takes longer to import than `--help` may last

    async with demo.open_stage() as stage:
        if not as_json:
            _print_opening()
        story = await demo.play(stage, config.load, _ignore if as_json else _print_call)
        if as_json:
            print_json(_as_json(story))
        else:
            _print_ending(story)
        if keep and story.is_true:
            await demo.keep_open(stage, config.load, _wait_for_signal)
    return story


def _ignore(served: "Served") -> None:
    """Say nothing of a call: all of them are printed at the end."""


async def _wait_for_signal(url: str, token: str) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    for line in export_lines(variables_for(url, token) | {URL_VARIABLE: url, TOKEN_VARIABLE: token}):
        typer.echo(line)
    typer.echo("Up until Ctrl-C. Paste these lines into another shell; within a minute every quota is new.", err=True)
    typer.echo("With them Anthropic's SDK gets `claude-sonnet-4-5`, the one model here, and `quota-router status` works.", err=True)
    await stop.wait()


def _print_opening() -> None:
    typer.echo("Two subscriptions (4 and 5 requests a minute) and a pay-as-you-go provider ($0.02 a minute) serve one model.")
    typer.echo("The second subscription was also used elsewhere: 3 of its 5 are left, as only the answers of its vendor tell.\n")
    typer.echo(_ROW.format("call", "served by", "cost", "left there", "passed over"))


def _print_call(served: "Served") -> None:
    skipped = ", ".join(f"{provider}: {reason}" for provider, reason in served.skipped.items()) or NOTHING
    if served.provider is None:
        told = f"{served.status}, retry in {served.retry_after_s} s"
        typer.echo(_ROW.format(served.number, "nobody", told, NOTHING, skipped))
        return
    left = NOTHING
    if served.left is not None:
        unit = served.left["unit"]
        amount = show_amount(unit, served.left["remaining"])
        left = amount if unit == "usd" else f"{amount} {unit}"
    typer.echo(_ROW.format(served.number, served.provider, show_usd(served.cost_nusd), left, skipped))


def _print_ending(story: "Story") -> None:
    typer.echo("")
    print_usage(story.usage, ["provider"])
    for check in story.checks:
        typer.echo(f"{'ok   ' if check.holds else 'WRONG'} {check.claim}: {check.found}")
    if story.is_true:
        total = story.usage["total"]
        typer.echo(
            f"\nEverything adds up: {total['calls']} calls were answered for {show_usd(total['cost_nusd'])};"
            f" at list price the subscriptions saved {show_usd(total['shadow_cost_nusd'])}."
        )


def _as_json(story: "Story") -> dict[str, Any]:
    return {
        "calls": [asdict(served) for served in story.calls],
        "usage": story.usage,
        "checks": [asdict(check) for check in story.checks],
        "ok": story.is_true,
    }

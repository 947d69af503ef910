"""
What an admin corrects: a line of money beside another, and balances worked out anew.

Law: with a daemon running it is the daemon that writes; without one this process takes the ledger's lock and does the same.
Said twice under one key, an adjustment is booked once, whoever booked it.
Never: edits or deletes what was booked.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quota_router.cli.client import URL_VARIABLE, find_daemon, path_of
from quota_router.cli.common import CommandFailed, Common, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.ledger_verify import find_ledger
from quota_router.cli.output import configure_logs, print_json, print_table, show_amount, show_moment, show_usd
from quota_router.errors import LedgerLocked

if TYPE_CHECKING:
    from quota_router.config import Loaded
    from quota_router.store.lane import Lane
    from quota_router.store.reports import Reports

REBUILD_TIMEOUT_S = 600
"""A daemon works balances out anew from the entries of every window."""

Work = Callable[["Lane", "Reports"], Awaitable[Any]]


def _text(name: str, metavar: str, text: str) -> Any:  # noqa: ANN401 -- what typer takes
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


CostOption = Annotated[str, _text("--cost-usd", "USD", "What is added to what was spent; with a minus it is taken back.")]
ReasonOption = Annotated[str, _text("--reason", "TEXT", "Why. It stands in the ledger for good.")]
CallOption = Annotated[str | None, _text("--call", "ID", "Whose money: this call's.")]
HoldOption = Annotated[str | None, _text("--hold", "ID", "Or that of one attempt of a call.")]
ProviderOption = Annotated[str | None, _text("--provider", "NAME", "Or a provider's, with whatever else is known:")]
AccountOption = Annotated[str | None, _text("--account", "NAME", "Default: the provider's own.")]
ModelOption = Annotated[str | None, _text("--model", "NAME", "With --provider.")]
CallerOption = Annotated[str | None, _text("--caller", "NAME", "With --provider.")]
LabelOption = Annotated[list[str] | None, _text("--label", "LABEL", "With --provider. May be given again.")]
WorkflowOption = Annotated[str | None, _text("--workflow", "NAME", "With --provider.")]
StageOption = Annotated[str | None, _text("--stage", "NAME", "With --provider.")]
HeldAtOption = Annotated[str | None, _text("--held-at", "TIME", "In whose windows it counts: a date, or an instant. Default: now.")]
KeyOption = Annotated[str | None, _text("--key", "KEY", "Said again under the same key, it is booked once.")]


def adjust(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    *,
    cost_usd: CostOption,
    reason: ReasonOption,
    call: CallOption = None,
    hold: HoldOption = None,
    provider: ProviderOption = None,
    account: AccountOption = None,
    model: ModelOption = None,
    caller: CallerOption = None,
    label: LabelOption = None,
    workflow: WorkflowOption = None,
    stage: StageOption = None,
    held_at: HeldAtOption = None,
    key: KeyOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Book a correction beside what was booked."""
    common = common_of(context, config, as_json=as_json)
    asked = {
        "cost_usd": cost_usd,
        "reason": reason,
        "call_id": call,
        "hold_id": hold,
        "provider": provider,
        "account": account,
        "model": model,
        "caller": caller,
        "labels": label or None,
        "workflow": workflow,
        "stage": stage,
        "held_at": held_at,
    }
    if [call, hold, provider].count(None) != 2:  # noqa: PLR2004 -- two of three
        raise CommandFailed("Say whose money it is by exactly one of --call, --hold and --provider.", Exit.USAGE)
    body = {name: value for name, value in asked.items() if value is not None}
    loaded = common.load()
    daemon = find_daemon(loaded, os.environ)
    if daemon.is_up():
        entry = daemon.post(path_of("entries"), body, key=key)
    else:
        entry = asyncio.run(_on_ledger(common, loaded, lambda lane, reports: _book(lane, reports, body, key)))
    if common.as_json:
        print_json(entry)
    else:
        _print_entry(entry)


def _print_entry(entry: dict[str, Any]) -> None:
    place = f"entry {entry['seq']} of journal {entry['journal']}"
    if entry["replayed"]:
        typer.echo(f"This key was booked before: {show_usd(entry['cost_nusd'])} is {place}. Nothing was added.")
    else:
        typer.echo(f"Booked {show_usd(entry['cost_nusd'])} as {place}.")
    moved = ", ".join(entry["limits"])
    moment = show_moment(entry["held_at"])
    typer.echo(f"It counts at {moment} in: {moved}." if moved else f"No budget or quota in USD counts it at {moment}.")


def rebuild(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Work every balance out anew, and print what changed."""
    common = common_of(context, config, as_json=as_json)
    loaded = common.load()
    daemon = find_daemon(loaded, os.environ)
    if daemon.is_up():
        changes = daemon.post(path_of("ledger", "rebuild"), {}, timeout_s=REBUILD_TIMEOUT_S)["changes"]
    else:
        changes = asyncio.run(_on_ledger(common, loaded, _rebuild))
    if common.as_json:
        print_json({"changes": changes})
        return
    if not changes:
        typer.echo("Nothing changed: every balance is what entries and open holds come to.")
        return
    amounts = ("posted_before", "posted", "held_before", "held")
    rows = [(c["limit"], show_moment(c["bucket"]), *(show_amount(c["unit"], c[name]) for name in amounts)) for c in changes]
    columns = ("limit", "window or part, from", ">posted was", ">posted is", ">held was", ">held is")
    print_table("Balances that changed", columns, rows)


# --- without a daemon ---------------------------------------------------------------------------------------------------


async def _on_ledger(common: Common, loaded: "Loaded", work: Work) -> Any:  # noqa: ANN401 -- the API's JSON
    """
    Do *work* on the ledger itself, under its lock.

    Raises:
        CommandFailed: there is none, its schema is another, or a daemon that does not answer here has it.
        LedgerError: as the store says.
    """
    configure_logs()
    url, _ = find_ledger(common)
    from quota_router.store.lane import Lane  # noqa: PLC0415 -- SQLAlchemy takes longer to import than `--help` may last
    from quota_router.store.migrate import check  # noqa: PLC0415 -- likewise
    from quota_router.store.open import Durability, open_engines  # noqa: PLC0415 -- likewise
    from quota_router.store.reports import Reports  # noqa: PLC0415 -- likewise

    settings = loaded.settings
    try:
        async with open_engines(url, Durability(settings.durability)) as engines:
            problems = await check(engines.write)
            if problems:
                raise CommandFailed("\n".join(problems))
            async with Lane(engines.lane, engines.tenure, settle_wait_s=settings.settle_wait_s) as lane:
                return await work(lane, Reports(engines.read))
    except LedgerLocked as locked:
        message = f"{locked.message} If it is a daemon that listens elsewhere, say where: {URL_VARIABLE}=http://127.0.0.1:PORT."
        raise CommandFailed(message) from locked


async def _book(lane: "Lane", reports: "Reports", body: dict[str, Any], key: str | None) -> dict[str, Any]:
    from quota_router.core.adjustments import id_of_uuid  # noqa: PLC0415 -- likewise
    from quota_router.core.catalog import ADMIN  # noqa: PLC0415 -- likewise
    from quota_router.core.ids import RANDOM_BYTES, uuid7  # noqa: PLC0415 -- likewise
    from quota_router.web.control_plane.adjusting import AdjustAsked, book  # noqa: PLC0415 -- likewise
    from quota_router.web.strict import check_key, read_json  # noqa: PLC0415 -- likewise

    asked = read_json(json.dumps(body).encode(), AdjustAsked)
    new_id = id_of_uuid(uuid7(time.time_ns() // 10**6, os.urandom(RANDOM_BYTES)))
    return await book(asked, lane, reports, admin=ADMIN, key=check_key(key), new_id=new_id)


async def _rebuild(lane: "Lane", _reports: "Reports") -> list[dict[str, Any]]:
    from quota_router.store.rebuild import rebuild as work_out  # noqa: PLC0415 -- likewise

    return [corrected.show() for corrected in await lane.edit(work_out)]

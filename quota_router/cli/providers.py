"""
Providers on the command line: listed, shown, added, changed, removed, paused, resumed and cleared.

Law: what stands in the configuration file is changed there; the daemon says so.
Never: takes a key: `--credential` names where one is found.
"""

from typing import Annotated

import typer

from quota_router.cli.client import path_of
from quota_router.cli.common import ConfigOption, JsonOption
from quota_router.cli.output import NOTHING, print_table
from quota_router.cli.rows import Desk, given, print_fields

app = typer.Typer(
    help="Providers: list, show, add, set, remove, pause, resume, clear.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The provider's name.")]
VendorOption = Annotated[str | None, typer.Option("--vendor", metavar="VENDOR", help="A preset: see `catalog providers`.")]
FamilyOption = Annotated[str | None, typer.Option("--family", metavar="FAMILY", help="openai or anthropic.")]
UrlOption = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="As the vendor's SDK takes it.")]
CredentialOption = Annotated[
    str | None, typer.Option("--credential", metavar="REF", help="env:NAME, file:PATH, cred:NAME or none; never the key.")
]
NetworkOption = Annotated[str | None, typer.Option("--network", metavar="WORD", help="public, private or loopback.")]
AccountOption = Annotated[str | None, typer.Option("--account", metavar="NAME", help="What its quotas belong to.")]
BillingOption = Annotated[str | None, typer.Option("--billing", metavar="WORD", help="metered or flat.")]
UpstreamOption = Annotated[str | None, typer.Option("--model", metavar="NAME", help="The upstream model of pools.")]
ReserveOption = Annotated[str | None, typer.Option("--reserve", metavar="SHARE", help="Kept back of live windows: 0.02.")]
PauseAtOption = Annotated[str | None, typer.Option("--pause-at", metavar="SHARE", help="No new call from there on: 0.9.")]
PaceOption = Annotated[bool | None, typer.Option("--pace/--no-pace", help="Use a window no faster than it passes.")]
TitleOption = Annotated[str | None, typer.Option("--display-name", metavar="TEXT", help="For people.")]
NoteOption = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="For people.")]
EnabledOption = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether calls may go there.")]
RungOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="The cooldown of its rung for this one.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks.")]


@app.command("list")
def list_them(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every provider, and how it is doing."""
    desk = Desk(context, config, as_json=as_json)
    found = desk.list("providers")
    rows = [
        (
            p["name"],
            p["status"],
            p["family"],
            p["vendor"],
            p["account"],
            str(p["models"]),
            p["managed_by"],
            p["paused_reason"] or NOTHING,
        )
        for p in found
    ]
    if desk.as_json:
        desk.say(found)
    elif not found:
        typer.echo("There is no provider yet: `quota-router providers add NAME --vendor VENDOR`, or write them into the file.")
    else:
        columns = ("provider", "status", "family", "vendor", "account", ">models", "from", "paused because")
        print_table("Providers", columns, rows)


@app.command()
def show(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One provider, every field."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("providers", name)
    if desk.as_json:
        desk.say(row)
    else:
        print_fields(row)


@app.command()
def add(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    name: NameArgument,
    *,
    vendor: VendorOption = None,
    family: FamilyOption = None,
    base_url: UrlOption = None,
    credential: CredentialOption = None,
    network: NetworkOption = None,
    account: AccountOption = None,
    billing: BillingOption = None,
    model: UpstreamOption = None,
    reserve: ReserveOption = None,
    pause_at: PauseAtOption = None,
    pace: PaceOption = None,
    display_name: TitleOption = None,
    description: NoteOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a provider: `providers add work --vendor anthropic --credential env:WORK_KEY`."""
    said = given(
        vendor=vendor, family=family, base_url=base_url, credential=credential, network=network, account=account, billing=billing
    )
    more = given(model=model, reserve=reserve, pause_at=pause_at, pace=pace, display_name=display_name, description=description)
    desk = Desk(context, config, as_json=as_json)
    row = desk.add("providers", {"name": name, **said, **more})
    if not row["has_credential"] and not desk.as_json:
        typer.echo("Its key is not where the daemon looks for it: set it there, and calls go to it.")


@app.command("set")
def change(  # noqa: PLR0913 -- likewise
    context: typer.Context,
    name: NameArgument,
    *,
    vendor: VendorOption = None,
    family: FamilyOption = None,
    base_url: UrlOption = None,
    credential: CredentialOption = None,
    network: NetworkOption = None,
    account: AccountOption = None,
    billing: BillingOption = None,
    model: UpstreamOption = None,
    reserve: ReserveOption = None,
    pause_at: PauseAtOption = None,
    pace: PaceOption = None,
    display_name: TitleOption = None,
    description: NoteOption = None,
    enabled: EnabledOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given, and nothing else."""
    said = given(
        vendor=vendor, family=family, base_url=base_url, credential=credential, network=network, account=account, billing=billing
    )
    more = given(model=model, reserve=reserve, pause_at=pause_at, pace=pace, display_name=display_name, description=description)
    Desk(context, config, as_json=as_json).change("providers", name, {**said, **more, **given(enabled=enabled)})


@app.command()
def remove(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a provider; models that it served keep their others, in order."""
    Desk(context, config, as_json=as_json).remove("providers", name)


@app.command()
def pause(
    context: typer.Context,
    name: NameArgument,
    *,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send no new call there until it is resumed; calls that run go on."""
    desk = Desk(context, config, as_json=as_json)
    desk.say(desk.daemon.post(path_of("providers", name, "pause"), {"reason": reason}), f"Paused provider {name}.")


@app.command()
def resume(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send calls there again."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.daemon.post(path_of("providers", name, "resume"), {})
    desk.say(row, f"Resumed provider {name}: it is {row['status']}.")


@app.command()
def clear(
    context: typer.Context,
    name: NameArgument,
    *,
    model: RungOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget that it failed: calls may go there again before its cooldown ends. `cooldowns` lists what cools."""
    desk = Desk(context, config, as_json=as_json)
    where = path_of("cooldowns", name) if model is None else path_of("cooldowns", name, model)
    desk.say(desk.daemon.delete(where), f"Cleared {name}." if model is None else f"Cleared {name} for {model}.")

"""
Limits and callers on the command line.

Law: a caller's token is printed once, when it is made; nobody can read it again.
"""

from typing import Annotated

import typer

from quota_router.cli.common import ConfigOption, JsonOption
from quota_router.cli.output import print_table, show_amount, show_moment
from quota_router.cli.rows import Desk, Row, given, print_fields

app = typer.Typer(help="Limits: list, show, add, set, remove.", no_args_is_help=True, rich_markup_mode=None)
callers = typer.Typer(help="Who may call: list, show, add, set, remove.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]
BudgetArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="Of a budget; a quota makes its own.")]
QuotaOption = Annotated[
    bool, typer.Option("--quota", help="The provider sets it on us: --subject account:NAME.", show_default=False)
]
SubjectOption = Annotated[
    str | None, typer.Option("--subject", metavar="SUBJECT", help="everyone, provider:N, model:N, caller:N, …")
]
UnitOption = Annotated[str | None, typer.Option("--unit", metavar="UNIT", help="usd, requests, tokens, concurrency, …")]
AmountOption = Annotated[str | None, typer.Option("--limit", metavar="AMOUNT", help="How much; USD as a decimal.")]
WindowOption = Annotated[str | None, typer.Option("--window", metavar="WINDOW", help="day, month, 5h, …")]
AnchorOption = Annotated[str | None, typer.Option("--anchor", metavar="ANCHOR", help="first_use, monday, 15, an instant.")]
ZoneOption = Annotated[str | None, typer.Option("--timezone", metavar="ZONE", help="Europe/Berlin; default UTC.")]
EnforcementOption = Annotated[str | None, typer.Option("--enforcement", metavar="WORD", help="strict, bounded or advisory.")]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", metavar="WORD", help="call, read or admin; may be given again. Default: call.")
]


# --- limits -----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_them(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every budget and quota, and what is left of it."""
    desk = Desk(context, config, as_json=as_json)
    found = desk.list("limits")
    if desk.as_json:
        desk.say(found)
    elif not found:
        typer.echo(
            "There is no limit yet: `quota-router limits add month --subject everyone --unit usd --limit 50 --window month`."
        )
    else:
        columns = ("limit", "kind", "of", ">limit", ">used", ">held", ">left", "unit", "window", "ends", "from")
        print_table("Limits", columns, [_row(limit) for limit in found])


def _row(limit: Row) -> tuple[str, ...]:
    unit = limit["unit"]
    cap = f"${limit['limit']}" if unit == "usd" else show_amount(unit, limit["limit"])
    amounts = (show_amount(unit, limit[name]) for name in ("posted", "held", "remaining"))
    ends = show_moment(limit["window_end"])
    return limit["name"], limit["kind"], limit["subject"], cap, *amounts, unit, limit["window"], ends, limit["managed_by"]


@app.command()
def show(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One limit, every field."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("limits", name)
    if desk.as_json:
        desk.say(row)
        return
    unit = row["unit"]
    amounts = {key: show_amount(unit, row[key]) for key in ("posted", "held", "remaining")}
    cap = f"${row['limit']}" if unit == "usd" else show_amount(unit, row["limit"])
    print_fields({**row, **amounts, "limit": cap, **{key: show_moment(row[key]) for key in ("window_start", "window_end")}})


@app.command()
def add(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    name: BudgetArgument = None,
    *,
    quota: QuotaOption = False,
    subject: SubjectOption = None,
    unit: UnitOption = None,
    limit: AmountOption = None,
    window: WindowOption = None,
    anchor: AnchorOption = None,
    timezone: ZoneOption = None,
    enforcement: EnforcementOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a limit; it counts from what was already spent in its window."""
    said = given(subject=subject, unit=unit, limit=limit, window=window, anchor=anchor, timezone=timezone, enforcement=enforcement)
    kind = {"kind": "quota"} if quota else {}
    Desk(context, config, as_json=as_json).add("limits", {**given(name=name), **kind, **said})


@app.command("set")
def change(  # noqa: PLR0913 -- likewise
    context: typer.Context,
    name: NameArgument,
    *,
    subject: SubjectOption = None,
    unit: UnitOption = None,
    limit: AmountOption = None,
    window: WindowOption = None,
    anchor: AnchorOption = None,
    timezone: ZoneOption = None,
    enforcement: EnforcementOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given, and nothing else: `limits set month --limit 80`."""
    said = given(subject=subject, unit=unit, limit=limit, window=window, anchor=anchor, timezone=timezone, enforcement=enforcement)
    Desk(context, config, as_json=as_json).change("limits", name, said)


@app.command()
def remove(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a limit; what was booked stays booked."""
    Desk(context, config, as_json=as_json).remove("limits", name)


# --- callers ----------------------------------------------------------------------------------------------------------


@callers.command("list")
def list_callers(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every caller beside the admin."""
    desk = Desk(context, config, as_json=as_json)
    found = desk.list("callers")
    if desk.as_json:
        desk.say(found)
    elif not found:
        typer.echo("Only the admin's token is known: `quota-router callers add NAME` makes another.")
    else:
        rows = [(c["name"], ", ".join(c["scopes"]), "yes" if c["enabled"] else "no", c["managed_by"]) for c in found]
        print_table("Callers", ("caller", "may", "enabled", "from"), rows)


@callers.command("show")
def show_caller(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One caller."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("callers", name)
    if desk.as_json:
        desk.say(row)
    else:
        print_fields(row)


@callers.command("add")
def add_caller(
    context: typer.Context,
    name: NameArgument,
    *,
    scope: ScopeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a caller, and print its token: only now can it be read."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.daemon.post("/api/v1/callers", {"name": name, **given(scopes=scope)})
    desk.say(row, row["token"])
    if not desk.as_json:
        typer.echo(f"This is the token of {name}. Keep it: it is not shown again.", err=True)


@callers.command("set")
def change_caller(
    context: typer.Context,
    name: NameArgument,
    *,
    scope: ScopeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what a caller may do."""
    Desk(context, config, as_json=as_json).change("callers", name, given(scopes=scope))


@callers.command("remove")
def remove_caller(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a caller: its token is worth nothing from now on."""
    Desk(context, config, as_json=as_json).remove("callers", name)

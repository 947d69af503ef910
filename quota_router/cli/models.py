"""
Models and their ladders on the command line.

Law: a ladder is written as it is tried: one provider after the other, those of one tier joined by commas.
Never: loses what a rung says beside its provider when only the order changes.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from quota_router.cli.client import path_of
from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption
from quota_router.cli.output import NOTHING, print_table
from quota_router.cli.rows import Desk, Row, given, print_fields

app = typer.Typer(help="Models: list, show, add, set, remove, suggest.", no_args_is_help=True, rich_markup_mode=None)
attachments = typer.Typer(
    help="Who serves a model, in which order: list, set, add, remove.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
ProviderArgument = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's name.")]
LadderArgument = Annotated[
    list[str], typer.Argument(metavar="PROVIDER…", help="In the order to be tried; those of one tier joined by commas: a b,c d.")
]
AttachOption = Annotated[
    list[str] | None, typer.Option("--attach", metavar="PROVIDER", help="May be given again, in order; a,b is one tier.")
]
StrategyOption = Annotated[str | None, typer.Option("--strategy", metavar="WORD", help="How rungs of one tier are ordered.")]
TitleOption = Annotated[str | None, typer.Option("--display-name", metavar="TEXT", help="For people.")]
AliasOption = Annotated[list[str] | None, typer.Option("--alias", metavar="NAME", help="May be given again; replaces all.")]
FallbackOption = Annotated[list[str] | None, typer.Option("--fallback", metavar="MODEL", help="May be given again; replaces all.")]
CapabilityOption = Annotated[list[str] | None, typer.Option("--capability", metavar="WORD", help="May be given again.")]
TagOption = Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="May be given again.")]
ContextOption = Annotated[int | None, typer.Option("--context-tokens", metavar="N", min=1, help="The longest input.")]
OutputOption = Annotated[int | None, typer.Option("--max-output-tokens", metavar="N", min=1, help="The longest answer.")]
InputPriceOption = Annotated[str | None, typer.Option("--input-price", metavar="USD", help="Per million tokens.")]
OutputPriceOption = Annotated[str | None, typer.Option("--output-price", metavar="USD", help="Per million tokens.")]
FirstOption = Annotated[bool, typer.Option("--first", help="Before all others, instead of behind them.", show_default=False)]
UpstreamOption = Annotated[str | None, typer.Option("--upstream-model", metavar="NAME", help="What the model is called there.")]


# --- models -----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_them(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every model, and who serves it."""
    desk = Desk(context, config, as_json=as_json)
    found = desk.list("models")
    rows = [
        (
            m["name"],
            "yes" if m["usable"] else "no",
            m["family"],
            str(len(m["attachments"])),
            show_ladder(m["attachments"]),
            m["strategy"],
            ", ".join(m["aliases"]) or NOTHING,
            m["managed_by"],
        )
        for m in found
    ]
    if desk.as_json:
        desk.say(found)
    elif not found:
        typer.echo("There is no model yet: `quota-router models add NAME --attach PROVIDER`, or write them into the file.")
    else:
        columns = ("model", "usable", "family", ">providers", "tried in this order", "strategy", "aliases", "from")
        print_table("Models", columns, rows)


@app.command()
def show(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One model, every field, and its ladder."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("models", name)
    if desk.as_json:
        desk.say(row)
        return
    print_fields(row, without=("attachments",))
    _print_ladder(row["attachments"])


@app.command()
def add(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    name: NameArgument,
    *,
    attach: AttachOption = None,
    strategy: StrategyOption = None,
    display_name: TitleOption = None,
    alias: AliasOption = None,
    fallback: FallbackOption = None,
    capability: CapabilityOption = None,
    tag: TagOption = None,
    context_tokens: ContextOption = None,
    max_output_tokens: OutputOption = None,
    input_price: InputPriceOption = None,
    output_price: OutputPriceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a model: `models add gpt-5-mini --attach openai --attach openrouter`."""
    said = given(strategy=strategy, display_name=display_name, aliases=alias, fallbacks=fallback, capabilities=capability, tags=tag)
    numbers = given(
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        cost_per_million_input=input_price,
        cost_per_million_output=output_price,
    )
    body = {"name": name, **given(attachments=read_ladder(attach or [], [])), **said, **numbers}
    Desk(context, config, as_json=as_json).add("models", body)


@app.command("set")
def change(  # noqa: PLR0913 -- likewise
    context: typer.Context,
    name: NameArgument,
    *,
    strategy: StrategyOption = None,
    display_name: TitleOption = None,
    alias: AliasOption = None,
    fallback: FallbackOption = None,
    capability: CapabilityOption = None,
    tag: TagOption = None,
    context_tokens: ContextOption = None,
    max_output_tokens: OutputOption = None,
    input_price: InputPriceOption = None,
    output_price: OutputPriceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given, and nothing else; who serves it is `attachments`."""
    said = given(strategy=strategy, display_name=display_name, aliases=alias, fallbacks=fallback, capabilities=capability, tags=tag)
    numbers = given(
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        cost_per_million_input=input_price,
        cost_per_million_output=output_price,
    )
    Desk(context, config, as_json=as_json).change("models", name, {**said, **numbers})


@app.command()
def remove(context: typer.Context, name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a model that nothing else names."""
    Desk(context, config, as_json=as_json).remove("models", name)


# --- attachments ------------------------------------------------------------------------------------------------------


@attachments.command("list")
def list_ladder(context: typer.Context, model: ModelArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Who serves a model, in the order to be tried."""
    desk = Desk(context, config, as_json=as_json)
    rungs = desk.read("models", model, "attachments")["items"]
    if desk.as_json:
        desk.say(rungs)
    elif not rungs:
        typer.echo(f"Nobody serves {model}: `quota-router attachments set {model} PROVIDER`.")
    else:
        _print_ladder(rungs)


@attachments.command("set")
def set_ladder(
    context: typer.Context,
    model: ModelArgument,
    ladder: LadderArgument,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the whole ladder: `attachments set claude work,home spare`. What a rung said beside its provider stays."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("models", model)
    _put(desk, model, read_ladder(ladder, row["attachments"]), row["version"])


@attachments.command("add")
def add_rung(
    context: typer.Context,
    model: ModelArgument,
    provider: ProviderArgument,
    *,
    first: FirstOption = False,
    upstream_model: UpstreamOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let one more provider serve a model, behind all others or with --first before them."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("models", model)
    rung = {"provider": provider, **given(upstream_model=upstream_model)}
    tiers = _tiers(row["attachments"])
    _put(desk, model, [rung, *tiers] if first else [*tiers, rung], row["version"])


@attachments.command("remove")
def remove_rung(
    context: typer.Context,
    model: ModelArgument,
    provider: ProviderArgument,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a provider no longer serve a model; the last one stays."""
    desk = Desk(context, config, as_json=as_json)
    row = desk.read("models", model)
    left = [rung for rung in row["attachments"] if rung["provider"] != provider]
    if len(left) == len(row["attachments"]):
        raise CommandFailed(f"{provider} does not serve {model}.", Exit.NOT_FOUND)
    _put(desk, model, _tiers(left), row["version"])


def _put(desk: Desk, model: str, ladder: list[Any], version: int) -> None:
    row = desk.daemon.edit("PUT", path_of("models", model, "attachments"), {"attachments": ladder}, version)
    desk.say(row["items"], f"{model} is tried in this order now: {show_ladder(row['items'])}.")


def read_ladder(written: Iterable[str], known: Iterable[Row]) -> list[Any]:
    """A ladder as the API takes it; rungs that are *known* keep what they say beside their provider and place."""
    said = {rung["provider"]: _entry(rung) for rung in known}
    tiers = [[said.get(name.strip(), name.strip()) for name in tier.split(",")] for tier in written]
    return [tier if len(tier) > 1 else tier[0] for tier in tiers]


def _tiers(rungs: Iterable[Row]) -> list[Any]:
    """Rungs as they were read, as the API takes them: a list for a tier."""
    tiers: dict[int, list[Row]] = {}
    for rung in rungs:
        tiers.setdefault(rung["priority"], []).append(_entry(rung))
    return [tier if len(tier) > 1 else tier[0] for tier in tiers.values()]


def _entry(rung: Row) -> Row:
    kept = ("provider", "upstream_model", "weight", "unmetered", "enabled")
    return {**{key: rung[key] for key in kept}, **rung["prices"]}


def show_ladder(rungs: Iterable[Row]) -> str:
    """A ladder in a line: tiers joined by `, `, those of one tier by `=`; whoever is not ok says so."""
    tiers: dict[int, list[str]] = {}
    for rung in rungs:
        status = "" if rung["status"] == "ok" else f" ({rung['status']})"
        tiers.setdefault(rung["priority"], []).append(f"{rung['provider']}{status}")
    return ", ".join(" = ".join(tier) for tier in tiers.values()) or "nobody"


def _print_ladder(rungs: list[Row]) -> None:
    rows = [
        (
            str(rung["priority"]),
            rung["provider"],
            rung["display_name"] or NOTHING,
            rung["status"],
            rung["upstream_model"],
            str(rung["weight"]),
        )
        for rung in rungs
    ]
    print_table("Attachments, in the order to be tried", (">tier", "provider", "title", "status", "called there", ">weight"), rows)

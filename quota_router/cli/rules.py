"""
Routing rules on the command line: listed, tried out, added, changed, removed.

Law: a rule is named by its place in the order, or by its id; what is tried out books nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from quota_router.cli.client import path_of
from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption
from quota_router.cli.looking import print_rungs
from quota_router.cli.output import NOTHING, print_json, print_table
from quota_router.cli.rows import Desk, Row, given, print_fields

app = typer.Typer(help="Routing rules: list, show, add, set, remove, test.", no_args_is_help=True, rich_markup_mode=None)

RuleArgument = Annotated[str, typer.Argument(metavar="RULE", help="Its place in the order, or its id.")]
ConditionArgument = Annotated[str, typer.Argument(metavar="CONDITION", help='Such as "priority == 0".')]
ConditionOption = Annotated[str | None, typer.Option("--condition", metavar="TEXT", help='Such as "priority == 0".')]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Where the call goes; '' takes it away.")]
ProviderOption = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="The only one to be used.")]
StrategyOption = Annotated[str | None, typer.Option("--strategy", metavar="WORD", help="Instead of the model's.")]
ShareOption = Annotated[str | None, typer.Option("--share", metavar="SHARE", help="The part of matching tasks: 0.1.")]
UnusableOption = Annotated[str | None, typer.Option("--on-unusable", metavar="WORD", help="fall_through or refuse.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks.")]
PositionOption = Annotated[int | None, typer.Option("--position", metavar="N", min=1, help="Its place; default: the last.")]
AskedOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="What the caller asks for.")]
PriorityOption = Annotated[int | None, typer.Option("--priority", metavar="N", help="As the caller would say it.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="LABEL", help="May be given again.")]
TaskOption = Annotated[str | None, typer.Option("--task-id", metavar="ID", help="What the caller works on.")]
RetryOption = Annotated[int | None, typer.Option("--retry-count", metavar="N", min=0, help="How often it was tried before.")]
RequiresOption = Annotated[list[str] | None, typer.Option("--requires", metavar="WORD", help="May be given again.")]
InputOption = Annotated[int | None, typer.Option("--input-tokens", metavar="N", min=0, help="How long the input is.")]
CallerOption = Annotated[str | None, typer.Option("--caller", metavar="NAME", help="Who would call.")]


@app.command("list")
def list_them(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every rule, in the order in which they are asked."""
    desk = Desk(context, config, as_json=as_json)
    found = desk.list("rules")
    if desk.as_json:
        desk.say(found)
    elif not found:
        typer.echo('There is no rule yet: `quota-router rules add "priority == 0" --model MODEL`, or write them into the file.')
    else:
        columns = (">rule", "when", "then", "share", "if nobody can", "reason", "from")
        print_table("Rules", columns, [_row(rule) for rule in found])


def _row(rule: Row) -> tuple[str, ...]:
    place = str(rule["position"]) if rule["enabled"] else f"{rule['position']} (off)"
    unusable = rule["on_unusable"].replace("_", " ")
    return place, rule["condition"], then(rule), rule["share"] or "all", unusable, rule["reason"] or NOTHING, rule["managed_by"]


def then(rule: Row) -> str:
    """What a rule does, in words."""
    words = [("model", "{}"), ("provider", "only {}"), ("strategy", "by {}")]
    return ", ".join(text.format(rule[key]) for key, text in words if rule[key])


@app.command()
def show(context: typer.Context, rule: RuleArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One rule, every field."""
    desk = Desk(context, config, as_json=as_json)
    row = _find(desk, rule)
    if desk.as_json:
        desk.say(row)
    else:
        print_fields(row)


@app.command()
def add(  # noqa: PLR0913 -- one argument per option, as typer takes them
    context: typer.Context,
    condition: ConditionArgument,
    *,
    model: ModelOption = None,
    provider: ProviderOption = None,
    strategy: StrategyOption = None,
    share: ShareOption = None,
    on_unusable: UnusableOption = None,
    reason: ReasonOption = None,
    position: PositionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a rule: `rules add "labels contains 'docs'" --model gpt-5-mini`."""
    said = given(model=model, provider=provider, strategy=strategy, share=share, on_unusable=on_unusable, reason=reason)
    desk = Desk(context, config, as_json=as_json)
    row = desk.daemon.post(path_of("rules"), {"condition": condition, **said, **given(position=position)})
    desk.say(row, f"Added rule {row['position']}: when {row['condition']}, then {then(row)}.")


@app.command("set")
def change(  # noqa: PLR0913 -- likewise
    context: typer.Context,
    rule: RuleArgument,
    *,
    condition: ConditionOption = None,
    model: ModelOption = None,
    provider: ProviderOption = None,
    strategy: StrategyOption = None,
    share: ShareOption = None,
    on_unusable: UnusableOption = None,
    reason: ReasonOption = None,
    position: PositionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change or move a rule; what is not given stays."""
    said = given(
        condition=condition, model=model, provider=provider, strategy=strategy, share=share, on_unusable=on_unusable, reason=reason
    )
    desk = Desk(context, config, as_json=as_json)
    before = _find(desk, rule)
    patch = {**said, **given(position=position)}
    if not patch:
        raise CommandFailed("Nothing was said to be changed: see --help for what can be.", Exit.USAGE)
    row = desk.daemon.edit("PATCH", path_of("rules", before["id"]), patch, before["version"])
    desk.say(row, f"Rule {row['position']} is now: when {row['condition']}, then {then(row)}.")


@app.command()
def remove(context: typer.Context, rule: RuleArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a rule."""
    desk = Desk(context, config, as_json=as_json)
    found = _find(desk, rule)
    gone = desk.daemon.edit("DELETE", path_of("rules", found["id"]), None, found["version"])
    desk.say(gone, f"Removed rule {found['position']}: {found['condition']}.")


@app.command("test")
def try_out(  # noqa: PLR0913 -- likewise
    context: typer.Context,
    *,
    model: AskedOption = None,
    priority: PriorityOption = None,
    label: LabelOption = None,
    task_id: TaskOption = None,
    retry_count: RetryOption = None,
    requires: RequiresOption = None,
    input_tokens: InputOption = None,
    caller: CallerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the rules would do with a call, and why. Books nothing."""
    desk = Desk(context, config, as_json=as_json)
    said = given(model=model, priority=priority, labels=label, retry_count=retry_count, requires=requires, caller=caller)
    asked = {**said, **given(input_tokens=input_tokens), **({} if task_id is None else {"task": {"id": task_id}})}
    told = desk.daemon.post(path_of("rules", "test"), asked)
    if desk.as_json:
        print_json(told)
    else:
        _print_test(told)
    if told["outcome"] == "none_usable":
        raise CommandFailed(told["detail"], Exit.NONE_USABLE)


def _print_test(told: dict[str, Any]) -> None:
    rows = [
        (str(rule["position"]), rule["condition"], then(rule), rule["standing"].replace("_", " "), _because(rule["because"]))
        for rule in told["rules"]
    ]
    if rows:
        print_table("Rules, in the order in which they are asked", (">rule", "when", "then", "here", "because"), rows)
    else:
        typer.echo("There is no rule: the call goes where it asks to, else to the default model.")
    if told["outcome"] == "none_usable":
        if told["rungs"]:
            print_rungs(told["rungs"])
        return
    why = "no rule decides it" if told["rule"] is None else f"by the rule {told['rule']['condition']}"
    reason = f" ({told['rule']['reason']})" if told["rule"] and told["rule"]["reason"] else ""
    typer.echo(f"{told['provider']} takes it as {told['model']}: {why}{reason}.")


def _because(sentences: Sequence[str]) -> str:
    return "; ".join(sentences) or NOTHING


def _find(desk: Desk, rule: str) -> Row:
    """The rule at a place, or of an id."""
    found = desk.list("rules")
    row = next((row for row in found if row["id"] == rule), None)
    if row is None and rule.isdecimal():
        row = next((row for row in found if str(row["position"]) == rule), None)
    if row is None:
        raise CommandFailed(f"There is no rule {rule}: `quota-router rules list` shows them.", Exit.NOT_FOUND)
    return row

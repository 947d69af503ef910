"""
The commands of `quota-router`.

Law: a command asks the daemon, or works on the ledger under its lock, never both; it says in one sentence what went wrong and ends
with an exit code of `common.Exit`.
Never: decides or books; what the commands show is the API's word.
"""

import sys
from typing import Annotated

import typer

from quota_router import __version__
from quota_router.cli import (
    catalog,
    changing,
    database,
    importing,
    ledger,
    limits,
    looking,
    models,
    price_lists,
    providers,
    rules,
    serving,
    showing,
    watching,
)
from quota_router.cli.common import Common, ConfigOption, JsonOption, tell
from quota_router.errors import QuotaRouterError

app = typer.Typer(
    name="quota-router",
    help="One endpoint in front of all your LLM subscriptions and keys.\n\nNew here? `quota-router demo` shows it at work, without"
    " a key. Then: init, serve, env.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _say_version(asked: bool | None) -> None:  # noqa: FBT001 -- typer's callback
    if asked:
        typer.echo(f"quota-router {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool | None, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True, show_default=False)
]


@app.callback()
def before_each(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, version: VersionOption = None
) -> None:
    """Take the options that may stand before the subcommand."""
    del version
    context.obj = Common(config=config, as_json=as_json)


for command in (
    showing.demo,
    serving.init,
    serving.serve,
    serving.env,
    looking.status,
    watching.readings,
    watching.cooldowns,
    looking.route,
    looking.usage,
    changing.apply,
    catalog.export,
):
    app.command()(command)
catalog.app.command()(price_lists.refresh)
models.app.command()(price_lists.suggest)
for name, group in {
    "providers": providers.app,
    "models": models.app,
    "attachments": models.attachments,
    "limits": limits.app,
    "callers": limits.callers,
    "rules": rules.app,
    "catalog": catalog.app,
    "ledger": ledger.app,
    "db": database.app,
    "import": importing.app,
}.items():
    app.add_typer(group, name=name)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit. *arguments*: without the program's name; `None`: the process's own."""
    try:
        app(arguments, prog_name="quota-router")
    except QuotaRouterError as error:
        sys.exit(tell(error))

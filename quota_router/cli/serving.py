"""
Getting it to run: the file, the daemon, and what a shell has to know.

Law: `serve` prints one line to stdout, where it listens, once it does; `init` never writes over a file unless told to.
Never: prints a key of a provider. `env` prints the token of our own endpoint, because that is what it is for.
"""

import asyncio
import logging
import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from quota_router.cli.client import callers_token, find_daemon, find_url
from quota_router.cli.common import CommandFailed, Common, ConfigOption, JsonOption, common_of
from quota_router.cli.output import configure_logs, print_json

EXAMPLE = "example.toml"
LARGEST_PORT = 65_535


def _check_listen(listen: str | None) -> str | None:
    host, _, port = (listen or "localhost:0").rpartition(":")
    if not host or not port.isdecimal() or int(port[:6]) > LARGEST_PORT:
        raise typer.BadParameter("write HOST:PORT, such as 127.0.0.1:4141; port 0 takes any that is free")
    return listen


ListenOption = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", help="Instead of the file's; port 0: any.", callback=_check_listen),
]
AcceptClockOption = Annotated[
    bool, typer.Option("--accept-clock", help="Start although the clock is behind the ledger's last entry.", show_default=False)
]
PathOption = Annotated[
    Path | None, typer.Option("--path", metavar="FILE", help="Write it there, readable by you alone.", show_default=False)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over a file that is there.", show_default=False)]


def serve(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    listen: ListenOption = None,
    accept_clock: AcceptClockOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the daemon. Ctrl-C or SIGTERM lets calls end; a second one settles at once."""
    common = common_of(context, config, as_json=as_json)
    loaded = common.load()
    configure_logs(logging.INFO)
    from quota_router import daemon  # noqa: PLC0415 -- the server takes longer to import than `--help` may last

    def say(url: str) -> None:
        if common.as_json:
            print_json({"url": url})
        else:
            typer.echo(f"quota_router listens on {url}")

    try:
        asyncio.run(daemon.run(loaded, os.environ, listen=listen, accept_clock=accept_clock, say=say))
    except OSError as exc:
        # asyncio words the system's own errors anew; a name that does not resolve has none of those.
        why = os.strerror(exc.errno) if exc.errno is not None and exc.errno > 0 else exc.strerror or exc
        raise CommandFailed(
            f"The daemon cannot listen on {listen or loaded.settings.listen}: {why}."
            " Choose another address with --listen HOST:PORT."
        ) from exc


def init(
    context: typer.Context,
    *,
    path: PathOption = None,
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a complete example file, or write it with --path."""
    common = common_of(context, config, as_json=as_json)
    text = files("quota_router").joinpath(EXAMPLE).read_text(encoding="utf-8")
    if path is None:
        if common.as_json:
            print_json({"path": None, "text": text})
            return
        typer.echo(text, nl=False)
        typer.echo("Next: write it to a file with `quota-router init --path quota-router.toml`.", err=True)
        return
    write_private(path, text, force=force)
    if common.as_json:
        print_json({"path": str(path), "text": text})
        return
    shown = shlex.quote(str(path))
    typer.echo(f"Wrote {path}. Next: keep the providers you have, set their keys in the environment,")
    typer.echo(f"then run `quota-router serve --config {shown}`.")


def write_private(path: Path, text: str, *, force: bool) -> None:
    """Write a file that only its owner reads. Raises `CommandFailed`: it is there already, or cannot be written."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
    except FileExistsError as exc:
        raise CommandFailed(f"{path} is there already. Choose another path, or write over it with --force.") from exc
    except OSError as exc:
        raise CommandFailed(f"{path} cannot be written: {exc.strerror}.") from exc


def env(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print what SDKs need: eval "$(quota-router env)"."""
    common = common_of(context, config, as_json=as_json)
    variables = _variables(common)
    if common.as_json:
        print_json(variables)
        return
    for line in export_lines(variables):
        typer.echo(line)


def _variables(common: Common) -> dict[str, str]:
    """Work out what the SDKs need. Raises `CommandFailed`: there is no token yet."""
    loaded = common.load()
    token = callers_token(os.environ) or find_daemon(loaded, os.environ).token
    if token is None:
        raise CommandFailed(
            "There is no token yet: run `quota-router serve` once, which makes one, or set QUOTA_ROUTER_TOKEN to a caller's."
        )
    return variables_for(find_url(loaded, os.environ), token.reveal())


def variables_for(url: str, token: str) -> dict[str, str]:
    """The variables that the SDKs of both families read: OpenAI's takes the URL with /v1, Anthropic's without."""
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": token,
    }


def export_lines(variables: dict[str, str]) -> list[str]:
    """Write variables as a shell takes them."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]

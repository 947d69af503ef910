"""
Files of other programs, read as ours.

Law: what is printed loads; what could not be carried over is said on stderr, line by line.
Never: copies a key, or applies what it made: the operator reads it first.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.output import print_json
from quota_router.cli.serving import ForceOption, PathOption, write_private

FILE_MAX_BYTES = 4_194_304

app = typer.Typer(help="Files of other programs, read as ours: litellm.", no_args_is_help=True, rich_markup_mode=None)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The proxy's config.yaml.", readable=False)]


@app.callback()
def before_each() -> None:
    """Files of other programs, read as ours."""


@app.command()
def litellm(
    context: typer.Context,
    file: FileArgument,
    *,
    path: PathOption = None,
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a LiteLLM proxy's FILE to a configuration file, and say what could not be carried over."""
    common = common_of(context, config, as_json=as_json)
    from quota_router.cli.litellm import convert  # noqa: PLC0415 -- `--help` has to be quick
    from quota_router.core.toml_text import write_toml  # noqa: PLC0415 -- likewise

    tables, notes = convert(_read(file))
    text = f"# From {file.name}, a LiteLLM configuration. Read it before you serve it.\n\n{write_toml(tables)}"
    if path is not None:
        write_private(path, text, force=force)
    if common.as_json:
        print_json({"path": None if path is None else str(path), "text": text, "notes": notes})
        return
    typer.echo(f"Wrote {path}." if path is not None else text, nl=path is not None)
    for sentence in notes:
        typer.echo(sentence, err=True)


def _read(path: Path) -> Mapping[str, Any]:
    """Read a YAML file. Raises `CommandFailed`: it cannot be read, or holds no table."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
        text = content.decode()
    except OSError as exc:
        raise CommandFailed(f"{path} cannot be read: {exc.strerror}.", Exit.BAD_CONFIG) from exc
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"{path} is not UTF-8 text.", Exit.BAD_CONFIG) from exc
    if len(content) > FILE_MAX_BYTES:
        raise CommandFailed(f"{path} is larger than {FILE_MAX_BYTES} bytes: it is probably not the right file.", Exit.BAD_CONFIG)
    found = _parse(text, path)
    if not isinstance(found, Mapping) or not isinstance(found.get("model_list"), list):
        raise CommandFailed(f"{path} has no model_list: it is no configuration of a LiteLLM proxy.", Exit.BAD_CONFIG)
    return found


def _parse(text: str, path: Path) -> Any:  # noqa: ANN401 -- whatever YAML holds
    """Make plain values of YAML, and of numbers with a point exact ones."""
    try:
        import yaml  # noqa: PLC0415 -- an extra: only this command needs it
    except ImportError as exc:
        raise CommandFailed(
            "Reading YAML takes one more package: run `pip install 'quota-router[litellm]'`, then this again."
        ) from exc

    class Loader(yaml.SafeLoader):
        """Safe, and exact."""

    Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _exact(node.value))
    try:
        return yaml.load(text, Loader)  # noqa: S506 -- a subclass of the safe one
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise CommandFailed(f"{path}{where}: the file is not valid YAML.", Exit.BAD_CONFIG) from exc


def _exact(written: str) -> Decimal | str:
    try:
        return Decimal(written.replace("_", ""))
    except InvalidOperation:  # .inf, 1:30 and their like: no number that anything here is counted in
        return written

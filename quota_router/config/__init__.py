"""
Settings and the catalog file: found, read and validated once, frozen.

Law: an invalid file or variable changes nothing and is one `ConfigError`, whose sentence names file, line, key path and remedy.
Never: imported by any room but `cli` and `daemon`; resolves names or presets (`core/desired` does).

Decision 2026-11 -- variables override `[server]` alone: the catalog has one source, the file, so that `apply` and `reload` mean
    the same whoever calls them. Look again if somebody runs without a file.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from quota_router.config.credentials import (
    ADMIN_TOKEN,
    ADMIN_TOKEN_FILE,
    Credentials,
    admin_token,
    check_reference,
    keep_admin_token,
)
from quota_router.config.lines import line_of
from quota_router.config.problems import describe, explain, find_problem, find_syntax_problem, refuse
from quota_router.config.shapes import FileShape, ServerSettings, ServerTable
from quota_router.errors import ConfigError, did_you_mean

__all__ = [
    "Credentials",
    "Loaded",
    "ServerSettings",
    "admin_token",
    "check_reference",
    "explain",
    "find_file",
    "keep_admin_token",
    "line_of",
    "load",
    "parse_catalog",
]

FILE_MAX_BYTES = 4_194_304

_APP = "quota-router"
_PREFIX = "QUOTA_ROUTER_"
_CONFIG = f"{_PREFIX}CONFIG"
_READ_ELSEWHERE = (
    _CONFIG,
    ADMIN_TOKEN,
    ADMIN_TOKEN_FILE,
    f"{_PREFIX}CRASH_AT",
    f"{_PREFIX}TEST_PG_URL",
    f"{_PREFIX}UI",
    f"{_PREFIX}URL",
    f"{_PREFIX}TOKEN",
)
_SERVER_VARIABLES = {f"{_PREFIX}SERVER__{key.upper()}": key for key in ServerTable.model_fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was found at start."""

    settings: ServerSettings
    desired: Mapping[str, Any]
    """the catalog's tables, for `core/desired`; empty when there is no file"""
    path: Path | None
    """`None`: no file was found, which is allowed"""
    text: str = field(repr=False)
    """of the file, for `explain`"""


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """
    Find the file and read it, and the variables that override its `[server]`.

    Args:
        path: `--config`; `None`: the search order decides.
        environ: the process's variables. A command-line option goes in as its variable.

    Raises:
        ConfigError: what is wrong, with its file, line and key path, or its variable.
    """
    _refuse_unknown_variables(environ)
    found = find_file(path, environ)
    text = "" if found is None else _read(found)
    tables = _parse(text, str(found))
    settings = _settings(tables.get("server", {}), environ)
    return Loaded(settings=settings, desired=_without_server(tables), path=found, text=text)


def parse_catalog(text: str, file: str) -> Mapping[str, Any]:
    """
    Read the catalog of *text*, which is called *file* in errors.

    A `[server]` table is checked and left out: it takes effect at the next start.

    Raises:
        ConfigError: what is wrong, with its line and key path.
    """
    return _without_server(_parse(text, file))


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to be read, in the order of design 9; one that is named need not exist yet, the others do."""
    named = path or environ.get(_CONFIG)
    if named:
        return Path(named)
    candidates = (
        Path("quota-router.toml"),
        _xdg(environ, "XDG_CONFIG_HOME", platformdirs.user_config_path) / "config.toml",
        Path("/etc", _APP, "config.toml"),
    )
    return next((candidate for candidate in candidates if _is_there(candidate)), None)


def _xdg(environ: Mapping[str, str], variable: str, default: Callable[[str], Path]) -> Path:
    base = Path(environ.get(variable, ""))
    # Relative paths are to be ignored: XDG Base Directory Specification 0.8, read 2026-11-20.
    return base / _APP if base.is_absolute() else default(_APP)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return True  # It is read next, and refused with its reason.


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
        text = content.decode()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}.", file=str(path)) from exc
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}, line {line}: the file is not UTF-8 text.", file=str(path), line=line) from exc
    if len(content) > FILE_MAX_BYTES:
        refuse(f"the file is larger than {FILE_MAX_BYTES} bytes: it is probably not the right one.", str(path))
    return text


def _parse(text: str, file: str) -> dict[str, Any]:
    """The tables of *text*, of the right shape. Numbers with a point are exact decimals: money passes through them."""
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except RecursionError as exc:
        raise ConfigError(f"{file}: the file is nested too deeply.", file=file) from exc
    except ValueError as exc:
        raise find_syntax_problem(exc, text, file) from exc
    try:
        FileShape.model_validate(tables)
    except ValidationError as exc:
        raise find_problem(exc, tables, text, file) from exc
    return tables


def _without_server(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: table for key, table in tables.items() if key != "server"}


# --- variables --------------------------------------------------------------------------------------------------------


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = (*_READ_ELSEWHERE, *_SERVER_VARIABLES)
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known:
            raise ConfigError(f"variable {name} is not known: {did_you_mean(name, known)}")


def _settings(table: Mapping[str, Any], environ: Mapping[str, str]) -> ServerSettings:
    overrides = _Overrides(environ)().get("server", {})
    state_dir = _xdg(environ, "XDG_STATE_HOME", platformdirs.user_state_path)
    try:
        return ServerSettings.model_validate({**table, **overrides, "state_dir": state_dir})
    except ValidationError as exc:
        # The table was validated before: what is wrong now came from a variable.
        details = exc.errors()[0]
        key = str(details["loc"][0])
        raise ConfigError(f"{_PREFIX}SERVER__{key.upper()}: {describe(details, (key,))}", key_path=("server", key)) from exc


class _Variables(BaseSettings):
    """Which variables there are: strict, so that text becomes a number only where a number belongs."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", strict=True)

    server: ServerTable = ServerTable()


class _Overrides(EnvSettingsSource):
    """Reads the variables it is given, not those of the process: the same call gives the same answer."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in environ.items() if name in _SERVER_VARIABLES and value}
        super().__init__(_Variables)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._given)

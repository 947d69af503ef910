"""
Prices and capabilities as data: fetching a newer list, and finding a model in it.

Law: a list is kept only if nothing speaks against it, or the operator says so; whatever is said against it changes nothing.
What the file or the API states of a model goes before any list.
Never: follows a redirect, asks a proxy, or sends anything but the request for the list.
"""

import http.client
import ssl
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from quota_router.cli.common import CommandFailed, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.output import NOTHING, UNKNOWN, print_json, print_table

if TYPE_CHECKING:
    from quota_router.core.model_lists import Known
    from quota_router.store.price_file import PriceFile

LISTS = {
    "genai-prices": "https://raw.githubusercontent.com/pydantic/genai-prices/refs/heads/main/prices/new_data/v2/data.json",
    "models.dev": "https://models.dev/api.json",
}
"""Where each list is published (genai-prices 0.2.3, models.dev's README; read 2026-11-25)."""
FETCH_TIMEOUT_S = 10.0
"""For each step of it."""
FETCH_MAX_S = 60.0
"""For the whole list."""
_PIECE_BYTES = 65_536
_EXACT_PUSD = 10**6

SourceArgument = Annotated[
    str, typer.Argument(metavar="[LIST]", help="genai-prices, models.dev, or a file or https URL of one of them.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Keep it, whatever speaks against it.", show_default=False)]
BundledOption = Annotated[
    bool, typer.Option("--bundled", help="Go back to the list that came with this version.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model, or PROVIDER/MODEL; about right is enough.")]
MostOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100, help="At most so many.")]


def refresh(
    context: typer.Context,
    source: SourceArgument = "genai-prices",
    *,
    force: ForceOption = False,
    bundled: BundledOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a newer list of prices, and keep it if it can be believed. A running daemon takes it within seconds."""
    common = common_of(context, config, as_json=as_json)
    from quota_router.core.model_lists import changes, objections  # noqa: PLC0415 -- `--help` needs none of it
    from quota_router.store.price_file import PriceFile, read_list  # noqa: PLC0415 -- likewise
    from quota_router.store.prices import PriceBook, known_of  # noqa: PLC0415 -- likewise

    file = PriceFile(folder=common.load().settings.state_dir)
    if bundled:
        _forget(file, as_json=common.as_json)
        return
    now = datetime.now(UTC)
    text, origin = _fetch(source)
    try:
        fetched = read_list(text, now)
    except ValueError as exc:
        raise CommandFailed(f"{origin} was not kept. {exc}") from exc
    before, after = PriceBook(_kept(file)), known_of(fetched, now.date())
    known = before.known(now.date()) if before.fetched is None else known_of(before.fetched, now.date())
    is_next = {one.source for one in known} == {fetched.source}
    against = objections(known, after)
    if against and not force:
        raise CommandFailed(f"{origin} was not kept. {' '.join(against)} Look at it, and keep it all the same with --force.")
    try:
        file.keep(text, origin, now)
    except OSError as exc:
        raise CommandFailed(f"{file.path} cannot be written: {exc.strerror}.") from exc
    told = {
        "source": fetched.source,
        "version": fetched.version,
        "models": len(after),
        "priced": sum(one.price is not None for one in after),
        **changes(known if is_next else [], after),
        "objections": against,
        "path": str(file.path),
    }
    if common.as_json:
        print_json(told)
        return
    typer.echo(
        f"{told['models']:,} models of {told['source']}, {told['priced']:,} of them with a price; version {told['version']}."
    )
    typer.echo(f"Against the list before it: {told['new']:,} new, {told['gone']:,} gone, {told['changed']:,} with another price.")
    for sentence in against:
        typer.echo(f"Kept all the same: {sentence}")


def _forget(file: "PriceFile", *, as_json: bool) -> None:
    try:
        was_there = file.forget()
    except OSError as exc:
        raise CommandFailed(f"{file.path} cannot be removed: {exc.strerror}.") from exc
    if as_json:
        print_json({"source": "genai-prices", "version": "bundled", "removed": was_there, "path": str(file.path)})
    else:
        typer.echo("Prices are those of the bundled list again." if was_there else "Prices are those of the bundled list already.")


def _kept(file: "PriceFile") -> Any:  # noqa: ANN401 -- a `PriceList`, whose room is imported late
    """The list in force; one that cannot be read is none, and is about to be replaced."""
    try:
        return file.load()
    except ValueError:
        return None


def suggest(
    context: typer.Context,
    name: NameArgument,
    *,
    limit: MostOption = 10,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who is meant by NAME: the nearest models that the lists know, with their prices."""
    common = common_of(context, config, as_json=as_json)
    from quota_router.core.model_lists import nearest  # noqa: PLC0415 -- `--help` needs none of it
    from quota_router.store.price_file import PriceFile  # noqa: PLC0415 -- likewise
    from quota_router.store.prices import PriceBook  # noqa: PLC0415 -- likewise

    prices = PriceBook(_kept(PriceFile(folder=common.load().settings.state_dir)))
    found = nearest(name, prices.known(datetime.now(UTC).date()), limit)
    if not found:
        raise CommandFailed(f"No list knows a model that is called anything like {name!r}.", Exit.NOT_FOUND)
    if common.as_json:
        print_json({"items": [_shape(known) for known in found]})
        return
    columns = ("provider", "model", ">in, USD/M", ">out, USD/M", ">context", ">output", "can", "list")
    print_table("Nearest models", columns, [_row(known) for known in found])


def _shape(known: "Known") -> dict[str, Any]:
    rates = known.price.tiers[0][1] if known.price is not None else None
    return {
        "provider": known.provider,
        "model": known.model,
        "cost_per_million_input": None if rates is None else _per_million(rates.input_pusd),
        "cost_per_million_output": None if rates is None else _per_million(rates.output_pusd),
        "context_tokens": known.context_tokens,
        "max_output_tokens": known.max_output_tokens,
        "capabilities": None if known.capabilities is None else list(known.capabilities),
        "source": known.source,
        "version": known.version,
    }


def _row(known: "Known") -> tuple[str, ...]:
    shape = _shape(known)
    counts = (UNKNOWN if shape[key] is None else f"{shape[key]:,}" for key in ("context_tokens", "max_output_tokens"))
    prices = (shape[key] or UNKNOWN for key in ("cost_per_million_input", "cost_per_million_output"))
    can = UNKNOWN if known.capabilities is None else ", ".join(known.capabilities) or NOTHING
    return known.provider, known.model, *prices, *counts, can, f"{known.source} {known.version}"


def _per_million(pusd: int) -> str:
    """USD per million tokens, exactly; as the file takes it."""
    usd, rest = divmod(pusd, _EXACT_PUSD)
    return f"{usd}.{rest:06d}".rstrip("0").rstrip(".")


# --- fetching -----------------------------------------------------------------------------------------------------------


def _fetch(source: str) -> tuple[bytes, str]:
    """Read a list, and say where it is from. Raises `CommandFailed`."""
    from quota_router.store.price_file import LIST_MAX_BYTES  # noqa: PLC0415 -- `--help` needs none of it

    at = LISTS.get(source, source)
    if "://" in at:
        return _download(at, LIST_MAX_BYTES + 1), at
    try:
        with Path(at).open("rb") as file:
            return file.read(LIST_MAX_BYTES + 1), at
    except OSError as exc:
        remedy = f"Name a file, an https URL, or one of {', '.join(LISTS)}."
        raise CommandFailed(f"{at} cannot be read: {exc.strerror}. {remedy}") from exc


def _download(url: str, most_bytes: int) -> bytes:
    host, port, path = _split(url)
    connection = http.client.HTTPSConnection(host, port, timeout=FETCH_TIMEOUT_S, context=ssl.create_default_context())
    try:
        connection.request("GET", path, headers={"User-Agent": "quota-router", "Accept": "application/json"})
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise CommandFailed(f"{host} answers with status {response.status}, and no redirect is followed.")
        return _read(response, most_bytes)
    except (OSError, http.client.HTTPException) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise CommandFailed(f"The list cannot be fetched from {host}: {why}.") from exc
    finally:
        connection.close()


def _split(url: str) -> tuple[str, int, str]:
    """Take an https URL apart: host, port, and the rest. Raises `CommandFailed`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "https" or not host or "@" in parts.netloc:
        raise CommandFailed(f"{url} is no https URL: a list that prices depend on is fetched over nothing else.", Exit.USAGE)
    path = parts.path or "/"
    return host, port, f"{path}?{parts.query}" if parts.query else path


def _read(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """Read a body within the time that a whole list may take. Raises `TimeoutError`."""
    found, until = bytearray(), time.monotonic() + FETCH_MAX_S
    while len(found) < most_bytes and (piece := response.read1(min(_PIECE_BYTES, most_bytes - len(found)))):
        found += piece
        if time.monotonic() > until:
            raise TimeoutError(None, f"it takes longer than {FETCH_MAX_S:g} s")
    return bytes(found)

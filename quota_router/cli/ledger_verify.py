"""
Verifying the ledger, and telling what was found.

Law: exit code 0 says that all of it was read and nothing is wrong; whatever is wrong is named, with what should be there.
Never: mends anything.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quota_router.cli.common import CommandFailed, Common, ConfigOption, Exit, JsonOption, common_of
from quota_router.cli.output import configure_logs, print_json, print_table, show_amount, show_moment, show_usd
from quota_router.cli.progress import showing

if TYPE_CHECKING:
    from quota_router.store.chain import Walk
    from quota_router.store.verdict import Finding, Verdict

_HEAD = "JOURNAL:SEQ:HASH"
_HEAD_SHAPE = re.compile(r".+:[1-9][0-9]{0,18}:[0-9a-fA-F]{64}")

Marks = dict[str, dict[int, bytes]]

HeadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar=_HEAD,
        help="A head that was kept elsewhere, or a FILE of them: what `verify --json` or GET journals said. May be given again.",
        show_default=False,
    ),
]


def verify(context: typer.Context, *, head: HeadOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read the whole ledger: chains, triggers, balances. Beside a running daemon, too."""
    common = common_of(context, config, as_json=as_json)
    marks = read_heads(head or [])
    url, name = find_ledger(common)
    from quota_router.store.audit import verify as read  # noqa: PLC0415 -- SQLAlchemy takes longer to import than `--help` may last
    from quota_router.store.open import reading_beside  # noqa: PLC0415 -- likewise

    with showing("verifying") as (told,), reading_beside(url) as conn:
        verdict = read(conn, datetime.now(UTC), marks, told)
    if common.as_json:
        print_json({"ledger": name, **as_shape(verdict)})
    else:
        print_verdict(name, verdict)
    refuse_broken(verdict)


def find_ledger(common: Common) -> tuple[str, str]:
    """
    Find the ledger that is there.

    Returns:
        its URL, and its name as it may be shown.

    Raises:
        CommandFailed: there is none. ConfigError: the configuration cannot be read.
    """
    configure_logs()
    url = common.load().settings.database_url
    from quota_router.store.open import exists, show  # noqa: PLC0415 -- likewise

    if not exists(url):
        raise CommandFailed(f"There is no ledger at {show(url)} yet: `quota-router serve` makes it.")
    return url, show(url)


# --- heads that were kept elsewhere -------------------------------------------------------------------------------------


def read_heads(words: Sequence[str]) -> Marks:
    """Read heads as they were given, or from files. Raises `CommandFailed`."""
    marks: Marks = {}
    for word in words:
        heads = [word] if _is_head(word) else _read_file(Path(word))
        for head in heads:
            journal, seq, digest = head.rsplit(":", 2)
            before = marks.setdefault(journal, {}).setdefault(int(seq), bytes.fromhex(digest))
            if before.hex() != digest.lower():
                raise CommandFailed(f"Two heads are given for entry {seq} of journal {journal}, with two hashes.", Exit.USAGE)
    return marks


def _is_head(word: str) -> bool:
    return _HEAD_SHAPE.fullmatch(word) is not None


def _read_file(path: Path) -> list[str]:
    """Read a file of heads: one a line, or the JSON that the API or `verify --json` gave."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError, ValueError) as exc:
        raise CommandFailed(f"--head takes {_HEAD}, or a file of them: {str(path)!r} is neither.", Exit.USAGE) from exc
    found = _heads_of_json(text) or [line.strip() for line in text.splitlines() if line.strip()]
    if not found or not all(_is_head(line) for line in found):
        raise CommandFailed(f"{path} holds no heads: write one {_HEAD} a line, or keep what `verify --json` said.", Exit.USAGE)
    return found


def _heads_of_json(text: str) -> list[str]:
    try:
        value: Any = json.loads(text)
        listed = value.get("items") or value.get("journals") or []
        return [f"{head['journal']}:{head['seq']}:{head['hash']}" for head in listed]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return []


# --- what was found -----------------------------------------------------------------------------------------------------


def as_shape(verdict: "Verdict") -> dict[str, Any]:
    """Tell a verdict as JSON."""
    return {
        "ok": verdict.is_whole,
        "journals": [_shape_of(walk) for walk in verdict.walks if walk.entries],
        "limits": verdict.limits,
        "balances": verdict.balances,
        "found": verdict.found,
        "findings": [{"kind": f.kind.value, "text": f.text, **f.numbers} for f in verdict.findings],
    }


def _shape_of(walk: "Walk") -> dict[str, Any]:
    from quota_router.store.shapes import show_stored  # noqa: PLC0415 -- loaded by now

    shape = {"journal": walk.journal, "seq": walk.seq, "hash": walk.digest.hex(), "at": show_stored(walk.at)}
    return {**shape, "entries": walk.entries, "cost_nusd": walk.cost_nusd}


def print_verdict(name: str, verdict: "Verdict") -> None:
    """Print a verdict for people."""
    shapes = [_shape_of(walk) for walk in verdict.walks if walk.entries]
    if shapes:
        rows = [(s["journal"], f"{s['entries']:,}", show_usd(s["cost_nusd"]), _moment(s["at"])) for s in shapes]
        typer.echo(name)
        print_table("Journals", ("journal", ">entries", ">spent", "last entry"), rows)
    for finding in verdict.findings:
        if finding.kind.value != "balance":
            typer.echo(f"WRONG {finding.text}")
    balances = [finding for finding in verdict.findings if finding.kind.value == "balance"]
    if balances:
        columns = ("limit", "window or part, from", "what", ">found", ">should be")
        print_table("Balances that are not what entries and open holds come to", columns, [_row_of(f) for f in balances])
    if verdict.found > len(verdict.findings):
        typer.echo(f"… and {verdict.found - len(verdict.findings):,} more.")
    if not verdict.is_whole:
        return
    if not shapes:
        typer.echo(f"{name} holds no entry yet. What is there is whole.")
        return
    typer.echo(f"Whole: every entry follows from the one before, and {verdict.balances:,} balances of {verdict.limits:,} limits")
    typer.echo("are what entries and open holds come to. Keep the heads elsewhere, for --head:")
    for shape in shapes:
        typer.echo(f"{shape['journal']}:{shape['seq']}:{shape['hash']}")


def _row_of(finding: "Finding") -> tuple[str, ...]:
    n = finding.numbers
    amounts = (show_amount(n["unit"], n["found"]), show_amount(n["unit"], n["expected"]))
    return n["limit"], _moment(n["bucket"]), n["what"], *amounts


def _moment(text: str) -> str:
    """A moment in the reader's own zone; one that no calendar has stays the number that it is."""
    return show_moment(text) if "T" in text else text


def refuse_broken(verdict: "Verdict") -> None:
    """Raise `CommandFailed`, with what to do, unless everything is whole."""
    if verdict.is_whole:
        return
    kinds = {finding.kind.value for finding in verdict.findings}
    things = "One thing is" if verdict.found == 1 else f"{verdict.found:,} things are"
    if kinds == {"balance"}:
        remedy = "The entries are whole: `quota-router ledger rebuild` works the balances out anew."
    elif kinds <= {"schema"}:
        remedy = "Entries may have been edited while nothing kept them: compare with a backup, then restore what is named."
    else:
        remedy = "Entries are not what was booked: keep it as it is, and compare with a backup and with heads kept elsewhere."
    raise CommandFailed(f"{things} wrong with this ledger. {remedy}")

"""
Programs of this machine that stand in for an API, as the file writes them.

Law: a command is a list of words, handed over as they are: no shell reads them. What stands in the catalog can be called. A known
tool (`core/command_presets`) says what the file leaves out, and the file may say each of it otherwise.
Never: runs anything, or looks whether the program is there.

Decision 2026-11 -- a key reaches its program in the variable that it was found in (`env:NAME`), unless the tool is known to read
    another one, or `credential_env` names one: most tools read the variable that their user has set already.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from quota_router.core.command_output import Format, Pick, Reads, Source
from quota_router.core.command_presets import PRESETS, CommandPreset
from quota_router.core.commands import CommandSpec, Placeholder
from quota_router.core.naming import check_known, fail, read_word
from quota_router.core.usage import BUCKETS
from quota_router.errors import KeyPath

COUNTS: Mapping[str, str] = {f"{bucket}_tokens": bucket for bucket in BUCKETS}
"""A key of `answer` -> the token bucket it counts."""
_NETWORK_KEYS = ("base_url", "network", "allow")
_COMMAND_KEYS = ("env", "credential_env", "prompt_on_stdin", "run_timeout_s", "answer")


def find_tool(table: Mapping[str, Any], path: KeyPath) -> CommandPreset | None:
    """The tool that `command` names; `None`: it names none."""
    if "command" not in table:
        return None
    check_known("command", table["command"], PRESETS, (*path, "command"))
    return PRESETS[table["command"]]


def read_command(table: Mapping[str, Any], path: KeyPath, credential_ref: str) -> CommandSpec | None:
    """
    What is run instead of asking an address; `None`: nothing is. A text is parted as a shell would, without asking one.

    Raises:
        ConfigError: it cannot be called, or the provider says what only an API has.
    """
    tool = find_tool(table, path)
    if tool is None and "command_template" not in table:
        for key in _COMMAND_KEYS:
            if key in table:
                fail((*path, key), f"{key} is for the program of command_template: add that, or leave {key} out.")
        return None
    for key in _NETWORK_KEYS:
        if key in table:
            fail((*path, key), f"a command has no {key}: leave it out, or leave out command_template.")
    at = (*path, "command_template" if "command_template" in table else "command")
    known = None if tool is None else tool.spec
    words = _words(table["command_template"], at) if "command_template" in table or known is None else known.template
    on_stdin = table.get("prompt_on_stdin", known is not None and known.prompt_on_stdin)
    with _refused_at(at):
        spec = CommandSpec(template=words, prompt_on_stdin=on_stdin)
    spec = replace(spec, reads=_reads(table, path, known, spec))
    if "run_timeout_s" in table:
        with _refused_at((*path, "run_timeout_s")):
            spec = replace(spec, run_timeout_s=float(table["run_timeout_s"]))
    with _refused_at((*path, "env")):
        spec = replace(spec, env=dict(table.get("env", {})))
    with _refused_at((*path, "credential_env")):
        return replace(spec, credential_env=_credential_env(table, path, known, credential_ref))


def command_table(spec: CommandSpec) -> dict[str, Any]:
    """The keys of a file that make this command again, whole."""
    reads = spec.reads
    named = {"text": reads.text, "status": reads.status, "cost_usd": reads.cost_usd}
    answer: dict[str, Any] = {key: _show_pick(pick) for key, pick in named.items() if pick is not None}
    listed = {"failed": reads.failed, "message": reads.message}
    answer |= {key: [_show_pick(pick) for pick in picks] for key, picks in listed.items() if picks}
    answer |= {key: _show_pick(reads.counts[bucket]) for key, bucket in COUNTS.items() if bucket in reads.counts}
    if reads.within:
        answer["within"] = {f"{part}_tokens": f"{whole}_tokens" for part, whole in reads.within}
    table: dict[str, Any] = {
        "command_template": list(spec.template),
        "prompt_on_stdin": spec.prompt_on_stdin,
        "run_timeout_s": spec.run_timeout_s,
        "answer": {"format": reads.format.value, **answer},
        "env": dict(spec.env),
    }
    return table if spec.credential_env is None else {**table, "credential_env": spec.credential_env}


def _words(written: str | Sequence[str], path: KeyPath) -> tuple[str, ...]:
    if not isinstance(written, str):
        return tuple(written)
    try:
        return tuple(shlex.split(written))
    except ValueError:
        fail(path, "a quote in command_template is not closed: close it, or write the command as a list of words.")


@contextmanager
def _refused_at(path: KeyPath) -> Iterator[None]:
    """What a value of ours refuses is refused at *path*."""
    try:
        yield
    except ValueError as exc:
        fail(path, str(exc))


def _credential_env(table: Mapping[str, Any], path: KeyPath, known: CommandSpec | None, credential_ref: str) -> str | None:
    """The variable that the program finds its key in; `None`: it has signed in by itself."""
    if credential_ref == "none":
        if "credential_env" in table:
            fail((*path, "credential_env"), "credential_env carries a credential: add that, or leave credential_env out.")
        return None
    if "credential_env" in table:
        return str(table["credential_env"])
    if known is not None and known.credential_env is not None:
        return known.credential_env
    kind, _, name = credential_ref.partition(":")
    if kind != "env":
        fail((*path, "credential"), "the program finds its key in a variable: name it as credential_env.")
    return name


# --- how an answer is read ----------------------------------------------------------------------------------------------


def _reads(table: Mapping[str, Any], path: KeyPath, known: CommandSpec | None, spec: CommandSpec) -> Reads:
    """How it is read: out of the file that it was told to write, if it was told, else off its standard output."""
    source = Source.OUTPUT_FILE if spec.asks_for(Placeholder.OUTPUT_FILE) else Source.STDOUT
    if "answer" not in table:
        return Reads(source=source) if known is None else replace(known.reads, source=source)
    answer, at = table["answer"], (*path, "answer")
    within = answer.get("within", {})
    for part, whole in within.items():
        check_known("count", part, COUNTS, (*at, "within"))
        check_known("count", whole, COUNTS, (*at, "within", part))
    with _refused_at(at):
        return Reads(
            source=source,
            format=read_word("format", answer.get("format", Format.TEXT.value), Format, (*at, "format")),
            text=_pick(answer, "text", at),
            failed=_picks(answer, "failed", at),
            message=_picks(answer, "message", at),
            status=_pick(answer, "status", at),
            counts={bucket: pick for key, bucket in COUNTS.items() if (pick := _pick(answer, key, at)) is not None},
            within=tuple((COUNTS[part], COUNTS[whole]) for part, whole in within.items()),
            cost_usd=_pick(answer, "cost_usd", at),
        )


def _pick(answer: Mapping[str, Any], key: str, path: KeyPath) -> Pick | None:
    return _read_pick(answer[key], (*path, key)) if key in answer else None


def _picks(answer: Mapping[str, Any], key: str, path: KeyPath) -> tuple[Pick, ...]:
    written = answer.get(key, [])
    if not isinstance(written, list):
        return (_read_pick(written, (*path, key)),)
    return tuple(_read_pick(one, (*path, key, place)) for place, one in enumerate(written))


def _read_pick(written: str | Mapping[str, Any], path: KeyPath) -> Pick:
    table: Mapping[str, Any] = {"at": written} if isinstance(written, str) else written
    with _refused_at(path):
        return Pick(at=table["at"], when=tuple(table.get("when", {}).items()))


def _show_pick(pick: Pick) -> str | dict[str, Any]:
    return {"at": pick.at, "when": dict(pick.when)} if pick.when else pick.at

"""
Command-line tools as providers: how one is called, what it may see, and where in what it writes its answer stands.

Law: a template is filled argument by argument, and nothing is ever split, joined or expanded: what a model is called becomes text
inside one argument, never a second argument, an option or a program.
Never: starts a process, reads a file, or holds a prompt.

    {prompt_file}   plain UTF-8 text, the last user message last
    {system_file}   the system text; without this placeholder it stands at the head of the prompt file
    {output_file}   an empty file that the tool may write its answer into
    {model}         the upstream's name of the model

A brace that is meant is written twice: `{{` and `}}`.

Decision 2026-11 -- a tool may read its prompt from standard input (`prompt_on_stdin`): the two tools that most subscriptions come
    with take no file of a prompt, and a prompt as an argument is bounded by the kernel and seen by every user of the machine.
    Without that, standard input is closed.
Decision 2026-11 -- the time a whole run may take is the command's own (`run_timeout_s`): its first byte is its last, so that the
    time-out of `[server]` for a first byte would end every longer answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from quota_router.core.command_output import Reads, Source
from quota_router.errors import did_you_mean

RUN_TIMEOUT_S = 600.0
"""What the official SDKs wait for a whole answer, too (upstreams.md G, read 2026-11-25)."""
RUN_TIMEOUT_MAX_S = 24 * 3600.0
ARGUMENTS_MAX = 256
ARGUMENT_MAX_CHARS = 8_192
VARIABLES_MAX = 64
OWN_PREFIX = "QUOTA_ROUTER_"
"""Variables of ours, which may hold the admin token: no tool is given one."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
_CODE_OPTION = re.compile(r"-[A-Za-z]*c")


class Placeholder(StrEnum):
    """What a template may ask for."""

    PROMPT_FILE = "prompt_file"
    SYSTEM_FILE = "system_file"
    OUTPUT_FILE = "output_file"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """
    One configured way to call a tool.

    Raises:
        ValueError: it could not be called as it stands; one sentence that ends with the remedy.
    """

    template: tuple[str, ...]
    """the program, a bare name or an absolute path, and its arguments"""
    env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    """variables beside the few that every tool gets; a second login of one tool is another directory here"""
    credential_env: str | None = None
    """the variable that carries the provider's credential, if it has one"""
    reads: Reads = field(default_factory=Reads)
    prompt_on_stdin: bool = False
    run_timeout_s: float = RUN_TIMEOUT_S

    def __post_init__(self) -> None:
        _check_program(self.template)
        _check_shell(self.template)
        _check_environment(self.env, self.credential_env)
        if not self.prompt_on_stdin and not self.asks_for(Placeholder.PROMPT_FILE):
            raise ValueError("a command needs its prompt: put {prompt_file} into one of its arguments, or set prompt_on_stdin.")
        if self.reads.source is Source.OUTPUT_FILE and not self.asks_for(Placeholder.OUTPUT_FILE):
            raise ValueError("an answer in a file needs a name for it: put {output_file} into one of the arguments.")
        if not 0 < self.run_timeout_s <= RUN_TIMEOUT_MAX_S:
            raise ValueError(f"a run takes more than 0 and at most {RUN_TIMEOUT_MAX_S:.0f} s: write another run_timeout_s.")

    def asks_for(self, placeholder: Placeholder) -> bool:
        """Whether an argument holds this placeholder."""
        return any(placeholder in _pieces(argument) for argument in self.template)

    def fill(self, *, model: str, prompt_file: str, system_file: str, output_file: str) -> tuple[str, ...]:
        """
        The argument list to run.

        Raises:
            ValueError: the model's name could be read as something else than a name.
        """
        check_model(model)
        values = {
            Placeholder.MODEL: model,
            Placeholder.PROMPT_FILE: prompt_file,
            Placeholder.SYSTEM_FILE: system_file,
            Placeholder.OUTPUT_FILE: output_file,
        }
        return tuple("".join(values[it] if isinstance(it, Placeholder) else it for it in _pieces(arg)) for arg in self.template)

    def ready(self, model: str) -> tuple[str, ...]:
        """
        The argument list for callers who run the tool themselves: only the names of their files are left to fill in.

        Raises:
            ValueError: as `fill`.
        """
        files = {f"{it}": f"{{{it}}}" for it in Placeholder if it is not Placeholder.MODEL}
        return self.fill(model=model, **files)


def check_model(name: str) -> None:
    """
    Refuse a model's name that a tool could take for an option, or that could break a line of its output.

    Raises:
        ValueError: it is empty, begins with a dash, or holds a control character.
    """
    if not name or name.startswith("-") or not name.isprintable():
        raise ValueError(
            "a command's model has a name that does not begin with a dash and holds no control character: write another one."
        )


def _pieces(argument: str) -> list[str | Placeholder]:
    """An argument as literal texts and placeholders, in order."""
    pieces: list[str | Placeholder] = []
    end = 0
    for found in _TOKEN.finditer(argument):
        pieces.append(argument[end : found.start()])
        end = found.end()
        if found[0] in {"{{", "}}"}:
            pieces.append(found[0][0])
        elif found[1] is None or not found[1].isidentifier():
            raise ValueError(f"argument {argument!r} has a brace that is no placeholder's: write it twice if it is meant.")
        elif found[1] not in set(Placeholder):
            raise ValueError(f"placeholder {found[0]} is not known: {did_you_mean(found[1], [it.value for it in Placeholder])}")
        else:
            pieces.append(Placeholder(found[1]))
    return [*pieces, argument[end:]]


def _check_program(template: tuple[str, ...]) -> None:
    if not 0 < len(template) <= ARGUMENTS_MAX:
        raise ValueError(f"a command has 1 to {ARGUMENTS_MAX} arguments, the program first.")
    if any(len(argument) > ARGUMENT_MAX_CHARS or "\0" in argument for argument in template):
        raise ValueError(f"an argument has at most {ARGUMENT_MAX_CHARS} characters, none of them NUL.")
    program, is_placed = template[0], [any(isinstance(it, Placeholder) for it in _pieces(argument)) for argument in template]
    if is_placed[0]:
        raise ValueError("the program is named, not filled in: a placeholder stands in one of the arguments after it.")
    if not program or program.startswith("-") or ("/" in program and not program.startswith("/")):
        raise ValueError(f"program {program!r} is neither a name to look up on PATH nor an absolute path: write one of them.")


def _check_shell(template: tuple[str, ...]) -> None:
    """Refuse a placeholder inside a shell's code, where a model's name would be read as code."""
    shell = next((at for at, argument in enumerate(template) if argument.rpartition("/")[2] in _SHELLS), len(template))
    for option, code in pairwise(template[shell:]):
        if _CODE_OPTION.fullmatch(option):
            if any(isinstance(it, Placeholder) for it in _pieces(code)):
                raise ValueError(
                    'a shell would read what is filled in as code: write "$1" there, and the placeholder as an argument of its own.'
                )
            return


def _check_environment(env: Mapping[str, str], credential_env: str | None) -> None:
    if len(env) > VARIABLES_MAX:
        raise ValueError(f"a command has at most {VARIABLES_MAX} variables of its own.")
    for name in (*env, *([credential_env] if credential_env is not None else [])):
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable: write letters, digits and underscores.")
        if name.startswith(OWN_PREFIX):
            raise ValueError(f"variable {name} is this daemon's own, and no tool is given one: leave it out.")
    if credential_env in env:
        raise ValueError(f"variable {credential_env} is set twice, as itself and as the credential: keep one of them.")
    if any("\0" in value for value in env.values()):
        raise ValueError("the value of an environment variable cannot hold NUL: leave it out.")

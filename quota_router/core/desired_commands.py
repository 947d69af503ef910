"""
Programs of this machine that stand in for an API, as the file writes them.

Law: a command is a list of words, handed over as they are: no shell reads them, and a placeholder stands where it is written.
Never: runs anything, or looks whether the program is there.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from quota_router.core.naming import check_known, fail
from quota_router.errors import KeyPath

PLACEHOLDERS = ("prompt_file", "model", "output_file")
WORDS_MAX = 100

_PROMPT = "{prompt_file}"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NETWORK_KEYS = ("base_url", "network", "allow")


def read_command(table: Mapping[str, Any], path: KeyPath) -> tuple[str, ...]:
    """
    The words of `command_template`, empty where there is none. A text is parted as a shell would, without asking one.

    Raises:
        ConfigError: it is no command, or the provider says what only an API has.
    """
    if "command_template" not in table:
        if "env" in table:
            fail((*path, "env"), "env is for the program of command_template: add that, or leave env out.")
        return ()
    at = (*path, "command_template")
    words = _words(table["command_template"], at)
    for key in _NETWORK_KEYS:
        if key in table:
            fail((*path, key), f"a command has no {key}: leave it out, or leave out command_template.")
    _check_words(words, at, is_list=not isinstance(table["command_template"], str))
    return words


def read_env(table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The variables of the program, by name."""
    return tuple(sorted(table.get("env", {}).items()))


def _words(written: str | Sequence[str], path: KeyPath) -> tuple[str, ...]:
    if not isinstance(written, str):
        return tuple(written)
    try:
        return tuple(shlex.split(written))
    except ValueError:
        fail(path, "a quote in command_template is not closed: close it, or write the command as a list of words.")


def _check_words(words: Sequence[str], path: KeyPath, *, is_list: bool) -> None:
    if not words or not words[0]:
        fail(path, f'command_template names no program: write one such as ["claude", "-p", "{_PROMPT}"].')
    if len(words) > WORDS_MAX:
        fail(path, f"command_template has at most {WORDS_MAX} words: put the rest into a script.")
    for place, word in enumerate(words):
        for name in _PLACEHOLDER.findall(word):
            check_known("placeholder", name, PLACEHOLDERS, (*path, place) if is_list else path)
    if _PLACEHOLDER.search(words[0]):
        fail(path, "the program itself is no placeholder: write its name or path first.")
    if not any(_PROMPT in word for word in words):
        fail(path, f"command_template does not say where the prompt goes: add the word {_PROMPT}, the path of a text file.")

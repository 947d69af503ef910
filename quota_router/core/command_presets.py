"""
Tools whose command line is known, ready to be named in the file.

Law: a preset is data, and asks a tool for an answer and nothing else: its own abilities to act are switched off where the tool can,
and it is told to keep no transcript.
Never: names a credential.

What the options are for
    --tools "" --strict-mcp-config    no ability of its own; the first alone leaves the servers of the user's settings mounted
                                      (measured with 2.1.273 by the authors of the crate mur-common)
    --no-session-persistence          no transcript on disk
    --ephemeral                       likewise
    --sandbox read-only               codex has no switch for its abilities: this is the narrowest it knows, and what its user may
                                      read, it may read
    --skip-git-repo-check             it runs in an empty directory, and would refuse
    -                                 the prompt comes on standard input

Source: code.claude.com/docs/en/cli-reference; openai/codex codex-rs/exec/src/cli.rs and docs/exec.md, which also names
    `CODEX_API_KEY`; read 2026-11-25.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quota_router.core.catalog import Family
from quota_router.core.command_output import CLAUDE, CODEX
from quota_router.core.commands import CommandSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPreset:
    """A tool, and the family it stands in for unless the file says otherwise."""

    family: Family
    spec: CommandSpec


PRESETS: Mapping[str, CommandPreset] = {
    "claude": CommandPreset(
        family=Family.ANTHROPIC,
        spec=CommandSpec(
            template=(
                *("claude", "-p", "--output-format", "json", "--model", "{model}"),
                *("--tools", "", "--strict-mcp-config", "--no-session-persistence"),
            ),
            credential_env="ANTHROPIC_API_KEY",
            reads=CLAUDE,
            prompt_on_stdin=True,
        ),
    ),
    "codex": CommandPreset(
        family=Family.OPENAI,
        spec=CommandSpec(
            template=(
                *("codex", "exec", "--json", "--model", "{model}"),
                *("--skip-git-repo-check", "--ephemeral", "--sandbox", "read-only", "-"),
            ),
            credential_env="CODEX_API_KEY",
            reads=CODEX,
            prompt_on_stdin=True,
        ),
    ),
}

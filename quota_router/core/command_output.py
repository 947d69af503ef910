"""
Where in what a command-line tool writes its answer stands, and the tools whose writing is known.

Law: data only; `dialects/commands` reads by it. Counts are picked as a tool tells them and taken apart where it tells one inside
another, so that buckets do not overlap.
Never: holds what a tool wrote.

Decision 2026-11 -- places are JSON pointers (RFC 6901, read 2026-11-25), and which of several events counts is said by texts that
    must stand at other pointers: no language of paths, so nothing to escape from and nothing to bound.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quota_router.core.usage import BUCKETS
from quota_router.errors import did_you_mean

POINTER_MAX_CHARS = 512
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")


class Source(StrEnum):
    """Where a tool leaves its answer."""

    STDOUT = "stdout"
    OUTPUT_FILE = "output_file"


class Format(StrEnum):
    """What an answer is written in."""

    TEXT = "text"
    """all of it is the answer"""
    JSON = "json"
    """one document; a list is read as its events"""
    JSON_LINES = "json_lines"
    """one event per line; lines that are none are passed over"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """
    One value of a document, or of the last event that fits and has it.

    Raises:
        ValueError: not a JSON pointer.
    """

    at: str
    when: tuple[tuple[str, str], ...] = ()
    """pointers, and the text that must stand at each for an event to count"""

    def __post_init__(self) -> None:
        for pointer in (self.at, *(pointer for pointer, _ in self.when)):
            if len(pointer) > POINTER_MAX_CHARS or not _POINTER.fullmatch(pointer):
                raise ValueError(f"{pointer!r} is not a JSON pointer: write one such as /usage/input_tokens.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """
    How an answer is read. Everything but source and format is for JSON.

    Raises:
        ValueError: it names a bucket that there is not, or leaves out where the text stands.
    """

    source: Source = Source.STDOUT
    format: Format = Format.TEXT
    text: Pick | None = None
    failed: tuple[Pick, ...] = ()
    """whatever is found there and is not false, null, zero or empty says that the run failed"""
    message: tuple[Pick, ...] = ()
    """what a failed run says of itself; the first that is found"""
    status: Pick | None = None
    """the HTTP status with which the tool's own upstream refused"""
    counts: Mapping[str, Pick] = field(default_factory=dict, hash=False)
    """token bucket -> its count"""
    within: tuple[tuple[str, str], ...] = ()
    """(part, whole): the tool counts the first bucket inside the second one's figure, too"""
    cost_usd: Pick | None = None

    def __post_init__(self) -> None:
        if self.format is not Format.TEXT and self.text is None:
            raise ValueError("an answer in JSON has its text somewhere: write the JSON pointer to it.")
        for bucket in (*self.counts, *(name for pair in self.within for name in pair)):
            if bucket not in BUCKETS:
                raise ValueError(f"token bucket {bucket!r} is not known: {did_you_mean(bucket, BUCKETS)}")


def _of(kind: str, at: str, *when: tuple[str, str]) -> Pick:
    return Pick(at=at, when=(("/type", kind), *when))


CLAUDE = Reads(
    format=Format.JSON,
    text=_of("result", "/result"),
    failed=(
        _of("result", "/is_error"),
        *(
            _of("result", "/subtype", ("/subtype", subtype))
            for subtype in (
                "error_max_turns",
                "error_during_execution",
                "error_max_budget_usd",
                "error_max_structured_output_retries",
            )
        ),
    ),
    message=(_of("result", "/result"),),
    status=_of("result", "/api_error_status"),
    counts={
        "input": _of("result", "/usage/input_tokens"),
        "cache_read": _of("result", "/usage/cache_read_input_tokens"),
        "cache_write_5m": _of("result", "/usage/cache_creation_input_tokens"),
        "cache_write_1h": _of("result", "/usage/cache_creation/ephemeral_1h_input_tokens"),
        "output": _of("result", "/usage/output_tokens"),
    },
    within=(("cache_write_1h", "cache_write_5m"),),
    cost_usd=_of("result", "/total_cost_usd"),
)
"""
`claude -p --output-format json`: one object of type `result`, or with `--verbose` the list of all messages, this one last.

A refused API call comes as subtype `success` with `is_error`, the message in `result`, its status in `api_error_status`, an empty
stderr, and exit code 1 or, in some versions, 0. `total_cost_usd` is the tool's own estimate from a price list that it brings with
it, also where a subscription pays.

Source: code.claude.com/docs/en/headless, /cli-reference and /agent-sdk/cost-tracking; anthropics/claude-code#79500 and #35540; the
    crate claude-codes 2.1.232; read 2026-11-25.
"""

CODEX = Reads(
    format=Format.JSON_LINES,
    text=_of("item.completed", "/item/text", ("/item/type", "agent_message")),
    failed=(_of("turn.failed", "/error"),),
    message=(_of("turn.failed", "/error/message"), _of("error", "/message")),
    counts={
        "input": _of("turn.completed", "/usage/input_tokens"),
        "cache_read": _of("turn.completed", "/usage/cached_input_tokens"),
        "output": _of("turn.completed", "/usage/output_tokens"),
    },
    within=(("cache_read", "input"),),
)
"""
`codex exec --json`: one event per line. The last `agent_message` is the answer; `input_tokens` includes the cached ones. An event
`error` is no failure by itself: "Reconnecting... 2/5" is one, and the turn may still complete.

Source: openai/codex docs/exec.md and codex-rs/exec/src/exec_events.rs; nexu-io/open-design#1471 and openai/codex#32984 of the
    reconnecting; read 2026-11-25.
"""

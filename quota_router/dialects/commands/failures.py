"""
What a tool's failure means: its words, the status it was refused with, and nothing it was told to say.

Law: a failure that a caller can bring about by what he writes never cools a rung for longer than an unknown one. So a sentence is
matched from its first word, a line that stands in the prompt is nobody's word but the caller's, and of an answer in plain text only
one that is short enough to be an error and came with a failed exit is looked at.
Never: keeps or returns a tool's words.

Order of belief: the words, because tools write an empty window and a busy minute with one status; then a vendor's error inside the
words, by its dialect's own tables; then the status. What none of them knows is `None`: the run failed, and may have cost something.

Source: code.claude.com/docs/en/errors, anthropics/claude-code #6119, #52575, #55043, #79500; openai/codex #6603, #17642 and
    codex-rs/protocol/src/error.rs; read 2026-11-25. Both reword their sentences now and then: a row that fits nothing any more
    costs a cooldown of unknown cause, no more.

Decision 2026-11 -- "rate limit reached" is a busy minute, not an empty window: both tools have other words for the window.
Decision 2026-11 -- the limit of one model is told as `rate_limited` until its reset, which cools this model's rung alone; an empty
    window cools its whole account.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, tzinfo

from quota_router.core.health import Failure, FailureKind
from quota_router.dialects.commands.times import read_reset
from quota_router.dialects.error_bodies import read_error
from quota_router.dialects.failures import scoped

STATEMENT_MAX_CHARS = 2_000
"""Of a sentence that is looked at."""
LAST_LINES = 20
"""Of what a tool wrote to stderr: its last word stands at the end."""
SHORT_ANSWER_CHARS = 500
"""An answer in plain text up to here may be an error."""

Classify = Callable[[int, Mapping[str, str], bytes, datetime], Failure]
"""A dialect's own tables."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOG_HEAD = re.compile(r"\d{4}-\d\d-\d\d[t ]\S+\s+(?:error|warn|info|debug)\s+\S+\s*")
_NOISE = re.compile(r"(?:\[[^\]]{0,64}\]|[^a-z0-9{'\[]++|\[|(?:(?:fatal|api|codex|claude) )?error\b:?)++")
_STATUS = re.compile(r"\b(?:error|status|http(?:/[\d.]+)?)(?: code)?[:=]? ?\(?([45]\d\d)\b")
_STATUS_WITHIN_CHARS = 80
_JSON = re.compile(r"\{.*\}", re.DOTALL)

_YOUR_LIMIT = r"you(?:'ve| have) (?:hit|reached) your "
_OF_ACCOUNT = r"(?:(?:session|weekly|daily|monthly|usage|message|plan|account|\d+-hour|five-hour) ?)*limit"
_WORDS: tuple[tuple[str, FailureKind], ...] = (
    (r"you have reached your specified (?:workspace )?api usage limits", FailureKind.BILLING),
    (r"you hit your spend cap", FailureKind.BILLING),
    (r"your workspace is out of credits", FailureKind.BILLING),
    (r"(?:your )?credit balance is too low", FailureKind.BILLING),
    (r"quota exceeded\. check your plan and billing", FailureKind.BILLING),
    (_YOUR_LIMIT + r"usage limit for ", FailureKind.RATE_LIMITED),
    (_YOUR_LIMIT + _OF_ACCOUNT + r"\b", FailureKind.QUOTA_WINDOW),
    (_YOUR_LIMIT + r"[\w. -]{1,40} limit\b", FailureKind.RATE_LIMITED),
    (r"(?:claude (?:ai )?)?" + _OF_ACCOUNT + r" reached", FailureKind.QUOTA_WINDOW),
    (r"your limit will reset", FailureKind.QUOTA_WINDOW),
    (r"rate limit", FailureKind.RATE_LIMITED),
    (r"too many requests", FailureKind.RATE_LIMITED),
    (r"request rejected \(429\)", FailureKind.RATE_LIMITED),
    (r"not logged in|please run /login|you must be logged in", FailureKind.AUTH),
    (r"invalid (?:x-)?api[ -]key|incorrect api key", FailureKind.AUTH),
    (r"oauth token (?:has |has been )?(?:expired|revoked)", FailureKind.AUTH),
    (r"your (?:access|refresh) token could not be", FailureKind.AUTH),
    (r"(?:this|your) organization has (?:been )?disabled", FailureKind.AUTH),
    (r"(?:failed to authenticate|authentication failed|unauthorized)", FailureKind.AUTH),
    (r"(?:repeated 529 )?overloaded", FailureKind.OVERLOADED),
    (r"selected model is at capacity", FailureKind.OVERLOADED),
    (r"we(?:'re| are) currently experiencing high demand", FailureKind.OVERLOADED),
    (r"server is temporarily limiting requests", FailureKind.OVERLOADED),
    (r"there(?:'s| is) an issue with the selected model", FailureKind.MODEL_UNAVAILABLE),
    (r"the '[^']{0,128}' model is not supported", FailureKind.MODEL_UNAVAILABLE),
    (r"the model \S{1,128} is not available on your", FailureKind.MODEL_UNAVAILABLE),
    (r"[\w. -]{1,40} isn't available on your plan", FailureKind.MODEL_UNAVAILABLE),
    (r"(?:unknown model|model not found|model .{1,128} (?:not found|does not exist))", FailureKind.MODEL_UNAVAILABLE),
    (r"to use codex with your chatgpt plan, upgrade", FailureKind.MODEL_UNAVAILABLE),
    (r"prompt is too long|conversation too long|input is too long", FailureKind.CONTEXT_TOO_LONG),
    (r"codex ran out of room in the model's context window", FailureKind.CONTEXT_TOO_LONG),
    (r"(?:this model's )?maximum context length|context length exceeded", FailureKind.CONTEXT_TOO_LONG),
    (r"claude code is unable to respond to this request", FailureKind.CONTENT_POLICY),
)
_TABLE = tuple((re.compile(words), kind) for words, kind in _WORDS)


def statements(stderr: str, told: Iterable[str]) -> Iterator[str]:
    """
    What a tool said of itself on stderr, its last word first.

    Args:
        stderr: the end of what it wrote there.
        told: what it was given to read: a line of that is an echo.
    """
    echoes = {_bare(line) for text in told for line in text.splitlines()}
    lines = (line[:STATEMENT_MAX_CHARS] for line in reversed(stderr.splitlines()[-LAST_LINES:]))
    return (line for line in lines if (bare := _bare(line)) and bare not in echoes)


def judge(
    words: str, status: int | None, *, classify: Classify, now: datetime, zone: tzinfo, is_last_word: bool = True
) -> Failure | None:
    """
    What one sentence, or the status beside it, means.

    Args:
        words: the tool's; may be empty.
        status: what its own upstream answered, where it says so.
        classify: of the family that the tool stands in for.
        now: aware UTC.
        zone: that of the tool's environment.
        is_last_word: whether a status inside the words is believed: before the last word it may be of anything that a tool
            fetched for its caller.

    Returns:
        `None` when nobody knows.
    """
    words = words[:STATEMENT_MAX_CHARS]
    sentence, bare = _sentence(words), _bare(words)
    found = _JSON.search(bare)
    error = found[0].encode() if found else b""
    for said in (bare, read_error(error).message):
        for pattern, kind in _TABLE:
            if pattern.match(said):
                return _failure(kind, words, status, now, zone)
    in_words = _STATUS.search(sentence[:_STATUS_WITHIN_CHARS]) if is_last_word else None
    code = status or (int(in_words[1]) if in_words else None)
    return _failure(classify(code, {}, error, now).kind, words, code, now, zone) if code is not None else None


def _failure(kind: FailureKind, words: str, status: int | None, now: datetime, zone: tzinfo) -> Failure:
    kind, scope = scoped(kind)
    until = read_reset(words, now, zone) if kind.moves_on else None
    return Failure(kind=kind, scope=scope, until=until, status=status)


def _sentence(line: str) -> str:
    """A line without its colours and the head of a log's line, in lower case."""
    lower = _COLOUR.sub("", line).strip().lower().replace("\u2019", "'")
    head = _LOG_HEAD.match(lower)
    return lower[head.end() :] if head else lower


def _bare(line: str) -> str:
    """A sentence without the marks, tags and words of alarm that tools put in front of it."""
    sentence = _sentence(line)
    noise = _NOISE.match(sentence)
    return sentence[noise.end() :].strip() if noise else sentence

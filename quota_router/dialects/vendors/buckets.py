"""
The small windows of APIs with keys: requests and tokens per minute, hour or day, as each vendor names them in headers.

Law: data. A row is a window; how its reset is written and whether it refills belongs to the vendor. What a row does not find was
not said, and -1 or 0 as a limit means "unknown", except where a vendor is known to mean it.
Never: takes a limit of one model for that of another: these windows belong to the model that was called.

Rows: upstreams.md A.1, A.2 and A.5, read 2026-11-20.

Decision 2026-11 -- OpenAI's, Groq's and Anthropic's are buckets: their resets say when they are *full* again (Groq's day: 30 of
    14,400 used, full in 3 minutes). What the others mean is not documented; theirs are read as windows that end, which is the
    careful side.
Decision 2026-11 -- a window of a second or a minute without a reset is over after its length: no such window lasts longer.
Decision 2026-11 -- a vendor that tells only what remains is read like a balance: that much, and nothing of it used.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from quota_router.core.live_windows import window_length
from quota_router.core.readings import ReadingUnit, Said, Status
from quota_router.dialects.vendors.values import Told, go_duration, rfc3339, seconds, whole

_REQUESTS, _TOKENS = ReadingUnit.REQUESTS, ReadingUnit.TOKENS
_INPUT, _OUTPUT = ReadingUnit.INPUT_TOKENS, ReadingUnit.OUTPUT_TOKENS
_ENDS_BY_ITSELF = timedelta(minutes=1)

ReadReset = Callable[[str, Told], datetime | None]


class Row(Struct, frozen=True, kw_only=True):
    """One window, and the headers that tell of it."""

    window: str
    unit: ReadingUnit
    limit: str
    remaining: str
    reset: str


class Buckets(Struct, frozen=True, kw_only=True):
    """How one vendor tells of its windows."""

    rows: tuple[Row, ...]
    read_reset: ReadReset
    refills: bool = False
    zero_is_zero: bool = False
    """a limit of 0 is meant: the plan does not have this model"""
    warns: tuple[str, str] | None = None
    """the header and its value that warn of all rows at once"""


def _rows(windows: Mapping[str, tuple[str, ReadingUnit]], name: str = "x-ratelimit-{what}-{of}") -> tuple[Row, ...]:
    return tuple(
        Row(
            window=window,
            unit=unit,
            limit=name.format(what="limit", of=of),
            remaining=name.format(what="remaining", of=of),
            reset=name.format(what="reset", of=of),
        )
        for of, (window, unit) in windows.items()
    )


_OPENAI_ROWS = _rows(
    {
        "requests": ("minute", _REQUESTS),
        "tokens": ("minute", _TOKENS),
        "tokens_usage_based": ("minute_usage_based", _TOKENS),
    }
)

OPENAI = Buckets(rows=_OPENAI_ROWS, read_reset=go_duration, refills=True)
"""Source: OpenAI's rate limit guide, a header dump at community.openai.com/t/1268905, and thoughtbot on what the reset means."""
XAI = Buckets(rows=_OPENAI_ROWS, read_reset=go_duration)
AZURE = Buckets(rows=_OPENAI_ROWS, read_reset=seconds)
"""Source: learn.microsoft.com, quotas of Foundry models; -1 from openai/openai-dotnet#838."""
GROQ = Buckets(
    rows=_rows({"requests": ("day", _REQUESTS), "tokens": ("minute", _TOKENS)}),
    read_reset=go_duration,
    refills=True,
)
"""Source: console.groq.com's rate limits: requests are counted by the day, tokens by the minute."""
CEREBRAS = Buckets(
    rows=_rows(
        {f"requests-{window}": (window, _REQUESTS) for window in ("minute", "hour", "day")}
        | {f"tokens-{window}": (window, _TOKENS) for window in ("minute", "hour", "day")}
    ),
    read_reset=seconds,
)
MISTRAL = Buckets(
    rows=(
        *_rows({"req-minute": ("minute", _REQUESTS), "tokens-minute": ("minute", _TOKENS)}),
        *_rows({"minute": ("minute", _TOKENS), "month": ("month", _TOKENS)}, "x-ratelimitbysize-{what}-{of}"),
        *_rows({"": ("minute", _TOKENS)}, "ratelimitbysize-{what}"),
    ),
    read_reset=seconds,
    zero_is_zero=True,
)
"""A limit of 0 requests a minute with each 429 is how Mistral says that a plan lacks the model (several public reports, read
2026-11-20). The three spellings are of different years; an answer carries one of them."""
FIREWORKS = Buckets(
    rows=_rows(
        {
            "requests": ("minute", _REQUESTS),
            "tokens-prompt": ("minute", _INPUT),
            "tokens-cache-adjusted-prompt": ("minute_uncached", _INPUT),
            "tokens-generated": ("minute", _OUTPUT),
        }
    ),
    read_reset=seconds,
    warns=("x-ratelimit-over-limit", "yes"),
)
"""Source: docs.fireworks.ai/serverless/rate-limits: total prompt, uncached prompt and generated tokens a minute; over a limit calls
are still served while there is room."""
TOGETHER = Buckets(
    rows=(
        *_rows({"": ("second", _REQUESTS)}, "x-ratelimit-{what}"),
        *_rows({"": ("second", _TOKENS)}, "x-tokenlimit-{what}"),
    ),
    read_reset=seconds,
)
ANTHROPIC = Buckets(
    rows=_rows(
        {
            "requests": ("minute", _REQUESTS),
            "tokens": ("minute", _TOKENS),
            "input-tokens": ("minute", _INPUT),
            "output-tokens": ("minute", _OUTPUT),
            "priority-input-tokens": ("minute_priority", _INPUT),
            "priority-output-tokens": ("minute_priority", _OUTPUT),
        },
        "anthropic-ratelimit-{of}-{what}",
    ),
    read_reset=rfc3339,
    refills=True,
)
"""Source: platform.claude.com, rate limits: token buckets, `tokens` being the most restrictive of them."""


def read_buckets(buckets: Buckets, told: Told) -> Iterator[Said]:
    """Read every window of *buckets* that the answer tells of."""
    headers = told.headers
    for row in buckets.rows:
        limit_told, remaining_told = headers.get(row.limit), headers.get(row.remaining)
        if limit_told is None and remaining_told is None:
            continue
        limit, remaining = whole(limit_told), whole(remaining_told)
        if limit == 0 and not buckets.zero_is_zero:
            limit = None
        if limit is None:
            if limit_told is not None or remaining is None:
                continue  # -1, 0, or no number: the vendor does not know either
            limit = remaining
        yield Said(
            window=row.window,
            unit=row.unit,
            model=told.model,
            used=0 if limit == 0 else None if remaining is None else max(0, limit - remaining),
            limit=limit,
            status=Status.WARNING if buckets.warns is not None and _is(headers, *buckets.warns) else None,
            resets_at=_reset(buckets, row, told) if limit or not buckets.zero_is_zero else None,
            refills=buckets.refills,
            observed_at=told.now,
        )


def _reset(buckets: Buckets, row: Row, told: Told) -> datetime | None:
    value = told.headers.get(row.reset)
    resets_at = buckets.read_reset(value, told) if value is not None else None
    if resets_at is not None:
        return resets_at
    length = window_length(row.window.partition("_")[0])
    return told.now + length if length is not None and length <= _ENDS_BY_ITSELF else None


def _is(headers: Mapping[str, str], name: str, value: str) -> bool:
    return headers.get(name, "").strip().lower() == value

"""
What gateways and vendors without a table of their own say in headers.

Law: whatever can be told from the words of a header's name is; a header of which it cannot is passed over.
Never: reads what a proxy passes on from behind it (LiteLLM's `llm_provider-…`): its next call may go to another account.

    x-ratelimit-{limit | remaining | reset}[-{words}]      words: tokens, input, prompt, output, minute, day, …
    x-litellm-key-{spend | max-budget}                     in USD, of the key that made the call

Source: upstreams.md A.5 (OpenRouter's limits page, LiteLLM as seen by public clients), read 2026-11-20.
"""

from collections.abc import Iterator

from quota_router.core.readings import ReadingUnit, Said
from quota_router.dialects.vendors.buckets import Buckets, Row, read_buckets
from quota_router.dialects.vendors.ietf import UNNAMED_WINDOW
from quota_router.dialects.vendors.values import Told, any_reset, decimal, nusd

BUDGET_WINDOW = "budget"

_STEM = "x-ratelimit-"
_WINDOWS = ("second", "minute", "hour", "day", "month")
_INPUT_WORDS = frozenset({"input", "prompt"})
_OUTPUT_WORDS = frozenset({"output", "generated", "completion"})
_REQUEST_WORDS = frozenset({"requests", "request", "req"})
_ROWS_MAX = 16


def read_generic(told: Told) -> Iterator[Said]:
    """Every window that `x-ratelimit-*` tells of."""
    endings = {
        name.removeprefix(_STEM).removeprefix(what)
        for name in told.headers
        for what in ("limit", "remaining")
        if name.startswith(_STEM + what)
    }
    rows = [row for ending in sorted(endings)[:_ROWS_MAX] if (row := _row(ending)) is not None]
    return read_buckets(Buckets(rows=tuple(rows), read_reset=any_reset), told)


def read_litellm_budget(told: Told) -> Iterator[Said]:
    """What the key has spent, and may."""
    spend, budget = (decimal(told.headers.get(f"x-litellm-key-{what}")) for what in ("spend", "max-budget"))
    if spend is not None:
        yield Said(
            window=BUDGET_WINDOW,
            unit=ReadingUnit.USD,
            used=nusd(spend, is_cap=False),
            limit=nusd(budget, is_cap=True),
            observed_at=told.now,
        )


def _row(ending: str) -> Row | None:
    """The window that a name like `-tokens-minute` is about; `None`: its words are not known."""
    words = set(ending.strip("-").replace("_", "-").split("-")) - {""}
    named = next((window for window in _WINDOWS if window in words), None)
    kinds = words - set(_WINDOWS) - {"per"}
    if kinds <= _REQUEST_WORDS:
        unit = ReadingUnit.REQUESTS
    elif "tokens" in kinds and kinds - {"tokens"} <= _INPUT_WORDS:
        unit = ReadingUnit.INPUT_TOKENS if kinds - {"tokens"} else ReadingUnit.TOKENS
    elif "tokens" in kinds and kinds - {"tokens"} <= _OUTPUT_WORDS:
        unit = ReadingUnit.OUTPUT_TOKENS
    else:
        return None
    return Row(
        # By custom a window of requests or of tokens is a minute unless it says otherwise; a bare limit may be anything.
        window=named or ("minute" if words else UNNAMED_WINDOW),
        unit=unit,
        limit=f"{_STEM}limit{ending}",
        remaining=f"{_STEM}remaining{ending}",
        reset=f"{_STEM}reset{ending}",
    )

"""
Messages that say more than their status and type do.

Law: a message is matched from its first word and for the statuses that leave it open, because vendors quote callers further on: no
caller can spell himself into a failure that cools a rung.
Never: decides where a structured code already did.

Rows: upstreams.md C.2, marked with a star there, read 2026-11-20; the rest from the threads that the fixtures in `tests/wire` name,
read 2026-11-25. One table for both families: gateways pass on each other's words.
"""

import re
from dataclasses import dataclass

from quota_router.core.health import FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody

Row = FailureKind | tuple[FailureKind, Scope]
"""What a table says: a kind, with its scope where that is not the kind's usual one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Such a message."""

    statuses: frozenset[int]
    starts: re.Pattern[str]
    """of the message in lower case"""
    row: Row


def _trap(statuses: str, starts: str, row: Row) -> Trap:
    return Trap(statuses=frozenset(map(int, statuses.split())), starts=re.compile(starts), row=row)


_CLIENTS = "400 403 413 422"
_TOO_DEAR = (FailureKind.BILLING, Scope.CALL)
"""What is left does not pay for this one call; a shorter one may pass."""
_TOO_LARGE = (FailureKind.RATE_LIMITED, Scope.CALL)
"""This one call can never fit this rung's limit; others may serve it, and the rung is fine."""

TRAPS = (
    # Anthropic sends no code for a purse or a spend limit that is empty, and a 400.
    _trap("400", r"your credit balance is too low", FailureKind.BILLING),
    _trap("400", r"you have reached your specified (?:\w+ )?api usage limits", FailureKind.BILLING),
    _trap("400", r"this organization has been disabled", (FailureKind.AUTH, Scope.ACCOUNT)),
    _trap("400", r"this credential is only authorized for use with", FailureKind.AUTH),
    _trap("429", r"(?:extra usage is|usage credits are) required for long context", _TOO_LARGE),
    # A context that is too short, in the words of whoever counted.
    _trap("400", r"prompt is too long|input length and `max_tokens` exceed", FailureKind.CONTEXT_TOO_LONG),
    _trap(_CLIENTS, r"(?:this model's|this endpoint's) maximum context length", FailureKind.CONTEXT_TOO_LONG),
    # Together answers 403 when input and max_tokens exceed the context.
    _trap(_CLIENTS, r"input validation error: `inputs` tokens", FailureKind.CONTEXT_TOO_LONG),
    _trap("400", r"(?:the )?input token count\b.* exceeds the maximum number of tokens", FailureKind.CONTEXT_TOO_LONG),
    _trap("400", r"input tokens exceed the configured limit|input is too long", FailureKind.CONTEXT_TOO_LONG),
    _trap("400", r"prompt contains \d+ tokens .*too large for model", FailureKind.CONTEXT_TOO_LONG),
    _trap("400", r"max_tokens must be at least 1, got -", FailureKind.CONTEXT_TOO_LONG),
    # LM Studio and llama.cpp; the latter says 500 when the context fills up on the way.
    _trap("400", r"the number of tokens to keep from|trying to keep the first \d+ tokens", FailureKind.CONTEXT_TOO_LONG),
    _trap("400 500", r"context size has been exceeded", FailureKind.CONTEXT_TOO_LONG),
    # Money, said with a status that is about something else.
    _trap("402", r"this request requires more credits, or fewer max_tokens|more credits are required to run this", _TOO_DEAR),
    _trap("402", r"prompt tokens limit exceeded", _TOO_DEAR),
    _trap("403", r"key limit exceeded", (FailureKind.BILLING, Scope.PROVIDER)),
    _trap("400 429", r"budget has been exceeded!|exceededbudget: ", (FailureKind.BILLING, Scope.PROVIDER)),
    _trap("412", r"account \S+ is suspended", FailureKind.BILLING),
    _trap("400 429 500", r"(?:\[\d{4}\]\[)?insufficient balance|余额不足", FailureKind.BILLING),
    _trap("403 429", r"your team \S+ has either used all available credits", FailureKind.BILLING),
    _trap("403", r"your newly created team doesn't have any credits|you have run out of credits", FailureKind.BILLING),
    # A subscription's window, said as a permission or as a busy minute.
    _trap("403 429", r"you've reached your usage limit for this billing cycle", FailureKind.QUOTA_WINDOW),
    _trap("429", r"usage limit reached for|(?:token plan )?usage limit exceeded", FailureKind.QUOTA_WINDOW),
    _trap("429", r"you \(\S+\) have reached your \w+ usage limit", FailureKind.QUOTA_WINDOW),
    _trap("429", r"rate limit exceeded: free-models-per-day", (FailureKind.QUOTA_WINDOW, Scope.ATTACHMENT)),
    # A key that is wrong, said with 400 by xAI and Google.
    _trap("400", r"incorrect(?: |%20)api(?: |%20)key(?: |%20)provided|api key not (?:valid|found)", FailureKind.AUTH),
    # xAI has one code for a key without rights and for a prompt that it refuses.
    _trap("403", r"content violates usage guidelines", FailureKind.CONTENT_POLICY),
    # The operator's name for a model, not the caller's: each rung sends its own.
    _trap("400", r"the '[^']*' model is not supported when using codex", FailureKind.MODEL_UNAVAILABLE),
    _trap("400", r"(?:[/\w]+: |400: \{'error': ['\"])*invalid model name passed in model=", FailureKind.MODEL_UNAVAILABLE),
    _trap("400 404", r"no models loaded", FailureKind.MODEL_UNAVAILABLE),
    _trap("400", r"project \S+ is not allowed to use publisher model", FailureKind.MODEL_UNAVAILABLE),
    # What the caller asked of it, not the model, has no endpoint.
    _trap("404", r"no endpoints found that support", (FailureKind.MODEL_UNAVAILABLE, Scope.CALL)),
    # Capacity, said as a limit of ours. Azure tells it from an allocation only in words.
    _trap("429", r"(?:the )?system is (?:currently )?experiencing high demand", FailureKind.OVERLOADED),
    _trap("429", r"service tier capacity exceeded|no capacity available for model", FailureKind.OVERLOADED),
    _trap("413 429", r"request too large for", _TOO_LARGE),
)


def trapped(error: ErrorBody, status: int) -> Row | None:
    """What the message gives away, for a status that leaves it open."""
    return next((trap.row for trap in TRAPS if status in trap.statuses and trap.starts.match(error.message)), None)

"""
What single vendors say in their own way, whichever family's dialect they say it in: errors; and what is left, in headers and polls.

Law: pure. What was not said stays unsaid, and what is hostile or absurd is not said. No header makes `read_headers` raise; a
body that `read_poll` does not understand raises `UnreadablePoll` and nothing else. A vendor's own fields and headers are read
wherever they cannot be mistaken; his bare numbers only when the provider's `vendor` names him, because vendors contradict each
other there: 1300 is a rate limit at Mistral and a policy at z.ai, 1002 a bad key at z.ai and a rate limit at MiniMax.
Never: opens connections, holds a credential, or poses as a vendor's own client.

    values        numbers and resets in headers            polls          which request each endpoint takes
    buckets       requests and tokens per minute, as data  answers        their JSON, read exactly
    anthropic     subscriptions: unified                   balances, organisations, plans, subscriptions
    codex         subscriptions: x-codex-*                 pointers       any endpoint, by JSON pointers
    ietf, gateways                                         google, openrouter, aws, numbers: errors

Headers are read on every status: a refusal may carry them too.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from quota_router.core.readings import Said
from quota_router.dialects.vendors import buckets
from quota_router.dialects.vendors.answers import UnreadablePoll
from quota_router.dialects.vendors.anthropic import read_unified
from quota_router.dialects.vendors.buckets import read_buckets
from quota_router.dialects.vendors.codex import read_codex
from quota_router.dialects.vendors.gateways import read_generic, read_litellm_budget
from quota_router.dialects.vendors.ietf import read_ietf
from quota_router.dialects.vendors.pointers import PointedPoll, PointedWindow
from quota_router.dialects.vendors.polls import ENDPOINTS, Auth, CredentialKind, Poll, poll_of, read_poll
from quota_router.dialects.vendors.values import Told

__all__ = [
    "ENDPOINTS",
    "Auth",
    "CredentialKind",
    "PointedPoll",
    "PointedWindow",
    "Poll",
    "UnreadablePoll",
    "poll_of",
    "read_headers",
    "read_poll",
]

HEADERS_MAX = 200
"""No vendor sends as many; further ones are not looked at."""
VALUE_MAX_CHARS = 1_000

_Read = Callable[[Told], Iterable[Said]]
_Readers = tuple[tuple[str, _Read], ...]
"""Each with the part of a header's name without which it finds nothing; names stand one to a line."""

_CODEX = ("x-codex-", read_codex)
_IETF = ("\nratelimit", read_ietf)
_GENERIC = ("x-ratelimit-", read_generic)


def _buckets(of: buckets.Buckets, mark: str = "x-ratelimit-") -> tuple[str, _Read]:
    return mark, partial(read_buckets, of)


_READERS: Mapping[str, _Readers] = {
    # A provider without a preset has its family's name as its vendor: it may be any gateway.
    "openai": (_buckets(buckets.OPENAI), _CODEX, _IETF),
    "anthropic": (
        _buckets(buckets.ANTHROPIC, "anthropic-ratelimit-"),
        ("anthropic-ratelimit-unified-", read_unified),
        _IETF,
    ),
    "codex": (_CODEX,),
    "azure": (_buckets(buckets.AZURE),),
    "groq": (_buckets(buckets.GROQ),),
    "cerebras": (_buckets(buckets.CEREBRAS),),
    "mistral": (_buckets(buckets.MISTRAL, "ratelimit"),),
    "fireworks": (_buckets(buckets.FIREWORKS),),
    "together": (_buckets(buckets.TOGETHER, "limit-"),),
    "xai": (_buckets(buckets.XAI),),
    "litellm": (_GENERIC, ("x-litellm-key-spend", read_litellm_budget)),
}
_OTHERS: _Readers = (_GENERIC, _IETF)


def read_headers(vendor: str, headers: Mapping[str, str], now: datetime, *, upstream_model: str = "") -> tuple[Said, ...]:
    """
    What an answer's headers say of the account's windows.

    Args:
        vendor: the provider's; one without a table of its own is read by what gateways have in common.
        headers: of the answer, whatever its status.
        now: when they arrived, aware UTC.
        upstream_model: that was called; limits per minute belong to it alone.

    Returns:
        one for each window, usually none: most answers carry no such header, and then nothing but names is looked at.
    """
    names = "\n".join(("", *headers)).lower()
    readers = [read for mark, read in _READERS.get(vendor, _OTHERS) if mark in names]
    if not readers:
        return ()
    lowered: dict[str, str] = {}
    for name, value in islice(headers.items(), HEADERS_MAX):
        lower = name.lower()
        if len(value) <= VALUE_MAX_CHARS:
            lowered[lower] = f"{lowered[lower]}, {value}" if lower in lowered else value
    told = Told(headers=lowered, now=now, model=upstream_model)
    return tuple(said for read in readers for said in read(told))

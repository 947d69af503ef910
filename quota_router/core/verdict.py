"""
How "nobody can pay" is said: one status, one sentence, and the true soonest moment.

Law: the status follows from the reasons alone, by the table of this file; the moment is never clamped.
Never: hides a rung.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Any

from quota_router.core.decision import ABOUT_QUOTA, ABOUT_THE_CALL, Chosen, Decision, NoneUsable, Reason, Rung
from quota_router.core.ways import ASKED
from quota_router.errors import NoUsableProvider

STOP_RETRYING_AFTER_S = 30
"""A client that would have to wait longer than this is told not to retry by itself."""


def say_none_usable(decision: NoneUsable, now: datetime) -> NoUsableProvider:
    """
    Turn a decision that chose nobody into the error the caller sees.

    Only reasons about the call: 400. Only `caller_not_allowed`: 403. Any of quota, budget, concurrency, or a cooldown with
    such a cause: 429. Else 503, with the last cause.
    """
    rungs = decision.rungs
    reasons = {rung.reason for rung in rungs}
    moments = [rung.usable_at for rung in rungs if rung.usable_at is not None]
    retry_after_s = max(0.0, (min(moments) - now).total_seconds()) if moments else None
    if reasons <= ABOUT_THE_CALL:
        status, code, text = 400, "no_usable_provider", "No provider can take this call as it stands"
    elif reasons == {Reason.CALLER_NOT_ALLOWED}:
        status, code, text = 403, "forbidden", "This caller may use none of the model's providers"
    elif any(_is_about_quota(rung) for rung in rungs):
        status, code, text = 429, "insufficient_quota", "Every provider is out of quota, over budget or cooling down"
    else:
        status, code, text = 503, "no_usable_provider", "No provider is available"
    told = ", ".join(f"{rung.provider}: {_tell(rung)}" for rung in rungs)
    when = f" Try again in {ceil(retry_after_s)} s." if retry_after_s is not None else ""
    return NoUsableProvider(
        " ".join([f"{text} ({told}).{when}", *_remedies(rungs)]),
        status=status,
        code=code,
        rungs=[show_rung(rung) for rung in rungs],
        retry_after_s=retry_after_s if status in {429, 503} else None,
    )


def show_way(decision: Decision) -> Mapping[str, Any]:
    """Show who led the call to the rung that was chosen, in the shape of the API (design 8); all null when none was."""
    way = decision.candidate.way if isinstance(decision, Chosen) else ASKED
    return {
        "router": way.router,
        "rule": {"condition": way.rule.condition.text, "reason": way.rule.reason} if way.rule is not None else None,
        "reason": way.reason,
        "confidence": way.confidence,
    }


def show_rung(rung: Rung) -> Mapping[str, Any]:
    """Show a rung in the shape of the API (design 8)."""
    return {
        "provider": rung.provider,
        "model": rung.model,
        "upstream_model": rung.upstream_model,
        "priority": rung.priority,
        "status": rung.status,
        "reason": rung.reason,
        "detail": rung.detail,
        "usable_at": rung.usable_at,
    }


def skipped_header(rungs: Sequence[Rung]) -> str:
    """Show the rungs passed over on the way to the chosen one as `provider=reason,…`, for the answer's header."""
    passed = itertools.takewhile(lambda rung: rung.status != "chosen", rungs)
    return ",".join(f"{rung.provider}={rung.reason}" for rung in passed if rung.reason is not None)


def _tell(rung: Rung) -> str:
    """One rung's reason in words, with the number that decided."""
    limit = rung.detail.get("limit")
    cause = rung.cause or limit
    return f"{rung.reason} ({cause})" if cause else f"{rung.reason}"


def _remedies(rungs: Sequence[Rung]) -> Mapping[str, None]:
    """What may be done about it: each sentence once, in the order of the rungs."""
    said = [
        (rung.detail.get("why") if rung.reason is Reason.CAPABILITY_MISSING else None, rung.detail.get("remedy")) for rung in rungs
    ]
    return dict.fromkeys(sentence for pair in said for sentence in pair if sentence)


def _is_about_quota(rung: Rung) -> bool:
    return rung.reason in ABOUT_QUOTA or (rung.cause is not None and rung.cause.is_about_quota)

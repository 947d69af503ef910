"""
What each strategy makes of two subscriptions whose weeks end on different days.

Law: figures follow from the seeds alone: no clock, no network, nothing measured. Who serves a call is chosen by the daemon's own
`decide`, which sees only what the vendor told in the heads of earlier answers. All strategies meet the same calls.
Never: leaves a call out: what no subscription could serve is paid for at list price, and counted.

    python benchmarks/strategies.py [--seeds 20] [--demand 1.5]

Each subscription holds `WEEK_TOKENS` a week and a fifth of that in any five hours. Their first weeks end at different moments, the
one that is written first last. Calls come in working hours. What is left of a week when it ends is lost.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import mean

from msgspec import Struct

from quota_router.core.catalog import Attachment, Billing, Family, Provider, Strategy
from quota_router.core.decision import Candidate, Chosen, Question, decide
from quota_router.core.estimates import Estimate
from quota_router.core.headroom import Headroom, headroom
from quota_router.core.limits import NOTHING, Amounts
from quota_router.core.readings import PPM, Reading, ReadingUnit, Seen

START = datetime(2026, 11, 23, tzinfo=UTC)
"""A Monday."""
WEEK, SHORT = timedelta(days=7), timedelta(hours=5)
WEEK_TOKENS = 40_000_000
SHORT_TOKENS = WEEK_TOKENS // 5
CALLS = 1_500
"""In a week, on average."""
NUSD_PER_TOKEN = 4_000
FROM_HOUR, TO_HOUR = 8, 20
ENDS_AFTER = {"late": timedelta(days=6), "soon": timedelta(days=2)}
"""When the first week of each ends, in the order in which they are written."""
LATENCY_MS = {"late": 900, "soon": 1_100}
_STALE_AFTER_S = 10.0**9


class Used(Struct):
    """What was used of one window."""

    ends_at: datetime
    tokens: int = 0


class Subscription:
    """One of the two, as its vendor counts it: a week, and within it five hours from their first use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.week = Used(START + ENDS_AFTER[name])
        self.short = Used(START)
        self.lost = 0
        """what was left of the weeks that have ended"""
        self.has_answered = False
        self._seen = {"7d": Seen(), "5h": Seen()}

    def pass_time(self, now: datetime) -> None:
        """Begin a new week where one has ended."""
        while self.week.ends_at <= now:
            self.lost += WEEK_TOKENS - self.week.tokens
            self.week = Used(self.week.ends_at + WEEK)

    def serve(self, tokens: int, now: datetime) -> bool:
        """Answer a call, or refuse it; either way tell of the windows."""
        if self.short.ends_at <= now:
            self.short = Used(now + SHORT)
        is_served = self.week.tokens < WEEK_TOKENS and self.short.tokens < SHORT_TOKENS
        if is_served:
            self.has_answered = True
            self.week.tokens, self.short.tokens = min(self.week.tokens + tokens, WEEK_TOKENS), self.short.tokens + tokens
        for window, used, holds in (("7d", self.week, WEEK_TOKENS), ("5h", self.short, SHORT_TOKENS)):
            share_ppm = min(PPM, used.tokens * 100 // holds * PPM // 100)  # vendors tell whole percents
            told = Reading(
                provider=self.name,
                account=self.name,
                source="headers",
                window=window,
                unit=ReadingUnit.SHARE,
                share_ppm=share_ppm,
                resets_at=used.ends_at,
                observed_at=now,
            )
            self._seen[window] = self._seen[window].merge(told, now)
        return is_served

    def windows(self, now: datetime) -> tuple[Headroom, ...]:
        """What we know of its windows."""
        known = [
            headroom(seen, posted_now=NOTHING, held_now=NOTHING, worth=None, now=now, stale_after_s=_STALE_AFTER_S)
            for seen in self._seen.values()
        ]
        return tuple([found for found in known if found is not None])


class Outcome(Struct, frozen=True, kw_only=True):
    """A week under one strategy, in tokens."""

    asked: int
    served: int
    """by the subscriptions; the rest was paid for"""
    lost: int
    """what was left of the weeks that ended in it"""
    soon: int
    """of what was served, by the one whose week ends first; it is written last"""


def simulate(strategy: Strategy, seed: int, *, demand: float = 1.5) -> Outcome:
    """
    One week.

    Args:
        strategy: how the two are ordered.
        seed: of all that is random.
        demand: what is asked in a week, as a part of what both hold in one.
    """
    rng, draws = Random(seed), Random(seed + 1)  # noqa: S311 -- a simulation has no secrets, and must repeat itself
    both = [Subscription(name) for name in ENDS_AFTER]
    asked, served, turns = 0, dict.fromkeys(ENDS_AFTER, 0), {"m": 0}
    for now, tokens in _calls(rng, demand):
        asked += tokens
        for subscription in both:
            subscription.pass_time(now)
        tried: set[str] = set()
        while (chosen := _choose(strategy, [one for one in both if one.name not in tried], now, tokens, draws, turns)) is not None:
            if chosen.serve(tokens, now):
                served[chosen.name] += tokens
                break
            tried.add(chosen.name)
        turns["m"] += 1
    for subscription in both:
        subscription.pass_time(START + WEEK)
    return Outcome(asked=asked, served=sum(served.values()), lost=sum(one.lost for one in both), soon=served["soon"])


def _calls(rng: Random, demand: float) -> list[tuple[datetime, int]]:
    """When calls come, and how large they are."""
    mean_tokens, found = demand * 2 * WEEK_TOKENS / CALLS, []
    for day in range(WEEK.days):
        hours = TO_HOUR - FROM_HOUR
        for _ in range(round(CALLS / WEEK.days * rng.uniform(0.7, 1.3))):
            at = START + timedelta(days=day, hours=FROM_HOUR + hours * rng.random())
            found.append((at, 1 + int(rng.lognormvariate(-0.5, 1.0) * mean_tokens)))
    return sorted(found)


def _choose(
    strategy: Strategy, left: Sequence[Subscription], now: datetime, tokens: int, draws: Random, turns: dict[str, int]
) -> Subscription | None:
    """As the daemon would."""
    question = Question(family=Family.ANTHROPIC, draw=draws.getrandbits(64), stale_after_s=_STALE_AFTER_S)
    likely = Amounts(cost_nusd=0, requests=1, input_tokens=tokens, output_tokens=0)
    candidates = [
        Candidate(
            attachment=Attachment(model="m", provider=one.name, priority=0, position=place, upstream_model="m"),
            provider=_provider(one.name),
            has_credential=True,
            estimate=Estimate(likely=likely, upper=likely, is_priced=True),
            strategy=strategy,
            windows=one.windows(now),
            latency_ms=LATENCY_MS[one.name] if one.has_answered else None,
            is_new=not one.has_answered,
        )
        for place, one in enumerate(left)
    ]
    decision = decide(candidates, question, now, turns)
    if not isinstance(decision, Chosen):
        return None
    return next(one for one in left if one.name == decision.candidate.provider.name)


def _provider(name: str) -> Provider:
    return Provider(
        name=name,
        family=Family.ANTHROPIC,
        vendor="anthropic",
        account=name,
        base_url="https://api.anthropic.com",
        credential_ref="none",
        billing=Billing.FLAT,
    )


def print_table(seeds: int, demand: float) -> None:
    print("strategy         served   of all asked   lost with a week's end   by the one that ends soon   paid beside")
    print("                      M                                       M                                       USD")
    for strategy in Strategy:
        found = [simulate(strategy, seed, demand=demand) for seed in range(seeds)]
        asked, served, lost, soon = (
            mean(values) for values in zip(*((o.asked, o.served, o.lost, o.soon) for o in found), strict=True)
        )
        paid_usd = (asked - served) * NUSD_PER_TOKEN / 10**9
        print(
            f"{strategy:15}  {served / 10**6:6.1f}       {100 * served / asked:5.1f} %          {lost / 10**6:14.1f}"
            f"          {100 * soon / served:15.1f} %        {paid_usd:6.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What each strategy makes of two subscriptions whose weeks end on different days.")
    parser.add_argument("--seeds", type=int, default=20, help="how many weeks are simulated")
    parser.add_argument("--demand", type=float, default=1.5, help="what is asked, as a part of what both hold in a week")
    options = parser.parse_args()
    ends = ", ".join(f"{name} after {span.days} days" for name, span in ENDS_AFTER.items())
    print(f"two subscriptions of {WEEK_TOKENS / 10**6:.0f} M tokens a week; their first weeks end: {ends}\n")
    print_table(options.seeds, options.demand)

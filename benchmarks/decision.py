"""
How long a decision takes with a very large catalog, and with as many rules as there may be.

Law: what is timed is what every call goes through, in memory: `Routing.resolve`, which asks the rules and lays out the rungs, then
the lane's job that gives each rung what the ledger knows of it and decides. Nothing of the two is left out or done before.
Never: touches a disk or a network; a commit is `verify.py`'s and `hot_path.py`'s to measure.

    python benchmarks/decision.py [--models 10000] [--rungs 50] [--decisions 20000] [--max-ms 1.0]

A model's rungs are laid out when its first call comes, and kept until the catalog or the day changes. Both are given: the first
decision of every model, and any later one. Each is timed by the clock and by the CPU that its thread took: where others use the
machine, the clock's percentiles are those of waiting for a core. Exits 1 when the 99th percentile of the CPU is above --max-ms.
"""

import argparse
import asyncio
import gc
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import Attachment, Caller, Catalog, Family, Model, Provider, RoutingRule
from quota_router.core.decision import Chosen
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable, Rates
from quota_router.core.secrets import Secret
from quota_router.daemon import GC_THRESHOLD
from quota_router.ladder import Ladders
from quota_router.own_routers import OwnRouters
from quota_router.routing import Routing
from quota_router.store.lane import Lane
from quota_router.store.ledger import Explain
from quota_router.store.present import GENESIS
from quota_router.store.prices import PriceBook
from quota_router.store.state import State
from quota_router.store.tenure import Job

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RULES = 200
RULES_MAX_MS = 2.0
RUNGS_BY_RULE = 4
"""The rungs of a model where rules are what is looked at."""
PRICE = PriceTable(tiers=((0, Rates(input_pusd=3_000_000, output_pusd=15_000_000)),))
CALLER = Caller(name="ci", token_sha256="0" * 64)
LIMITS = tuple(
    Limit(
        name=name,
        kind=Kind.BUDGET,
        subject=subject,
        unit=unit,
        limit=10**15,
        window=window,
        enforcement=Enforcement.STRICT,
    )
    for name, subject, unit, window in (
        ("month", "everyone", Unit.USD, "month"),
        ("ci", "caller:ci", Unit.REQUESTS, "day"),
        ("first", "provider:p0", Unit.TOKENS, "day"),
    )
)


class InMemory:
    """A lane without a ledger: jobs run where they are submitted."""

    def __init__(self, catalog: Catalog) -> None:
        self.state = State(journal="main", head=GENESIS, catalog=catalog)

    @property
    def catalog(self) -> Catalog:
        """The one there is."""
        return self.state.catalog

    @property
    def learned(self) -> dict[tuple[str, str], Any]:
        """Nothing."""
        return self.state.learned

    async def run(self, job: Job[Any]) -> Any:  # noqa: ANN401 -- whatever the job answers
        """Run it."""
        return job.run(self.state, NOW)


def build_catalog(models: int, rungs: int, rules: int = 0) -> Catalog:
    """Make *models*, each with *rungs* attachments, two to a tier."""
    names = [f"p{number}" for number in range(rungs)]
    return Catalog(
        providers={name: _provider(name) for name in names},
        models={name: _model(name, names) for name in (f"vendor/model-{number}" for number in range(models))},
        limits=LIMITS,
        rules=tuple(_rule(number) for number in range(rules)),
        default_model="vendor/model-0",
        timezone="Europe/Berlin",
    )


def _provider(name: str) -> Provider:
    return Provider(
        name=name,
        family=Family.OPENAI,
        vendor="openai",
        account=name,
        base_url="https://api.openai.com/v1",
        credential_ref=f"env:{name}",
    )


def _model(name: str, providers: Sequence[str]) -> Model:
    rungs = tuple(
        Attachment(model=name, provider=provider, priority=place // 2, position=place % 2, upstream_model=name)
        for place, provider in enumerate(providers)
    )
    return Model(
        name=name,
        family=Family.OPENAI,
        attachments=rungs,
        capabilities=("code", "vision"),
        context_tokens=200_000,
        max_output_tokens=64_000,
        price=PRICE,
    )


def _rule(number: int) -> RoutingRule:
    """One of many that do not match; together they look at everything that a rule may look at."""
    conditions = (
        f"labels contains 'team-{number}' and hour >= 9",
        f"task.id ends_with '{number}x' or retry_count >= {number + 5}",
        f"provider_status['p{number % RUNGS_BY_RULE}'] == 'down' and priority == 0",
        f"model starts_with 'other-{number}' or input_tokens > {10**6 + number}",
        f"budget_used['month'] > 0.{number + 100} and 'audio' in requires",
        f"headroom['p{number % RUNGS_BY_RULE}'] < 0.{number + 100} and weekday == 'sunday'",
    )
    return RoutingRule(name=f"r{number}", condition=conditions[number % len(conditions)], model="vendor/model-1", rank=number)


def build_routing(lane: InMemory, seed: int) -> Routing:
    """Put the daemon's own parts together over *lane*."""
    rng, key = Random(seed), Secret("unused")  # noqa: S311 -- nothing secret is drawn
    ladders = Ladders(prices=PriceBook(), credential_of=lambda _: key, draw=lambda: rng.getrandbits(64), stale_after_s=900)
    own = OwnRouters(draw=rng.random, new_id=lambda: "id")
    return Routing(lane=cast("Lane", lane), ladders=ladders, own=own, clock=lambda: NOW)


def _call(number: int, model: str) -> Call:
    return Call(
        id=f"call-{number}",
        caller=CALLER,
        family=Family.OPENAI,
        operation=Operation.CHAT,
        facts=CallFacts(model=model, input_tokens=4_000, max_output_tokens=1_000),
        plane=Plane.DATA,
        model=model,
        labels=("docs", "nightly"),
        priority=2,
        task_id=f"task-{number}",
        retry_count=0,
    )


class Times:
    """How long decisions took, in milliseconds."""

    def __init__(self, took_ns: Sequence[tuple[int, int]]) -> None:
        by_clock, by_cpu = zip(*took_ns, strict=True)
        self.clock_ms = sorted(ns / 10**6 for ns in by_clock)
        self.cpu_ms = sorted(ns / 10**6 for ns in by_cpu)


def percentile(ranked: Sequence[float], percent: int) -> float:
    """The smallest that so many percent do not exceed."""
    return ranked[-(-len(ranked) * percent // 100) - 1]


async def time_decisions(routing: Routing, lane: InMemory, names: Sequence[str]) -> Times:
    """Decide once for each of *names*."""
    found: list[tuple[int, int]] = []
    for number, name in enumerate(names):
        call = _call(number, name)
        began, cpu_began = time.perf_counter_ns(), time.thread_time_ns()
        _, ladder = await routing.resolve(call)
        decision = await lane.run(Explain(candidates=ladder.candidates, question=ladder.question))
        cpu_ns, clock_ns = time.thread_time_ns() - cpu_began, time.perf_counter_ns() - began
        assert isinstance(decision, Chosen)
        found.append((clock_ns, cpu_ns))
    return Times(found)


async def measure(models: int, rungs: int, decisions: int, *, rules: int = 0, seed: int = 1) -> dict[str, Times]:
    """Time the first decision of every model, and then *decisions* of models at random."""
    lane = InMemory(build_catalog(models, rungs, rules))
    routing, rng = build_routing(lane, seed), Random(seed)  # noqa: S311 -- likewise
    names = list(lane.catalog.models)
    # As `serve` does: what start-up made is not walked by the collector at every call.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    return {
        "first of a model": await time_decisions(routing, lane, names),
        "any later one": await time_decisions(routing, lane, rng.choices(names, k=decisions)),
    }


def print_found(title: str, found: dict[str, Times]) -> float:
    """Print a line each; the answer is the highest 99th percentile of the CPU."""
    for name, times in found.items():
        numbers = [(percentile(ranked, 50), percentile(ranked, 99), ranked[-1]) for ranked in (times.cpu_ms, times.clock_ms)]
        shown = " ".join(f"{p50:>8.3f} {p99:>8.3f} {most:>8.2f}  " for p50, p99, most in numbers)
        print(f"{title:30} {name:18} {len(times.cpu_ms):>7,} {shown}")
    return max(percentile(times.cpu_ms, 99) for times in found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a decision in memory: a large catalog, then many rules.")
    add = parser.add_argument
    add("--models", type=int, default=10_000)
    add("--rungs", type=int, default=50, help="attachments of each model")
    add("--decisions", type=int, default=20_000)
    add("--max-ms", type=float, help=f"exit 1 when p99 is above it, or above {RULES_MAX_MS:g} with {RULES} rules")
    options = parser.parse_args()
    print(f"{'':30} {'decision':18} {'number':>7} {'ms of CPU':>8}{'by the clock':>30}")
    print(f"{'':30} {'':18} {'':>7} " + f"{'p50':>8} {'p99':>8} {'max':>8}   " * 2)
    title = f"{options.models:,} models, {options.rungs} rungs each"
    large = print_found(title, asyncio.run(measure(options.models, options.rungs, options.decisions)))
    gc.unfreeze()
    ruled = asyncio.run(measure(100, RUNGS_BY_RULE, options.decisions, rules=RULES))
    by_rule = print_found(f"{RULES} rules, {RUNGS_BY_RULE} rungs each", ruled)
    print(f"\nat most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB of memory")
    is_slow = options.max_ms is not None and (large > options.max_ms or by_rule > RULES_MAX_MS)
    return 1 if is_slow else 0


if __name__ == "__main__":
    sys.exit(main())

"""
What routing rules save in a day, against sending everything to the default model.

Law: the file's own rules decide, through the same code as the daemon's, each call at the moment at which it came; both sums are of
the same tokens at list price. The same day, file and list give the same table.
Never: sends anything, or leaves a call out: what has no known price stops the program.

    python benchmarks/savings.py [--rules tests/samples/rules.toml] [--day benchmarks/day.csv]

The day that is committed is a made one: `--make SEED` prints such a day, and `day.csv` is that of seed 7. One recorded elsewhere
needs the same columns: `at` (RFC 3339), `priority`, `labels` (spaces between), `task`, `retry_count`, and three counts of tokens.
"""

import argparse
import asyncio
import csv
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from quota_router import open_router
from quota_router.cli.output import configure_logs, print_table
from quota_router.config import load
from quota_router.core.catalog import Catalog
from quota_router.core.decision import Chosen
from quota_router.core.desired import build_catalog
from quota_router.core.pricing import PriceTable, cost_nusd, format_usd
from quota_router.core.usage import Usage
from quota_router.store.prices import PriceBook

HERE = Path(__file__).parent
RULES, DAY = HERE.parent / "tests" / "samples" / "rules.toml", HERE / "day.csv"
COLUMNS = ("at", "priority", "labels", "task", "retry_count", "input_tokens", "cache_read_tokens", "output_tokens")
MIDNIGHT = datetime(2026, 11, 23, 23, tzinfo=UTC)
"""In Berlin, at the beginning of a Tuesday."""
CALLS_BY_HOUR = (30, 30, 30, 30, 10, 5, 5, 5, 20, 45, 60, 60, 40, 40, 60, 65, 60, 50, 30, 20, 20, 20, 30, 30)
"""People in the day, and jobs of the night."""
LABELS = (("code", 45), ("review", 20), ("documentation", 20), ("documentation tests", 5), ("", 10))
"""with their weights"""
CRITICAL, RETRIED = 0.06, 0.04
"""The part of calls with priority 0, and of those that were tried before."""
RULED_OUT = "the default model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One call of the day."""

    at: datetime
    priority: int
    labels: tuple[str, ...]
    task: str
    retry_count: int
    usage: Usage

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> "Recorded":
        """Read one line."""
        counts = (int(row[name]) for name in COLUMNS[-3:])
        return cls(
            at=datetime.fromisoformat(row["at"]),
            priority=int(row["priority"]),
            labels=tuple(row["labels"].split()),
            task=row["task"],
            retry_count=int(row["retry_count"]),
            usage=Usage(**dict(zip(("input", "cache_read", "output"), counts, strict=True))),
        )


@dataclass(slots=True, kw_only=True)
class Sum:
    """What calls of one rule came to."""

    calls: int = 0
    tokens: int = 0
    paid_nusd: int = 0
    by_default_nusd: int = 0

    def add(self, other: "Sum") -> None:
        """Add another's."""
        self.calls += other.calls
        self.tokens += other.tokens
        self.paid_nusd += other.paid_nusd
        self.by_default_nusd += other.by_default_nusd

    @property
    def saved(self) -> float:
        """The part of the default's cost that was not paid."""
        return 1 - self.paid_nusd / self.by_default_nusd if self.by_default_nusd else 0.0


Sums = dict[tuple[str, str], Sum]
"""by what the rule says, and the model that it led to"""


def make_day(seed: int) -> Iterator[tuple[str, ...]]:
    """Make the lines of a day, the first naming the columns."""
    rng = Random(seed)  # noqa: S311 -- a simulation has no secrets, and must repeat itself
    words, weights = zip(*LABELS, strict=True)
    moments = sorted(
        MIDNIGHT + timedelta(hours=hour, seconds=rng.randrange(3_600))
        for hour, calls in enumerate(CALLS_BY_HOUR)
        for _ in range(calls)
    )
    yield COLUMNS
    for number, at in enumerate(moments):
        counts = (1 + int(rng.lognormvariate(mean, 1.0)) for mean in (7.5, 8.5, 6.3))
        priority = 0 if rng.random() < CRITICAL else rng.randint(1, 4)
        retries = 2 if rng.random() < RETRIED else 0
        (labels,) = rng.choices(words, weights)
        yield f"{at:%Y-%m-%dT%H:%M:%SZ}", str(priority), labels, f"task-{number // 3}", str(retries), *map(str, counts)


def read_day(path: Path) -> list[Recorded]:
    """Read a day; lines that begin with `#` say where it is from."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Recorded.of_row(row) for row in csv.DictReader(line for line in file if not line.startswith("#"))]


async def replay(rules: Path, day: Iterable[Recorded]) -> Sums:
    """Decide every call of *day* as the daemon would have at its moment, and sum what it costs."""
    now, sums = [MIDNIGHT], Sums()
    with tempfile.TemporaryDirectory(prefix="quota-router-savings-") as folder:
        database = f"sqlite+aiosqlite:///{folder}/ledger.db"
        environ = {**_credentials(rules), "XDG_STATE_HOME": folder, "QUOTA_ROUTER_SERVER__DATABASE": database}
        async with open_router(rules, environ=environ, clock=lambda: now[0]) as router:
            for call in sorted(day, key=lambda call: call.at):
                now[0] = call.at
                usage = call.usage
                decision = await router.explain(
                    input_tokens=usage.input_tokens,
                    max_output_tokens=usage.output,
                    priority=call.priority,
                    labels=call.labels,
                    task_id=call.task,
                    retry_count=call.retry_count,
                )
                key, cost = _rule_of(decision), priced(decision.candidate.price, usage)
                default = priced(_price_of_default(router.catalog, call.at), usage)
                tokens = usage.input_tokens + usage.output
                sums.setdefault(key, Sum()).add(Sum(calls=1, tokens=tokens, paid_nusd=cost, by_default_nusd=default))
    return sums


def _credentials(rules: Path) -> dict[str, str]:
    """Set every variable that the file's providers name: nothing is sent with it."""
    references = (provider.credential_ref for provider in build_catalog(load(rules, {}).desired).providers.values())
    return {name: "unused" for kind, _, name in (reference.partition(":") for reference in references) if kind == "env"}


def _rule_of(decision: Chosen) -> tuple[str, str]:
    candidate = decision.candidate
    rule = candidate.way.rule
    return RULED_OUT if rule is None else rule.condition.text, candidate.attachment.model


def priced(price: PriceTable | None, usage: Usage) -> int:
    """What *usage* costs; without a price there is no saving to speak of."""
    if price is None:
        sys.exit("A model of this file has no known price: state it there.")
    return cost_nusd(usage, price)


def _price_of_default(catalog: Catalog, now: datetime) -> PriceTable | None:
    model = catalog.find_model(catalog.default_model or "")
    if model is None:
        sys.exit("This file has no `default_model`: there is nothing to compare with.")
    first = model.attachments[0]
    return PriceBook().price_of(first, model, catalog.providers[first.provider], now)


def print_sums(sums: Sums) -> Sum:
    """Print a line per rule and model, and return the whole."""
    whole = Sum()
    for found in sums.values():
        whole.add(found)
    columns = ("rule", "model", ">calls", ">M tokens", ">USD paid", ">USD by default", ">saved")
    rows = [(*key, *_numbers(found)) for key, found in sorted(sums.items(), key=lambda item: -item[1].calls)]
    print_table("A day under these rules", columns, rows, footer=("all", "", *_numbers(whole)))
    return whole


def _numbers(found: Sum) -> tuple[str, ...]:
    usd = (f"{nusd / 10**9:.2f}" for nusd in (found.paid_nusd, found.by_default_nusd))
    return f"{found.calls:,}", f"{found.tokens / 10**6:.2f}", *usd, f"{100 * found.saved:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description="What routing rules save in a day, against the default model for everything.")
    parser.add_argument("--rules", type=Path, default=RULES, help="a configuration with rules and a default model")
    parser.add_argument("--day", type=Path, default=DAY, help="the calls")
    parser.add_argument("--make", type=int, metavar="SEED", help="print a made day instead")
    options = parser.parse_args()
    if options.make is not None:
        print(f"# A made day, not a recorded one: benchmarks/savings.py --make {options.make}")
        csv.writer(sys.stdout, lineterminator=os.linesep).writerows(make_day(options.make))
        return
    configure_logs()
    whole = print_sums(asyncio.run(replay(options.rules, read_day(options.day))))
    saved = format_usd(abs(whole.by_default_nusd - whole.paid_nusd))
    word = "less" if whole.paid_nusd <= whole.by_default_nusd else "more"
    print(f"These rules cost {saved} USD {word} in this day than the default model would, that is {abs(100 * whole.saved):.1f} %.")


if __name__ == "__main__":
    main()

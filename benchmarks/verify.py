"""
How long verifying a ledger takes, and whether a limit check gets slower as the ledger grows.

Law: the entries are written by the ledger's own code: its chain, its statements, its projection. What is measured is what a user
runs: `verify` beside an open ledger, and a decision through the lane.
Never: leaves the ledgers behind, or touches one that was there.

    python benchmarks/verify.py [--entries 1000000] [--max-seconds 30]

Exits 1 when a ledger is not whole, or when verifying the larger one took longer than --max-seconds.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.progress import Progress

from quota_router.cli.output import configure_logs
from quota_router.core.adjustments import Place
from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import Attachment, Caller, Catalog, Family, Model, Network, Provider
from quota_router.core.decision import Chosen
from quota_router.core.holds import EntryKind, Event, HoldState, Outcome, Settlement
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable, Rates, cost_nusd
from quota_router.core.secrets import Secret
from quota_router.core.usage import Usage
from quota_router.decisions import Decisions
from quota_router.ladder import Ladders
from quota_router.machine import Ids, utc_now
from quota_router.own_routers import OwnRouters
from quota_router.routing import Routing
from quota_router.store.audit import verify
from quota_router.store.engines import Engines
from quota_router.store.lane import Lane
from quota_router.store.lines import append
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, open_engines, reading_beside
from quota_router.store.present import new_state
from quota_router.store.prices import PriceBook
from quota_router.store.rebuild import rebuild
from quota_router.store.rows import NewCall, NewHold, ResolvedHold, statements_for, write_rows
from quota_router.store.sole import JOURNAL
from quota_router.store.state import State, labels_text
from quota_router.store.tables import microseconds

SMALL = 10_000
"""What the larger ledger is compared with."""
CHECKS = 1_000
WARM_UP = 200
"""Checks that are not counted."""
FILLED_AT_ONCE = 10_000
SPAN = timedelta(days=30)
"""The entries are spread over it, up to now."""

PRICE = PriceTable(tiers=((0, Rates(input_pusd=3_000_000, output_pusd=15_000_000)),))
CALLERS = tuple(f"team-{number}" for number in range(5))
PROVIDERS = ("work", "home", "payg")
MODEL = "claude-sonnet-4-5"


def limit(name: str, subject: str, unit: Unit, window: str, anchor: str | None = None) -> Limit:
    amount = 10**15
    return Limit(
        name=name,
        kind=Kind.BUDGET,
        subject=subject,
        unit=unit,
        limit=amount,
        window=window,
        anchor=anchor,
        enforcement=Enforcement.STRICT,
    )


LIMITS = (
    limit("month", "everyone", Unit.USD, "month"),
    limit("day", f"caller:{CALLERS[0]}", Unit.USD, "day"),
    limit("docs", "label:docs", Unit.REQUESTS, "day"),
    limit("five-hours", "account:work", Unit.TOKENS, "5h"),
    limit("ever", f"model:{MODEL}", Unit.OUTPUT_TOKENS, "forever"),
)


def build_catalog() -> Catalog:
    providers = [
        Provider(
            name=name,
            family=Family.ANTHROPIC,
            vendor="anthropic",
            account=name,
            base_url="http://127.0.0.1:9",
            credential_ref="none",
            network=Network.LOOPBACK,
        )
        for name in PROVIDERS
    ]
    rungs = tuple(
        Attachment(model=MODEL, provider=name, priority=priority, position=0, upstream_model=f"{MODEL}-20250929", price=PRICE)
        for priority, name in enumerate(PROVIDERS)
    )
    model = Model(name=MODEL, family=Family.ANTHROPIC, attachments=rungs, context_tokens=200_000, max_output_tokens=64_000)
    return Catalog(providers={provider.name: provider for provider in providers}, models={MODEL: model}, limits=LIMITS)


def fill(engines: Engines, entries: int, now: datetime, progress: Progress) -> None:
    """Book *entries* answers, spread over `SPAN`, each with its call and its hold."""
    statements, new_id = statements_for(engines.lane.dialect), Ids()
    task = progress.add_task(f"writing {entries:,} entries", total=entries)
    with engines.lane.connect() as conn, conn.begin():
        state = new_state(conn, JOURNAL)
        for number in range(entries):
            book(state, number, now - SPAN + SPAN * number / entries, new_id)
            if (number + 1) % FILLED_AT_ONCE == 0 or number + 1 == entries:
                write_rows(conn, statements, state.take_writes())
                progress.update(task, completed=number + 1)
    progress.remove_task(task)


def book(state: State, number: int, at: datetime, new_id: Ids) -> None:
    """One answered call: its row, a hold that was posted, and the line of money."""
    labels = ("docs", "nightly") if number % 4 else ()
    whose = {
        "provider": PROVIDERS[number % 3],
        "account": PROVIDERS[number % 3],
        "model": MODEL,
        "upstream_model": f"{MODEL}-20250929",
        "caller": CALLERS[number % 5],
        "workflow": None,
        "stage": None,
    }
    call_id, hold_id, moment = new_id(), new_id(), microseconds(at)
    state.write(
        NewCall(
            id=call_id,
            caller=whose["caller"],
            idempotency_key=None,
            fingerprint=None,
            plane=Plane.DATA,
            operation=Operation.MESSAGES,
            model=MODEL,
            labels=labels_text(labels),
            workflow=None,
            stage=None,
            decision="[]",
            at=moment,
        )
    )
    state.write(
        NewHold(
            id=hold_id,
            call_id=call_id,
            journal=JOURNAL,
            attempt=1,
            labels=labels_text(labels),
            rule=None,
            router=None,
            plane=Plane.DATA,
            state=HoldState.HELD,
            estimate="[]",
            held_at=moment,
            expires_at=moment + 1,
            **whose,
        )
    )
    state.write(
        ResolvedHold(
            state=HoldState.POSTED,
            outcome=Outcome.OK,
            failure=None,
            status=None,
            fingerprint="",
            latency_ms=900,
            first_byte_ms=300,
            resolved_at=moment,
            of_hold=hold_id,
        )
    )
    usage = Usage(input=900 + number % 400, cache_read=number % 7 * 1_000, output=50 + number % 300)
    money = Settlement(
        event=Event.POST, outcome=Outcome.OK, usage=usage, cost_nusd=cost_nusd(usage, PRICE), price_source=PRICE.source
    )
    place = Place(call_id=call_id, labels=labels, **whose)
    append(state, at, EntryKind.POST, money, of=place, own_id=hold_id, held_at=at, estimate_nusd=9_000_000)


async def time_checks(lane: Lane) -> list[float]:
    """Decide `CHECKS` times for a call that every limit could count, in seconds each."""
    ladders = Ladders(prices=PriceBook(), credential_of=lambda _reference: Secret("none"), draw=lambda: 0, stale_after_s=900.0)
    routing = Routing(lane=lane, ladders=ladders, own=OwnRouters(draw=lambda: 0.0, new_id=Ids()), clock=utc_now)
    decisions = Decisions(lane=lane, routing=routing, ladders=ladders, clock=utc_now, new_id=Ids(), draw=lambda: 0.0)
    call = Call(
        id="",
        caller=Caller(name=CALLERS[0], token_sha256="0" * 64),
        family=Family.ANTHROPIC,
        operation=Operation.ROUTE,
        plane=Plane.DECISION,
        facts=CallFacts(model=MODEL, input_tokens=1_000, max_output_tokens=500),
        model=MODEL,
        labels=("docs",),
    )
    took: list[float] = []
    for _ in range(WARM_UP + CHECKS):
        began = time.perf_counter()
        decision = await decisions.explain(call)
        took.append(time.perf_counter() - began)
        assert isinstance(decision, Chosen), "nothing is near its limit"
    return took[WARM_UP:]


def time_verify(url: str, progress: Progress) -> tuple[float, float, int, int]:
    """Verify: wall-clock and CPU seconds, findings, balances compared."""
    task = progress.add_task("verifying", total=None)
    began, cpu_began = time.perf_counter(), time.process_time()
    with reading_beside(url) as conn:
        verdict = verify(conn, datetime.now(UTC), progress=lambda done, total: progress.update(task, completed=done, total=total))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    progress.remove_task(task)
    for finding in verdict.findings:
        print(finding.text, file=sys.stderr)
    return took, cpu, verdict.found, verdict.balances


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one ledger showed."""

    is_whole: bool
    verify_s: float
    check_ms: float
    """the median"""


async def measure(folder: Path, entries: int, progress: Progress) -> Measured:
    """Make a ledger of so many entries, measure, and print one line."""
    url = f"sqlite+aiosqlite:///{folder}/{entries}.db"
    async with open_engines(url, Durability.PROCESS) as engines:
        await upgrade(engines.write)
        async with Lane(engines.lane, engines.tenure, settle_wait_s=10) as lane:
            await lane.edit_catalog(build_catalog())
        engines.lane.dispose()
        fill(engines, entries, datetime.now(UTC), progress)
        async with Lane(engines.lane, engines.tenure, settle_wait_s=10) as lane:
            began = time.perf_counter()
            await lane.edit(rebuild)
            rebuilt_s = time.perf_counter() - began
            checks = await time_checks(lane)
            took_s, cpu_s, found, balances = time_verify(url, progress)
    p50_ms, p95_ms = median(checks) * 1e3, quantiles(checks, n=20)[-1] * 1e3
    size_mb = (folder / f"{entries}.db").stat().st_size / 1e6
    print(
        f"{entries:>12,} {size_mb:>9,.0f} {took_s:>9.2f} {cpu_s:>7.2f} {entries / took_s:>12,.0f} {balances:>9,}"
        f" {rebuilt_s:>10.2f} {p50_ms:>14.3f} {p95_ms:>10.3f}"
    )
    return Measured(is_whole=found == 0, verify_s=took_s, check_ms=p50_ms)


@contextmanager
def state_folder(asked: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quota-router-verify-", dir=asked) as folder:
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time `ledger verify`, and a limit check on a small ledger and on a large one.")
    add = parser.add_argument
    add("--entries", type=int, default=1_000_000, help=f"of the larger ledger (default 1,000,000; at least {SMALL:,})")
    add("--max-seconds", type=float, help="exit 1 when verifying the larger one takes longer")
    add("--state", type=Path, metavar="DIR", help="where the ledgers lie meanwhile (default: the temporary directory)")
    options = parser.parse_args()
    configure_logs()
    if options.entries < SMALL:
        parser.error(f"at least {SMALL:,} entries")
    print(f"{os.cpu_count()} cores; SQLite; {len(LIMITS)} limits; a limit check is one decision over three rungs through the lane")
    print(
        f"{'entries':>12} {'MB':>9} {'verify s':>9} {'CPU s':>7} {'entries/s':>12} {'balances':>9}"
        f" {'rebuild s':>10} {'check p50 ms':>14} {'p95 ms':>10}"
    )
    sizes = sorted({SMALL, options.entries})
    with state_folder(options.state) as folder, Progress(console=Console(stderr=True), transient=True) as progress:
        found = [asyncio.run(measure(folder, entries, progress)) for entries in sizes]
    small, large = found[0], found[-1]
    print(f"\nA limit check on the larger ledger takes {large.check_ms / small.check_ms:.2f} times as long as on the smaller one.")
    are_whole = all(one.is_whole for one in found)
    if not are_whole:
        print("A ledger is not whole.", file=sys.stderr)
    is_slow = options.max_seconds is not None and large.verify_s > options.max_seconds
    if is_slow:
        print(f"Verifying took {large.verify_s:.1f} s, more than {options.max_seconds:g}.", file=sys.stderr)
    return 0 if are_whole and not is_slow else 1


if __name__ == "__main__":
    sys.exit(main())

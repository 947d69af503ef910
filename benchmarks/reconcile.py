"""
How long a start takes over the holds that a crash left open.

Law: the holds are made and booked by the ledger's own code, on a ledger of its own; what is measured is what `serve` does before it
listens: reading the present, and booking every open hold of a dead daemon as assumed.
Never: leaves the ledger behind, or touches one that was there.

    python benchmarks/reconcile.py [--holds 10000] [--database sqlite|postgres|URL] [--max-seconds 2]

Exits 1 when a second time finds anything, when the ledger is not whole, or when the first took longer than --max-seconds.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from ledgers import HELP, new_ledger
from machine import BenchmarkError
from rich.console import Console
from rich.progress import Progress

from quota_router.cli.output import configure_logs
from quota_router.core.calls import Call, CallFacts, Operation
from quota_router.core.catalog import Attachment, Billing, Caller, Catalog, Family, Model, Network, Provider
from quota_router.core.decision import Candidate, Question
from quota_router.core.estimates import estimate
from quota_router.core.limits import Enforcement, Kind, Limit, Unit, subjects_of
from quota_router.core.pricing import PriceTable, Rates
from quota_router.machine import Ids
from quota_router.store.audit import verify
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admit
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, is_postgres, open_engines, reading_beside
from quota_router.upkeep import reconcile

AT_ONCE = 1_000
SETTLE_WAIT_S = 60.0

PRICE = PriceTable(tiers=((0, Rates(input_pusd=3_000_000, output_pusd=15_000_000)),))
CALLER = Caller(name="bench", token_sha256="0" * 64)
RUNG = Attachment(model="m", provider="p", priority=0, position=0, upstream_model="m", price=PRICE)
PROVIDER = Provider(
    name="p",
    family=Family.OPENAI,
    vendor="openai",
    account="p",
    base_url="http://127.0.0.1:9",
    credential_ref="none",
    network=Network.LOOPBACK,
)
MODEL = Model(name="m", family=Family.OPENAI, attachments=(RUNG,), context_tokens=200_000, max_output_tokens=64_000)


def limit(name: str, subject: str, unit: Unit, window: str) -> Limit:
    return Limit(
        name=name,
        kind=Kind.BUDGET,
        subject=subject,
        unit=unit,
        limit=10**15,
        window=window,
        enforcement=Enforcement.STRICT,
    )


CATALOG = Catalog(
    providers={"p": PROVIDER},
    models={"m": MODEL},
    limits=(
        limit("month", "everyone", Unit.USD, "month"),
        limit("day", "caller:bench", Unit.REQUESTS, "day"),
        limit("places", "account:p", Unit.CONCURRENCY, "forever"),
    ),
)


def admit(new_id: Ids) -> Admit:
    """A relayed call that is about to be sent."""
    facts = CallFacts(model="m", input_tokens=1_000, max_output_tokens=500)
    call = Call(id=new_id(), caller=CALLER, family=Family.OPENAI, operation=Operation.CHAT, facts=facts, model="m")
    candidate = Candidate(
        attachment=RUNG,
        provider=PROVIDER,
        has_credential=True,
        subjects=subjects_of("p", "p", "m", CALLER.name, ()),
        price=PRICE,
        estimate=estimate(facts, call.operation, MODEL, Billing.METERED, PRICE, None, body_bytes=4_000),
    )
    return Admit(
        call=call, candidates=(candidate,), question=Question(family=Family.OPENAI), hold_id=new_id(), attempt=1, ttl_s=900.0
    )


async def crash(url: str, many: int, progress: Progress) -> None:
    """Leave so many holds open."""
    new_id, task = Ids(), progress.add_task(f"holding {many:,} calls", total=many)
    async with open_engines(url, Durability.PROCESS) as engines:
        await upgrade(engines.write)
        async with Lane(engines.lane, engines.tenure, settle_wait_s=SETTLE_WAIT_S) as lane:
            await lane.edit_catalog(CATALOG)
            for first in range(0, many, AT_ONCE):
                await asyncio.gather(*(lane.run(admit(new_id)) for _ in range(min(AT_ONCE, many - first))))
                progress.update(task, advance=AT_ONCE)
    progress.remove_task(task)


async def start(url: str) -> tuple[float, float, int]:
    """Start on what is there: seconds to read it, seconds to book what was open, and how many holds that were."""
    async with open_engines(url, Durability.POWER) as engines:
        began = time.perf_counter()
        async with Lane(engines.lane, engines.tenure, settle_wait_s=SETTLE_WAIT_S) as lane:
            read = time.perf_counter()
            expired = await reconcile(lane)
            return read - began, time.perf_counter() - read, expired


async def measure(options: argparse.Namespace, url: str, progress: Progress) -> int:
    print(f"{os.cpu_count()} cores; {'PostgreSQL' if is_postgres(url) else 'SQLite'}; {len(CATALOG.limits)} limits")
    await crash(url, options.holds, progress)
    print(f"{'start':>8} {'open holds':>11} {'reading s':>10} {'booking s':>10} {'both s':>8}")
    found = []
    for name in ("first", "second"):
        read_s, booked_s, expired = await start(url)
        found.append((read_s + booked_s, expired))
        print(f"{name:>8} {expired:>11,} {read_s:>10.2f} {booked_s:>10.2f} {read_s + booked_s:>8.2f}", flush=True)
    with reading_beside(url) as conn:
        verdict = verify(conn, datetime.now(UTC))
    for finding in verdict.findings:
        print(finding.text, file=sys.stderr)
    is_exact = [expired for _, expired in found] == [options.holds, 0] and verdict.is_whole
    print("\nEach hold was booked once, and the ledger is whole." if is_exact else "\nThe ledger is not what it should be.")
    is_slow = options.max_seconds is not None and found[0][0] > options.max_seconds
    if is_slow:
        print(f"The start took {found[0][0]:.1f} s, more than {options.max_seconds:g}.", file=sys.stderr)
    return 0 if is_exact and not is_slow else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a start on the holds that a crash left open.")
    add = parser.add_argument
    add("--holds", type=int, default=10_000, help="how many (default 10,000)")
    add("--database", default="sqlite", metavar="WHICH", help=HELP)
    add("--max-seconds", type=float, help="exit 1 when the start takes longer")
    add("--state", type=Path, metavar="DIR", help="where a ledger that is a file lies meanwhile (default: the temporary directory)")
    options = parser.parse_args()
    configure_logs()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="quota-router-reconcile-", dir=options.state) as folder,
            Progress(console=Console(stderr=True), transient=True) as progress,
            new_ledger(options.database, Path(folder)) as url,
        ):
            return asyncio.run(measure(options, url, progress))
    except BenchmarkError as broken:
        print(broken, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

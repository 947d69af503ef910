"""
The demonstration: two subscriptions and a pay-as-you-go provider, played on loopback, behind a real daemon.

Law: what is shown is what a caller sees: real HTTP to a daemon, real HTTP from it to scripted upstreams, a real ledger on disk.
The ledger is compared with what callers saw and upstreams counted, and is read again once it is closed.
Never: needs a key or a network, touches the user's own settings, or leaves a file behind.

Decision 2026-11 -- windows last a minute instead of five hours, so that `--keep` is worth staying for.
"""

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession

from quota_router.core.pricing import parse_usd_nusd
from quota_router.daemon import open_daemon
from quota_router.simulator import Account, Reply, Simulator
from quota_router.store.chain import verify_chains
from quota_router.store.open import Durability, open_engines

if TYPE_CHECKING:
    from quota_router.config import Loaded

Load = Callable[[Path, Mapping[str, str]], "Loaded"]
"""`config.load`, handed down by the command: settings are read on its floor."""

CALLS = 14
MODEL = "claude-sonnet-4-5"
MAX_TOKENS = 200
OUTPUT_TOKENS = 180
THINKING_S = 0.02
PROMPT = "Say in one paragraph why a ledger is only ever added to, and what one would lose by editing it. " * 4

_KEYS = {"WORK_KEY": "demo-work", "HOME_KEY": "demo-home", "PAYG_KEY": "demo-payg"}
_HOME_ALLOWS = 3
"""Less than its own row says: somebody used that subscription elsewhere, and only the headers of its answers tell."""
_FILE = """\
[server]
listen = "127.0.0.1:0"
database = "sqlite+aiosqlite:///{ledger}"

[providers.claude-work]
vendor = "anthropic"
base_url = "{vendor}"
network = "loopback"
credential = "env:WORK_KEY"
billing = "flat"
[[providers.claude-work.quotas]]
unit = "requests"
limit = 4
window = "60s"
anchor = "first_use"

[providers.claude-home]
vendor = "anthropic"
base_url = "{vendor}"
network = "loopback"
credential = "env:HOME_KEY"
billing = "flat"
[[providers.claude-home.quotas]]
unit = "requests"
limit = 5
window = "60s"
anchor = "first_use"

[providers.pay-as-you-go]
family = "anthropic"
base_url = "{payg}"
network = "loopback"
credential = "env:PAYG_KEY"

[[models]]
name = "{model}"
attachments = ["claude-work", "claude-home", "pay-as-you-go"]
context_tokens = 200_000
max_output_tokens = 64_000
cost_per_million_input = "3"
cost_per_million_output = "15"

[[budgets]]
name = "pocket-money"
subject = "provider:pay-as-you-go"
unit = "usd"
limit = "0.02"
window = "60s"
anchor = "first_use"
enforcement = "strict"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One call, as its caller saw it."""

    number: int
    status: int
    provider: str | None
    """`None`: nobody could pay"""
    attempts: int
    skipped: Mapping[str, str]
    """reason by provider"""
    cost_nusd: int
    left: Mapping[str, Any] | None
    """the limit of the provider that served, in the API's shape; `None` when nobody did"""
    retry_after_s: int | None
    """what a refused caller was told"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that has to be true."""

    claim: str
    holds: bool
    found: str
    """the numbers compared"""


@dataclass(slots=True, kw_only=True)
class Story:
    """What happened."""

    calls: list[Served] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    """as `GET usage` answers, by provider"""
    checks: list[Check] = field(default_factory=list)

    @property
    def is_true(self) -> bool:
        """Whether everything that has to be true is."""
        return bool(self.checks) and all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The upstreams, and the file of a daemon that leads to them."""

    vendor: Simulator
    payg: Simulator
    file: Path
    ledger: Path
    environ: Mapping[str, str]
    token: str


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Start the upstreams and write the file; all of it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="quota-router-demo-") as folder:
        subscriptions = [
            Account(key=_KEYS["WORK_KEY"], requests=4),
            Account(key=_KEYS["HOME_KEY"], requests=_HOME_ALLOWS),
        ]
        async with Simulator(subscriptions) as vendor, Simulator([Account(key=_KEYS["PAYG_KEY"])]) as payg:
            for simulator in (vendor, payg):
                simulator.script(None, Reply(output_tokens=OUTPUT_TOKENS, first_byte_delay_s=THINKING_S, times=None))
            file, ledger = Path(folder, "quota-router.toml"), Path(folder, "ledger.db")
            urls = {"vendor": vendor.anthropic_base_url, "payg": payg.anthropic_base_url}
            _write(file, _FILE.format(ledger=ledger, model=MODEL, **urls))
            token = f"demo-{secrets.token_urlsafe(16)}"
            environ = {**_KEYS, "QUOTA_ROUTER_ADMIN_TOKEN": token, "XDG_STATE_HOME": folder, "HOME": os.environ.get("HOME", folder)}
            yield Stage(vendor=vendor, payg=payg, file=file, ledger=ledger, environ=environ, token=token)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


async def play(stage: Stage, load: Load, show: Callable[[Served], None]) -> Story:
    """Make the calls, telling *show* each as it ends, then compare what everybody knows of them."""
    story = Story()
    async with open_daemon(load(stage.file, stage.environ), stage.environ) as daemon:
        async with ClientSession(daemon.url, headers={"x-api-key": stage.token}) as session:
            for number in range(1, CALLS + 1):
                served = await _call(session, number)
                story.calls.append(served)
                show(served)
            story.usage = await _get(session, "/api/v1/usage?group_by=provider")
            await _compare(story, stage, session)
        await daemon.drain()
    await _read_again(story, stage)
    return story


async def keep_open(stage: Stage, load: Load, until: Callable[[str, str], Awaitable[None]]) -> None:
    """Run the daemon again on the same ledger; *until* is given its URL and token and returns when it may stop."""
    async with open_daemon(load(stage.file, stage.environ), stage.environ) as daemon:
        await until(daemon.url, stage.token)
        await daemon.drain()


async def _call(session: ClientSession, number: int) -> Served:
    body = {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    async with session.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"}) as response:
        await response.read()
        told = response.headers
    provider = told.get("x-quota-router-provider")
    return Served(
        number=number,
        status=response.status,
        provider=provider,
        attempts=int(told.get("x-quota-router-attempts", 0)),
        skipped=dict(pair.split("=", 1) for pair in told.get("x-quota-router-skipped", "").split(",") if pair),
        cost_nusd=parse_usd_nusd(told.get("x-quota-router-cost-usd", "0")),
        left=await _limit_of(session, provider) if provider else None,
        retry_after_s=int(told["Retry-After"]) if "Retry-After" in told else None,
    )


async def _limit_of(session: ClientSession, provider: str) -> Mapping[str, Any] | None:
    """Find the limit of a provider: the quota of its account, or the budget it has."""
    limits: list[dict[str, Any]] = (await _get(session, "/api/v1/limits"))["items"]
    return next((limit for limit in limits if limit["subject"].partition(":")[2] == provider), None)


async def _get(session: ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as response:
        answer: dict[str, Any] = await response.json()
    return answer


# --- what has to be true ------------------------------------------------------------------------------------------------


async def _compare(story: Story, stage: Stage, session: ClientSession) -> None:
    """Compare the ledger with the callers and with the upstreams."""
    entries: list[dict[str, Any]] = (await _get(session, "/api/v1/entries?limit=1000"))["items"]
    answered = [served for served in story.calls if served.status == HTTPStatus.OK]
    booked = sum(entry["cost_nusd"] for entry in entries)
    total = story.usage["total"]
    _check(story, "every answered call is booked once", len(entries), len(answered), len({entry["call_id"] for entry in entries}))
    told = sum(served.cost_nusd for served in story.calls)
    _check(story, "entries, usage and the cost that callers were told agree, to the nano-dollar", booked, total["cost_nusd"], told)
    seen = [seen for simulator in (stage.vendor, stage.payg) for seen in simulator.requests]
    tokens = sum(request.input_tokens + request.output_tokens for request in seen)
    _check(story, "the upstreams counted the same tokens", total["input_tokens"] + total["output_tokens"], tokens)
    limits = (await _get(session, "/api/v1/limits"))["items"]
    _check(story, "nothing is held any more", sum(limit["held"] for limit in limits), 0)


async def _read_again(story: Story, stage: Stage) -> None:
    """Read the closed ledger from its first line to its last."""
    async with (
        open_engines(f"sqlite+aiosqlite:///{stage.ledger}", Durability.POWER) as engines,
        engines.read.connect() as conn,
    ):
        chains = await verify_chains(conn)
    broken = [chain.broken_at for chain in chains if chain.broken_at is not None]
    _check(story, "the hash chain of the closed ledger is whole", len(broken), 0)
    sums = [sum(chain.entries for chain in chains), sum(chain.cost_nusd for chain in chains)]
    answered = sum(served.status == HTTPStatus.OK for served in story.calls)
    _check(story, "the file on disk holds the same lines of money", sums, [answered, story.usage["total"]["cost_nusd"]])


def _check(story: Story, claim: str, *values: object) -> None:
    holds = all(value == values[0] for value in values)
    story.checks.append(Check(claim=claim, holds=holds, found=", ".join(map(str, values))))

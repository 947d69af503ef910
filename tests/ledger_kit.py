"""A real ledger on a real SQLite file, and the values that tests put into it."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from database_kit import url_of

from quota_router.core.calls import Call, CallFacts, Operation
from quota_router.core.catalog import Attachment, Caller, Catalog, Family, Model, Provider
from quota_router.core.decision import Candidate, Question
from quota_router.core.estimates import estimate
from quota_router.core.health import Cooldown
from quota_router.core.holds import Event, Outcome, Settlement
from quota_router.core.ids import uuid7
from quota_router.core.limits import Enforcement, Kind, Limit, Unit, subjects_of
from quota_router.core.pricing import PriceTable, Rates
from quota_router.core.usage import Usage
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admit
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, open_engines
from quota_router.store.spill import Spill
from quota_router.store.state import State
from quota_router.store.tenure import Job

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICE = PriceTable(tiers=((0, Rates(input_pusd=1_000_000, output_pusd=2_000_000)),))
"""One and two USD per million tokens: 1,000 and 2,000 nano-USD a token."""
CALLER = Caller(name="ci", token_sha256="0" * 64)
FACTS = CallFacts(model="m", max_output_tokens=10, input_tokens=100)
"""At PRICE: upper bound and likely amount 120,000 nano-USD."""


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def new_id() -> str:
    return uuid7(time.time_ns() // 10**6, os.urandom(10))


def provider(name: str, **changes: object) -> Provider:
    values = {
        "family": Family.OPENAI,
        "vendor": "openai",
        "account": name,
        "base_url": "http://127.0.0.1:1/v1",
        "credential_ref": "none",
    }
    return Provider(name=name, **{**values, **changes})


def attachment(provider_name: str, priority: int = 0, **changes: object) -> Attachment:
    values = {"model": "m", "position": 0, "upstream_model": "m-up", "price": PRICE}
    return Attachment(provider=provider_name, priority=priority, **{**values, **changes})


def limit(name: str = "cap", **changes: object) -> Limit:
    values = {
        "kind": Kind.BUDGET,
        "subject": "everyone",
        "unit": Unit.REQUESTS,
        "limit": 10,
        "window": "month",
        "enforcement": Enforcement.STRICT,
    }
    return Limit(name=name, **{**values, **changes})


def catalog(*limits: Limit, providers: tuple[Provider, ...] = (provider("one"),)) -> Catalog:
    ladder = tuple(attachment(p.name, priority) for priority, p in enumerate(providers))
    model = Model(name="m", family=Family.OPENAI, attachments=ladder)
    return Catalog(providers={p.name: p for p in providers}, models={"m": model}, limits=limits)


def call(**changes: object) -> Call:
    values = {"id": new_id(), "caller": CALLER, "family": Family.OPENAI, "operation": Operation.CHAT, "facts": FACTS, "model": "m"}
    return Call(**{**values, **changes})


def admit(of: Catalog, asked: Call | None = None, *, hold_id: str | None = None, ttl_s: float = 900, **changes: object) -> Admit:
    asked = asked or call()
    model = of.models["m"]
    candidates = tuple(
        Candidate(
            attachment=rung,
            provider=of.providers[rung.provider],
            has_credential=True,
            subjects=subjects_of(rung.provider, of.providers[rung.provider].account, model.name, asked.caller.name, asked.labels),
            price=rung.price,
            estimate=estimate(
                asked.facts,
                asked.operation,
                model,
                of.providers[rung.provider].billing,
                rung.price,
                None,
                body_bytes=asked.body.size,
            ),
        )
        for rung in model.attachments
    )
    question = Question(family=Family.OPENAI)
    return Admit(
        call=asked, candidates=candidates, question=question, hold_id=hold_id or new_id(), attempt=1, ttl_s=ttl_s, **changes
    )


def post(input_tokens: int = 50, output_tokens: int = 5, **changes: object) -> Settlement:
    """At PRICE a post of 50 and 5 tokens costs 60,000 nano-USD."""
    usage = Usage(input=input_tokens, output=output_tokens)
    values = {"event": Event.POST, "outcome": Outcome.OK, "usage": usage, "cost_nusd": input_tokens * 1000 + output_tokens * 2000}
    return Settlement(**{**values, "fingerprint": f"{input_tokens}/{output_tokens}", **changes})


def void() -> Settlement:
    return Settlement(event=Event.VOID, outcome=Outcome.CANCELLED, fingerprint="void")


class SetCooldowns(Job[None]):
    """Let rungs cool, whatever happened to them."""

    cooldowns: tuple[Cooldown, ...]

    def run(self, state: State, now: datetime) -> None:  # noqa: ARG002 -- a job's shape
        for cooldown in self.cooldowns:
            state.set_cooldown(cooldown)


class ForgetCooldowns(Job[None]):
    """As if no rung had ever failed."""

    def run(self, state: State, now: datetime) -> None:  # noqa: ARG002 -- a job's shape
        for provider, model in list(state.cooldowns):
            state.end_cooldown(provider, model)


@asynccontextmanager
async def open_ledger(
    folder: Path, clock: Clock, of: Catalog | None = None, settle_wait_s: float = 1, *, spill: Spill | None = None
) -> AsyncIterator[Lane]:
    """Open the ledger in *folder* as a daemon would; opened again it is the same ledger."""
    async with open_engines(url_of(folder), Durability.POWER, clock) as engines:
        await upgrade(engines.write)
        async with Lane(engines.lane, engines.tenure, settle_wait_s=settle_wait_s, spill=spill) as lane:
            if of is not None:
                await lane.edit_catalog(of)
            lane.reader, lane.writer = engines.read, engines.write
            yield lane

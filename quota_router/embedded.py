"""
quota_router inside another program: catalog, routers and ledger without HTTP.

    async with quota_router.open_router("quota-router.toml") as router:
        held = await router.route("claude-sonnet-4-5", input_tokens=1_200, max_output_tokens=500)
        ...                                        # make the call at held.base_url, with your own client
        await held.settle(input_tokens=1_180, output_tokens=212)

        text = await router.ask("gpt-5-mini", "Say hello.")  # or let us make it

Law: the same functions as over HTTP, at the same ledger: what is decided, held and booked here is decided, held and booked alike.
Never: listens. A ledger in a file is open in one process at a time: beside a daemon that serves it, use the decision plane.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from quota_router.core.calls import Call, CallFacts, Operation, Plane
from quota_router.core.catalog import ADMIN, Attachment, Caller, Catalog, Family, Provider
from quota_router.core.decision import Chosen, NoneUsable, Rung
from quota_router.core.holds import Hold
from quota_router.core.pricing import charged_usd_nusd
from quota_router.core.routers import AnyRouter, as_router, name_of
from quota_router.core.usage import Usage
from quota_router.core.verdict import say_none_usable
from quota_router.core.ways import Way
from quota_router.daemon import Daemon, open_file
from quota_router.decisions import Decisions, FailureWord
from quota_router.dialects import dialect_of
from quota_router.errors import InvalidRequest, did_you_mean
from quota_router.own_routers import OwnRouter
from quota_router.questions import Answered, question, send, text_of
from quota_router.store.booking import Booked
from quota_router.store.ledger import Admission
from quota_router.store.reports import Reports

HOLD_S = 300.0
"""How long a hold waits for its settlement, unless told otherwise."""
_OPENAI = frozenset({Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES, Operation.EMBEDDINGS})
_NO_TOKEN = ""
"""In place of a token's digest: nobody can show one that has it."""


@asynccontextmanager
async def open_router(
    file: Path | str | None = None,
    *,
    routers: Sequence[AnyRouter] = (),
    metadata: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator["InProcess"]:
    """
    Open catalog and ledger for use in this process.

    Args:
        file: the configuration; `None`: the first one that the search order finds.
        routers: objects of this program, asked behind those that the file names.
        metadata: for routers to read, in `context.metadata`.
        environ: where credentials and settings are looked up; `None`: the process's own.
        clock: gives aware UTC; `None`: this machine's.

    Raises:
        ConfigError, LedgerLocked, LedgerUnavailable, SchemaNewer, ClockBehind: as at the start of a daemon.
        TypeError: one of *routers* is none.
    """
    more = tuple(OwnRouter(name=name_of(router), router=as_router(router)) for router in routers)
    path = Path(file) if file is not None else None
    async with open_file(path, os.environ if environ is None else environ, clock=clock) as daemon:
        daemon.own.routers += more
        daemon.own.metadata = dict(metadata or {})
        yield InProcess(daemon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A decision and its hold, which waits to be settled. Said twice, a settlement is booked once."""

    hold: Hold
    attachment: Attachment
    provider: Provider
    way: Way
    """that led there: what was asked for, a rule's, or a router's"""
    rungs: tuple[Rung, ...]
    """what became of every rung, and why"""
    _decisions: Decisions

    @property
    def call_id(self) -> str:
        """Under which `InProcess.story` tells it."""
        return self.hold.call_id

    @property
    def model(self) -> str:
        """Whose ladder it is; one of the fallbacks, if it came to that."""
        return self.hold.model

    @property
    def router(self) -> str | None:
        """Which router chose that model; `None`: none did."""
        return self.way.router

    @property
    def reason(self) -> str | None:
        """Why, in the words of the router or the rule."""
        return self.way.reason

    @property
    def confidence(self) -> float | None:
        """Of the router."""
        return self.way.confidence

    @property
    def upstream_model(self) -> str:
        """The name to ask the upstream for."""
        return self.hold.upstream_model

    @property
    def base_url(self) -> str:
        """What the vendor's SDK takes."""
        return self.provider.base_url

    async def settle(
        self,
        *,
        input_tokens: int,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_5m_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> Booked:
        """Post what was used. The counts do not overlap: `input_tokens` are those neither read from a cache nor written to one."""
        usage = Usage(
            input=input_tokens,
            output=output_tokens,
            cache_read=cache_read_tokens,
            cache_write_5m=cache_write_5m_tokens,
            cache_write_1h=cache_write_1h_tokens,
            reasoning=reasoning_tokens,
        )
        return await self._decisions.settle_usage(self.hold.id, self.hold.caller, usage)

    async def settle_cost(self, cost_usd: str) -> Booked:
        """Post what it cost: a decimal of US dollars. Raises `ValueError` for what is none."""
        return await self._decisions.settle_cost(self.hold.id, self.hold.caller, charged_usd_nusd(cost_usd))

    async def fail(self, status: int | None, body: str = "", headers: Mapping[str, str] | None = None) -> Booked:
        """Say that the attempt failed, so that its rung is left alone for a while. *status* `None`: no answer came."""
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        word = FailureWord(status=status, headers=lower, body=body)
        return await self._decisions.settle_failure(self.hold.id, self.hold.caller, word)

    async def void(self) -> Booked:
        """Give it back: nothing was sent."""
        return await self._decisions.void(self.hold.id, self.hold.caller)

    async def extend(self, ttl_s: float) -> Hold:
        """Give it more time, counted from now."""
        return await self._decisions.extend(self.hold.id, self.hold.caller, ttl_s, None)


class InProcess:
    """
    What can be done without HTTP. Open it with `open_router`.

    The options of its functions are the fields of a `Call`: `labels`, `priority`, `task_id`, `retry_count`, `requires`, `session`,
    `pinned_provider`, `workflow`, `stage`, `max_cost_nusd`, `max_wait_s`, `deadline`, `idempotency_key`. `caller` names one of the
    catalog's, whose budgets then count it.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def catalog(self) -> Catalog:
        """The snapshot of this moment."""
        return self._daemon.lane.catalog

    @property
    def ledger(self) -> Reports:
        """What was booked: calls, entries, limits, usage."""
        return self._daemon.services.reports

    async def route(
        self,
        model: str | None = None,
        *,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        ttl_s: float = HOLD_S,
        caller: str | None = None,
        **options: Any,  # noqa: ANN401 -- fields of `Call`
    ) -> Held:
        """
        Choose who takes a call, and hold what it may cost for *ttl_s* seconds. No model: routers, rules and the default decide.

        Raises:
            NoUsableProvider: nobody can. UnknownModel: there is none of that name. Conflict: the idempotency key is taken.
        """
        call = self._decided(model, input_tokens, max_output_tokens, caller, options)
        admitted = await self._daemon.services.decisions.route(call, ttl_s=ttl_s)
        if not isinstance(admitted, Admission):
            raise say_none_usable(admitted, self._daemon.services.clock())
        candidate = admitted.decision.candidate
        return Held(
            hold=admitted.hold,
            attachment=candidate.attachment,
            provider=candidate.provider,
            way=candidate.way,
            rungs=admitted.decision.rungs,
            _decisions=self._daemon.services.decisions,
        )

    async def explain(
        self,
        model: str | None = None,
        *,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        caller: str | None = None,
        **options: Any,  # noqa: ANN401 -- fields of `Call`
    ) -> Chosen:
        """Decide as `route` would, and write nothing. Raises as it does."""
        call = self._decided(model, input_tokens, max_output_tokens, caller, options)
        decision = await self._daemon.services.decisions.explain(call)
        if isinstance(decision, NoneUsable):
            raise say_none_usable(decision, self._daemon.services.clock())
        return decision

    async def send(
        self,
        operation: Operation | str,
        body: bytes | Mapping[str, Any],
        *,
        caller: str | None = None,
        **options: Any,  # noqa: ANN401 -- fields of `Call`
    ) -> Answered:
        """
        Make a call the whole way, with a body in the dialect of *operation* (`chat`, `messages`, …), and keep its answer.

        Raises:
            QuotaRouterError: it was refused by us; what an upstream refuses comes back as its own answer.
        """
        asked = Operation(operation)
        if asked is Operation.ROUTE:
            raise InvalidRequest("`route` sends nothing: use the function of that name.", param="operation")
        family = Family.OPENAI if asked in _OPENAI else Family.ANTHROPIC
        parsed = dialect_of(family).read(asked, body if isinstance(body, bytes) else msgspec.json.encode(body))
        labels = tuple(dict.fromkeys((*options.pop("labels", ()), *parsed.facts.labels)))
        call = self._call(asked, family, parsed.facts, caller, {**options, "labels": labels, "body": parsed})
        return await send(self._daemon.router.serve, call)

    async def ask(
        self,
        model: str,
        prompt: str,
        *,
        system: str | None = None,
        max_output_tokens: int | None = None,
        caller: str | None = None,
        **options: Any,  # noqa: ANN401 -- fields of `Call`
    ) -> str:
        """
        Ask a model, in whichever dialect it is served, and return its text.

        Raises:
            QuotaRouterError: nobody could answer.
        """
        bare = self._call(Operation.CHAT, Family.OPENAI, CallFacts(), caller, options)
        call = question(bare, self.catalog, model, prompt, system=system, max_output_tokens=max_output_tokens)
        return text_of(call, await send(self._daemon.router.serve, call))

    async def story(self, call_id: str) -> Mapping[str, Any]:
        """Tell everything of a call: decision, attempts, entries. Raises `UnknownCall`."""
        return await self.ledger.call(call_id)

    def _decided(
        self,
        model: str | None,
        input_tokens: int | None,
        max_output_tokens: int | None,
        caller: str | None,
        options: Mapping[str, Any],
    ) -> Call:
        facts = CallFacts(model=model, input_tokens=input_tokens, max_output_tokens=max_output_tokens)
        # Nobody speaks a dialect here: for this operation the family is never asked.
        return self._call(Operation.ROUTE, Family.OPENAI, facts, caller, {**options, "plane": Plane.DECISION})

    def _call(self, operation: Operation, family: Family, facts: CallFacts, caller: str | None, options: Mapping[str, Any]) -> Call:
        said = {**options, "labels": _words(options.get("labels", ())), "requires": frozenset(options.get("requires", ()))}
        return Call(
            id=self._daemon.services.new_id(),
            caller=self._caller(caller),
            family=family,
            operation=operation,
            facts=facts,
            model=facts.model,
            **said,
        )

    def _caller(self, name: str | None) -> Caller:
        if name is None:
            return Caller(name=ADMIN, token_sha256=_NO_TOKEN)
        known = self.catalog.callers
        if name not in known:
            raise InvalidRequest(f"caller {name!r} is not known: {did_you_mean(name, known)}", param="caller")
        return known[name]


def _words(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))

"""
The operator's own routers: imported as the file names them, asked before any rule, and their changes made.

Law: a router that breaks, dawdles, or names what is not there has said "not mine": that is logged with its name, and the call goes
on without it.
Never: imports what did not come from the file on the host; logs what a router was given or raised, which may hold a prompt.

Decision 2026-11 -- a module is imported once and stays until the next start: importing it anew at a reload would lose what its
    routers count, and leave two versions of one class. A reload imports what is named for the first time.
Decision 2026-11 -- all routers of a call share one bound of time. It cannot end one that blocks without awaiting, which is code of
    the operator's own.
Decision 2026-11 -- a transform that breaks refuses its call, and only that: it was to mask or cap something, and what it was to
    change must not go out as it was.
"""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calls import Call, CallFacts, Operation
from quota_router.core.catalog import Catalog
from quota_router.core.routers import (
    AnyRouter,
    CatalogView,
    Chain,
    RouterContext,
    RoutingRequest,
    RoutingResult,
    Transform,
    answer_of,
    compose,
    flatten,
    request_of,
    why_no_router,
)
from quota_router.dialects import dialect_of
from quota_router.errors import ConfigError, TransformFailed, did_you_mean
from quota_router.questions import OF_ROUTER, Serve, question, send, text_of

ROUTERS_TIMEOUT_S = 10.0
"""For all routers of a call together: long enough to ask a small model."""
_STAY = ("model", "stream")
"""Members of a body that no transform changes: the first is the way's, the other the caller's connection is made for."""

log = structlog.get_logger()


class OwnRouter(Struct, frozen=True, kw_only=True):
    """A router, and what it is called: its reference in the file, or its own name."""

    name: str
    router: AnyRouter


class Asked(Struct, frozen=True, kw_only=True):
    """What the routers have made of a call. `request`: as they left it."""

    request: RoutingRequest
    router: str | None = None
    """who took it; `None`: nobody did"""
    ways: tuple[RoutingResult, ...] = ()
    """where it goes, in the order to be tried; each with everything that is to be done to its body"""

    @property
    def transform(self) -> Transform | None:
        """What is to be done to the body when nobody took the call."""
        return compose(*self.request.transforms)


@dataclass(slots=True, kw_only=True)
class OwnRouters:
    """Those of one daemon. `routers` are exchanged as a whole; `serve` is the way of a call, once there is one."""

    draw: Callable[[], float]
    """a random number of 0..1"""
    new_id: Callable[[], str]
    routers: tuple[OwnRouter, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """for routers to read; whoever embeds us gives it"""
    serve: Serve | None = None
    _view: tuple[Catalog, CatalogView] | None = None

    async def ask(self, call: Call, catalog: Catalog, requires: frozenset[str], *, is_dry: bool = False) -> Asked:
        """
        Ask all of them about a call.

        Args:
            call: as it came.
            catalog: its snapshot.
            requires: the capabilities that it cannot do without.
            is_dry: nothing is to be spent: a router that asks a model then has said "not mine".
        """
        if self._view is None or self._view[0] is not catalog:
            self._view = catalog, CatalogView(catalog)
        context = RouterContext(
            catalog=self._view[1],
            draw=self.draw,
            metadata={**self.metadata, "call_id": call.id},
            ask=_spend_nothing if is_dry else partial(self._ask_model, call, catalog),
        )
        return await ask(self.routers, request_of(call, call.body.members, requires), context)

    async def _ask_model(
        self, call: Call, catalog: Catalog, model: str, prompt: str, /, *, system: str | None, max_output_tokens: int | None
    ) -> str:
        """Ask a model for the sake of *call*: on the same caller's account, and by his time."""
        assert self.serve is not None, "no call comes before there is a way for it"
        bare = Call(
            id=self.new_id(),
            caller=call.caller,
            family=call.family,
            operation=call.operation,
            facts=CallFacts(),
            labels=(*call.labels, OF_ROUTER),
            workflow=call.workflow,
            stage=call.stage,
            deadline=call.deadline,
            is_of_router=True,
        )
        asked = question(bare, catalog, model, prompt, system=system, max_output_tokens=max_output_tokens)
        return text_of(asked, await send(self.serve, asked))


async def _spend_nothing(_model: str, _prompt: str, /, **_options: object) -> str:
    raise RuntimeError("a dry run asks no model.")


# --- load -----------------------------------------------------------------------------------------------------------------


def load_routers(references: Sequence[str], folder: Path | None) -> tuple[OwnRouter, ...]:
    """
    Import routers.

    Args:
        references: `package.module:object` each, already checked for their form.
        folder: of the file that names them; modules beside it are found too, behind those that are installed.

    Raises:
        ConfigError: one of them cannot be had, with its key path and what to do.
    """
    if references and folder is not None and str(folder.absolute()) not in sys.path:
        sys.path.append(str(folder.absolute()))
        importlib.invalidate_caches()
    return tuple(OwnRouter(name=reference, router=_load(reference, place)) for place, reference in enumerate(references))


def _load(reference: str, place: int) -> AnyRouter:
    path = ("routing", "routers", place)
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name is not None and module_name.startswith(error.name)
        remedy = f"install it, or put {module_name.partition('.')[0]}.py beside this file" if is_missing else "mend it"
        said = f"router {reference!r} cannot be imported: {type(error).__name__}: {error}: {remedy}, and apply the file again."
        raise ConfigError(said, key_path=path) from error
    try:
        thing: AnyRouter = attrgetter(name)(module)
    except AttributeError as error:
        near = did_you_mean(name, [known for known in vars(module) if not known.startswith("_")])
        raise ConfigError(f"router {reference!r}: {module_name} has no {name!r}: {near}", key_path=path) from error
    why = why_no_router(thing)
    if why is not None:
        said = f"{reference!r} is no router: it {why}. Write `def {name}(request, context)`, or an object with such a `route`."
        raise ConfigError(said, key_path=path)
    return thing


# --- ask ------------------------------------------------------------------------------------------------------------------


async def ask(
    routers: Sequence[OwnRouter], request: RoutingRequest, context: RouterContext, *, timeout_s: float = ROUTERS_TIMEOUT_S
) -> Asked:
    """
    Ask one after the other, until one takes the call or their time is over. It raises nothing of theirs.

    A chain that stands at the top is asked member by member: what it changes of the request stays changed.
    """
    now, asking = request, ""
    try:
        async with asyncio.timeout(timeout_s):
            for own in _unrolled(routers):
                asking = own.name
                said = await _said_by(own, now, context)
                if isinstance(said, RoutingRequest):
                    now = said
                elif said:
                    return Asked(request=now, router=own.name, ways=said)
    except TimeoutError:
        log.warning("the routers took too long; the call goes on without them", action="router_late", router=asking, s=timeout_s)
    return Asked(request=now)


def _unrolled(routers: Sequence[OwnRouter]) -> Iterator[OwnRouter]:
    for own in routers:
        if isinstance(own.router, Chain):
            yield from _unrolled([OwnRouter(name=own.name, router=member) for member in own.router.routers])
        else:
            yield own


async def _said_by(
    own: OwnRouter, request: RoutingRequest, context: RouterContext
) -> RoutingRequest | tuple[RoutingResult, ...] | None:
    """Ask one router: what it makes of the request, or the ways that it means; nothing when it does not take the call."""
    try:
        said = await answer_of(own.router, request, context)
        return _ways(own, said, request, context) if isinstance(said, RoutingResult) else said
    except BaseException as error:  # whatever it is, even an exit, it is not ours, and no call may fail of it
        if _is_ours(error):
            raise
        _log_failure(own.name, error, "a router broke; the call goes on without it")
        return None


def _is_ours(error: BaseException) -> bool:
    """Whether the call itself was cancelled, by its caller or by the time that routers have."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _ways(own: OwnRouter, said: RoutingResult, request: RoutingRequest, context: RouterContext) -> tuple[RoutingResult, ...]:
    """Lay out what a router said; what is not there is left out."""
    ways = flatten(said)
    known = [way for way in ways if context.catalog.has(way)]
    if len(known) < len(ways):
        # Not by its name: it may be what some model said.
        log.warning("a router named a model or provider that is not there", action="router_astray", router=own.name)
    return tuple(
        RoutingResult(way.model, way.provider, way.reason, way.confidence, compose(*request.transforms, way.transform))
        for way in known
    )


# --- change ---------------------------------------------------------------------------------------------------------------


def changed_call(call: Call, request: RoutingRequest, requires: frozenset[str]) -> Call:
    """The call with the options of *request*; its body stays as it is. *requires*: what it could not do without before."""
    facts = call.facts
    if call.operation is Operation.ROUTE:
        facts = replace(facts, input_tokens=request.input_tokens, max_output_tokens=request.max_output_tokens)
    return replace(
        call,
        facts=facts,
        model=request.model,
        labels=request.labels,
        priority=request.priority,
        task_id=request.task_id,
        retry_count=request.retry_count,
        requires=call.requires - (requires - request.requires) | (request.requires - requires),
        session=request.session,
        workflow=request.workflow,
        stage=request.stage,
    )


def transformed(call: Call, transform: Transform | None, router: str | None) -> Call:
    """
    The call with the body that *transform* makes of its own. `model` and `stream` stay; without a body there is nothing to change.

    What the body now asks for counts: its caps, its tools, its media.

    Raises:
        TransformFailed: it broke, or what it made cannot be sent. That is logged with the router's name.
    """
    if transform is None or call.operation is Operation.ROUTE:
        return call
    try:
        before = call.body.members()
        members = dict(transform(call.body.members()))
        for name in _STAY:
            if name in before:
                members[name] = before[name]
            else:
                members.pop(name, None)
        parsed = dialect_of(call.family).read(call.operation, call.body.rewritten(members))
    except BaseException as error:
        _log_failure(router or "", error, "a router's transform broke")
        raise TransformFailed from error
    return replace(call, body=parsed, facts=replace(parsed.facts, model=call.facts.model))


def _log_failure(router: str, error: BaseException, sentence: str) -> None:
    """Say where it broke; not with what, which may be a prompt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else None
    log.warning(sentence, action="router_failed", router=router, error=type(error).__name__, at=at)

"""
The composition root: the one file that knows everybody. Start, drain, stop.

Law: whatever is opened here is closed here, in reverse; a stop first lets calls end, then settles what is left, then closes the
ledger.
Never: handles a call.
"""

import asyncio
import contextlib
import gc
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from quota_router import config
from quota_router.admission import Admissions
from quota_router.core.catalog import Catalog
from quota_router.core.desired import build_catalog
from quota_router.core.host_only import take_sent
from quota_router.core.retries import Retries
from quota_router.core.secrets import Secret
from quota_router.crashpoints import CrashPoint, reach
from quota_router.decisions import Decisions
from quota_router.dialects.vendors import ENDPOINTS
from quota_router.errors import ClockBehind, ConfigError, LedgerError, ShuttingDown
from quota_router.ladder import Ladders
from quota_router.machine import Ids, utc_now
from quota_router.outbound import Outbound, open_outbound
from quota_router.own_routers import OwnRouter, OwnRouters, load_routers
from quota_router.polling import Pollers
from quota_router.relay import Bounds, Relay
from quota_router.router import Router
from quota_router.routing import Routing
from quota_router.store.catalog import Change
from quota_router.store.lane import Lane
from quota_router.store.migrate import upgrade
from quota_router.store.open import Durability, open_engines
from quota_router.store.price_file import PriceFile
from quota_router.store.prices import PriceBook
from quota_router.store.reports import Reports
from quota_router.store.spill import claim_spill
from quota_router.store.trail import FILE, Signature, Trail
from quota_router.underway import Underway
from quota_router.upkeep import follow_edits, follow_prices, hang_up, reconcile, sweep, take_prices
from quota_router.waiting import WaitingRoom
from quota_router.web.app import build_app
from quota_router.web.auth import Authenticator
from quota_router.web.listening import answering, bind, close, split_listen, wait_for_ledger
from quota_router.web.routes import Services

SENT_FILE = "the file that was sent"
"""What a catalog that came over HTTP is called in errors."""
CLOCK_TOLERANCE = timedelta(hours=1)
GC_THRESHOLD = 20_000
"""Objects made before the collector looks for cycles: the default of 700 has it walk every running call many times over."""

log = structlog.get_logger()


@dataclass(slots=True)
class Signals:
    """What the operator said: `stop` with the first SIGTERM or SIGINT, `hurry` with the second: settle at once."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> None:
        """One more signal."""
        (self.hurry if self.stop.is_set() else self.stop).set()


@dataclass(slots=True, kw_only=True)
class Daemon:
    """A running daemon."""

    services: Services
    router: Router
    own: OwnRouters
    lane: Lane
    sites: list[web.SockSite]
    url: str
    settings: config.ServerSettings
    signals: Signals

    async def drain(self) -> None:
        """
        Stop taking calls; let those under way end, at most `drain_s`; then cut and settle the rest.

        The ledger is closed by whoever opened it, after this.
        """
        self.services.is_draining = True
        for site in self.sites:
            await site.stop()
        idle, hurry = asyncio.create_task(self.router.underway.wait_idle()), asyncio.create_task(self.signals.hurry.wait())
        log.info("draining", action="draining", calls=len(self.router.underway), drain_s=self.settings.drain_s)
        await asyncio.wait({idle, hurry}, timeout=self.settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not idle.done():
            log.warning("calls are cut and settled", action="calls_cut", calls=len(self.router.underway))
            self.router.underway.cut()
            await asyncio.wait({idle}, timeout=self.settings.settle_wait_s)
        idle.cancel()


@asynccontextmanager
async def open_daemon(
    loaded: config.Loaded,
    environ: Mapping[str, str],
    *,
    listen: str | None = None,
    accept_clock: bool = False,
    clock: Callable[[], datetime] | None = None,
    signals: Signals | None = None,
    answers: bool = True,
) -> AsyncIterator[Daemon]:
    """
    Start everything, and close it again.

    Args:
        loaded: settings and catalog file.
        environ: where credentials are looked up.
        listen: `HOST:PORT` instead of the settings'; port 0 takes any free one.
        accept_clock: start although the clock is far behind the last entry.
        clock: gives aware UTC; `None`: this machine's for calls, and for the ledger that of its database.
        signals: what the operator may say meanwhile.
        answers: False: over no socket, for use in-process.

    Raises:
        OSError: the address cannot be had; nothing was touched. ShuttingDown: *signals* said so before the ledger was reached.
        ConfigError: the catalog contradicts itself. LedgerLocked, SchemaNewer, ClockBehind: the ledger refuses.
    """
    settings = loaded.settings
    desired = build_desired(loaded)
    credentials, ids = config.Credentials(environ, Secret), Ids()
    own = OwnRouters(draw=random.random, new_id=ids, routers=load_own(loaded, desired))
    admin_token = config.admin_token(environ, Secret) or (
        config.keep_admin_token(settings.admin_token_file, Secret) if answers else Secret(ids())
    )

    def credential_of(reference: str) -> Secret | None:
        """Resolve a reference; a shell that has our own token in a vendor's variable must not send it to the vendor."""
        secret = credentials.resolve(reference)
        return None if secret == admin_token else secret

    host, port = split_listen(listen or settings.listen)
    signals = signals or Signals()
    async with AsyncExitStack() as stack:
        sockets = bind(host, port) if answers else []
        stack.callback(close, sockets)
        url = f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}" if answers else ""
        engines = await stack.enter_async_context(open_engines(settings.database_url, Durability(settings.durability), clock))
        clock = clock or utc_now
        await wait_for_ledger(engines, sockets, ids, signals.stop)
        await upgrade(engines.write)
        spill = stack.enter_context(closing(claim_spill(engines.spill_folder or settings.state_dir)))
        lane = await stack.enter_async_context(
            Lane(engines.lane, engines.tenure, settle_wait_s=settings.settle_wait_s, spill=spill)
        )
        check_clock(lane, clock(), accept=accept_clock)
        if loaded.path is not None:  # no file says nothing: what another one said stays
            log_changes(await lane.edit_catalog(desired))
        reach(CrashPoint.BEFORE_RECONCILE)
        orphans = await reconcile(lane)
        reach(CrashPoint.AFTER_RECONCILE)
        if orphans:
            log.warning("holds of the last run were booked as assumed", action="holds_reconciled", holds=orphans)
        outbound = await stack.enter_async_context(open_outbound(environ, clock, _bounds(settings)))
        prices, price_file = PriceBook(), PriceFile(folder=settings.state_dir)
        await take_prices(prices, price_file)
        router = _build_router(lane, outbound, settings, credential_of, clock, own, prices)

        async def reload(dry_run: bool, prune: bool, by: str) -> list[Change]:  # noqa: FBT001 -- three words of one request
            return await _apply_file(loaded.path, environ, lane, own, dry_run=dry_run, prune=prune, by=by)

        async def apply_text(text: str, dry_run: bool, prune: bool, by: str) -> list[Change]:  # noqa: FBT001 -- likewise
            sent = _build(config.parse_catalog(text, SENT_FILE), text, SENT_FILE)
            wanted = take_sent(sent, lane.catalog, settings.api_networks)
            return await lane.edit_catalog(wanted, dry_run=dry_run, prune=prune, signature=Signature(admin=by))

        pollers = Pollers(lane=lane, upstream=outbound.upstream, credential_of=credential_of, clock=clock, draw=random.random)
        services = Services(
            router=router,
            decisions=Decisions(
                lane=lane, routing=router.routing, ladders=router.ladders, clock=clock, new_id=ids, draw=random.random
            ),
            lane=lane,
            reports=Reports(engines.read),
            clock=clock,
            new_id=ids,
            has_credential=lambda ref: ref == "none" or credential_of(ref) is not None,
            pollers=pollers,
            stale_after_s=settings.stale_after_s,
            max_body_bytes=settings.max_body_bytes,
            reload=reload,
            apply_text=apply_text,
            trail=Trail(engines.read),
            api_networks=settings.api_networks,
            poller_presets=tuple(ENDPOINTS),
            check_reference=config.check_reference,
        )
        app = build_app(services, Authenticator(admin_token), (host, *settings.allowed_hosts))
        sites = await stack.enter_async_context(answering(app, sockets))
        outbound.upstream.own_addresses = frozenset({listening.getsockname()[:2] for listening in sockets})
        close(sockets)  # they are answered at through copies now, which a stop closes
        beside = {
            "sweep": sweep(lane, router, settings.sweep_s),
            "hang_up": hang_up(router.underway),
            "follow_prices": follow_prices(prices, price_file),
            "polling": pollers.run(),
        }
        if engines.edits is not None:
            beside["follow_edits"] = follow_edits(lane, engines.edits)
        for name, loop in beside.items():
            stack.push_async_callback(_end, asyncio.create_task(loop, name=name))
        yield Daemon(services=services, router=router, own=own, lane=lane, sites=sites, url=url, settings=settings, signals=signals)


async def run(
    loaded: config.Loaded,
    environ: Mapping[str, str],
    *,
    listen: str | None,
    accept_clock: bool,
    say: Callable[[str], None],
) -> None:
    """Serve until a signal says stop; then drain and close. *say* is told the URL once we listen."""
    loop, signals = asyncio.get_running_loop(), Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.take)
    with contextlib.suppress(ShuttingDown):  # we were told to stop before there was anything to drain
        async with open_daemon(loaded, environ, listen=listen, accept_clock=accept_clock, signals=signals) as daemon:
            await _serve(daemon, loaded, say)


async def _serve(daemon: Daemon, loaded: config.Loaded, say: Callable[[str], None]) -> None:
    reloads: set[asyncio.Task[None]] = set()

    def on_hup() -> None:
        task = asyncio.create_task(_reload(daemon), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hup)
    # What start-up made lives as long as the daemon: the collector need not walk it at every call.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    if loaded.path is None:
        log.warning("no configuration file was found here: nothing is configured; name one with --config FILE", action="no_file")
    else:
        log.info("the configuration was applied", action="config_applied", file=str(loaded.path.absolute()))
    say(daemon.url)
    await daemon.signals.stop.wait()
    await daemon.drain()


async def _reload(daemon: Daemon) -> None:
    """Read the file again after SIGHUP; one that cannot be applied changes nothing."""
    try:
        log_changes(await daemon.services.reload(False, False, FILE))  # noqa: FBT003 -- neither dry nor pruning
    except (ConfigError, LedgerError) as error:
        log.warning("the file was not applied", action="reload_failed", reason=error.message)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _apply_file(
    path: Path | None, environ: Mapping[str, str], lane: Lane, own: OwnRouters, *, dry_run: bool, prune: bool, by: str
) -> list[Change]:
    """Make the catalog and the routers what the file says by now: all of it, or nothing."""
    loaded = config.load(path, environ)
    desired = build_desired(loaded)
    routers = await asyncio.to_thread(load_own, loaded, desired)
    changes = await lane.edit_catalog(desired, dry_run=dry_run, prune=prune, signature=Signature(admin=by))
    own.routers = own.routers if dry_run else routers
    return changes


def build_desired(loaded: config.Loaded) -> Catalog:
    """Make a catalog of the file; an error in it names file and line."""
    return _build(loaded.desired, loaded.text, str(loaded.path))


def _build(desired: Mapping[str, Any], text: str, file: str) -> Catalog:
    try:
        return build_catalog(desired, pollers=ENDPOINTS)
    except ConfigError as error:
        raise config.explain(error, text, file) from error


def load_own(loaded: config.Loaded, desired: Catalog) -> tuple[OwnRouter, ...]:
    """Import the routers of the file; an error says file and line."""
    try:
        return load_routers(desired.routers, loaded.path.parent if loaded.path else None)
    except ConfigError as error:
        raise config.explain(error, loaded.text, str(loaded.path)) from error


@asynccontextmanager
async def open_file(
    file: Path | None, environ: Mapping[str, str], *, accept_clock: bool = False, clock: Callable[[], datetime] | None = None
) -> AsyncIterator[Daemon]:
    """Start what a file says for use in this process, over no socket; at the end let calls end. Raises: as `open_daemon`."""
    loaded = config.load(file, environ)
    async with open_daemon(loaded, environ, accept_clock=accept_clock, clock=clock, answers=False) as daemon:
        try:
            yield daemon
        finally:
            await daemon.drain()


def check_clock(lane: Lane, now: datetime, *, accept: bool) -> None:
    """
    Compare the clock with the ledger's last entry.

    Raises:
        ClockBehind: it is more than an hour earlier; windows would be counted twice.
    """
    behind = lane.state.head.at - now
    if behind > CLOCK_TOLERANCE and not accept:
        remedy = "Set the clock, or start with --accept-clock if the entry is wrong."
        raise ClockBehind(f"The clock is {behind} behind the ledger's last entry. {remedy}")


def log_changes(changes: list[Change]) -> None:
    """Log what applying the file changed."""
    for change in changes:
        log.info(change.describe(), action="catalog_changed", kind=change.kind, name=change.name)


def _build_router(
    lane: Lane,
    outbound: Outbound,
    settings: config.ServerSettings,
    credential_of: Callable[[str], Secret | None],
    clock: Callable[[], datetime],
    own: OwnRouters,
    prices: PriceBook,
) -> Router:
    """Put the rooms of the way of a call together."""
    bounds, loop_time = outbound.bounds, asyncio.get_running_loop().time
    underway, waiting = Underway(loop_time), WaitingRoom(loop_time)
    lane.when_freed = waiting.stir
    ladders = Ladders(
        prices=prices,
        credential_of=credential_of,
        draw=lambda: random.getrandbits(64),
        stale_after_s=settings.stale_after_s,
    )
    router = Router(
        lane=lane,
        outbound=outbound,
        routing=Routing(lane=lane, ladders=ladders, own=own, clock=clock),
        ladders=ladders,
        admissions=Admissions(
            lane=lane,
            underway=underway,
            waiting=waiting,
            retries=Retries(lone=settings.retries_lone, member=settings.retries_member),
            clock=clock,
            new_id=own.new_id,
            time=loop_time,
            draw=random.random,
            ttl_s=settings.max_call_s,
        ),
        relay=Relay(lane=lane, bounds=bounds, clock=clock, homes=ladders.homes),
        underway=underway,
        bounds=bounds,
        clock=clock,
        time=loop_time,
    )
    own.serve = router.serve
    return router


def _bounds(settings: config.ServerSettings) -> Bounds:
    return Bounds(
        max_call_s=settings.max_call_s,
        connect_timeout_s=settings.connect_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        gap_timeout_s=settings.gap_timeout_s,
        settle_wait_s=settings.settle_wait_s,
        drain_s=settings.drain_s,
        drain_tokens=settings.drain_tokens,
        max_answer_bytes=settings.max_body_bytes,
    )

"""
Asking quota endpoints, beside the calls.

Law: one request at a time to an endpoint of an account, and none before its time. Whatever goes wrong with one is noted with it,
logged once and tried again; it takes nothing back that was told before, benches no provider, and no call ever waits for it.
Never: follows a redirect, reads more than `BODY_MAX_BYTES`, shows a credential or what an upstream wrote.

Decision 2026-11 -- a 401 or 403 here says nothing of the provider: an endpoint may take another credential than calls do, and
    tokens for inference alone are refused here every day. It is shown with the poller; the provider goes on serving.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import structlog

from quota_router.core.limits import Amounts
from quota_router.core.pulse import RATE_LIMITED, Pulse, begin, fail, hasten, put_off, succeed
from quota_router.core.readings import Said
from quota_router.core.secrets import Secret
from quota_router.dialects.headers import retry_after
from quota_router.dialects.vendors import UnreadablePoll
from quota_router.errors import QuotaRouterError, UpstreamCut, UpstreamUnavailable
from quota_router.polling.targets import Key, Target, targets_of
from quota_router.store.lane import Lane
from quota_router.store.observing import LastTold, Observe
from quota_router.upstream import QuotaAnswer, QuotaRequest, Upstream

LOOK_S = 1.0
"""Between two looks at what is due."""
CONNECT_TIMEOUT_S = 10.0
TOTAL_TIMEOUT_S = 30.0
BODY_MAX_BYTES = 1_048_576
IN_FLIGHT_MAX = 8
"""Endpoints asked at a time: however many there are, calls find their places."""

_AUTH = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_SENTENCES = {
    "auth_failed": "The endpoint does not take this credential.",
    RATE_LIMITED: "The endpoint was asked too often.",
    "redirected": "The endpoint sends us elsewhere, which is not followed.",
    "refused": "The endpoint answers with an error.",
}

log = structlog.get_logger()


class _Missed(Exception):
    """It was not told what we want to know."""

    def __init__(self, cause: str, message: str, *, status: int | None = None, until: datetime | None = None) -> None:
        super().__init__(cause)
        self.cause, self.message, self.status, self.until = cause, message, status, until


@dataclass(slots=True, kw_only=True)
class Watch:
    """A target, how it has answered, and the request that is under way."""

    target: Target
    pulse: Pulse
    task: asyncio.Task[None] | None = None


class Pollers:
    """
    All endpoints of the catalog, whichever it is by now.

    Args:
        lane: readings go there.
        upstream: asks.
        credential_of: resolves a reference at the moment of use; `None`: there is none.
        clock: gives aware UTC.
        draw: a random number of 0..1.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        upstream: Upstream,
        credential_of: Callable[[str], Secret | None],
        clock: Callable[[], datetime],
        draw: Callable[[], float],
    ) -> None:
        self._lane, self._upstream = lane, upstream
        self._credential_of, self._clock, self._draw = credential_of, clock, draw
        self._watched: dict[Key, Watch] = {}
        self._seen: object = None
        """the catalog that was looked at last"""

    @property
    def watched(self) -> tuple[Watch, ...]:
        """Everything that is asked now, for showing it."""
        return tuple(self._watched.values())

    async def run(self) -> None:
        """Ask whatever is due, for ever; whoever ends this ends what is under way."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    self._look(tasks)
                except Exception:  # of ours: what is asked already goes on being asked
                    log.exception("the catalog's quota endpoints could not be read", action="pollers_broke")
                await asyncio.sleep(LOOK_S)

    def _look(self, tasks: asyncio.TaskGroup) -> None:
        now = self._clock()
        if self._lane.catalog is not self._seen:
            self._follow(now)
        under_way = sum(watch.task is not None for watch in self._watched.values())
        for watch in sorted(self._watched.values(), key=lambda watch: watch.pulse.due_at):
            if under_way >= IN_FLIGHT_MAX:
                return
            if watch.task is None and watch.pulse.is_due(now):
                watch.task = tasks.create_task(self._poll(watch), name=f"poll {watch.target.sources[0]}")
                under_way += 1

    def _follow(self, now: datetime) -> None:
        """Begin with what the catalog has got, and leave what it names no longer; what stays keeps its pulse."""
        catalog = self._seen = self._lane.catalog
        wanted = targets_of(catalog, now)
        before, self._watched = self._watched, {}
        for key, target in wanted.items():
            # The same address with another credential is the same endpoint, asked no sooner for that.
            moved = (known for known in before if known[:3] == key[:3] and known not in wanted)
            watch = before.pop(key if key in before else next(moved, key), None)
            if watch is None:
                watch = Watch(target=target, pulse=begin(now, draw=self._draw()))
                log.info("a quota endpoint is asked", action="poller_started", **_names(target), every_s=target.interval_s)
            if watch.target != target:
                watch.target, watch.pulse = target, hasten(watch.pulse, interval_s=target.interval_s, now=now)
            self._watched[key] = watch
        for watch in before.values():
            if watch.task is not None:
                watch.task.cancel()
            log.info("a quota endpoint is asked no longer", action="poller_stopped", **_names(watch.target))

    # --- one request ------------------------------------------------------------------------------------------------------

    async def _poll(self, watch: Watch) -> None:
        target, failing = watch.target, watch.pulse.cause
        try:
            watch.pulse = await self._heard(target, watch.pulse)
        except Exception:  # of ours: it must not stop the others
            log.exception("a quota endpoint could not be read", action="poll_broke", **_names(target))
            watch.pulse = self._failed(target, watch.pulse, _Missed("internal_error", QuotaRouterError().message))
        finally:
            watch.task = None
        cause = watch.pulse.cause
        if cause is not None and cause != failing:
            why = {"cause": cause, "status": watch.pulse.status, "reason": watch.pulse.message}
            log.warning("a quota endpoint does not tell", action="poll_failed", **_names(target), **why)
        elif cause is None and failing is not None:
            log.info("a quota endpoint answers again", action="poll_recovered", **_names(target))

    async def _heard(self, target: Target, pulse: Pulse) -> Pulse:
        """Ask, keep what is told, and return when to ask again."""
        try:
            heard_at, posted = await self._lane.run(LastTold(account=target.account, sources=target.sources))
            now = self._clock()
            if heard_at is not None and 0 <= (now - heard_at).total_seconds() < target.interval_s:
                return put_off(pulse, heard_at, interval_s=target.interval_s, now=now, draw=self._draw())
            answer = await self._ask(target, now)
            self._keep(target, answer.body, posted)
        except _Missed as missed:
            return self._failed(target, pulse, missed)
        except (UpstreamUnavailable, UpstreamCut) as error:
            return self._failed(target, pulse, _Missed(error.cause, error.message))
        except QuotaRouterError as error:
            return self._failed(target, pulse, _Missed(error.code, error.message))
        return succeed(interval_s=target.interval_s, now=self._clock(), draw=self._draw())

    async def _ask(self, target: Target, now: datetime) -> QuotaAnswer:
        """Raises `_Missed`: it was not a 200, or could not be asked. And whatever `Upstream.ask` raises."""
        ref, poll = target.credential_ref, target.poll(now)
        secret = self._credential_of(ref) if ref not in {None, "none"} else None
        if secret is None and ref != "none":
            # Nothing was asked, so nothing has to be spared: it is looked for again at the usual time.
            raise _Missed("no_credential", target.lacking, until=now)
        answer = await self._upstream.ask(
            QuotaRequest(
                provider=target.provider,
                url=poll.url,
                headers=poll.signed(secret.reveal()) if secret is not None else poll.headers,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                total_timeout_s=TOTAL_TIMEOUT_S,
                max_bytes=BODY_MAX_BYTES,
            )
        )
        if answer.status == HTTPStatus.OK:
            return answer
        cause = _cause_of(answer.status)
        until = retry_after(answer.headers, self._clock())
        raise _Missed(cause, f"{_SENTENCES[cause]} (status {answer.status})", status=answer.status, until=until)

    def _keep(self, target: Target, body: bytes, posted: Amounts) -> None:
        """Raises `UnreadablePoll`, after what could be read was kept."""
        now, unreadable = self._clock(), None
        for poller, source in zip(target.pollers, target.sources, strict=True):
            said: tuple[Said, ...] = ()
            try:
                said = target.read(poller, body, now)
            except UnreadablePoll as error:
                unreadable = error
            if said:
                provider = target.provider.name
                self._lane.note(Observe(provider=provider, account=target.account, source=source, said=said, posted_before=posted))
        if unreadable is not None:
            raise _Missed("unreadable", unreadable.message)

    def _failed(self, target: Target, pulse: Pulse, missed: _Missed) -> Pulse:
        return fail(
            pulse,
            missed.cause,
            interval_s=target.interval_s,
            now=self._clock(),
            draw=self._draw(),
            until=missed.until,
            status=missed.status,
            message=missed.message,
        )


def _cause_of(status: int) -> str:
    if status in _AUTH:
        return "auth_failed"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RATE_LIMITED
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return "redirected" if is_redirect else "refused"


def _names(target: Target) -> dict[str, str]:
    return {"provider": target.provider.name, "account": target.account, "source": ", ".join(target.sources)}

"""
Taking an adjustment: what an admin says beside what was booked.

Law: it names whose money it is in one way: a call, one of its attempts, or a provider; who says so is whoever the token belongs to.
Never: guesses between two attempts of a call.
"""

from datetime import datetime
from http import HTTPMethod, HTTPStatus
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from quota_router.core.adjustments import COST_MAX_NUSD, Adjustment, Place, id_of_key, id_of_uuid, place_in
from quota_router.core.pricing import parse_usd_nusd
from quota_router.errors import InvalidRequest
from quota_router.store.adjusting import Adjust
from quota_router.store.lane import Lane
from quota_router.store.reports import Reports
from quota_router.web.asked import LABELS_MAX
from quota_router.web.decision_shapes import Label, Word, printable
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Route, Scope
from quota_router.web.strict import Strict, answer, instant_in, read_key, read_query, read_shape

REASON_MAX_CHARS = 500

_PLACES = ("call_id", "hold_id", "provider")
_NAMES = ("account", "model", "caller", "labels", "workflow", "stage")
"""What is said beside `provider`; a call has its own."""


class AdjustAsked(Strict):
    """A signed amount, why, and whose money: `call_id`, `hold_id`, or `provider` with whatever else is known."""

    cost_usd: Annotated[str, StringConstraints(max_length=64)] | None = None
    cost_nusd: Annotated[int, Field(ge=-COST_MAX_NUSD, le=COST_MAX_NUSD)] | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=REASON_MAX_CHARS), AfterValidator(printable)]
    call_id: Word | None = None
    hold_id: Word | None = None
    provider: Word | None = None
    account: Word | None = None
    model: Word | None = None
    caller: Word | None = None
    labels: Annotated[tuple[Label, ...], Field(max_length=LABELS_MAX)] = ()
    workflow: Word | None = None
    stage: Word | None = None
    held_at: Annotated[str, StringConstraints(max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "AdjustAsked":
        if (self.cost_usd is None) == (self.cost_nusd is None):
            raise ValueError("send exactly one of `cost_usd` and `cost_nusd`.")
        if sum(getattr(self, name) is not None for name in _PLACES) != 1:
            raise ValueError("send exactly one of `call_id`, `hold_id` and `provider`.")
        beside = [name for name in _NAMES if getattr(self, name)]
        if self.provider is None and beside:
            raise ValueError(f"`{beside[0]}` is the call's own: send it with `provider` only.")
        return self


def routes() -> list[Route]:
    """List what books an adjustment."""
    return [Route(method=HTTPMethod.POST, path="/api/v1/entries", handler=_adjust, scope=Scope.ADMIN)]


async def _adjust(request: web.Request) -> web.Response:
    read_query(request, {})
    key, asked = read_key(request), await read_shape(request, AdjustAsked)
    services = request.app[SERVICES]
    shown = await book(
        asked, services.lane, services.reports, admin=request[CALLER].name, key=key, new_id=id_of_uuid(request[CALL_ID])
    )
    return answer(shown, HTTPStatus.CREATED)


async def book(asked: AdjustAsked, lane: Lane, reports: Reports, *, admin: str, key: str | None, new_id: str) -> dict[str, Any]:
    """
    Book what was asked, and tell the line it became.

    Args:
        asked: as it came.
        lane: writes it.
        reports: of the same ledger.
        admin: who says so.
        key: the idempotency key; `None`: said again it is booked again.
        new_id: of an adjustment without a key.

    Returns:
        the entry in the API's shape, with `limits` (the names of those it moved) and `replayed`.

    Raises:
        InvalidRequest, Conflict, UnknownCall, UnknownHold, LedgerError: nothing was booked.
    """
    said = Adjustment(
        id=new_id if key is None else id_of_key(admin, key),
        cost_nusd=_cost_nusd(asked),
        reason=asked.reason.strip(),
        admin=admin,
        of=await _whose(asked, lane, reports),
        held_at=None if asked.held_at is None else _instant(asked.held_at),
    )
    recorded = await lane.run(Adjust(said=said))
    entry = await reports.entry(recorded.journal, recorded.seq)
    return {**entry, "limits": recorded.limits, "replayed": recorded.replayed}


async def _whose(asked: AdjustAsked, lane: Lane, reports: Reports) -> Place | str:
    if asked.call_id is not None:
        return await reports.attempt_of(asked.call_id)
    if asked.hold_id is not None:
        return asked.hold_id
    assert asked.provider is not None, "the shape has seen to it"
    names = {name: getattr(asked, name) for name in _NAMES}
    return place_in(lane.catalog, provider=asked.provider, **names)


def _cost_nusd(asked: AdjustAsked) -> int:
    if asked.cost_usd is None:
        assert asked.cost_nusd is not None, "the shape has seen to it"
        return asked.cost_nusd
    try:
        return parse_usd_nusd(asked.cost_usd)
    except ValueError as exc:
        raise InvalidRequest(f"`cost_usd`: {exc}", param="cost_usd") from exc


_read_instant = instant_in(ZoneInfo("UTC"))


def _instant(text: str) -> datetime:
    try:
        return _read_instant(text)
    except ValueError as exc:
        raise InvalidRequest(f"`held_at` {exc}", param="held_at") from exc

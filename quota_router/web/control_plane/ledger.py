"""
What was booked: entries, where their chains end, and what they sum to.

Law: what is not understood in a query is refused, never ignored: a filter that did nothing would make a wrong sum look right.
"""

from http import HTTPMethod
from zoneinfo import ZoneInfo

import structlog
from aiohttp import web

from quota_router.store.rebuild import rebuild
from quota_router.store.reports import ENTRY_FILTERS
from quota_router.web.control_plane.pages import show_page
from quota_router.web.routes import CALLER, SERVICES, Route, Scope
from quota_router.web.strict import answer, instant_in, page_limit, read_query, zone

ENTRIES_SHOWN = 100
"""On a page, when `limit` is not said."""

log = structlog.get_logger()


def routes() -> list[Route]:
    """List the reads of the ledger, and the repair of what is worked out from it."""
    paths = {"/api/v1/entries": _list_entries, "/api/v1/journals": _list_journals, "/api/v1/usage": _sum_usage}
    reads = [Route(method=HTTPMethod.GET, path=path, handler=handler, scope=Scope.READ) for path, handler in paths.items()]
    return [*reads, Route(method=HTTPMethod.POST, path="/api/v1/ledger/rebuild", handler=_rebuild, scope=Scope.ADMIN)]


async def _list_entries(request: web.Request) -> web.Response:
    instant = instant_in(ZoneInfo("UTC"))
    times = {"since": instant, "until": instant}
    asked = read_query(request, {"limit": page_limit, "cursor": str, **times, **dict.fromkeys(ENTRY_FILTERS, str)})
    page = await request.app[SERVICES].reports.entries(
        limit=asked.get("limit", ENTRIES_SHOWN),
        cursor=asked.get("cursor"),
        since=asked.get("since"),
        until=asked.get("until"),
        matching={name: asked[name] for name in ENTRY_FILTERS if name in asked},
    )
    return answer(page)


async def _list_journals(request: web.Request) -> web.Response:
    heads = await request.app[SERVICES].reports.journals()
    return answer(show_page(request, heads, lambda head: head))


async def _sum_usage(request: web.Request) -> web.Response:
    asked = read_query(request, {"group_by": _listed, "since": str, "until": str, "tz": zone})
    tz = asked.get("tz", ZoneInfo("UTC"))
    # Days are the zone's own, so the times are read once it is known.
    times = {name: instant_in(tz) for name in ("since", "until")}
    asked |= read_query(request, {"group_by": _listed, "tz": zone, **times})
    report = await request.app[SERVICES].reports.usage(asked.get("group_by", ()), asked.get("since"), asked.get("until"), tz)
    return answer(report)


async def _rebuild(request: web.Request) -> web.Response:
    read_query(request, {})
    corrected = await request.app[SERVICES].lane.edit(rebuild)
    log.info("the balances were worked out anew", action="ledger_rebuilt", changed=len(corrected), by=request[CALLER].name)
    return answer({"changes": [one.show() for one in corrected]})


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())

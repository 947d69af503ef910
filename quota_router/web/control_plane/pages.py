"""
Pages of lists that fit in memory, by name.

Law: a page begins after a name, so that what is added or taken away meanwhile moves nothing else.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from quota_router.store.cursors import read_cursor, write_cursor
from quota_router.store.reports import PAGE_MAX
from quota_router.web.strict import page_limit, read_query

T = TypeVar("T")


def show_page(request: web.Request, found: Mapping[str, T], show: Callable[[T], Mapping[str, Any]]) -> dict[str, Any]:
    """
    One page of *found*, by name, as `limit` and `cursor` of the query ask.

    Raises:
        InvalidRequest: the query asks for what lists do not know.
    """
    asked = read_query(request, {"limit": page_limit, "cursor": str})
    after = read_cursor(asked["cursor"], tuple[str]) if "cursor" in asked else ("",)
    names = sorted(name for name in found if name > after[0])
    page = names[: asked.get("limit", PAGE_MAX)]
    return {
        "items": [show(found[name]) for name in page],
        "next": write_cursor(page[-1]) if len(names) > len(page) else None,
    }

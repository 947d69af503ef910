"""
What a router is.

Law: a router says one of three things: a `RoutingResult` (the call goes there, and no rule is asked), a changed `RoutingRequest`
(go on with this one), or `None` (not mine).
Never: knows where a router comes from, or judges what it says.

Decision 2026-11 -- the hook before routing is no second contract: it is a router that stands first. It names model or provider, and
    routing is over; or it returns `request.changed(…)`, and routing goes on with what it changed.
"""

from collections.abc import Awaitable, Callable
from inspect import isawaitable, isclass, signature
from typing import Protocol, TypeAlias, cast

from quota_router.core.routers.context import RouterContext
from quota_router.core.routers.requests import RoutingRequest
from quota_router.core.routers.results import RoutingResult

Said: TypeAlias = RoutingResult | RoutingRequest | None


class Router(Protocol):
    """Says where a call goes. A plain function of the same two arguments is one too."""

    def route(self, request: RoutingRequest, context: RouterContext, /) -> Said | Awaitable[Said]:
        """Name a model; go on with a changed request; or `None`: not mine."""


RouterFunction: TypeAlias = Callable[[RoutingRequest, RouterContext], Said | Awaitable[Said]]
AnyRouter: TypeAlias = Router | RouterFunction


async def answer_of(router: AnyRouter, request: RoutingRequest, context: RouterContext) -> Said:
    """
    Ask a router, whatever its kind.

    Raises:
        TypeError: it said something that is no answer. Whatever the router raises.
    """
    said = _function_of(router)(request, context)
    if isawaitable(said):
        said = await said
    if said is None or isinstance(said, RoutingResult | RoutingRequest):
        return said
    raise TypeError(f"it returned {type(said).__name__}: return a RoutingResult, a changed request, or None.")


def why_no_router(thing: object) -> str | None:
    """Why *thing* is no router, as the end of a sentence; `None`: it is one."""
    if isclass(thing):
        return "is a class: name an instance of it"
    function = getattr(thing, "route", thing)
    if not callable(function):
        return "has no `route(request, context)`"
    try:
        signature(function).bind(None, None)
    except TypeError:
        return "does not take the two arguments `(request, context)`"
    except ValueError:  # a built-in that does not tell
        return "is no function of yours"
    return None


def as_router(thing: AnyRouter) -> AnyRouter:
    """
    Take a router as it is.

    Raises:
        TypeError: it is none; the message says why.
    """
    why = why_no_router(thing)
    if why is not None:
        raise TypeError(f"{thing!r} {why}.")
    return thing


def name_of(router: AnyRouter) -> str:
    """What a router is called: its `name`, its function's, or its class's."""
    named = getattr(router, "name", None) or getattr(router, "__name__", None)
    return named if isinstance(named, str) else type(router).__name__


def _function_of(router: AnyRouter) -> RouterFunction:
    return cast("RouterFunction", getattr(router, "route", router))

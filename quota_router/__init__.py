"""
One endpoint in front of all your LLM subscriptions and keys.

Start reading at `router.py`: the way of a call, top to bottom. Whoever writes a router, or uses us in-process, needs no more than
the names below.

Law: each name is loaded when it is first asked for: the command line starts without them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quota_router.core.routers import (
        CatalogView,
        Router,
        RouterContext,
        RoutingRequest,
        RoutingResult,
        capability,
        catalog,
        chain,
        explicit,
        failover,
        random,
        round_robin,
        weighted,
    )
    from quota_router.embedded import Held, InProcess, open_router

__version__ = "0.1.0"

__all__ = [
    "CatalogView",
    "Held",
    "InProcess",
    "Router",
    "RouterContext",
    "RoutingRequest",
    "RoutingResult",
    "capability",
    "catalog",
    "chain",
    "explicit",
    "failover",
    "open_router",
    "random",
    "round_robin",
    "weighted",
]

_EMBEDDED = frozenset({"Held", "InProcess", "open_router"})


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever it is that is asked for
    """Load one of the public names."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _EMBEDDED:
        from quota_router import embedded  # noqa: PLC0415 -- see above

        return getattr(embedded, name)
    from quota_router.core import routers  # noqa: PLC0415 -- likewise

    return getattr(routers, name)

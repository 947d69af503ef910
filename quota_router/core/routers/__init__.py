"""
Routers: code of the operator's that says where a call goes, and the parts to put it together from.

Law: a router is any `route(request, context)`, sync or async; `None` means "not mine", and a router that breaks says just that.
"""

from quota_router.core.routers.choosing import capability, catalog
from quota_router.core.routers.combining import Chain, chain, explicit, failover, random, round_robin, weighted
from quota_router.core.routers.context import CatalogView, RouterContext
from quota_router.core.routers.contract import AnyRouter, Router, Said, answer_of, as_router, name_of, why_no_router
from quota_router.core.routers.requests import RoutingRequest, Transform, request_of
from quota_router.core.routers.results import ALTERNATIVES_MAX, RoutingResult, compose, flatten

__all__ = [
    "ALTERNATIVES_MAX",
    "AnyRouter",
    "CatalogView",
    "Chain",
    "Router",
    "RouterContext",
    "RoutingRequest",
    "RoutingResult",
    "Said",
    "Transform",
    "answer_of",
    "as_router",
    "capability",
    "catalog",
    "chain",
    "compose",
    "explicit",
    "failover",
    "flatten",
    "name_of",
    "random",
    "request_of",
    "round_robin",
    "weighted",
    "why_no_router",
]

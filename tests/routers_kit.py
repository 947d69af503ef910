"""Small catalogs and contexts for tests of routers."""

from typing import Any

from quota_router import CatalogView, RouterContext, RoutingRequest, RoutingResult
from quota_router.core.desired import build_catalog
from quota_router.core.routers import Said, answer_of, flatten

MODELS: list[dict[str, Any]] = [
    {"name": "plain", "provider": "one"},
    {"name": "seeing", "provider": "one", "capabilities": ["vision", "code"], "tags": ["team-a"], "context_tokens": 8_000},
    {"name": "all", "provider": "two", "capabilities": ["vision", "audio", "tools", "code"], "context_tokens": 200_000},
    {"name": "claude", "provider": "three", "capabilities": ["vision"], "tags": ["team-a", "slow"], "context_tokens": 200_000},
]
DESIRED: dict[str, Any] = {
    "providers": {
        name: {"family": family, "base_url": f"https://{name}.example/v1", "credential": "none"}
        for name, family in (("one", "openai"), ("two", "openai"), ("three", "anthropic"))
    },
    "models": MODELS,
    "routing": {"default_model": "plain"},
}


def context(*draws: float, **more: Any) -> RouterContext:
    """A context whose chance is *draws*, one after the other."""
    left = list(draws)
    return RouterContext(catalog=CatalogView(build_catalog(DESIRED)), draw=lambda: left.pop(0), **more)


async def ask_one(router: Any, request: RoutingRequest | None = None, ctx: RouterContext | None = None) -> Said:
    return await answer_of(router, request or RoutingRequest(), ctx or context())


async def models_of(router: Any, request: RoutingRequest | None = None, ctx: RouterContext | None = None) -> list[str]:
    """The models of a router's ways, in their order."""
    said = await ask_one(router, request, ctx)
    return [way.model for way in flatten(said)] if isinstance(said, RoutingResult) else []

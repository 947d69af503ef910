"""
What a route is, and what handlers may use.

Law: a route without a scope cannot be written; `PUBLIC` is said, not left out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from aiohttp import web

from quota_router.core.catalog import Caller, Family
from quota_router.decisions import Decisions
from quota_router.polling import Pollers
from quota_router.router import Router
from quota_router.store.catalog import Change
from quota_router.store.lane import Lane
from quota_router.store.reports import Reports
from quota_router.store.trail import Trail

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Scope(StrEnum):
    """Who may call a route. `ADMIN` holders may call everything."""

    PUBLIC = "public"
    CALL = "call"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path. `dialect`: how errors are told; `None`: `application/problem+json`."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    dialect: Family | None = None


@dataclass(slots=True, kw_only=True)
class Services:
    """Everything a handler may use."""

    router: Router
    decisions: Decisions
    lane: Lane
    reports: Reports
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    has_credential: Callable[[str], bool]
    """whether a credential reference resolves at this moment"""
    pollers: Pollers
    stale_after_s: float
    """how old a reading may be before it is marked"""
    max_body_bytes: int
    reload: Callable[[bool, bool, str], Awaitable[list[Change]]]
    """read the daemon's own file again (dry_run, prune, who asked)"""
    apply_text: Callable[[str, bool, bool, str], Awaitable[list[Change]]]
    """apply a catalog written as TOML (text, dry_run, prune, who asked); `Forbidden` for what only the host's file may say"""
    trail: Trail
    api_networks: tuple[str, ...]
    """beyond public ones, the networks that the API may let providers into"""
    poller_presets: tuple[str, ...]
    """quota endpoints that providers may name without describing them"""
    check_reference: Callable[[str], object]
    """raises `ValueError`, with a sentence that does not repeat it, when a text is no reference to a credential"""
    is_draining: bool = False


SERVICES = web.AppKey("services", Services)
CALLER = web.RequestKey("caller", Caller)
"""Set by authentication on every route that is not public."""
CALL_ID = web.RequestKey("call_id", str)
"""Drawn for every request; the call it becomes, if it becomes one."""

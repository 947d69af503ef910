"""
What an admin says when what was booked is not what was charged.

Law: an adjustment is a signed amount of money with a reason and a name behind it; it moves what was spent and nothing else: no
token, no request, no hold. Its id names one line of money, however often it is said.
Never: edits what was booked before; the sum of both is the truth.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from quota_router.core.catalog import ADMIN, Catalog
from quota_router.core.limits import subjects_of
from quota_router.errors import InvalidRequest, did_you_mean

ID_PREFIX = "adjust"
"""Every id of an adjustment begins so, with 32 digits of hex behind it: no hold's does, and all of them lie in one range."""
FIRST_ID, LAST_ID = f"{ID_PREFIX}0", f"{ID_PREFIX}g"
"""No id lies outside, in whatever order a database sorts text."""
COST_MAX_NUSD = 2**53 - 1
"""Nine million dollars: what an entry takes."""
_SHOWN_CHARS = 64
"""Of a name that somebody wrote."""


class Place(Struct, frozen=True, kw_only=True):
    """Whose money it is. An empty name is nobody's: no limit is set on it."""

    call_id: str | None = None
    provider: str
    account: str
    model: str
    upstream_model: str
    caller: str
    labels: tuple[str, ...] = ()
    workflow: str | None = None
    stage: str | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject whose limits count this money."""
        return subjects_of(self.provider, self.account, self.model, self.caller, self.labels)


class Adjustment(Struct, frozen=True, kw_only=True):
    """One adjustment, as it was said."""

    id: str
    cost_nusd: int
    """what is added to what was spent; negative: a part of it is taken back"""
    reason: str
    admin: str
    """who says so"""
    of: Place | str
    """whose money: a place, or the hold whose place it is"""
    held_at: datetime | None = None
    """in whose windows it counts; aware; `None`: in those of the moment it is booked"""

    @property
    def hold_id(self) -> str | None:
        """The hold whose place it takes; `None`: it brings its own."""
        return self.of if isinstance(self.of, str) else None


def id_of_key(admin: str, key: str) -> str:
    """The id of what *admin* says under an idempotency key: two admins may use the same one."""
    return ID_PREFIX + hashlib.sha256(f"{admin}\0{key}".encode()).hexdigest()[:32]


def id_of_uuid(uuid: str) -> str:
    """The id of what is said without a key."""
    return ID_PREFIX + uuid.replace("-", "")


def place_in(
    catalog: Catalog,
    *,
    provider: str,
    account: str | None = None,
    model: str | None = None,
    caller: str | None = None,
    labels: tuple[str, ...] = (),
    workflow: str | None = None,
    stage: str | None = None,
) -> Place:
    """
    Make a place of names that somebody wrote.

    Args:
        catalog: where the names must stand, so that a slip of the pen is not booked on nobody.
        provider: whose money.
        account: `None`: the provider's own.
        model: `None`: no model's in particular.
        caller: `None`: no caller's in particular.
        labels: free words.
        workflow: likewise.
        stage: likewise.

    Raises:
        InvalidRequest: a name is not in the catalog; what is no longer there is adjusted by a call of its own.
    """
    known = catalog.providers.get(provider)
    if known is None:
        raise _unknown("provider", provider, catalog.providers)
    accounts = {other.account for other in catalog.providers.values()}
    if account is not None and account not in accounts:
        raise _unknown("account", account, accounts)
    if model is not None and model not in catalog.models:
        raise _unknown("model", model, catalog.models)
    if caller is not None and caller not in {*catalog.callers, ADMIN}:
        raise _unknown("caller", caller, {*catalog.callers, ADMIN})
    attachments = catalog.models[model].attachments if model is not None else ()
    upstream_models = [attachment.upstream_model for attachment in attachments if attachment.provider == provider]
    return Place(
        provider=provider,
        account=account if account is not None else known.account,
        model=model or "",
        upstream_model=upstream_models[0] if upstream_models else "",
        caller=caller or "",
        labels=tuple(dict.fromkeys(labels)),
        workflow=workflow,
        stage=stage,
    )


def _unknown(what: str, name: str, known: Iterable[str]) -> InvalidRequest:
    shown = repr(name[:_SHOWN_CHARS]) if name.isprintable() else "of that name"
    message = f"There is no {what} {shown}: {did_you_mean(name, known)} What is gone is adjusted by the id of a call of its own."
    return InvalidRequest(message, param=what)

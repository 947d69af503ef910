"""
Cooldowns, cleared by the operator.

Law: the cooldown goes and the line that tells of it comes in one transaction, which keeps every other writer away. Beside time and
success it is the one way in which a cooldown ends: whoever filled a purse or mended a network need not wait.
Never: makes one, or shortens it: failures do the first, nobody does the second.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, select

from quota_router.core.exported import Table
from quota_router.core.health import Cooldown
from quota_router.errors import NotFound
from quota_router.store.present import cooldown_of
from quota_router.store.tables import cooldowns
from quota_router.store.trail import Line, Signature, write_trail

KIND, CLEARED = "cooldown", "cleared"
"""What the trail calls it."""

Show = Callable[[Cooldown, datetime], Table]


def clear_cooldown(provider: str, model: str, signature: Signature, show: Show) -> Callable[[Connection, datetime], Table]:
    """
    Make an edit for `Lane.edit` that forgets what stands on a rung, failures in a row included.

    Args:
        provider: its name.
        model: whose rung; `""`: what stands on the whole provider.
        signature: who asks.
        show: how the trail and the answer tell of a cooldown at a moment.

    Returns:
        the edit. It answers with what stood there, and raises `NotFound` where nothing did.
    """

    def edit(conn: Connection, now: datetime) -> Table:
        # There are few, and a name that was sent may be one that no database can look for.
        found = (cooldown_of(row) for row in conn.execute(select(cooldowns)))
        cooldown = next((one for one in found if (one.provider, one.model) == (provider, model)), None)
        if cooldown is None:
            raise NotFound("Nothing cools there: `GET /api/v1/cooldowns` lists what does.")
        # From here on it must succeed.
        conn.execute(delete(cooldowns).where(cooldowns.c.provider == provider, cooldowns.c.model == model))
        name, told = f"{model}/{provider}" if model else provider, show(cooldown, now)
        write_trail(conn, [Line(action=CLEARED, kind=KIND, name=name, before=told)], signature, now)
        return told

    return edit

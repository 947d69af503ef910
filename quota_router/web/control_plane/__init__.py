"""
The operator's API.

Law: reading needs the scope `read`, whatever changes something `admin`. A list is one page of `items` and `next`.
Never: shows a credential, only whether there is one.
"""

from quota_router.web.control_plane import (
    adjusting,
    callers,
    catalog,
    changes,
    cooldowns,
    edits,
    ledger,
    live,
    routing,
    rule_test,
)
from quota_router.web.routes import Route


def routes() -> list[Route]:
    """List the paths of the control plane."""
    rooms = (rule_test, edits, catalog, routing, callers, cooldowns, ledger, adjusting, changes, live)
    return [route for room in rooms for route in room.routes()]

"""
The operator's API.

Law: reading needs the scope `read`, whatever changes something `admin`. A list is one page of `items` and `next`.
Never: shows a credential, only whether there is one.
"""

from quota_router.web.control_plane import adjusting, catalog, changes, ledger, live
from quota_router.web.routes import Route


def routes() -> list[Route]:
    """List the paths of the control plane."""
    return [*catalog.routes(), *ledger.routes(), *adjusting.routes(), *changes.routes(), *live.routes()]

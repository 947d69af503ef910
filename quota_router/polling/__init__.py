"""
Quota endpoints: which there are, when they are asked, and what becomes of their answers.

Law: what is asked follows the catalog, within a second of its edit; what is told goes to the lane and nowhere else.
Never: stands in the way of a call.

    targets     which endpoints a catalog names, and with whose credential
    pollers     asking them
"""

from quota_router.polling.pollers import Pollers, Watch
from quota_router.polling.targets import Target, targets_of

__all__ = ["Pollers", "Target", "Watch", "targets_of"]

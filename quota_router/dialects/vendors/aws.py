"""
Bedrock's errors: their name stands in a header, and the body has only words.

Law: the name before the status. What only the words tell apart is left to `dialects/traps`.

Rows: upstreams.md C.2 (the API reference of Bedrock's runtime), read 2026-11-20; the header as aws-samples #99 recorded it, read
2026-11-25. The binary event frames of its own streaming API are not SSE and are not read here.
"""

from collections.abc import Mapping

from quota_router.core.health import FailureKind
from quota_router.dialects.error_bodies import ErrorBody
from quota_router.dialects.traps import Row

_HEADER = "x-amzn-errortype"
_NAMES: dict[str, Row] = {
    "throttlingexception": FailureKind.RATE_LIMITED,
    "servicequotaexceededexception": FailureKind.QUOTA_WINDOW,
    "accessdeniedexception": FailureKind.AUTH,
    "expiredtokenexception": FailureKind.AUTH,
    "expiredtoken": FailureKind.AUTH,
    "invalidclienttokenid": FailureKind.AUTH,
    "unrecognizedclientexception": FailureKind.AUTH,
    "incompletesignature": FailureKind.AUTH,
    "resourcenotfoundexception": FailureKind.MODEL_UNAVAILABLE,
    "modelnotreadyexception": FailureKind.OVERLOADED,
    "serviceunavailableexception": FailureKind.OVERLOADED,
    "modeltimeoutexception": FailureKind.TRANSIENT,
    "modelerrorexception": FailureKind.TRANSIENT,
    "modelstreamerrorexception": FailureKind.TRANSIENT,
    "internalserverexception": FailureKind.TRANSIENT,
}


def judge(error: ErrorBody, headers: Mapping[str, str]) -> Row | None:
    """What the exception's name says; `None` where there is none, or one that means several things."""
    name = (headers.get(_HEADER) or error.text("__type").rpartition("#")[2]).partition(":")[0]
    return _NAMES.get(name.lower())

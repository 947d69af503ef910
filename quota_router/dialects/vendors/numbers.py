"""
Vendors who say what went wrong in numbers of their own.

Law: a number is read by the table of the vendor whose it is. It is his when the provider's `vendor` says so, or when it stands in
an envelope that nobody else sends (MiniMax's `base_resp`). A number that no table has says nothing, and the status decides.

Rows: docs.z.ai/api-reference/api-code and docs.bigmodel.cn/cn/api/api-code (z.ai; 1316 to 1321 from hermes-agent #103038),
platform.minimax.io/docs/api-reference/errorcode (MiniMax), read 2026-11-25.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from quota_router.core.health import FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody
from quota_router.dialects.failures import instant
from quota_router.dialects.traps import Row

_ZAI: dict[str, Row] = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), FailureKind.AUTH),
    **dict.fromkeys(("1110", "1111", "1112", "1121", "1220"), FailureKind.AUTH),
    **dict.fromkeys(("1113", "1309"), FailureKind.BILLING),
    **dict.fromkeys(("1120", "1230", "1234"), FailureKind.TRANSIENT),
    **dict.fromkeys(("1211", "1221", "1222", "1311"), FailureKind.MODEL_UNAVAILABLE),
    **dict.fromkeys(("1210", "1212", "1213", "1214", "1215"), FailureKind.CLIENT_ERROR),
    "1261": FailureKind.CONTEXT_TOO_LONG,
    **dict.fromkeys(("1300", "1301"), FailureKind.CONTENT_POLICY),
    **dict.fromkeys(("1302", "1303", "1313"), FailureKind.RATE_LIMITED),
    "1304": (FailureKind.QUOTA_WINDOW, Scope.ATTACHMENT),
    **dict.fromkeys(("1305", "1312"), FailureKind.OVERLOADED),
    **dict.fromkeys(("1308", "1310", "1316", "1317", "1318", "1319", "1320", "1321"), FailureKind.QUOTA_WINDOW),
}
_MINIMAX: dict[str, Row] = {
    **dict.fromkeys(("1000", "1001"), FailureKind.TRANSIENT),
    "1002": FailureKind.RATE_LIMITED,
    "1004": FailureKind.AUTH,
    "1008": FailureKind.BILLING,
    **dict.fromkeys(("1026", "1027"), FailureKind.CONTENT_POLICY),
    "1039": FailureKind.CONTEXT_TOO_LONG,
    "2013": FailureKind.CLIENT_ERROR,
    "2056": FailureKind.QUOTA_WINDOW,
}
_BY_VENDOR: Mapping[str, Mapping[str, Row]] = {"zai": _ZAI, "minimax": _MINIMAX}

_CLOCK = re.compile(r"\b(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})\b")
_BEIJING = "+08:00"
"""z.ai names no zone; its clock is Beijing's (model-hotel #955, read 2026-11-25)."""


def judge(error: ErrorBody, vendor: str) -> Row | None:
    """What a vendor's own number says; `None` where there is none, or it is nobody's we know."""
    state = error.at("base_resp", "status_code")
    if state is not None:
        return _MINIMAX.get(str(state))
    table = _BY_VENDOR.get(vendor, {})
    numbers = (str(error.at(name)) for name in ("code", "type"))  # z.ai's Anthropic endpoint has sent it as either
    return next((table[number] for number in numbers if number in table), None)


def said(error: ErrorBody, vendor: str, now: datetime) -> datetime | None:
    """When z.ai's window begins anew; it stands in the message alone, in two languages."""
    found = _CLOCK.search(error.message) if vendor == "zai" else None
    return instant(f"{found[1]}T{found[2]}{_BEIJING}", now) if found is not None else None

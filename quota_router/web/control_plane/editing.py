"""
What every edit over HTTP shares: who asks, on which version, once.

Law: an edit of what there is names the version it was made on; what is answered is read after the edit was written.
Never: edits: plans of `core/edits` do, on the lane.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from http import HTTPMethod, HTTPStatus
from typing import Any
from urllib.parse import quote

from aiohttp import web

from quota_router.core.catalog import Catalog
from quota_router.core.edits.common import Expected
from quota_router.errors import InvalidRequest, VersionMissing
from quota_router.store.catalog_edits import Edited, edit_rows
from quota_router.store.trail import Signature
from quota_router.web.asked import HEADER_MAX_CHARS
from quota_router.web.routes import CALLER, SERVICES
from quota_router.web.strict import answer

Shown = tuple[Mapping[str, Any], int]
"""A row as it is answered, and its version."""

_TAG = re.compile(r'(W/)?"([^"]*)"')
_VERSION = re.compile(r"[0-9]{1,18}")


def read_if_match(request: web.Request) -> Expected:
    """
    Read which versions the editor may have seen (RFC 9110 section 13.1.1, read 2026-11-25): `*` is any, a weak tag is none.

    Raises:
        VersionMissing: there is no such header.
    """
    said = request.headers.get("If-Match")
    if said is None:
        raise VersionMissing
    if said.strip() == "*":
        return None
    return frozenset(int(tag) for weak, tag in _TAG.findall(said) if not weak and _VERSION.fullmatch(tag))


async def edit(request: web.Request, plan: Callable[[Catalog], Catalog]) -> Edited:
    """
    Run an edit as the caller, and let it be said again under its `Idempotency-Key`.

    Raises:
        Conflict: the key named another edit. And what the plan raises.
    """
    lane = request.app[SERVICES].lane
    own = lane.catalog
    signature = await _sign(request)

    def planned(catalog: Catalog) -> Catalog:
        return plan(catalog.with_settings_of(own))

    return await lane.edit(edit_rows(planned, signature))


async def _sign(request: web.Request) -> Signature:
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method != HTTPMethod.POST:
        return Signature(admin=request[CALLER].name)
    if not (0 < len(key) <= HEADER_MAX_CHARS and key.isprintable()):
        message = f"`Idempotency-Key` must be 1 to {HEADER_MAX_CHARS} printable characters."
        raise InvalidRequest(message, param="Idempotency-Key")
    asked = f"{request.rel_url.raw_path_qs}\0".encode() + await request.read()
    return Signature(admin=request[CALLER].name, key=key, fingerprint=hashlib.sha256(asked).hexdigest())


def tell_row(shown: Shown, status: int = HTTPStatus.OK, more: Mapping[str, Any] | None = None) -> web.Response:
    """Answer with a row and its `ETag`."""
    row, version = shown
    response = answer({**row, **(more or {})}, status)
    response.headers["ETag"] = f'"{version}"'
    return response


def tell_created(path: str, name: str, shown: Shown, edited: Edited, more: Mapping[str, Any] | None = None) -> web.Response:
    """Answer 201 with the new row, and where it is; also when it was made before, under the same key."""
    response = tell_row(shown, HTTPStatus.CREATED, more)
    response.headers["Location"] = f"{path}/{quote(name, safe='')}"
    if edited.replayed is not None:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def check_credentials(request: web.Request, table: Mapping[str, Any]) -> None:
    """
    Refuse what is no reference to a credential, without repeating it.

    Raises:
        InvalidRequest: it may be the key itself.
    """
    check = request.app[SERVICES].check_reference
    found = [("credential", table.get("credential"))]
    if "api_key_env" in table:
        found.append(("api_key_env", f"env:{table['api_key_env']}"))
    found += [(f"pollers.{place}.credential", poller.get("credential")) for place, poller in enumerate(table.get("pollers", ()))]
    for param, reference in found:
        try:
            if reference is not None:
                check(reference)
        except ValueError as exc:
            raise InvalidRequest(f"`{param}`: {exc}", param=param) from exc

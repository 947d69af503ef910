"""
Who is asking.

Law: a token is compared by its SHA-256 digest and never kept; where a request comes from earns it nothing.
Never: reads a body. Authentication comes before the first byte of it.
"""

import hashlib
import hmac
from collections.abc import Mapping

from quota_router.core.catalog import ADMIN, Caller, Catalog
from quota_router.core.secrets import Secret
from quota_router.errors import Forbidden, NotAuthenticated
from quota_router.web.routes import Scope


def digest(token: str) -> str:
    """Return the lower-case hex SHA-256 under which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def token_of(headers: Mapping[str, str]) -> str | None:
    """Read `Authorization: Bearer` or `x-api-key`; the SDKs of the two families differ in which they send."""
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return headers.get("x-api-key") or None


class Authenticator:
    """Knows the admin token's digest, and finds every other caller in the catalog of the moment."""

    def __init__(self, admin_token: Secret) -> None:
        self._admin_digest = digest(admin_token.reveal())
        self._admin = Caller(name=ADMIN, token_sha256=self._admin_digest, scopes=tuple(Scope))
        self._seen_epoch = -1
        self._by_digest: dict[str, Caller] = {}

    def authenticate(self, headers: Mapping[str, str], catalog: Catalog) -> Caller:
        """
        Find the caller behind the token.

        Raises:
            NotAuthenticated: no token, or one that nobody has.
        """
        token = token_of(headers)
        if token is None:
            raise NotAuthenticated
        if catalog.epoch != self._seen_epoch:
            self._by_digest = {caller.token_sha256: caller for caller in catalog.callers.values() if caller.enabled}
            self._seen_epoch = catalog.epoch
        shown = digest(token)
        if hmac.compare_digest(shown, self._admin_digest):
            return self._admin
        caller = self._by_digest.get(shown)
        if caller is None:
            raise NotAuthenticated
        return caller


def is_admin(caller: Caller) -> bool:
    """Whether this caller may see and do everything."""
    return Scope.ADMIN in caller.scopes


def permit(caller: Caller, scope: Scope) -> None:
    """
    Check a caller against a route's scope.

    Raises:
        Forbidden: it does not hold the scope.
    """
    if scope is not Scope.PUBLIC and scope not in caller.scopes and not is_admin(caller):
        raise Forbidden(f"This token may not do that: it lacks the scope `{scope}`.")

"""
Every way in which quota_router says no.

Law: an error's docstring is its message, for the person who reads it; `code` is for machines and never changes;
`status` is the HTTP status it is answered with.
Never: carries a secret, a prompt, or an upstream's own text.

    QuotaRouterError
        RequestError                the caller can change something
            MalformedBody           400
            InvalidRequest          400
            NotAuthenticated        401
            Forbidden               403
            NotFound                404
                UnknownModel
                UnknownHold
                UnknownCall
            MethodNotAllowed        405
            Conflict                409   an idempotency key or a hold that has already been answered differently
            Stale                   412   the row was edited since the editor read it
            BodyTooLarge            413
            BodyTooSlow             408   in `web/bodies`
            EncodingRefused         415
            Misdirected             421   a Host we do not answer for
            VersionMissing          428   an edit without If-Match
            DeadlinePassed          408   the caller's own time ran out
            CallerGone              499   the caller hung up: nobody reads this
            NoUsableProvider        400, 403, 429 or 503: carries every rung's reason, and when to come back
        TransformFailed             500   a router of the operator's could not change a request as it was to
        UpstreamError               the provider's side
            AddressRefused          the network policy forbids this address: no packet was sent
            UpstreamUnavailable     no answer: the next rung may be tried
            CallTimedOut            504   no answer within `max_call_s`
            UpstreamRefused         said no when a status could no longer be sent
            UpstreamCut             broke after it began to answer: settle, do not retry
            UnreadableAnswer        not of the dialect; in `dialects/base`
                UnreadablePoll      a quota endpoint's; in `dialects/vendors/answers`
        LedgerError
            LedgerBusy              503   the lane's queue is full
            LedgerUnavailable       503   the database does not take writes
            LedgerLocked            another daemon owns this ledger
            SchemaNewer             written by a newer quota_router
            ClockBehind             the clock is far behind the last entry
            HoldResolved            409   already posted or voided
        ConfigError                 exit 3
        CommandFailed               the exit code it carries; in `cli/common`
        ShuttingDown                503
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

KeyPath = tuple[str | int, ...]
"""Where in the configuration file, outermost first; a number is a list index."""

_WORDS_LISTED = 16
"""How many right words an error lists when none is near."""


class QuotaRouterError(Exception):
    """Something went wrong inside quota_router."""

    status = 500
    code = "internal_error"
    retry_after_s: float | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((self.__doc__ or "").split()))

    @property
    def message(self) -> str:
        """The sentence for the person who reads it."""
        return str(self.args[0])


class RequestError(QuotaRouterError):
    """The request cannot be served as it stands."""

    status = 400
    code = "invalid_request"


class MalformedBody(RequestError):
    """The body is not valid JSON. Send one JSON object, in UTF-8."""

    code = "malformed_body"


class InvalidRequest(RequestError):
    """A field of the request is not valid."""

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotAuthenticated(RequestError):
    """No valid token. Send `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`."""

    status = 401
    code = "invalid_api_key"


class Forbidden(RequestError):
    """This token has no right to do that."""

    status = 403
    code = "forbidden"


class NotFound(RequestError):
    """There is nothing here by that name."""

    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    """No model of that name is served here. `GET /v1/models` lists them."""

    code = "model_not_found"


class UnknownHold(NotFound):
    """There is no hold of that id."""

    code = "hold_not_found"


class UnknownCall(NotFound):
    """There is no call of that id."""

    code = "call_not_found"


class MethodNotAllowed(RequestError):
    """This path does not take that method."""

    status = 405
    code = "method_not_allowed"


class Conflict(RequestError):
    """This contradicts what was said before under the same key or id."""

    status = 409
    code = "conflict"

    def __init__(self, message: str | None = None, *, call_id: str | None = None, state: str | None = None) -> None:
        super().__init__(message)
        self.call_id = call_id
        self.state = state


class Stale(RequestError):
    """This was edited since you read it. Read it again, then edit that."""

    status = 412
    code = "stale"


class VersionMissing(RequestError):
    """An edit names the version it was made on: send `If-Match` with the `ETag` you read."""

    status = 428
    code = "version_missing"


class BodyTooLarge(RequestError):
    """The body is larger than `[server] max_body_bytes`."""

    status = 413
    code = "body_too_large"


class EncodingRefused(RequestError):
    """Compressed requests are not taken. Send the body without Content-Encoding."""

    status = 415
    code = "encoding_refused"


class Misdirected(RequestError):
    """This Host is not one of ours. Add it to `[server] allowed_hosts` if it should be."""

    status = 421
    code = "host_not_allowed"


class DeadlinePassed(RequestError):
    """The caller's own deadline passed before an answer began."""

    status = 408
    code = "deadline_passed"


class CallerGone(RequestError):
    """The caller closed the connection."""

    status = 499
    code = "caller_gone"


class NoUsableProvider(RequestError):
    """
    No provider can serve this call now.

    Carries `rungs`, each with its reason and numbers, as plain values for the answer's body, and `retry_after_s`,
    `None` when nobody knows when to come back.
    """

    code = "no_usable_provider"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        rungs: Sequence[Mapping[str, Any]],
        retry_after_s: float | None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.rungs = rungs
        self.retry_after_s = retry_after_s


class TransformFailed(QuotaRouterError):
    """A router of this server could not change the request as it should have. Its log says which one, and where."""

    code = "transform_failed"


class UpstreamError(QuotaRouterError):
    """The provider's side failed."""

    status = 502
    code = "upstream_error"


class AddressRefused(UpstreamError, OSError):
    """The provider's network policy forbids the address its name resolved to. No packet was sent."""

    code = "network_refused"


class UpstreamUnavailable(UpstreamError):
    """
    The provider gave no answer.

    `dispatched` is False only when it is certain that no byte of the request left us: then nothing can have been charged.
    """

    code = "upstream_unavailable"

    def __init__(self, message: str | None = None, *, dispatched: bool, cause: str) -> None:
        super().__init__(message)
        self.dispatched = dispatched
        self.cause = cause


class CallTimedOut(UpstreamError):
    """No provider answered within `[server] max_call_s`."""

    status = 504
    code = "call_timed_out"


class UpstreamRefused(UpstreamError):
    """The provider refused the call, after the answer had begun with signs of life: ask without `stream` for its own words."""

    code = "upstream_refused"


class UpstreamCut(UpstreamError):
    """The provider's answer broke off."""

    code = "upstream_truncated"

    def __init__(self, message: str | None = None, *, cause: str = "closed") -> None:
        super().__init__(message)
        self.cause = cause


class LedgerError(QuotaRouterError):
    """The ledger could not do that."""

    status = 503
    code = "ledger_error"


class LedgerBusy(LedgerError):
    """Too many calls are waiting for the ledger. Try again in a moment."""

    code = "ledger_busy"
    retry_after_s = 1.0


class LedgerUnavailable(LedgerError):
    """The ledger's database does not take writes. No call is admitted until it does."""

    code = "ledger_unavailable"
    retry_after_s = 5.0


class LedgerLocked(LedgerError):
    """Another daemon owns this ledger. Stop it first, or give this one its own database."""

    code = "ledger_locked"


class SchemaNewer(LedgerError):
    """This ledger was written by a newer quota_router. Upgrade the program; the file is left untouched."""

    code = "schema_newer"


class ClockBehind(LedgerError):
    """The clock is far behind the ledger's last entry. Set the clock, or start with --accept-clock."""

    code = "clock_behind"


class HoldResolved(LedgerError):
    """This hold was already posted or voided."""

    status = 409
    code = "hold_resolved"


class ConfigError(QuotaRouterError):
    """
    The configuration cannot be used.

    Args:
        message: one sentence that ends with the remedy.
        key_path: where in the file, outermost first (`("providers", "work", "billing")`); a number is a list index.
        file: the file's path once known.
        line: 1-based; `None` when it cannot be found.
    """

    status = 400
    code = "bad_config"

    def __init__(
        self,
        message: str,
        *,
        key_path: KeyPath = (),
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.key_path = key_path
        self.file = file
        self.line = line


class ShuttingDown(QuotaRouterError):
    """The daemon is shutting down. Try again in a moment."""

    status = 503
    code = "shutting_down"
    retry_after_s = 1.0


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word nobody knows: the nearest right one, else all of them when they are few."""
    words = sorted(known)
    near = get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not words:
        return "there is none yet."
    listed = ", ".join(repr(other) for other in words[:_WORDS_LISTED])
    return f"write one of {listed}{', …' if len(words) > _WORDS_LISTED else '.'}"

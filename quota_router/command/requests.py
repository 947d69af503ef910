"""
What is asked of a tool, and the two ways in which it ends: an answer as an upstream's, or none.

Law: an answer has what `upstream.UpstreamAnswer` has and is in its family's dialect, so that nothing above this room needs to know
of processes. A run without an answer was dispatched from the moment its process ran.
Never: says what a tool wrote.

    start_timeout_s      a free place and the start, together
    run_timeout_s        the whole run; the command's own (`core/commands`)
    total_timeout_s      all of it
"""

from collections.abc import AsyncIterator, Mapping
from typing import Self

from msgspec import Struct

from quota_router.core.calls import Operation
from quota_router.core.catalog import Provider
from quota_router.core.commands import CommandSpec
from quota_router.core.secrets import Secret
from quota_router.errors import UpstreamCut, UpstreamUnavailable

_SENTENCES = {
    "not_found": "its program was not found",
    "not_executable": "its program cannot be run",
    "not_started": "this machine could not start it",
    "no_files": "its files could not be written",
    "bad_model": "its model's name cannot be given to a program",
    "no_place": "too many tools are running, and none ended in time",
    "closing": "the daemon is closing",
    "cancelled": "it was cancelled",
    "run_timeout": "it took too long",
    "total_timeout": "the call's time ran out",
    "output_too_long": "it wrote more than is read",
    "no_answer": "it ended without an answer",
}
"""Any other cause is how the process ended: `exit_N` or `signal_N`."""


class CommandRequest(Struct, frozen=True, kw_only=True):
    """One run of a provider's tool."""

    provider: Provider
    spec: CommandSpec
    operation: Operation
    body: bytes
    """as it would go upstream"""
    upstream_model: str
    is_stream: bool
    secret: Secret | None = None
    """the provider's credential, for the variable that its command names"""
    start_timeout_s: float
    total_timeout_s: float


class CommandAnswer:
    """An answer that is already whole. Whoever holds one closes it, as one of an upstream."""

    __slots__ = ("_body", "headers", "is_eof", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.is_eof = True
        """the whole body has come"""
        self._body = body

    async def read(self, max_bytes: int) -> bytes:
        """
        Read the whole body.

        Raises:
            UpstreamCut: it is longer than *max_bytes*.
        """
        if len(self._body) > max_bytes:
            raise UpstreamCut(f"The provider's answer is longer than {max_bytes} bytes.")
        return self._body

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body: one piece."""
        return _Once(self._body)

    def close(self) -> None:
        """Nothing is left to close. May be repeated."""


class _Once:
    """An iterator, not a generator: one that is left early has nothing to finish."""

    __slots__ = ("_piece",)

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece, self._piece = self._piece, b""
        if not piece:
            raise StopAsyncIteration
        return piece


def unavailable(request: CommandRequest, cause: str, *, dispatched: bool) -> UpstreamUnavailable:
    """The error of a run without an answer."""
    reason = _SENTENCES.get(cause, f"its program failed ({cause})")
    text = f"Provider {request.provider.name!r} gave no answer: {reason}."
    return UpstreamUnavailable(text, dispatched=dispatched, cause=cause)

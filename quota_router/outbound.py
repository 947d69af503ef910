"""
The two ways out: over the network, or through a program of this machine.

Law: which of the two it is follows from the provider alone, and nobody above this room sees a difference: both take an `Outgoing`,
raise the same errors, and come back with a `relay.Source` in the family's dialect.
Never: repeats what it sent, or looks into what comes back.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from quota_router.command import CommandRequest, Commands
from quota_router.core.calls import Call
from quota_router.core.catalog import Provider
from quota_router.core.commands import CommandSpec
from quota_router.core.secrets import Secret
from quota_router.dialects import dialect_of
from quota_router.relay import Bounds, Source
from quota_router.upstream import Upstream, UpstreamRequest


class Outgoing(Struct, frozen=True, kw_only=True):
    """One call on its way to one provider."""

    call: Call
    provider: Provider
    upstream_model: str
    body: bytes
    """the caller's, with the upstream's name of the model"""
    secret: Secret | None
    """`None`: the provider is keyless"""
    connect_timeout_s: float
    """for a program: until it runs"""
    total_timeout_s: float


@dataclass(slots=True, kw_only=True)
class Outbound:
    """Sends calls to providers. One per daemon, opened before the first call and closed after the last (`open_outbound`)."""

    upstream: Upstream
    commands: Commands
    bounds: Bounds

    async def send(self, outgoing: Outgoing, hold_id: str) -> Source:
        """
        Send one call, once, and wait for the head of its answer, whatever its status.

        Args:
            outgoing: what to send.
            hold_id: of the committed hold that pays for it.

        Raises:
            AddressRefused: the provider's network policy forbids the address; nothing was sent.
            InvalidRequest: it cannot be written, or not be told to a program; nothing was sent.
            UpstreamUnavailable: no answer came; `dispatched` says whether the call may have been received.
        """
        command = outgoing.provider.command
        if command is None:
            return await self.upstream.send(self._request(outgoing), hold_id)
        return await self.commands.run(_run_of(outgoing, command), hold_id)

    def _request(self, outgoing: Outgoing) -> UpstreamRequest:
        call, provider, secret = outgoing.call, outgoing.provider, outgoing.secret
        dialect = dialect_of(provider.family)
        query = f"?{call.query}" if call.query else ""
        return UpstreamRequest(
            provider=provider,
            url=f"{provider.base_url}{dialect.upstream_path(call.operation)}{query}",
            headers=dialect.outgoing_headers(call.headers, secret.reveal() if secret else None),
            body=outgoing.body,
            connect_timeout_s=outgoing.connect_timeout_s,
            first_byte_timeout_s=self.bounds.first_byte_timeout_s,
            gap_timeout_s=self.bounds.gap_timeout_s,
            total_timeout_s=outgoing.total_timeout_s,
        )


@asynccontextmanager
async def open_outbound(environ: Mapping[str, str], clock: Callable[[], datetime], bounds: Bounds) -> AsyncIterator[Outbound]:
    """
    Open both ways; closing them hangs up, ends whatever program still runs, and removes its files.

    Args:
        environ: where the few variables come from that every program gets.
        clock: gives aware UTC.
        bounds: how long an answer may take.
    """
    commands = Commands(environ=environ, clock=clock, directory=_runtime_directory(environ))
    async with Upstream() as upstream, commands:
        yield Outbound(upstream=upstream, commands=commands, bounds=bounds)


def _runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """The user's own place for what lives no longer than his login; `None`: he has none."""
    found = environ.get("XDG_RUNTIME_DIR")
    return Path(found) if found and os.access(found, os.W_OK | os.X_OK) else None


def _run_of(outgoing: Outgoing, command: CommandSpec) -> CommandRequest:
    return CommandRequest(
        provider=outgoing.provider,
        spec=command,
        operation=outgoing.call.operation,
        body=outgoing.body,
        upstream_model=outgoing.upstream_model,
        is_stream=outgoing.call.facts.stream,
        secret=outgoing.secret,
        start_timeout_s=outgoing.connect_timeout_s,
        total_timeout_s=outgoing.total_timeout_s,
    )

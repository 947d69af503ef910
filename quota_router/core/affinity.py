"""
Where an answer was made, for calls that lean on it; and where a session's prompt cache is warm.

Law: a call that continues an answer is pinned to the provider that keeps it; a session is only drawn to its home, inside a tier.
Bounded, oldest forgotten first. What is forgotten pins nothing: the upstream then says itself that it knows no such answer.
Never: survives the process: it is in flight, and a restart costs one refusal, or one cold cache.
"""

from datetime import datetime, timedelta

from msgspec import Struct

HOMES_MAX = 10_000
"""Answers and sessions remembered; each is two short strings."""
CACHE_LIFE = timedelta(minutes=5)
"""How long a prompt cache stays warm unused (Anthropic's and OpenAI's documentation, read 2026-11-20)."""


class Home(Struct, frozen=True, kw_only=True):
    """Where a session is warm."""

    provider: str
    is_explicit: bool
    """the caller named the session; strategies that spread calls on purpose heed no other"""
    guest_at: str | None = None
    """the provider that served it last while its home could not: its cache is warm there too"""


class Homes:
    """Answer id -> the provider that made it."""

    def __init__(self) -> None:
        self._made_by: dict[str, str] = {}

    def keep(self, answer_id: str, provider: str) -> None:
        """Remember who made an answer."""
        self._made_by[answer_id] = provider
        if len(self._made_by) > HOMES_MAX:
            del self._made_by[next(iter(self._made_by))]

    def find(self, answer_id: str | None) -> str | None:
        """Return the provider that made it; `None`: not known, or nothing is leant on."""
        return None if answer_id is None else self._made_by.get(answer_id)


class _Stay(Struct):
    """A session's home, when it was last there, and where it was a guest since."""

    provider: str
    last_at: datetime
    guest_at: str | None = None


class Sessions:
    """
    Session -> the provider whose prompt cache is warm for it. Bounded, the one least used lately forgotten first.

    A home survives a while in which it cannot be used: the session is a guest elsewhere, at one place if that can be, and comes
    back. Once its cache must be cold there, the place where it is a guest becomes its home.
    """

    def __init__(self) -> None:
        self._stays: dict[str, _Stay] = {}

    def home_of(self, session: str, *, is_explicit: bool) -> Home | None:
        """Where it is warm; `None`: nowhere that we know of."""
        stay = self._stays.get(session)
        return Home(provider=stay.provider, is_explicit=is_explicit, guest_at=stay.guest_at) if stay is not None else None

    def keep(self, session: str, provider: str, now: datetime) -> None:
        """Note that *provider* answers a call of the session."""
        stay = self._stays.pop(session, None)
        if stay is None or (stay.provider != provider and now - stay.last_at > CACHE_LIFE):
            stay = _Stay(provider, now)
        elif stay.provider == provider:
            stay.last_at = now
        else:
            stay.guest_at = provider
        self._stays[session] = stay
        if len(self._stays) > HOMES_MAX:
            del self._stays[next(iter(self._stays))]

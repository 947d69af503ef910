"""
Where an answer was made, for calls that lean on it.

Law: a call that continues an answer is pinned to the provider that keeps it; bounded, oldest forgotten first. What is forgotten
pins nothing: the upstream then says itself that it knows no such answer.
Never: survives the process: it is in flight, and a restart costs one such refusal at most.
"""

HOMES_MAX = 10_000
"""Answers remembered; each is two short strings."""


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

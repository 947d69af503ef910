"""
The queue of callers that would rather wait than be refused.

Law: in one line whoever came first is first to ask again, and alone in asking; the next asks when he has left. Lines take turns, so
that no caller's crowd keeps another's only call waiting.
Never: promises anything: who has his turn asks the ledger like everybody else. Bounded; who finds it full is told at once.

A line is for calls that wait for the same thing: one caller's, for one model, under the same labels.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self

PLACES_MAX = 1_000
"""Callers that wait; each is a socket and a body in memory."""
LOOK_LEAST_S = 0.005
"""Before the next look, whatever is known: what should be free may be held by somebody else."""
LOOK_AGAIN_S = 1.0
"""Even when nothing seems to have changed: another daemon may have freed it, or the caller have left."""


class Place:
    """A place in a line; leave it with the end of `async with`."""

    def __init__(self, room: "WaitingRoom", line: Hashable) -> None:
        self._room = room
        self._line = line
        self._called = asyncio.Event()

    async def turn(self, until: float, look_at: float) -> None:
        """
        Wait until it is this place's turn and something may have changed.

        Args:
            until: when it gives up waiting, whether it was its turn or not; loop time, like the next.
            look_at: when something is known to change. At the head of a line it looks then, and every `LOOK_AGAIN_S`.
        """
        while (left_s := until - self._room.time()) > 0:
            patience_s = left_s
            if self._room.is_head(self, self._line):
                patience_s = min(left_s, LOOK_AGAIN_S, max(LOOK_LEAST_S, look_at - self._room.time()))
            try:
                async with asyncio.timeout(patience_s):
                    await self._called.wait()
            except TimeoutError:
                pass
            self._called.clear()
            if self._room.is_head(self, self._line):
                return

    def call(self) -> None:
        """Something may have changed: look."""
        self._called.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._room.leave(self, self._line)


class WaitingRoom:
    """All lines. `time`: the loop's clock, s."""

    def __init__(self, time: Callable[[], float], places_max: int = PLACES_MAX) -> None:
        self.time = time
        self._places_max = places_max
        self._lines: dict[Hashable, deque[Place]] = {}
        self._places = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._places

    def enter(self, line: Hashable) -> Place | None:
        """Take the last place of a line; `None`: the room is full."""
        if self._places >= self._places_max:
            return None
        place = Place(self, line)
        self._lines.setdefault(line, deque()).append(place)
        self._places += 1
        return place

    def stir(self) -> None:
        """Something may have become free: the heads of all lines look, those of lines served longest ago first."""
        for places in self._lines.values():
            places[0].call()

    def is_head(self, place: Place, line: Hashable) -> bool:
        """Whether it is first in its line."""
        return self._lines[line][0] is place

    def leave(self, place: Place, line: Hashable) -> None:
        """Give a place up. The next of its line looks at once; the line goes behind the others."""
        places = self._lines.pop(line)
        was_head = places[0] is place
        places.remove(place)
        self._places -= 1
        if places:
            self._lines[line] = places
            if was_head:
                places[0].call()

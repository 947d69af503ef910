"""
The calls under way.

Law: a call is here from its first step to its last, whatever becomes of it.
Never: serves one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quota_router.attempts import Attempt
from quota_router.core.retries import budget
from quota_router.relay import Sink


@dataclass(slots=True)
class Running:
    """One call: the task that serves it, and its attempt of the moment."""

    task: "asyncio.Task[None] | None"
    sink: Sink
    ends_at: float
    """loop time, like the next"""
    waits_until: float
    """for a rung to become usable"""
    attempt: Attempt | None = None
    is_repeating: bool = False
    """it tries a rung again that failed it"""
    is_waiting: bool = False
    """it stands in line for a rung"""
    is_left: bool = False
    """its caller has left, and it is worth ending for that"""

    @contextlib.contextmanager
    def in_line(self, time: Callable[[], float]) -> Iterator[None]:
        """While it waits. That takes nothing of the time in which it is to be served."""
        began, self.is_waiting = time(), True
        try:
            yield
        finally:
            self.is_waiting = False
            self.ends_at += time() - began


@dataclass(slots=True)
class Underway:
    """All of them. `time`: the loop's clock, s."""

    time: Callable[[], float]
    is_cutting: bool = False
    _calls: dict[str, Running] = field(default_factory=dict)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Running]:
        return iter(list(self._calls.values()))

    def begin(self, call_id: str, sink: Sink, *, max_s: float, max_wait_s: float) -> Running:
        """Take a call in, for at most *max_s* seconds; it may wait for a rung for *max_wait_s* of them."""
        now = self.time()
        running = self._calls[call_id] = Running(asyncio.current_task(), sink, now + max_s, now + max_wait_s)
        self._idle.clear()
        return running

    def end(self, call_id: str) -> None:
        """Let it go."""
        del self._calls[call_id]
        if not self._calls:
            self._idle.set()

    def may_repeat(self, asking: Running) -> bool:
        """Whether one more call, or one that repeats already, may try a rung again."""
        others = sum(running.is_repeating for running in self._calls.values() if running is not asking)
        return others < budget(len(self._calls))

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        if self._calls:
            await self._idle.wait()

    def leave(self) -> None:
        """
        End the calls whose caller has left.

        Those that stand in line; and, before an answer came, those where hanging up stops the bill.
        """
        for running in self:
            if running.task is not None and not running.is_left and running.sink.is_gone and _ends_with_caller(running):
                running.is_left = True
                running.task.cancel()

    def cut(self) -> None:
        """End every call now: each settles what it has seen, and its caller is told. For the end of a shutdown."""
        self.is_cutting = True
        for running in self:
            if running.task is not None:
                running.task.cancel()


def _ends_with_caller(running: Running) -> bool:
    """Whether nothing is lost by ending a call whose caller has left."""
    attempt = running.attempt
    return running.is_waiting or (attempt is not None and attempt.first_byte_ms is None and attempt.ends_with_caller)

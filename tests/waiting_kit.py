"""Waiting in tests: for a condition, never for a time; and never for ever."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Return once *holds* says so; raises `TimeoutError` when it does not in time."""
    async with asyncio.timeout(within_s):
        while not await holds():
            pass

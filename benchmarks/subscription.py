"""
A subscription that others use too, as its vendor would tell of it.

Law: everything follows from the seed. What the vendor tells is rounded to whole percents; what is used is not.
Never: knows how it is judged. `forecast.py` and the tests of calibration both read it.

Calls of ours arrive at random over the whole time, their sizes log-normal. Others work in sittings: on for ten minutes, off for
twenty, on average, and then at three times their mean pace. Most windows are used up before they end.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

from msgspec import Struct

from quota_router.core.limits import Amounts
from quota_router.core.readings import PPM, Reading, ReadingUnit

START = datetime(2026, 11, 20, tzinfo=UTC)
WINDOW = timedelta(hours=5)
WINDOW_TOKENS = 5_000_000
"""What the window holds: one percent is worth 50,000 tokens."""
NUSD_PER_TOKEN = 4_000
FILL = 1.25
"""What would be used of a window if nothing ended: it is used up after some four hours."""
READ_EVERY = timedelta(minutes=3)

_CALLS = 400
"""of ours in a window, and a third as many of others"""
_SITTING_S, _PAUSE_S = 600, 1_200


class Told(Struct, frozen=True, kw_only=True):
    """What the vendor tells at one moment, and what we know of ourselves then."""

    reading: Reading
    posted: Amounts


class Window(Struct, frozen=True, kw_only=True):
    """One window: what was told of it until it was used up, and when that was."""

    start: datetime
    told: tuple[Told, ...]
    exhausted_at: datetime | None
    """`None`: it ended before it was used up"""


def simulate(seed: int, *, windows: int, others: float = 0.3, in_sittings: bool = True) -> list[Window]:
    """
    Windows, one after the other.

    Args:
        seed: of all that is random.
        windows: how many.
        others: their part of all use.
        in_sittings: whether others come in sittings, or all the time as we do.
    """
    rng, posted_tokens, found = Random(seed), 0, []  # noqa: S311 -- a simulation has no secrets, and must repeat itself
    for number in range(windows):
        window, posted_tokens = _window(rng, START + number * WINDOW, posted_tokens, others, in_sittings=in_sittings)
        found.append(window)
    return found


def _window(rng: Random, start: datetime, posted: int, others: float, *, in_sittings: bool) -> tuple[Window, int]:
    total = WINDOW_TOKENS * FILL
    ours = [(at, tokens, True) for at, tokens in _calls(rng, [(0.0, _span_s())], _CALLS, total * (1 - others))]
    times = _sittings(rng) if in_sittings else [(0.0, _span_s())]
    pace = _CALLS // 3 * (3 if in_sittings else 1)
    theirs = [(at, tokens, False) for at, tokens in _calls(rng, times, pace, total * others * (3 if in_sittings else 1))]
    used, told, exhausted_at, read_s = 0, [_told(start, timedelta(0), 0, posted)], None, READ_EVERY.total_seconds()
    for at_s, tokens, is_ours in sorted([*ours, *theirs]):
        while read_s <= at_s:
            told.append(_told(start, timedelta(seconds=read_s), used, posted))
            read_s += READ_EVERY.total_seconds()
        used += tokens
        posted += tokens if is_ours else 0
        if used >= WINDOW_TOKENS:
            exhausted_at = start + timedelta(seconds=at_s)
            break
    return Window(start=start, told=tuple(told), exhausted_at=exhausted_at), posted


def _calls(rng: Random, times: list[tuple[float, float]], calls: int, tokens: float) -> Iterator[tuple[float, int]]:
    """Calls at random within *times*: *calls* and *tokens* are what a whole window of them would hold."""
    for begin_s, end_s in times:
        at_s = begin_s
        while (at_s := at_s + rng.expovariate(calls / _span_s())) < end_s:
            yield at_s, 1 + int(rng.lognormvariate(-0.5, 1.0) * tokens / calls)


def _sittings(rng: Random) -> list[tuple[float, float]]:
    edges = [0.0 if rng.random() < _SITTING_S / (_SITTING_S + _PAUSE_S) else rng.expovariate(1 / _PAUSE_S)]
    while edges[-1] < _span_s():
        edges.append(edges[-1] + rng.expovariate(1 / (_SITTING_S if len(edges) % 2 else _PAUSE_S)))
    return [(begin, min(end, _span_s())) for begin, end in list(pairwise(edges))[::2]]


def _told(start: datetime, elapsed: timedelta, used: int, posted: int) -> Told:
    reading = Reading(
        provider="subscription",
        account="subscription",
        source="headers",
        window="5h",
        unit=ReadingUnit.SHARE,
        share_ppm=math.floor(used * 100 / WINDOW_TOKENS + 0.5) * PPM // 100,
        resets_at=start + WINDOW,
        observed_at=start + elapsed,
    )
    amounts = Amounts(cost_nusd=posted * NUSD_PER_TOKEN, requests=0, input_tokens=posted, output_tokens=0)
    return Told(reading=reading, posted=amounts)


def _span_s() -> float:
    return WINDOW.total_seconds()

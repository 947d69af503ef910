"""
When a window will be used up, by how fast its share has grown.

Law: a forecast is told with its error, and only of a window that grows. It is shown and alarmed on; no call is refused for it.
Never: looks beyond the window it is in: whether a window lasts until its reset is for the reader to compare.

Floats are used here, and only here in this room: no money and no refusal is decided by them.

Decision 2026-11 -- growth is the mean over the last points, whoever caused it, and the error that of a walk with steps like those
    seen: Var(T) = v (h + h^2/t) / r^2, with rate r, variance v per second, horizon h, observed span t. Fitting a line through the
    levels instead promises too much, for its residuals are not independent. Look again when hours of the day are worth knowing.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from math import sqrt
from typing import Annotated, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calibration import interval_min, is_same_window
from quota_router.core.readings import PPM, Reading, ReadingUnit

POINTS_KEPT = 64
"""At a hundredth of the window apart: the last two thirds of it."""
POINTS_NEEDED = 4
ROUNDING_PPM = PPM // 100
LIKELY_DEVIATIONS = 2.0
"""The interval is that many standard deviations to each side: some 95 %."""
HORIZON_MAX = timedelta(days=400)
"""What lasts longer is not said to end."""


class Point(Struct, frozen=True, array_like=True):
    """A share that was read."""

    at: datetime
    share_ppm: int


class Forecast(Struct, frozen=True, kw_only=True):
    """When a window runs out if use goes on as it did. All aware UTC."""

    at: datetime
    earliest: datetime
    latest: datetime | None
    """`None`: it may as well never run out"""
    points: int
    """from how many readings"""


class Growth(Struct, frozen=True, kw_only=True):
    """The last readings of a `share` in the window that runs. Bounded; stored as JSON."""

    resets_at: datetime | None = None
    points: Annotated[tuple[Point, ...], msgspec.Meta(max_length=POINTS_KEPT)] = ()
    """the newest last, at least a hundredth of the window apart"""

    def add(self, reading: Reading) -> Self:
        """
        With one more reading, in the order of observation; one of another window begins anew.

        One of less use does so too, unless it is less by no more than a percent: sources that round differently take turns.
        """
        if reading.unit is not ReadingUnit.SHARE or reading.share_ppm is None or reading.refills:
            return self
        point = Point(reading.observed_at, reading.share_ppm)
        if self.points and point.at <= self.points[-1].at:
            return self
        if not self.points or not is_same_window(self.resets_at, reading.resets_at):
            return type(self)(resets_at=reading.resets_at, points=(point,))
        newest = self.points[-1]
        if point.at - newest.at < interval_min(reading.window):
            return self
        if point.share_ppm < newest.share_ppm:
            return self if point.share_ppm >= newest.share_ppm - ROUNDING_PPM else replace(self, points=(point,))
        return replace(self, points=(*self.points, point)[-POINTS_KEPT:])

    def forecast(self, share_used_ppm: int, now: datetime) -> Forecast | None:
        """
        When the window will be used up.

        Args:
            share_used_ppm: what is used by now, with what we posted since the last reading and what we hold.
            now: aware UTC.

        Returns:
            `None` when too few points are known, when the share does not grow, or when it would last beyond `HORIZON_MAX`.
        """
        points = [point for point in self.points if point.at < now]
        if len(points) < POINTS_NEEDED:
            return None
        points.append(Point(now, max(share_used_ppm, points[-1].share_ppm)))
        span_s = (now - points[0].at).total_seconds()
        per_s = (points[-1].share_ppm - points[0].share_ppm) / span_s
        left_ppm = max(0, PPM - points[-1].share_ppm)
        if per_s <= 0 or left_ppm / per_s > HORIZON_MAX.total_seconds():
            return None
        steps = [((b.at - a.at).total_seconds(), b.share_ppm - a.share_ppm) for a, b in pairwise(points)]
        variance_per_s = sum((grown - per_s * step_s) ** 2 for step_s, grown in steps) / span_s
        horizon_s = left_ppm / per_s
        error_s = LIKELY_DEVIATIONS * sqrt(variance_per_s * (horizon_s + horizon_s**2 / span_s)) / per_s
        is_open = horizon_s + error_s > HORIZON_MAX.total_seconds()
        return Forecast(
            at=now + timedelta(seconds=horizon_s),
            earliest=now + timedelta(seconds=max(0.0, horizon_s - error_s)),
            latest=None if is_open else now + timedelta(seconds=horizon_s + error_s),
            points=len(points) - 1,
        )

    def to_json(self) -> str:
        """As text that `from_json` reads back."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        Read back what `to_json` wrote.

        Raises:
            msgspec.ValidationError: a `ValueError`: these are no points.
        """
        return msgspec.json.decode(text, type=cls)

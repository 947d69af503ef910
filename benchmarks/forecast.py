"""
How well the end of a subscription's window is foretold, and what a share is worth, while others use it too.

Law: figures follow from the seeds alone: no clock, no network, nothing measured. A forecast sees only what the vendor told before.
Never: leaves out a window because its forecast was bad. One that was not used up, or sooner, has nothing to compare with: the
column `windows` says how many remain.

    python benchmarks/forecast.py [--seeds 200] [--others 0.3]

Errors of the end are given twice: of the time from the window's start to its end, and of the time that was left when it was
foretold.
"""

import argparse
from collections.abc import Sequence
from datetime import timedelta
from statistics import median

from subscription import WINDOW_TOKENS, Window, simulate

from quota_router.core.calibration import Calibration
from quota_router.core.forecast import Growth
from quota_router.core.readings import PPM

OBSERVATIONS = (5, 10, 20, 30, 40, 50, 60)
WINDOWS = (1, 2, 4, 10)


def foretell(window: Window, observations: int) -> tuple[float, float, bool] | None:
    """
    The error of one forecast, of the whole time and of the time left, and whether its interval held the end.

    Returns:
        `None` when the window was used up before so many observations, or never.
    """
    seen = window.told[: observations + 1]
    if len(seen) <= observations or window.exhausted_at is None:
        return None
    growth = Growth()
    for told in seen:
        growth = growth.add(told.reading)
    last = seen[-1].reading
    found = growth.forecast(last.share_ppm or 0, last.observed_at + timedelta(seconds=1))
    if found is None:
        return 1.0, 1.0, False
    missed = abs(found.at - window.exhausted_at)
    held = found.earliest <= window.exhausted_at and (found.latest is None or window.exhausted_at <= found.latest)
    return missed / (window.exhausted_at - window.start), missed / (window.exhausted_at - last.observed_at), held


def appraise(windows: Sequence[Window]) -> tuple[float, float | None]:
    """The error of the learned worth, with its sign, and the part of use that was found to be of others."""
    calibration = Calibration()
    for window in windows:
        for told in window.told:
            calibration = calibration.learn(told.reading, told.posted)
    worth = calibration.worth()
    if worth is None:
        return -1.0, None
    return worth.window_tokens / WINDOW_TOKENS - 1, None if worth.others_ppm is None else worth.others_ppm / PPM


def percent(value: float) -> str:
    return f"{100 * value:5.1f} %"


def upper(values: Sequence[float]) -> float:
    """What nine in ten stay below."""
    return sorted(values)[int(0.9 * len(values))]


def print_forecasts(seeds: int, others: float, *, in_sittings: bool) -> None:
    print("observations  windows   error of the whole time   error of the time left   interval held")
    print("                          median     9 in 10        median     9 in 10")
    windows = [simulate(seed, windows=1, others=others, in_sittings=in_sittings)[0] for seed in range(seeds)]
    for observations in OBSERVATIONS:
        found = [error for window in windows if (error := foretell(window, observations)) is not None]
        if not found:
            continue
        of_all, of_left, held = zip(*found, strict=True)
        print(
            f"{observations:12}  {len(found):7}  {percent(median(of_all)):>9}   {percent(upper(of_all)):>9}"
            f"     {percent(median(of_left)):>9}   {percent(upper(of_left)):>9}     {percent(sum(held) / len(held)):>9}"
        )


def print_worths(seeds: int, others: float, *, in_sittings: bool) -> None:
    print("windows       error of the worth      found to be of others")
    print("               median     9 in 10")
    for windows in WINDOWS:
        found = [appraise(simulate(seed, windows=windows, others=others, in_sittings=in_sittings)) for seed in range(seeds)]
        errors = [abs(error) for error, _ in found]
        theirs = [part for _, part in found if part is not None]
        told = percent(median(theirs)) if theirs else "not told apart"
        print(f"{windows:7}     {percent(median(errors)):>9}   {percent(upper(errors)):>9}      {told:>9}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How well the end of a subscription's window is foretold.")
    parser.add_argument("--seeds", type=int, default=200, help="how many subscriptions are simulated")
    parser.add_argument("--others", type=float, default=0.3, help="the part of all use that is not ours")
    options = parser.parse_args()
    for sittings in (True, False):
        how = "in sittings" if sittings else "all the time"
        print(f"\n{options.others:.0%} of all use is of others, {how}; a reading every 3 minutes, in whole percents\n")
        print_forecasts(options.seeds, options.others, in_sittings=sittings)
        print()
        print_worths(max(1, options.seeds // 4), options.others, in_sittings=sittings)

"""
What a call costs in the daemon, beside a bare aiohttp pass-through and, if asked, LiteLLM's proxy.

Law: only ratios between slices of one round are believed. All targets stay up on one core and are visited in random
order in short slices, so that a slow minute of the machine hits everyone. Every acknowledged call must be in the ledger.
Never: compares figures of different runs.

    python benchmarks/hot_path.py [--quick] [--stream] [--litellm] [--max-ratio 3.0]

Exits 1 when a call failed, when the ledger's count differs, or when --max-ratio is exceeded.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from machine import BenchmarkError, Machine, cpu_s, get
from targets import CHAT_PATH, HERE, YARDSTICK, Target, start_daemon, start_litellm, start_pass_through, start_upstream

MIN_SLICE_S = 3.0
"""shorter ones under-count slow targets: 64 calls of LiteLLM alone take over half a second"""
WARM_UP_S = 2.0
CONNECTIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one visit of the generator to one target found."""

    calls: int
    calls_per_s: float
    cpu_us: float | None
    """per call, of the target's process tree; `None` without a process or a call"""
    p50_ms: float | None
    p99_ms: float | None
    first_byte_p50_ms: float | None
    errors: Counter[str]


def visit(target: Target, seconds: float, *, stream: bool) -> Slice:
    """Load *target* for *seconds*, and count the CPU it used meanwhile."""
    load = [sys.executable, HERE / "loadgen.py", target.base_url + CHAT_PATH, "--seconds", str(seconds)]
    load += ["--connections", str(CONNECTIONS)]
    load += ["--token", target.token] if target.token else []
    load += ["--stream"] if stream else []
    cpu_before_s = cpu_s(target.pid) if target.pid else 0.0
    found = json.loads(subprocess.run(load, check=True, stdout=subprocess.PIPE).stdout)
    cpu_after_s = cpu_s(target.pid) if target.pid else 0.0
    calls = found["calls"]
    return Slice(
        calls=calls,
        calls_per_s=calls / found["seconds"],
        cpu_us=(cpu_after_s - cpu_before_s) * 1e6 / calls if target.pid and calls else None,
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        first_byte_p50_ms=found["first_byte_p50_ms"],
        errors=Counter(found["errors"]),
    )


class Series:
    """Every slice of every target for one kind of call; index = round, so that slices of one round are pairs."""

    def __init__(self, targets: Sequence[Target], *, stream: bool) -> None:
        self.stream = stream
        self.warm_ups: dict[str, Slice] = {}
        self.slices: dict[str, list[Slice]] = {target.name: [] for target in targets}
        self._targets = list(targets)

    @property
    def kind(self) -> str:
        """What one call is, in the plural."""
        return "streams" if self.stream else "calls"

    def run(self, rounds: int, slice_s: float) -> None:
        """A warm-up of each target, then *rounds* visits of each, in a new order every time."""
        for target in self._targets:
            self.warm_ups[target.name] = visit(target, WARM_UP_S, stream=self.stream)
        for number in range(1, rounds + 1):
            random.shuffle(self._targets)
            for target in self._targets:
                found = visit(target, slice_s, stream=self.stream)
                self.slices[target.name].append(found)
                print(f"round {number}/{rounds}: {target.name} {found.calls_per_s:,.0f} {self.kind}/s", file=sys.stderr)

    def acknowledged(self, name: str) -> int:
        """The complete answers *name* gave, those of its warm-up included."""
        return self.warm_ups[name].calls + sum(found.calls for found in self.slices[name])

    def errors(self, name: str) -> Counter[str]:
        """By name, those of the warm-up included."""
        return sum((found.errors for found in self.slices[name]), self.warm_ups[name].errors)

    def ratio(self, name: str, base: str, value: Callable[[Slice], float | None]) -> float | None:
        """The median over the rounds of *name*'s value divided by that of *base* in the same round."""
        pairs = [(value(ours), value(theirs)) for ours, theirs in zip(self.slices[name], self.slices[base], strict=True)]
        ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return median(ratios) if ratios else None

    def cpu_ratio(self, name: str) -> float | None:
        """CPU per call relative to the pass-through's."""
        return self.ratio(name, YARDSTICK, lambda found: found.cpu_us)


def print_table(series: Series) -> None:
    """One row per target, medians over the rounds."""
    one = series.kind.removesuffix("s")
    heads = ["target", f"{series.kind}/s (min-max)", f"CPU µs per {one} (min-max)", "p50, ms", "p99, ms", "errors"]
    heads += [f"CPU per {one} relative to the pass-through", *(["first byte p50, ms"] if series.stream else [])]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, slices in series.slices.items():
        cells = [
            name,
            _spread([found.calls_per_s for found in slices]),
            _spread([found.cpu_us for found in slices]),
            _middle([found.p50_ms for found in slices]),
            _middle([found.p99_ms for found in slices]),
            str(series.errors(name).total()),
            _middle([series.cpu_ratio(name)]),
        ]
        if series.stream:
            cells.append(_middle([found.first_byte_p50_ms for found in slices]))
        print(f"| {' | '.join(cells)} |")


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):,.0f} ({min(known):,.0f}-{max(known):,.0f})" if known else "-"


def _middle(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.2f}" if known else "-"


def closing_sentence(series: Series, daemon: Target, litellm: Target | None) -> str:
    """The table in one sentence."""
    one = series.kind.removesuffix("s")
    ratio = series.cpu_ratio(daemon.name)
    if ratio is None:
        return f"{daemon.name} answered no {one}."
    speed = median(found.calls_per_s for found in series.slices[daemon.name])
    text = (
        f"On one core {daemon.name} books and relays {speed:,.0f} {series.kind}/s, "
        f"at {ratio:.2f} times the pass-through's CPU per {one}"
    )
    faster = series.ratio(daemon.name, litellm.name, lambda found: found.calls_per_s) if litellm else None
    return f"{text}; that is {faster:.1f} times the {series.kind}/s of {litellm.name}." if faster else f"{text}."


def booked_calls(daemon: Target) -> int:
    """How many calls the daemon's ledger knows."""
    status, body = get(f"{daemon.base_url}/api/v1/usage", daemon.token)
    if status != 200:
        raise BenchmarkError(f"The daemon answered {status} when it was asked for its usage.")
    return int(json.loads(body)["total"]["calls"])


def verdict(runs: Sequence[Series], daemon: Target, max_ratio: float | None) -> bool:
    """Say what is wrong, if anything; True when nothing is."""
    acknowledged, booked = sum(series.acknowledged(daemon.name) for series in runs), booked_calls(daemon)
    print(f"The ledger booked {booked:,} calls; {acknowledged:,} were acknowledged, warm-up included.")
    is_good = booked == acknowledged
    for series in runs:
        for name in series.slices:
            for error, count in series.errors(name).items():
                print(f"{name}: {count:,} {series.kind} ended in an error: {error}.")
                is_good = False
    ratio = runs[0].cpu_ratio(daemon.name)
    if max_ratio is not None and (ratio is None or ratio > max_ratio):
        print(f"CPU per call is over the {max_ratio:.2f} times the pass-through's that --max-ratio allows.")
        is_good = False
    return is_good


def benchmark(options: argparse.Namespace) -> bool:
    """Start everything, measure, print, judge."""
    with Machine(options.state) as machine:
        if not machine.has_two_cores:
            print(
                "Only one core is available: target, generator and upstream share it. CPU per call still compares; "
                "calls/s and latencies do not.",
                file=sys.stderr,
            )
        upstream = start_upstream(machine)
        daemon = start_daemon(machine, upstream, options.command, on_uvloop=options.uvloop, profile=options.profile)
        litellm = start_litellm(machine, upstream, options.litellm_venv) if options.litellm else None
        targets = [
            Target(name="no gateway", base_url=upstream),
            start_pass_through(machine, upstream, on_uvloop=options.uvloop),
            daemon,
            *([litellm] if litellm else []),
        ]
        runs = [Series(targets, stream=stream) for stream in ([False, True] if options.stream else [False])]
        for series in runs:
            series.run(options.rounds, options.slice)
        for series in runs:
            print_table(series)
            print(f"\n{closing_sentence(series, daemon, litellm)}")
        if options.profile:
            print("The daemon ran under cProfile: its figures compare with nothing but another profiled run.")
        return verdict(runs, daemon, options.max_ratio)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="CPU per call and calls/s of the daemon beside a bare pass-through.")
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="visits to each target (default 5)")
    add("--slice", type=float, default=4.0, help=f"seconds of one visit (default 4, at least {MIN_SLICE_S:g})")
    add("--quick", action="store_true", help=f"2 rounds of {MIN_SLICE_S:g} s: enough to see that it works")
    add("--stream", action="store_true", help="a second table, for streams")
    add("--litellm", action="store_true", help="LiteLLM's proxy as one more target, installed from PyPI when missing")
    add("--litellm-venv", type=Path, metavar="PATH", help="where it is or shall be installed; implies --litellm")
    add("--max-ratio", type=float, help="exit 1 when CPU per call (not per stream) is over this times the pass-through's")
    add("--state", type=Path, metavar="DIR", help="where the ledger lies meanwhile (default: the temporary directory)")
    beside_us = Path(sys.executable).with_name("quota-router")
    add("--command", type=Path, default=beside_us, metavar="PATH", help="the quota-router to measure")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--uvloop", action="store_true", help="run daemon and pass-through on uvloop")
    how.add_argument("--profile", type=Path, metavar="FILE", help="run the daemon under cProfile, statistics to FILE")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.slice = 2, MIN_SLICE_S
    if options.slice < MIN_SLICE_S or options.rounds < 1:
        parser.error(f"at least one round, of slices of at least {MIN_SLICE_S:g} s")
    options.litellm = options.litellm or options.litellm_venv is not None
    return options


def main() -> int:
    try:
        return os.EX_OK if benchmark(parse_options()) else 1
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

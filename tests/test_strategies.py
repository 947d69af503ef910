"""How the rungs of one tier are ordered: each strategy by its own numbers, and what that is worth in a simulated week."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from runpy import run_path

import pytest
from ledger_kit import NOON, attachment, limit, provider

from quota_router.core.affinity import Home
from quota_router.core.candidates import Candidate, Question
from quota_router.core.catalog import Family, Strategy
from quota_router.core.estimates import Estimate
from quota_router.core.headroom import Headroom
from quota_router.core.limits import Amounts, Gauge, Kind
from quota_router.core.readings import PPM, Reading, ReadingUnit
from quota_router.core.strategies import arrange

SIMULATED = run_path(str(Path(__file__).parent.parent / "benchmarks" / "strategies.py"))
simulate = SIMULATED["simulate"]
SPREADING = {Strategy.ROUND_ROBIN, Strategy.WEIGHTED, Strategy.RANDOM}


def rung(name: str, strategy: Strategy, *, priority: int = 0, weight: int = 1, cost_nusd: int | None = 5, **more) -> Candidate:
    amounts = Amounts(cost_nusd=cost_nusd or 0, requests=1, input_tokens=1, output_tokens=1)
    return Candidate(
        attachment=attachment(name, priority, weight=weight),
        provider=provider(name),
        has_credential=True,
        estimate=Estimate(likely=amounts, upper=amounts, is_priced=cost_nusd is not None),
        strategy=strategy,
        **more,
    )


def window(share: float, *, name: str = "7d", resets_in_h: float = 24, is_stale: bool = False) -> Headroom:
    resets_at = NOON + timedelta(hours=resets_in_h)
    told = Reading(
        provider="p",
        account="p",
        source="headers",
        window=name,
        unit=ReadingUnit.SHARE,
        share_ppm=round(share * PPM),
        resets_at=resets_at,
        observed_at=NOON,
    )
    used = round(share * PPM)
    return Headroom(reading=told, at=NOON, used=used, left=PPM - used, share_used_ppm=used, is_stale=is_stale)


def quota(posted: int, ends_in_h: float, *, of: int = 100) -> Gauge:
    end = NOON + timedelta(hours=ends_in_h)
    counted = limit(kind=Kind.QUOTA, limit=of)
    return Gauge(limit=counted, posted=posted, held=0, bucket=NOON, opens=False, window_start=NOON, window_end=end, relief_at=end)


def order(*candidates: Candidate, turn: int = 0, draw: int = 0, home: Home | None = None) -> str:
    """The names of the rungs, each a letter, as they are to be tried."""
    question = Question(family=Family.OPENAI, draw=draw, home=home)
    return "".join(candidate.provider.name for candidate in arrange(candidates, question, {"m": turn}))


@pytest.mark.parametrize("strategy", Strategy)
def test_a_strategy_moves_rungs_inside_their_tier_and_loses_none(strategy):
    rng = Random(0)  # noqa: S311 -- a test must repeat itself
    for turn in range(20):
        found = order(
            rung("a", strategy),
            rung("b", strategy, weight=3),
            rung("c", strategy, priority=1, windows=(window(0.1),)),
            rung("d", strategy, priority=1, latency_ms=3),
            rung("e", strategy, priority=2),
            turn=turn,
            draw=rng.getrandbits(64),
        )
        assert (set(found[:2]), set(found[2:4]), found[4]) == ({"a", "b"}, {"c", "d"}, "e")


@pytest.mark.parametrize("strategy", Strategy)
def test_the_same_numbers_give_the_same_order(strategy):
    candidates = [rung(name, strategy, windows=(window(0.5),)) for name in "abc"]
    assert order(*candidates, turn=7, draw=99) == order(*candidates, turn=7, draw=99)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_session_goes_home_first_and_then_to_where_it_was_a_guest(strategy):
    candidates = [rung(name, strategy, windows=(window(0.5),)) for name in "abcd"]
    named, unnamed = Home(provider="d", is_explicit=True, guest_at="c"), Home(provider="d", is_explicit=False)
    assert order(*candidates, home=named)[:2] == "dc"
    if strategy in SPREADING:
        assert order(*candidates, home=unnamed, turn=1, draw=1) == order(*candidates, turn=1, draw=1)
    else:
        assert order(*candidates, home=unnamed)[0] == "d"


def test_round_robin_begins_one_later_with_each_turn():
    candidates = [rung(name, Strategy.ROUND_ROBIN) for name in "abc"]
    assert [order(*candidates, turn=turn) for turn in range(4)] == ["abc", "bca", "cab", "abc"]


@pytest.mark.parametrize(("strategy", "share"), [(Strategy.WEIGHTED, 3 / 4), (Strategy.RANDOM, 1 / 2)])
def test_what_is_drawn_comes_as_often_as_it_weighs(strategy, share):
    rng, draws = Random(1), 4_000  # noqa: S311 -- likewise
    firsts = Counter(order(rung("a", strategy, weight=3), rung("b", strategy), draw=rng.getrandbits(64))[0] for _ in range(draws))
    assert abs(firsts["a"] / draws - share) < 0.03


USES = {
    "by what binds": ({"a": [window(0.2), window(0.9, name="5h")], "b": [window(0.8)]}, "ba"),
    "our own quotas count": ({"a": quota(70, 5), "b": [window(0.6)]}, "ba"),
    "an unknown use is as small as the smallest": ({"a": [window(0.3)], "b": [], "c": [window(0.1)]}, "bca"),
    "old news is no comfort": ({"a": [window(0.1, is_stale=True)], "b": [window(0.4)]}, "ba"),
    "alike, as they are written": ({"a": [window(0.3)], "b": [window(0.3)]}, "ab"),
}


@pytest.mark.parametrize("case", USES)
def test_least_used(case):
    uses, expected = USES[case]
    more = {name: {"gauges": (use,)} if isinstance(use, Gauge) else {"windows": tuple(use)} for name, use in uses.items()}
    assert order(*(rung(name, Strategy.LEAST_USED, **told) for name, told in more.items())) == expected


def test_those_that_are_used_alike_take_turns():
    candidates = [rung(name, Strategy.LEAST_USED, windows=(window(share),)) for name, share in (("a", 0.3), ("b", 0.3), ("c", 0.2))]
    assert [order(*candidates, turn=turn) for turn in range(3)] == ["cab", "cba", "cab"]


RESETS = {
    "the soonest first": ({"a": [window(0.1, resets_in_h=50)], "b": [window(0.9, resets_in_h=20)]}, "ba"),
    "by the longest window": (
        {"a": [window(0.1, resets_in_h=9), window(0.1, name="5h", resets_in_h=4)], "b": [window(0.1, name="5h", resets_in_h=5)]},
        "ba",
    ),
    "our own quotas count": ({"a": [window(0.1, resets_in_h=50)], "b": quota(1, 5)}, "ba"),
}


@pytest.mark.parametrize("case", RESETS)
def test_soonest_reset(case):
    ends, expected = RESETS[case]
    more = {name: {"gauges": (end,)} if isinstance(end, Gauge) else {"windows": tuple(end)} for name, end in ends.items()}
    assert order(*(rung(name, Strategy.SOONEST_RESET, **told) for name, told in more.items())) == expected


@pytest.mark.parametrize(("is_new", "expected"), [(False, "ba"), (True, "ab")])
def test_who_tells_no_reset_comes_last_but_who_was_never_used_first(is_new, expected):
    unknown = rung("a", Strategy.SOONEST_RESET, is_new=is_new)
    assert order(unknown, rung("b", Strategy.SOONEST_RESET, windows=(window(0.1, resets_in_h=1),))) == expected


def test_cheapest_and_an_unknown_price_last():
    costs = {"a": None, "b": 7, "c": 0, "d": 7}
    assert order(*(rung(name, Strategy.CHEAPEST, cost_nusd=cost) for name, cost in costs.items())) == "cbda"


def test_fastest_and_an_unknown_speed_first():
    speeds = {"a": 300, "b": None, "c": 100}
    assert order(*(rung(name, Strategy.FASTEST, latency_ms=speed) for name, speed in speeds.items())) == "bca"


# --- what it is worth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_two_subscriptions_serve_more_in_a_week_if_what_ends_soonest_is_used_first(seed):
    plain, soonest = simulate(Strategy.PRIORITY, seed), simulate(Strategy.SOONEST_RESET, seed)
    assert plain.asked == soonest.asked
    assert soonest.served > 1.1 * plain.served
    assert soonest.lost < plain.lost


def test_the_benchmark_prints_a_row_for_each_strategy(capsys):
    SIMULATED["print_table"](1, 0.5)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == [strategy.value for strategy in Strategy]

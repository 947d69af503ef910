"""The programs of `benchmarks/` that measure nothing say what they say; those that measure run."""

from pathlib import Path
from runpy import run_path

import pytest

from quota_router.core.pricing import PriceTable, Rates, cost_nusd

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SAVINGS = run_path(str(BENCHMARKS / "savings.py"))
DECISION = run_path(str(BENCHMARKS / "decision.py"))


def test_the_committed_day_is_the_made_one_that_it_says():
    lines = (BENCHMARKS / "day.csv").read_text().splitlines()
    assert "--make 7" in lines[0]
    assert lines[1:] == [",".join(row) for row in SAVINGS["make_day"](7)]


async def test_row_3_5_the_rules_of_the_cost_sample_save_against_the_default_model_over_a_day(capsys):
    """
    Priority 0 goes to the best model and costs more, the night to the cheap one and costs less; both sums are of the same tokens.
    """
    day = SAVINGS["read_day"](SAVINGS["DAY"])[::4]
    sums = await SAVINGS["replay"](SAVINGS["RULES"], day)
    whole = SAVINGS["print_sums"](sums)
    critical = sums["priority == 0", "claude-opus-4"]
    night = sums["hour >= 22 or hour <= 6", "deepseek/deepseek-chat"]
    assert critical.calls == sum(call.priority == 0 for call in day)
    assert critical.paid_nusd > critical.by_default_nusd
    assert night.paid_nusd < night.by_default_nusd
    unruled = sums["the default model", "claude-sonnet-4-5"]
    assert unruled.paid_nusd == unruled.by_default_nusd
    assert whole.calls == len(day)
    assert whole.tokens == sum(call.usage.input_tokens + call.usage.output for call in day)
    assert 0 < whole.paid_nusd < whole.by_default_nusd
    sonnet = PriceTable(tiers=((0, Rates(input_pusd=3_000_000, output_pusd=15_000_000, cache_read_pusd=300_000)),))
    assert whole.by_default_nusd == sum(cost_nusd(call.usage, sonnet) for call in day)
    assert f"{100 * whole.saved:.1f} %" in capsys.readouterr().out


async def test_the_cost_sample_is_decided_by_the_hour_of_the_rules_own_zone():
    """
    21:30 in UTC is 22:30 in Berlin: night has begun there.
    """
    recorded = SAVINGS["Recorded"].of_row
    row = dict(zip(SAVINGS["COLUMNS"], ("2026-11-24T21:30:00Z", "3", "", "task-1", "0", "10", "0", "1"), strict=True))
    assert list(await SAVINGS["replay"](SAVINGS["RULES"], [recorded(row)])) == [
        ("hour >= 22 or hour <= 6", "deepseek/deepseek-chat")
    ]


@pytest.mark.parametrize("rules", [0, 200])
async def test_decisions_over_a_large_catalog_are_timed(rules, capsys):
    """
    Every call is decided, with and without rules. How long it takes is for a machine of its own to say.
    """
    found = await DECISION["measure"](20, 50, 40, rules=rules)
    p99_ms = DECISION["print_found"]("small", found)
    assert [len(times.cpu_ms) for times in found.values()] == [20, 40]
    assert p99_ms > 0
    assert "any later one" in capsys.readouterr().out

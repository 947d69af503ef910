"""
200 calls at once, over HTTP, against limits that let some of them in: on one daemon, and on two that share a ledger.

Law: what a strict limit counts never passes its cap, whatever answers take within their bounds. The others are told the truth.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from caller_kit import INPUT_NUSD, MAX_TOKENS, OUTPUT_NUSD, asked, budget_toml, model_toml
from fleet_kit import VENDORS, open_fleet
from laws_kit import check_caps, check_laws, read_disk, taken_of, us

from quota_router.simulator import Refusal, Reply

CALLS = 200
DAEMONS = {"sqlite": 1, "postgres": 2}
CAPS = {"usd": "0.0237", "tokens": "7_777", "requests": "73"}
"""No multiple of what one call may take."""
ALLOWED = {"usd": 23_700_000, "tokens": 7_777, "requests": 73}
ANSWERS_NEEDED = 20
LEARNED = Reply(input_tokens=10, output_tokens=5, times=None)
BOUNDED_CAP_NUSD = 3_000_000

DELIVERIES = ("whole", "stream")
CATALOG = "".join(
    model_toml(name, dialect) + budget_toml(name, f"model:{name}", unit, CAPS[unit].replace("_", ""), window="year")
    for unit in CAPS
    for dialect in VENDORS
    for name in (f"{unit}-{dialect}-{delivery}" for delivery in DELIVERIES)
)
CATALOG += model_toml("learning", "openai")
CATALOG += budget_toml("learning", "label:capped", "usd", "0.003", window="year", enforcement="bounded")
CATALOG += "".join(
    model_toml(name, "openai") + budget_toml(name, f"model:{name}", "usd", "0.01", window="year") for name in ("waves", "failing")
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory, module_database):
    async with open_fleet(tmp_path_factory.mktemp("fleet"), CATALOG, many=DAEMONS[module_database]) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared):
    """The daemons, and an upstream that answers as it should."""
    shared.sim.reset()
    return shared


def bound_of(unit, model, *, stream=False):
    """What one call may take at most: every byte of its body a token, and its own output cap."""
    read = len(asked(model, stream=stream))
    return {"usd": read * INPUT_NUSD + MAX_TOKENS * OUTPUT_NUSD, "tokens": read + MAX_TOKENS, "requests": 1}[unit]


def check(fleet):
    """Every law, on disk."""
    found, now = read_disk(fleet.folder), us(datetime.now(UTC))
    check_laws(found, now)
    check_caps(found, now)
    return found


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("dialect", VENDORS)
@pytest.mark.parametrize("unit", CAPS)
async def test_of_200_calls_at_once_exactly_those_that_fit_reach_the_upstream(fleet, unit, dialect, delivery):
    """
    Also when each answer takes all that its bound allows.
    """
    model, stream = f"{unit}-{dialect}-{delivery}", delivery == "stream"
    bound = bound_of(unit, model, stream=stream)
    fits = ALLOWED[unit] // bound
    sent = len(asked(model, stream=stream))
    fleet.sim.script(None, Reply(input_tokens=sent, output_tokens=MAX_TOKENS, times=None))
    told = await asyncio.gather(*(fleet.ask(n, dialect, model, stream=stream) for n in range(CALLS)))

    assert Counter(answer.status for answer in told) == {200: fits, 429: CALLS - fits}
    assert fleet.arrived(model) == fits
    for answer in (answer for answer in told if answer.status == 429):
        assert answer.error["code"] == "insufficient_quota"
        assert answer.error["type"] == {"openai": "insufficient_quota", "anthropic": "rate_limit_error"}[dialect]
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["x-should-retry"] == "false"
        (rung,) = answer.error["rungs"]
        assert (rung["reason"], rung["detail"]["limit"], rung["detail"]["needed"]) == ("over_budget", model, bound)
        assert rung["detail"]["posted"] + rung["detail"]["held"] + bound > rung["detail"]["cap"] == ALLOWED[unit]
        assert rung["detail"]["posted"] + rung["detail"]["held"] <= ALLOWED[unit]
    check(fleet)
    shown = [limits[model] for limits in await fleet.limits()]
    assert [(limit["posted"], limit["held"]) for limit in shown] == [(fits * bound, 0)] * len(fleet.daemons)


async def test_what_answers_leave_is_used_again_until_nothing_more_fits(fleet):
    """
    Wave after wave: each call holds its bound and takes less, so that more go in later, and never too many.
    """
    model, sent, waves = "waves", len(asked("waves")), 0
    fleet.sim.script(None, *(Reply(input_tokens=1 + n * 7 % sent, output_tokens=n % MAX_TOKENS) for n in range(CALLS)))
    while True:
        told = await asyncio.gather(*(fleet.ask(n, "openai", model) for n in range(30)))
        check(fleet)
        if all(answer.status == 429 for answer in told):
            break
        waves += 1
    (limit,) = {(limits[model]["posted"], limits[model]["held"]) for limits in await fleet.limits()}
    assert limit[1] == 0
    assert 10_000_000 - bound_of("usd", model) < limit[0] <= 10_000_000
    assert waves > 1


async def test_what_fails_upstream_gives_back_what_it_held(fleet):
    """
    Two of three calls are refused there: they cost nothing, and the next ones take their place.
    """
    model, sent = "failing", len(asked("failing"))
    fits = 10_000_000 // bound_of("usd", model)
    whole = Reply(input_tokens=sent, output_tokens=MAX_TOKENS)
    mistake = Refusal(status=422, code="invalid_value")
    fleet.sim.script(None, *([mistake, mistake, whole] * CALLS))
    answered = 0
    while answered < fits:
        told = await asyncio.gather(*(fleet.ask(n, "openai", model) for n in range(12)))
        answered += sum(answer.status == 200 for answer in told)
        assert {answer.status for answer in told} <= {200, 422, 429}
        check(fleet)
    assert answered == fits
    assert {(await fleet.ask(n, "openai", model)).status for n in range(2)} == {429}


async def test_a_bounded_limit_is_passed_by_no_more_than_its_calls_took_beyond_their_holds(fleet):
    """
    It holds what all but one answer in twenty took. Then 200 at once take ten times that: they pass it by the difference alone.
    """
    model, bound = "learning", bound_of("usd", "learning")
    fleet.sim.script(None, LEARNED)
    taught = [await fleet.ask(n, "openai", model) for n in range(ANSWERS_NEEDED * len(fleet.daemons))]
    assert {answer.status for answer in taught} == {200}
    fleet.sim.reset()
    fleet.sim.script(None, Reply(input_tokens=len(asked(model)), output_tokens=MAX_TOKENS, first_byte_delay_s=0.2, times=None))
    told = await asyncio.gather(*(fleet.ask(n, "openai", model, x_quota_router_labels="capped") for n in range(CALLS)))

    found = check(fleet)
    (limit,) = (row for row in found.limits if row["name"] == model)
    taken, overrun = taken_of(found, limit, us(datetime.now(UTC)))
    let_in = Counter(answer.status for answer in told)[200]
    assert min(answer.error["rungs"][0]["detail"]["needed"] for answer in told if answer.status == 429) < bound / 2
    assert BOUNDED_CAP_NUSD < taken <= BOUNDED_CAP_NUSD + overrun
    assert taken == let_in * bound
    assert fleet.arrived(model) == let_in < CALLS

"""
What a provider says no with, over real sockets and on a clock that the tests move: how long its rung is left alone, and how far.

Law: a said time is believed to the second, a senseless one not at all; what the caller did wrong himself never cools a rung.
"""

import json
from datetime import timedelta

import pytest
import pytest_asyncio
from between_kit import ASKED, SAID, SERVER, model_toml, open_between
from ledger_kit import Clock

from quota_router.core.health import ASSUMED_COOLDOWN_MAX_S, ASSUMED_COOLDOWN_MIN_S, BREAKER_FAILURES, CooldownSource, FailureKind
from quota_router.simulator import Refusal

FIRST = {"chat": "chat-1", "messages": "messages-1"}
SECOND = {"chat": "chat-2", "messages": "messages-2"}
ASSUMED, ASKED_FOR = CooldownSource.ASSUMED, CooldownSource.SAID


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    clock = Clock()
    more = model_toml("chat-too", "chat-1", "chat-2") + model_toml("only", "chat-1")
    more += model_toml("longer", "chat-2") + "context_tokens = 1_000_000\n" + model_toml("short", "chat-1")
    more += 'context_tokens = 1_000\nfallbacks = ["longer"]\n'
    async with open_between(tmp_path_factory.mktemp("refusals"), server=SERVER, more=more, clock=clock) as between:
        yield between, clock


@pytest.fixture
def clock(shared):
    return shared[1]


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing. Its clock only goes forward."""
    shared[0].forget()
    shared[1].forward(days=2)
    return shared[0]


pytestmark = pytest.mark.asyncio(loop_scope="module")
dialects = pytest.mark.parametrize("dialect", ["chat", "messages"])


async def ask(between, model, **how):
    return await between.send("/v1/chat/completions", json.dumps({"model": model, "messages": SAID, "max_tokens": 50}), **how)


async def standing(between, dialect):
    """What stands on the first rung of a dialect: of its model, and of its whole provider."""
    return await between.cooldown(FIRST[dialect], dialect), await between.cooldown(FIRST[dialect])


# --- 429 --------------------------------------------------------------------------------------------------------------


@dialects
async def test_f19_a_rung_is_left_alone_until_the_second_that_was_said(between, clock, dialect):
    between.script(FIRST[dialect], Refusal(status=429, retry_after=7_200))
    assert (await between.ask(dialect)).ours("provider") == SECOND[dialect]
    of_model, of_provider = await standing(between, dialect)
    assert (of_model.until, of_model.source, of_provider) == (clock() + timedelta(hours=2), ASKED_FOR, None)
    clock.forward(seconds=7_199)
    assert (await between.ask(dialect)).ours("skipped") == f"{FIRST[dialect]}=cooldown"
    clock.forward(seconds=1)
    told = await between.ask(dialect)
    assert (told.ours("provider"), told.ours("skipped")) == (FIRST[dialect], None)
    assert await standing(between, dialect) == (None, None)


async def test_f19_a_busy_minute_of_one_model_is_none_of_another(between):
    between.script("chat-1", Refusal(status=429, retry_after=60))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    assert (await ask(between, "chat-too")).ours("provider") == "chat-1"


async def test_f19_where_nobody_is_left_the_soonest_moment_is_told_unclamped(between, clock):
    """
    A lone rung that said when is not asked again before, however often the caller does.
    """
    between.script("chat-1", Refusal(status=429, retry_after=40_000))
    for passed_s in (0, 1_000):
        clock.forward(seconds=passed_s)
        told = await ask(between, "only")
        assert (told.status, told.headers["x-should-retry"]) == (429, "false")
        assert told.headers["Retry-After"] == str(40_000 - passed_s)
        assert told.json["error"]["retry_after_s"] == 40_000 - passed_s
    assert len(between.sim.requests) == 1


async def test_f20_without_a_word_the_wait_is_drawn_and_its_bound_doubles(between, clock):
    bound_s = 30
    for failures in range(1, 7):
        between.script("chat-1", Refusal(status=429))
        told = await between.ask("chat")
        assert (told.ours("provider"), told.ours("attempts")) == ("chat-2", "2")
        cooldown, _ = await standing(between, "chat")
        assert (cooldown.failures, cooldown.strikes, cooldown.source) == (failures, 0, ASSUMED)
        assert ASSUMED_COOLDOWN_MIN_S <= (cooldown.until - clock()).total_seconds() <= bound_s
        clock.now = cooldown.until
        bound_s = min(2 * bound_s, ASSUMED_COOLDOWN_MAX_S)


ABSURD = {
    "F21 ages": {"retry-after": "9999999999"},
    "F21 negative": {"retry-after": "-5"},
    "F21 no number": {"retry-after": "NaN"},
    "F21 infinite": {"retry-after": "inf"},
    "F21 exponent": {"retry-after": "1e9"},
    "F21 digits of elsewhere": {"retry-after": "\u0661\u0662"},
    "F21 1970": {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"},
    "F21 2099": {"retry-after": "Fri, 30 Jan 2099 00:00:00 GMT"},
    "F21 no date": {"retry-after": "soon"},
    "F21 empty": {"retry-after": ""},
    "F21 ages in ms": {"retry-after-ms": "99999999999999"},
    "F21 both kinds": {"retry-after": "9999999999", "retry-after-ms": "-1"},
}
SENSIBLE = {
    "F21 ms before s": ({"retry-after": "9999999999", "retry-after-ms": "2500"}, 2.5),
    "F21 s where ms is none": ({"retry-after": "90", "retry-after-ms": "NaN"}, 90),
    "F21 hours": ({"retry-after": "18000"}, 18_000),
    "F21 a week": ({"retry-after": "604800"}, 604_800),
}


@pytest.mark.parametrize("said", ABSURD)
async def test_a_time_that_makes_no_sense_was_not_said(between, clock, said):
    between.script("chat-1", Refusal(status=429, headers=ABSURD[said]))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    cooldown, _ = await standing(between, "chat")
    assert cooldown.source is ASSUMED
    assert clock() < cooldown.until <= clock() + timedelta(seconds=30)
    clock.now = cooldown.until
    assert (await between.ask("chat")).ours("provider") == "chat-1"


@pytest.mark.parametrize("said", SENSIBLE)
async def test_a_time_that_makes_sense_is_believed_whole(between, clock, said):
    headers, wait_s = SENSIBLE[said]
    between.script("chat-1", Refusal(status=429, headers=headers))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    cooldown, _ = await standing(between, "chat")
    assert (cooldown.source, cooldown.until) == (ASKED_FOR, clock() + timedelta(seconds=wait_s))


# --- 5xx --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_f22_a_rung_that_is_down_costs_five_failing_calls_and_then_one_in_an_interval(between, clock, status):
    """
    An hour of a call every twenty seconds. The breaker waits half its bound at least, and its bound is 300 s (overloaded: 60 s).
    """
    between.script("chat-1", Refusal(status=status, times=None))
    failing, opened_at, began = [], None, clock()
    for _ in range(180):
        told = await between.ask("chat")
        assert (told.status, told.ours("provider")) == (200, "chat-2")
        if told.ours("attempts") == "2":
            failing.append(clock())
            cooldown, _ = await standing(between, "chat")
            if len(failing) == BREAKER_FAILURES:
                assert cooldown.is_open
                opened_at = clock()
        clock.forward(seconds=20)
    assert opened_at is not None
    first_s, longest_s = (10, 60) if status == 503 else (5, 300)
    probes = failing[BREAKER_FAILURES:]
    waits_s = [(later - before).total_seconds() for before, later in zip(failing[BREAKER_FAILURES - 1 :], probes, strict=False)]
    bounds_s = [min(first_s * 2**number, longest_s) for number in range(BREAKER_FAILURES - 1, BREAKER_FAILURES - 1 + len(waits_s))]
    assert all(wait_s >= bound_s / 2 for wait_s, bound_s in zip(waits_s, bounds_s, strict=True))
    assert len(between.seen("chat-1")) == len(failing) <= BREAKER_FAILURES + 3_600 / (min(bounds_s) / 2)
    assert clock() - began == timedelta(hours=1)


async def test_f22_a_rung_that_is_well_again_takes_all_calls_after_one_probe(between, clock):
    between.script("chat-1", Refusal(status=500, times=BREAKER_FAILURES))
    while (cooldown := (await standing(between, "chat"))[0]) is None or not cooldown.is_open:
        assert (await between.ask("chat")).ours("provider") == "chat-2"
        clock.now = max(clock.now, (await standing(between, "chat"))[0].until)
    clock.now = cooldown.until
    for _ in range(3):
        told = await between.ask("chat")
        assert (told.ours("provider"), told.ours("attempts")) == ("chat-1", "1")
    assert await standing(between, "chat") == (None, None)


@dialects
async def test_f23_an_overloaded_vendor_is_left_alone_for_seconds_and_his_key_is_good(between, clock, dialect):
    between.script(FIRST[dialect], Refusal(status=529))
    assert (await between.ask(dialect)).ours("provider") == SECOND[dialect]
    of_model, of_provider = await standing(between, dialect)
    assert (of_model.cause, of_model.strikes, of_provider) == (FailureKind.OVERLOADED, 1, None)
    assert of_model.until <= clock() + timedelta(seconds=10)
    if dialect == "chat":
        assert (await ask(between, "chat-too")).ours("provider") == "chat-1"


# --- keys, purses, and the caller's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
async def test_f24_a_refused_key_is_left_alone_for_ten_minutes_with_all_its_models(between, clock, status):
    """
    Not by a breaker: its upstream is up.
    """
    between.script("chat-1", Refusal(status=status))
    told = await between.ask("chat")
    assert (told.ours("provider"), told.ours("skipped")) == ("chat-2", "chat-1=auth_failed")
    for model in ("chat", "chat-too"):
        assert (await ask(between, model)).ours("skipped") == "chat-1=auth_failed"
    refused = await ask(between, "only")
    assert (refused.status, refused.headers["Retry-After"], refused.headers["x-should-retry"]) == (503, "600", "false")
    cooldown = await between.cooldown("chat-1")
    assert (cooldown.until, cooldown.strikes) == (clock() + timedelta(minutes=10), 0)
    assert len(between.seen("chat-1")) == 1
    clock.now = cooldown.until
    assert (await between.ask("chat")).ours("provider") == "chat-1"


async def test_f25_a_model_that_the_upstream_does_not_know_is_the_operators_fault(between):
    """
    The next rung answers; other models of the provider are well.
    """
    between.script("chat-1", Refusal(status=404, code="model_not_found"))
    told = await between.ask("chat")
    assert (told.status, told.ours("provider")) == (200, "chat-2")
    assert (await between.ask("chat")).ours("skipped") == "chat-1=cooldown"
    assert (await ask(between, "chat-too")).ours("provider") == "chat-1"


async def test_f25_another_404_is_the_callers(between):
    between.script("chat-1", Refusal(status=404, code="thing_not_found", message="No such thing: x"))
    told = await between.ask("chat")
    assert (told.status, told.json["error"]["code"], told.ours("attempts")) == (404, "thing_not_found", "1")
    assert await standing(between, "chat") == (None, None)


async def test_f25_a_context_that_is_too_long_goes_to_who_takes_more_and_nowhere_else(between):
    refusal = Refusal(status=400, code="context_length_exceeded", message="prompt is too long: 9 tokens > 8 maximum")
    between.script("chat-1", refusal)
    told = await ask(between, "short")
    assert (told.status, told.ours("provider"), told.ours("model")) == (200, "chat-2", "longer")
    between.script("chat-1", refusal)
    told = await between.ask("chat")
    assert (told.status, told.json["error"]["code"]) == (400, "context_length_exceeded")
    assert await standing(between, "chat") == (None, None)


async def test_f26_an_empty_purse_is_left_alone_for_a_quarter_of_an_hour_with_all_that_it_pays_for(between, clock):
    between.script("chat-1", Refusal(status=402))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    for model in ("chat", "chat-too"):
        assert (await ask(between, model)).ours("skipped") == "chat-1=cooldown"
    refused = await ask(between, "only")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "900")
    cooldown = await between.cooldown("chat-1")
    assert (cooldown.cause, cooldown.until) == (FailureKind.BILLING, clock() + timedelta(minutes=15))
    clock.now = cooldown.until
    assert (await between.ask("chat")).ours("provider") == "chat-1"


async def test_f25_what_the_caller_has_to_mend_says_nothing_of_a_rung_that_was_in_trouble(between, clock):
    """
    The probe is given back: the next call may try.
    """
    between.script("chat-1", Refusal(status=429, retry_after=60))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    clock.forward(seconds=60)
    between.script("chat-1", Refusal(status=400))
    assert (await between.ask("chat")).status == 400
    told = await between.send(*_path_and_body("chat"))
    assert (told.status, told.ours("provider")) == (200, "chat-1")


def _path_and_body(dialect):
    path, asked = ASKED[dialect]
    return path, json.dumps(asked)

"""
What upstreams tell of their windows, over real sockets and on a clock that the tests move: told late, wrongly, or by another clock.

Law: what an answer's head tells counts for the very next decision; a lie in our favour has to be told three times; what is old says
nothing in favour of anybody.
"""

import json
from datetime import timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio
from between_kit import INPUT_NUSD, SAID, SERVER, model_toml, open_between
from daemon_kit import get, provider_toml
from ledger_kit import Clock

from quota_router.core.health import CooldownSource
from quota_router.core.readings import PPM, ReadingUnit, Said
from quota_router.simulator import Refusal, Reply
from quota_router.store.observing import Observe

WEEK_S = 7 * 24 * 3600
STALE_S = 900


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    clock = Clock()

    def more(port: int) -> str:
        quota = '[[providers.counted.quotas]]\nunit = "requests"\nlimit = 3\nwindow = "5h"\nanchor = "first_use"\n'
        counted = provider_toml("counted", f"http://127.0.0.1:{port}/v1", more=quota)
        return counted + model_toml("counted", "counted", "chat-2")

    server = f"{SERVER}stale_after_s = {STALE_S}\n"
    folder = tmp_path_factory.mktemp("readings")
    async with open_between(folder, server=server, more=more, keys={"KEY_COUNTED": "chat-1"}, clock=clock) as between:
        yield between, clock


@pytest.fixture
def clock(shared):
    return shared[1]


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing; two weeks later, so that every window is over."""
    shared[0].forget()
    shared[1].forward(days=14)
    return shared[0]


pytestmark = pytest.mark.asyncio(loop_scope="module")


def unified(
    clock, used: float, *, window: str = "5h", resets_in_s: float = 7_200, ahead_s: float = 0, **more: str
) -> dict[str, str]:
    """The head of a subscription's answer, whose vendor's clock is *ahead_s* ahead of ours."""
    sent = clock() + timedelta(seconds=ahead_s)
    claim = f"anthropic-ratelimit-unified-{window}"
    resets_at = round((sent + timedelta(seconds=resets_in_s)).timestamp())
    return {
        "date": format_datetime(sent, usegmt=True),
        f"{claim}-utilization": str(used),
        f"{claim}-reset": str(resets_at),
        f"{claim}-status": "allowed",
    }


async def polled(
    between, clock, provider, *, used: float, resets_in_s: float | None = 7_200, source="poller:x", unit=ReadingUnit.SHARE
):
    """As if an endpoint had told this of a provider's account."""
    said = Said(
        window="5h",
        unit=ReadingUnit.SHARE,
        share_ppm=round(used * PPM),
        observed_at=clock(),
        resets_at=None if resets_in_s is None else clock() + timedelta(seconds=resets_in_s),
    )
    await between.daemon.lane.run(Observe(provider=provider, account=provider, source="poller:x", said=(said,)))


async def ask(between, model="chat", **how):
    return await between.send("/v1/chat/completions", json.dumps({"model": model, "messages": SAID, "max_tokens": 50}), **how)


# --- what heads tell ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_used_the_last_of_a_window_is_the_last_one_there(between, clock, stream):
    """
    The very next decision knows. At the window's end the rung is back.
    """
    between.script("messages-1", Reply(headers=unified(clock, 1.0)))
    told = await between.ask("messages", stream=stream)
    assert (told.status, told.ours("provider")) == (200, "messages-1")
    for _ in range(2):
        told = await between.ask("messages", stream=stream)
        assert (told.ours("provider"), told.ours("skipped")) == ("messages-2", "messages-1=quota_exhausted")
    clock.forward(seconds=7_200)
    assert (await between.ask("messages", stream=stream)).ours("provider") == "messages-1"


async def test_of_two_windows_the_one_that_is_empty_binds(between, clock):
    heads = unified(clock, 0.2) | unified(clock, 1.0, window="7d", resets_in_s=100_000)
    between.script("messages-1", Reply(headers=heads))
    assert (await between.ask("messages")).ours("provider") == "messages-1"
    clock.forward(seconds=7_200)  # the short one is over
    refused = await between.ask("messages", x_quota_router_provider="messages-1")
    (rung,) = [rung for rung in refused.json["error"]["rungs"] if rung["provider"] == "messages-1"]
    assert (refused.status, rung["reason"], rung["detail"]["window"]) == (429, "quota_exhausted", "7d")
    assert refused.headers["Retry-After"] == str(100_000 - 7_200)


async def test_a_window_of_one_model_says_nothing_of_another(between, clock):
    between.script("messages-1", Reply(headers=unified(clock, 1.0, window="7d_opus")))
    assert (await between.ask("messages")).ours("provider") == "messages-1"
    assert (await between.ask("messages")).ours("provider") == "messages-1"


async def test_a_refusal_that_brings_the_reading_needs_no_second_call(between, clock):
    head = unified(clock, 1.0, resets_in_s=3_000) | {"anthropic-ratelimit-unified-5h-status": "rejected"}
    between.script("messages-1", Refusal(status=429, headers=head))
    assert (await between.ask("messages")).ours("provider") == "messages-2"
    clock.forward(seconds=2_999)
    assert (await between.ask("messages")).ours("provider") == "messages-2"
    clock.forward(seconds=1)
    assert (await between.ask("messages")).ours("provider") == "messages-1"


# --- hints beyond the window --------------------------------------------------------------------------------------------


async def test_seven_days_said_on_a_window_of_five_hours_end_with_the_window(between, clock):
    """
    Known from the vendor's own headers.
    """
    between.script("messages-1", Refusal(status=429, retry_after=WEEK_S, headers=unified(clock, 1.0, resets_in_s=7_200)))
    assert (await between.ask("messages")).ours("provider") == "messages-2"
    clock.forward(seconds=7_199)
    assert (await between.ask("messages")).ours("provider") == "messages-2"
    clock.forward(seconds=1)
    told = await between.ask("messages")
    assert (told.ours("provider"), told.ours("attempts")) == ("messages-1", "1")
    assert len(between.seen("messages-1")) == 2


async def test_seven_days_said_on_a_quota_of_five_hours_that_we_count_end_with_it(between, clock):
    """
    Known from the operator: the window began with its first use.
    """
    assert (await ask(between, "counted")).ours("provider") == "counted"
    clock.forward(hours=1)
    between.script("chat-1", Refusal(status=429, retry_after=WEEK_S))
    assert (await ask(between, "counted")).ours("provider") == "chat-2"
    clock.forward(hours=4, seconds=-1)
    assert (await ask(between, "counted")).ours("skipped") == "counted=cooldown"
    clock.forward(seconds=1)
    assert (await ask(between, "counted")).ours("provider") == "counted"


async def test_a_bucket_that_is_nearly_full_does_not_shorten_what_was_said(between, clock):
    """
    It tells when it will be full again, which is no window's end: an hour that was said is an hour.
    """
    head = {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "600ms"}
    between.script("chat-1", Refusal(status=429, retry_after=3_600, headers=head))
    assert (await between.ask("chat")).ours("provider") == "chat-2"
    cooldown = await between.cooldown("chat-1", "chat")
    assert (cooldown.source, cooldown.until) == (CooldownSource.SAID, clock() + timedelta(hours=1))


# --- quota endpoints ----------------------------------------------------------------------------------------------------


async def test_f27_an_endpoint_that_falls_silent_is_believed_until_its_word_is_old(between, clock):
    """
    Then nothing is known, and what we count ourselves decides. No call waits for it meanwhile.
    """
    await polled(between, clock, "counted", used=1.0, resets_in_s=None)
    told = await ask(between, "counted")
    assert (told.ours("provider"), told.ours("skipped")) == ("chat-2", "counted=quota_exhausted")
    clock.forward(seconds=STALE_S)
    assert (await ask(between, "counted")).ours("provider") == "chat-2"
    clock.forward(seconds=1)
    for _ in range(3):
        assert (await ask(between, "counted")).ours("provider") == "counted"
    refused = await ask(between, "counted", x_quota_router_provider="counted")
    (rung,) = [rung for rung in refused.json["error"]["rungs"] if rung["provider"] == "counted"]
    assert (refused.status, rung["reason"], rung["detail"]["posted"]) == (429, "quota_exhausted", 3)


async def test_f27_the_last_word_is_kept_with_its_age(between, clock):
    await polled(between, clock, "chat-1", used=0.25)
    clock.forward(seconds=2 * STALE_S)
    assert (await ask(between)).ours("provider") == "chat-1"
    known = (await between.daemon.lane.snapshot()).readings.by_account["chat-1"]
    ((_, window),) = [(key, found) for key, found in known.items() if key[1] == "5h"]
    assert (window.seen.newest.share_ppm, clock() - window.seen.newest.observed_at) == (PPM // 4, timedelta(seconds=2 * STALE_S))
    assert window.seen.is_stale(clock(), STALE_S)


LIES = {
    "F28 a jump down is believed at once": ([0.5, 1.0], False),
    "F28 a jump up is not": ([1.0, 0.1], False),
    "F28 nor said twice": ([1.0, 0.1, 0.1], False),
    "F28 said three times it is": ([1.0, 0.1, 0.1, 0.1], True),
    "F28 a flip and back": ([1.0, 0.1, 1.0], False),
    "F28 flips for ever": ([1.0, 0.1, 0.1, 1.0, 0.1], False),
    "F28 more than all": ([1.5], False),
    "F28 a hundred times more": ([0.5, 150.0], True),
    "F28 negative": ([1.0, -0.5, -0.5, -0.5], False),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_in_our_favour_has_to_be_told_three_times(between, clock, lie):
    shares, is_usable = LIES[lie]
    for share in shares:
        clock.forward(seconds=60)
        await polled(between, clock, "chat-1", used=share)
    assert (await ask(between)).ours("provider") == ("chat-1" if is_usable else "chat-2")


async def test_f28_a_reset_that_has_passed_says_nothing(between, clock):
    await polled(between, clock, "chat-1", used=1.0, resets_in_s=-1)
    assert (await ask(between)).ours("provider") == "chat-1"


async def test_f28_a_429_overrides_whatever_the_endpoint_says(between, clock):
    between.script("chat-1", Refusal(status=429, code="usage_limit_reached"))
    await polled(between, clock, "chat-1", used=0.1)
    assert (await ask(between)).ours("provider") == "chat-2"
    for _ in range(4):
        clock.forward(seconds=60)
        await polled(between, clock, "chat-1", used=0.1)
        assert (await ask(between)).ours("skipped") == "chat-1=cooldown"
    clock.forward(seconds=60)
    assert (await ask(between)).ours("provider") == "chat-1"


# --- clocks -------------------------------------------------------------------------------------------------------------

CLOCKS = {"F29 together": 0, "F29 ahead": 10_800, "F29 behind": -10_800}


@pytest.mark.parametrize("skew", CLOCKS)
async def test_a_reset_by_the_vendors_clock_is_moved_to_ours(between, clock, skew):
    between.script("messages-1", Reply(headers=unified(clock, 1.0, resets_in_s=600, ahead_s=CLOCKS[skew])))
    assert (await between.ask("messages")).ours("provider") == "messages-1"
    clock.forward(seconds=599)
    assert (await between.ask("messages")).ours("provider") == "messages-2"
    clock.forward(seconds=1)
    assert (await between.ask("messages")).ours("provider") == "messages-1"


@pytest.mark.parametrize("skew", CLOCKS)
async def test_a_retry_after_in_dates_is_a_span_by_the_vendors_clock(between, clock, skew):
    sent = clock() + timedelta(seconds=CLOCKS[skew])
    head = {"date": format_datetime(sent, usegmt=True), "retry-after": format_datetime(sent + timedelta(seconds=90), usegmt=True)}
    between.script("chat-1", Refusal(status=429, headers=head))
    assert (await ask(between)).ours("provider") == "chat-2"
    assert (await between.cooldown("chat-1", "chat")).until == clock() + timedelta(seconds=90)


async def test_f29_calls_are_served_and_counted_while_our_own_clock_steps(between, clock):
    """
    Back and forth by half an hour: no rung is opened early, nothing is booked twice, and no later than said a rung is back.
    """
    between.script("chat-1", Refusal(status=429, retry_after=600))
    assert (await ask(between)).ours("provider") == "chat-2"
    until = (await between.cooldown("chat-1", "chat")).until
    clock.forward(minutes=-30)
    told = await ask(between)
    assert (told.status, told.ours("provider"), told.ours("skipped")) == (200, "chat-2", "chat-1=cooldown")
    assert (await between.story(told))["state"] == "done"
    clock.forward(minutes=30)
    assert (await ask(between)).ours("provider") == "chat-2"
    clock.now = until
    told = await ask(between)
    assert told.ours("provider") == "chat-1"
    story = await between.story(told)
    assert story["cost_nusd"] == sum(entry["cost_nusd"] for entry in story["entries"]) > INPUT_NUSD
    assert [limit["held"] for limit in (await get(between.daemon.url, "/api/v1/limits"))["items"]] == [0, 0]

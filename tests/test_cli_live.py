"""`status`, `readings` and `cooldowns`, as somebody reads them who has no time."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from ledger_kit import Clock, SetCooldowns
from plane_kit import TOKENS, open_plane
from poll_kit import NOTICED_S, open_endpoints, poller_toml, provider_toml, soon
from waiting_kit import until

from quota_router.cli import main
from quota_router.cli.output import show_span
from quota_router.core.health import Cooldown, CooldownSource, FailureKind
from quota_router.core.readings import PPM, ReadingUnit, Said
from quota_router.store.observing import Observe

MODEL = '[[models]]\nname = "m"\nattachments = ["claude", "router"]\n'
EMPTY = "nothing was told yet"


@pytest.fixture
def clock():
    return Clock(datetime.now(UTC))


@pytest.fixture
async def vendor():
    async with open_endpoints() as endpoints:
        yield endpoints


@pytest.fixture
async def plane(tmp_path, clock, vendor, monkeypatch):
    for name in [name for name in os.environ if name.startswith("QUOTA_ROUTER_")]:
        monkeypatch.delenv(name)
    catalog = provider_toml("claude", vendor.url) + provider_toml("router", vendor.url) + MODEL
    catalog += poller_toml("router", "key", url=f"{vendor.url}/key", used="/used", unit="usd", window="month", every_s=60)
    async with open_plane(tmp_path, catalog, clock, {"KEY_CLAUDE": "CANARY-a", "KEY_ROUTER": "CANARY-b"}) as plane:
        monkeypatch.setenv("QUOTA_ROUTER_URL", plane.daemon.url)
        monkeypatch.setenv("QUOTA_ROUTER_TOKEN", TOKENS["reader"])
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "cli"))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        yield plane


@pytest.fixture
def command(capsys, plane):
    """Run a command beside the daemon, which answers from this loop."""

    def run(arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        assert (ended.value.code, said.err) == (0, "")
        return said.out

    async def command(*arguments):
        return await asyncio.to_thread(run, arguments)

    return command


def row(said, *words):
    """The cells of the one line that begins so."""
    (line,) = [line for line in said.splitlines() if line.split()[: len(words)] == list(words)]
    return " ".join(line.split())


async def tell(plane, *said):
    await plane.daemon.lane.run(Observe(provider="claude", account="claude", source="headers", said=said))


def share(percent, at, window="5h", hours=2.0, **fields):
    return Said(
        window=window,
        unit=ReadingUnit.SHARE,
        observed_at=at,
        share_ppm=round(percent * PPM / 100),
        resets_at=at + timedelta(hours=hours),
        **fields,
    )


async def test_a_house_that_was_told_nothing_says_where_quota_comes_from(command):
    said = await command("status")
    assert row(said, "claude") == "claude ok - openai claude 1"
    assert EMPTY in said
    assert EMPTY in await command("readings")
    assert (await command("cooldowns")).startswith("Nothing cools down")
    assert [json.loads(await command(name, "--json")) for name in ("readings", "cooldowns")] == [[], []]


async def test_status_says_what_is_left_until_when_and_how_old_the_word_is(command, plane, clock):
    at = clock()
    await tell(plane, share(42.31, at), share(93, at, "7d", 100), share(10, at, "7d", 100, model="opus*"))
    await tell(plane, Said(window="month", unit=ReadingUnit.USD, observed_at=at, used=7_500_000_000, limit=10_000_000_000))
    await tell(plane, Said(window="minute", unit=ReadingUnit.REQUESTS, observed_at=at, used=60, limit=1_000))
    clock.forward(seconds=65)
    said = await command("status")
    assert row(said, "claude", "low").startswith("claude low -")
    resets = (at + timedelta(hours=2)).astimezone()
    assert row(said, "claude", "5h", "ok").endswith(f"42.4 % 57.6 % in 1 h 58 min, {resets:%H:%M} - - 1 min 5 s ago, headers")
    resets = (at + timedelta(hours=100)).astimezone()
    assert row(said, "claude", "7d", "*", "low").endswith(
        f"93 % 7 % in 4 d 3 h, {resets:%Y-%m-%d %H:%M} - - 1 min 5 s ago, headers"
    )
    assert "10 % 90 %" in row(said, "claude", "7d", "of")
    assert "75 % $2.5 - -" in row(said, "claude", "month")
    assert "6 % 940 requests - -" in row(said, "claude", "minute")
    whole = json.loads(await command("status", "--json"))
    assert whole["live"] == (await plane.read("/api/v1/status")).body["providers"]
    assert [window["binds"] for window in whole["live"]["claude"]["windows"]].count(True) == 1


async def test_status_says_who_else_uses_a_plan_and_when_it_ends(command, plane, clock):
    """Half a percent a minute: gone before the reset."""
    clock.now -= timedelta(minutes=90)
    end = clock() + timedelta(hours=5)
    for step in range(31):
        at = clock.now
        said = Said(window="5h", unit=ReadingUnit.SHARE, observed_at=at, share_ppm=step * 15_000, resets_at=end)
        await tell(plane, said)
        clock.forward(minutes=3)
    shown = row(await command("status"), "claude", "5h", "*", "ok")
    assert " ± " in shown
    window = json.loads(await command("status", "--json"))["live"]["claude"]["windows"][0]
    assert window["forecast"]["lasts_until_reset"] is False


async def test_an_endpoint_that_fails_is_named_under_the_table(command, plane, vendor, clock):
    vendor.say("/key", (403, {}))
    pollers = plane.daemon.services.pollers
    await until(lambda: soon(lambda: bool(pollers.watched)), NOTICED_S)
    clock.forward(seconds=3)
    await until(lambda: soon(lambda: pollers.watched[0].pulse.cause is not None), NOTICED_S)
    said = await command("status")
    assert "poller:key of router fails (auth_failed, never told anything): The endpoint does not take this credential." in said
    assert row(said, "router") == "router ok - openai router 1"
    assert "CANARY" not in said


async def test_readings_are_a_table(command, plane, clock):
    at = clock()
    await tell(plane, share(42, at), Said(window="month", unit=ReadingUnit.USD, observed_at=at, used=2_000_000_000))
    clock.forward(hours=1)
    said = await command("readings")
    resets = (at + timedelta(hours=2)).astimezone()
    cells = row(said, "claude", "5h")
    assert cells.startswith("claude 5h all - - 42 % - in 1 h 59 min, " + f"{resets:%Y-%m-%d %H:%M:%S}")
    assert cells.endswith("(stale) headers of claude")
    assert "claude month all $2 ? ? - -" in row(said, "claude", "month")
    assert json.loads(await command("readings", "--json")) == (await plane.read("/api/v1/readings")).body["items"]


async def test_cooldowns_are_a_table(command, plane, clock):
    cooled = {"source": CooldownSource.SAID, "cause": FailureKind.QUOTA_WINDOW, "failures": 2}
    until_when = clock() + timedelta(hours=3, seconds=55)
    cooldowns = (Cooldown(provider="claude", model="m", until=until_when, **cooled),)
    await plane.daemon.lane.run(SetCooldowns(cooldowns=cooldowns))
    said = await command("cooldowns")
    when = f"in 3 h, {until_when.astimezone():%Y-%m-%d %H:%M:%S}"
    assert row(said, "claude") == f"claude m cooling {when} quota_window the upstream 2"
    assert json.loads(await command("cooldowns", "--json"))[0]["provider"] == "claude"


@pytest.mark.parametrize(
    ("span_s", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (3_661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_a_span_is_told_by_its_two_largest_units(span_s, text):
    assert show_span(span_s) == text

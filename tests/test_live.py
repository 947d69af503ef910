"""What is left of each subscription, over HTTP: which window binds, how it does, who else uses it, and when it runs out."""

from datetime import datetime, timedelta

import pytest
from ledger_kit import NOON, Clock, SetCooldowns
from plane_kit import open_plane

from quota_router.core.health import Cooldown, CooldownSource, FailureKind, Probe
from quota_router.core.limits import Amounts
from quota_router.core.readings import PPM, ReadingUnit, Said, Status
from quota_router.store.observing import Observe

PROVIDER = """
[providers.{0}]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
account = "{1}"
{2}
"""
CATALOG = (
    PROVIDER.format("plan", "plan", "")
    + PROVIDER.format("careful", "plan", "reserve = 0.3")
    + PROVIDER.format("pausing", "plan", "pause_at = 0.5")
    + PROVIDER.format("pacing", "plan", "pace = true")
    + PROVIDER.format("other", "other", "")
    + """
[[models]]
name = "m"
attachments = ["plan", "careful", "pausing", "pacing", "other"]
[[models]]
name = "big"
attachments = ["plan"]
"""
)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def plane(tmp_path, clock, database):
    async with open_plane(tmp_path, CATALOG, clock) as plane:
        yield plane


async def tell(plane, *said, account="plan", posted=None, source="headers"):
    observe = Observe(provider=account, account=account, source=source, said=said, posted_before=posted)
    await plane.daemon.lane.run(observe)


def share(percent, at=NOON, *, window="5h", resets_at=NOON + 3 * HOUR, **fields):
    return Said(
        window=window,
        unit=ReadingUnit.SHARE,
        observed_at=at,
        share_ppm=round(percent * PPM / 100),
        resets_at=resets_at,
        **fields,
    )


async def provider(plane, name="plan"):
    return (await plane.read("/api/v1/status")).body["providers"][name]


async def windows(plane, name="plan"):
    return {(window["window"], window["model"]): window for window in (await provider(plane, name))["windows"]}


async def word(plane, name="plan"):
    found = await provider(plane, name)
    return found["status"], found["state"]


async def test_a_window_is_shown_with_its_age_its_reset_and_its_source(plane, clock):
    await tell(plane, share(40))
    clock.forward(minutes=2)
    assert await windows(plane) == {
        ("5h", None): {
            "window": "5h",
            "model": None,
            "unit": "share",
            "state": "ok",
            "used": None,
            "limit": None,
            "left": None,
            "share": 0.4,
            "status": None,
            "resets_at": "2026-11-20T15:00:00.000000Z",
            "resets_in_s": 3 * 3600 - 120,
            "observed_at": "2026-11-20T12:00:00.000000Z",
            "age_s": 120,
            "source": "headers",
            "told_by": "plan",
            "stale": False,
            "extra": False,
            "others_share": None,
            "forecast": None,
            "worth": None,
            "binds": True,
        }
    }
    assert (await provider(plane, "other"))["windows"] == []


async def test_the_window_with_the_least_left_binds(plane):
    requests = {"unit": ReadingUnit.REQUESTS, "observed_at": NOON, "refills": True, "resets_at": NOON + timedelta(seconds=30)}
    await tell(
        plane,
        share(40),
        share(70, window="7d", resets_at=NOON + 50 * HOUR),
        share(90, window="7d", resets_at=NOON + 50 * HOUR, model="big*"),
        share(99, window="overage", is_extra=True),
        Said(window="minute", used=1, limit=50, **requests),
    )
    found = await windows(plane)
    assert {key for key, window in found.items() if window["binds"]} == {("7d", None), ("7d", "big*")}
    assert {key: window["state"] for key, window in found.items()} == {
        ("5h", None): "ok",
        ("7d", None): "ok",
        ("7d", "big*"): "ok",
        ("minute", None): "ok",
        ("overage", None): "low",
    }
    minute = found["minute", None]
    assert (minute["used"], minute["limit"], minute["left"], minute["share"]) == (1, 50, 49, 0.02)
    other = await windows(plane, "careful")  # it does not serve `big`
    assert [key for key, window in other.items() if window["binds"]] == [("7d", None)]


@pytest.mark.parametrize(
    ("percent", "told", "careful", "pausing", "pacing"),
    [
        (10, "ok", "ok", "ok", "ok"),
        (49, "ok", "ok", "ok", "paced"),
        (55, "ok", "ok", "paused", "paced"),
        (75, "ok", "reserved", "paused", "paced"),
        (95, "low", "reserved", "paused", "paced"),
        (100, "exhausted", "exhausted", "exhausted", "exhausted"),
        (130, "exhausted", "exhausted", "exhausted", "exhausted"),
    ],
)
async def test_the_more_is_used_the_more_careful_is_the_word(plane, percent, told, careful, pausing, pacing):
    """Two of five hours have passed. What holds calls back makes a provider `limited`, or `exhausted` when nothing is left."""
    await tell(plane, share(percent))
    words = dict(zip(("plan", "careful", "pausing", "pacing"), (told, careful, pausing, pacing), strict=True))
    for name, state in words.items():
        status = "exhausted" if state == "exhausted" else "ok" if state in {"ok", "low"} else "limited"
        assert await word(plane, name) == (status, state), name
        assert [window["state"] for window in (await windows(plane, name)).values()] == [state]
        listed = (await plane.read(f"/api/v1/providers/{name}")).body["status"]
        assert listed == status
    assert (await provider(plane))["usable_at"] == ("2026-11-20T15:00:00.000000Z" if percent >= 100 else None)


async def test_what_is_old_is_marked_and_what_is_over_is_unknown(plane, clock):
    await tell(plane, share(40))
    clock.forward(seconds=901)
    assert await word(plane) == ("ok", "stale")
    clock.forward(hours=3)
    (window,) = (await windows(plane)).values()
    assert (window["state"], window["share"], window["stale"], window["binds"]) == ("unknown", None, True, False)
    assert (window["observed_at"], window["resets_in_s"]) == ("2026-11-20T12:00:00.000000Z", 0)
    assert await word(plane) == ("ok", "unknown")
    (reading,) = (await plane.read("/api/v1/readings")).body["items"]
    assert (reading["share"], reading["stale"]) == (0.4, True)


async def test_a_refused_window_of_one_model_leaves_the_others_alone(plane):
    await tell(plane, share(20), share(20, window="7d", model="big", status=Status.REJECTED))
    assert await word(plane) == ("ok", "ok")
    assert (await windows(plane))["7d", "big"]["state"] == "exhausted"
    models = {item["name"]: item for item in (await plane.read("/api/v1/models")).body["items"]}
    assert [rung["status"] for rung in models["big"]["attachments"]] == ["exhausted"]
    assert models["m"]["attachments"][0]["status"] == "ok"


async def test_the_part_that_others_use_and_the_end_are_foreseen_with_their_error(plane, clock):
    """Five eighths of the growth are ours: others, who use in step with time, have the rest."""
    percent, tokens = 0.0, 0
    for step in range(60):
        clock.forward(minutes=3)
        ours = (500, 1500, 700, 1300)[step % 4]
        tokens, percent = tokens + ours, percent + (ours * 5 + 3_000) * 100 / PPM
        posted = Amounts(cost_nusd=tokens * 1_000, input_tokens=tokens, output_tokens=0, requests=step)
        await tell(plane, share(percent, clock(), resets_at=NOON + 5 * HOUR), posted=posted)
    (window,) = (await windows(plane)).values()
    assert window["others_share"] == pytest.approx(0.375, abs=0.05)
    assert window["worth"]["tokens"] == pytest.approx(PPM / 5, rel=0.05)
    forecast = window["forecast"]
    end = NOON + timedelta(minutes=3) * (100 / (percent / 60))
    earliest, at, latest = (datetime.fromisoformat(forecast[name]) for name in ("earliest", "exhausted_at", "latest"))
    assert abs(at - end) < timedelta(minutes=15)
    assert earliest < at < latest
    assert (forecast["lasts_until_reset"], forecast["points"] > 30) == (True, True)


async def test_money_is_told_as_limits_tell_it(plane):
    """A limit in USD is a text, what is used and left are nano-USD."""
    money = {"unit": ReadingUnit.USD, "observed_at": NOON, "resets_at": NOON + 9 * HOUR}
    await tell(plane, Said(window="month", used=7_500_000_000, limit=10_000_000_000, **money), source="poller:key")
    (window,) = (await windows(plane)).values()
    assert (window["used"], window["limit"], window["left"], window["share"]) == (7_500_000_000, "10", 2_500_000_000, 0.75)
    (reading,) = (await plane.read("/api/v1/readings")).body["items"]
    assert (reading["used"], reading["limit"], reading["share"]) == (7_500_000_000, "10", 0.75)


async def test_readings_are_paged(plane):
    await tell(plane, share(1), share(2, window="7d"), share(3, window="7d", model="big"))
    await tell(plane, share(4), account="other")
    whole = (await plane.read("/api/v1/readings")).body["items"]
    assert [(item["account"], item["window"], item["model"]) for item in whole] == [
        ("other", "5h", None),
        ("plan", "5h", None),
        ("plan", "7d", None),
        ("plan", "7d", "big"),
    ]
    first = (await plane.read("/api/v1/readings?limit=3")).body
    rest = (await plane.read(f"/api/v1/readings?limit=3&cursor={first['next']}")).body
    assert (first["items"] + rest["items"], rest["next"]) == (whole, None)


async def test_cooldowns_are_told_with_their_cause_and_their_end(plane, clock):
    assert (await plane.read("/api/v1/cooldowns")).body == {"items": [], "next": None}
    common = {"source": CooldownSource.SAID, "cause": FailureKind.RATE_LIMITED, "failures": 1}
    broken = {"source": CooldownSource.ASSUMED, "cause": FailureKind.TRANSIENT, "failures": 5, "strikes": 5}
    probe = Probe(hold_id="h", until=NOON + HOUR)
    await plane.daemon.lane.run(
        SetCooldowns(
            cooldowns=(
                Cooldown(provider="careful", model="", until=NOON - HOUR, **common),
                Cooldown(provider="other", model="", until=NOON + HOUR, **broken),
                Cooldown(provider="pausing", model="", until=NOON, probe=probe, **broken),
                Cooldown(provider="plan", model="m", until=NOON + HOUR, **common),
                Cooldown(provider="pacing", model="", until=NOON + HOUR, **common),
            )
        )
    )
    items = (await plane.read("/api/v1/cooldowns")).body["items"]
    assert [(item["provider"], item["model"], item["state"]) for item in items] == [
        ("careful", None, "due"),
        ("other", None, "open"),
        ("pacing", None, "cooling"),
        ("pausing", None, "probing"),
        ("plan", "m", "cooling"),
    ]
    assert items[1] == {
        "provider": "other",
        "model": None,
        "state": "open",
        "until": "2026-11-20T13:00:00.000000Z",
        "source": "assumed",
        "cause": "transient",
        "failures": 5,
        "breaker_open": True,
        "probed_until": None,
    }
    assert items[3]["probed_until"] == "2026-11-20T13:00:00.000000Z"
    assert (await provider(plane, "other"))["cooldowns"] == [items[1]]
    found = {name: await word(plane, name) for name in ("plan", "other", "pacing")}
    assert found == {"plan": ("ok", "ok"), "other": ("down", "down"), "pacing": ("limited", "cooling")}
    assert (await provider(plane, "pacing"))["usable_at"] == "2026-11-20T13:00:00.000000Z"
    clock.forward(hours=26)
    assert (await plane.read("/api/v1/cooldowns")).body["items"] == []

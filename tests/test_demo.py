"""
The demonstration tells the truth: run as a newcomer runs it, and caught when something does not add up.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from quota_router import config, demo
from quota_router.cli.common import CommandFailed
from quota_router.cli.showing import judge
from quota_router.core.pricing import parse_usd_nusd
from quota_router.store.chain import verify_chains
from quota_router.store.open import Durability, open_engines

COMMAND = Path(sys.executable).with_name("quota-router")
TIMEOUT_S = 60
WORK, HOME, PAYG = "claude-work", "claude-home", "pay-as-you-go"


def newcomer(folder):
    """A process with nothing configured, and a variable that our own settings would refuse: the demonstration reads neither."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("QUOTA_ROUTER_")}
    return {**told, "HOME": str(folder), "TMPDIR": str(folder), "QUOTA_ROUTER_NONSENSE": "1"}


def run(folder, *arguments):
    return subprocess.run(  # noqa: S603 -- our own command
        [COMMAND, "demo", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=newcomer(folder)
    )


def test_it_runs_without_anything_and_ends_with_a_plain_sentence(tmp_path):
    said = run(tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    served = re.findall(r"^ +\d+  (\S+)", said.stdout, re.MULTILINE)
    assert served == [WORK] * 4 + [HOME] * 3 + [PAYG] * 6 + ["nobody"]
    assert said.stdout.count("\nok ") == 6
    assert said.stdout.splitlines()[-1].startswith("Everything adds up: 13 calls were answered for $0.")
    assert list(tmp_path.iterdir()) == []


def test_every_figure_follows_from_the_price_list(tmp_path):
    """3 USD per million tokens in, 15 out, as the file says; subscriptions cost nothing and keep what the list would have asked."""
    story = json.loads(run(tmp_path, "--json").stdout)
    assert story["ok"]
    for group in story["usage"]["groups"]:
        listed_nusd = group["input_tokens"] * 3_000 + group["output_tokens"] * 15_000
        is_flat = group["provider"] != PAYG
        assert (group["cost_nusd"], group["shadow_cost_nusd"] if is_flat else listed_nusd) == (
            0 if is_flat else listed_nusd,
            listed_nusd,
        )
    budget = parse_usd_nusd("0.02")
    metered = [call for call in story["calls"] if call["provider"] == PAYG]
    assert [call["left"]["remaining"] for call in metered] == [budget - call["cost_nusd"] * n for n, call in enumerate(metered, 1)]
    turned, refused = metered[0], story["calls"][-1]
    assert (turned["attempts"], turned["skipped"]) == (1, {WORK: "quota_exhausted", HOME: "quota_exhausted"})
    assert (refused["status"], refused["cost_nusd"], refused["retry_after_s"] <= 60) == (429, 0, True)
    assert refused["skipped"] == {WORK: "quota_exhausted", HOME: "quota_exhausted", PAYG: "over_budget"}


def test_kept_up_it_serves_whoever_takes_its_lines(tmp_path):
    """Every quota is used up at that moment, and a decision says so; the model list is there."""
    with subprocess.Popen([COMMAND, "demo", "--keep"], stdout=subprocess.PIPE, text=True, env=newcomer(tmp_path)) as process:  # noqa: S603 -- our own command
        variables = {}
        while "ANTHROPIC_AUTH_TOKEN" not in variables:
            line = process.stdout.readline()
            assert line, "it ended"
            if line.startswith("export "):
                name, value = line.removeprefix("export ").strip().split("=", 1)
                variables[name] = value
        bearer = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
        asked = urllib.request.Request(f"{variables['OPENAI_BASE_URL']}/models", headers=bearer)  # noqa: S310 -- loopback
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:  # noqa: S310 -- likewise
            assert json.load(answer)["data"][0]["id"] == demo.MODEL
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    assert list(tmp_path.iterdir()) == []


async def test_what_does_not_add_up_is_found():
    """An upstream that counts other tokens than it reports, and a line of money that somebody edited."""
    async with demo.open_stage() as stage:
        stage.payg.reset()
        stage.payg.script(None, demo.Reply(usage={"input_tokens": 1, "output_tokens": 2}, times=None))
        story = await demo.play(stage, config.load, lambda _: None)
        wrong = [check.claim for check in story.checks if not check.holds]
        assert (story.is_true, wrong) == (False, ["the upstreams counted the same tokens"])

        with sqlite3.connect(stage.ledger) as ledger:
            for (name,) in ledger.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'entries'"
            ).fetchall():
                ledger.execute(f'DROP TRIGGER "{name}"')
            ledger.execute("UPDATE entries SET cost_nusd = cost_nusd + 1 WHERE seq = 9")
        ledger.close()
        assert await broken_at(stage.ledger) == [9]
        with sqlite3.connect(stage.ledger) as ledger:
            ledger.execute("DELETE FROM entries WHERE seq >= 8")
        ledger.close()
        assert await broken_at(stage.ledger) == [8]


async def broken_at(ledger):
    async with open_engines(f"sqlite+aiosqlite:///{ledger}", Durability.POWER) as engines, engines.read.connect() as conn:
        return [chain.broken_at for chain in await verify_chains(conn)]


def test_a_story_that_is_not_true_ends_with_1():
    """What did not hold is named, with its numbers; a story without checks proves nothing either."""
    lie = demo.Story(checks=[demo.Check(claim="two is three", holds=False, found="2, 3")])
    with pytest.raises(CommandFailed, match=r"two is three \(2, 3\)") as failed:
        judge(lie)
    assert failed.value.exit_code == 1
    with pytest.raises(CommandFailed):
        judge(demo.Story())

"""The sample documents load as they are written, and say what they seem to say."""

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from quota_router.config import load, parse_catalog
from quota_router.core.catalog import Family, OnUnusable, Stage
from quota_router.core.conditions import Facts, ProviderStatus
from quota_router.core.desired import build_catalog
from quota_router.core.pricing import Rates

SAMPLES = Path(__file__).parent / "samples"


def catalog(name):
    return build_catalog(load(SAMPLES / f"{name}.toml", {}).desired)


def ladder(of, model):
    return [(rung.provider, rung.upstream_model) for rung in of.models[model].attachments]


def test_every_sample_is_tested_here():
    here = Path(__file__).read_text()
    assert all(f'catalog("{sample.stem}")' in here for sample in SAMPLES.glob("*.toml"))


def test_row_3_1_providers_are_apis_or_commands_and_share_a_ladder():
    found = catalog("providers")
    anthropic, cli, llm = (found.providers[name] for name in ("anthropic", "claude-cli", "llm"))
    assert (anthropic.enabled, cli.enabled, found.providers["deepseek"].enabled) == (True, True, False)
    assert (anthropic.credential_ref, anthropic.is_command) == ("env:ANTHROPIC_API_KEY", False)
    assert (cli.family, cli.base_url, cli.credential_ref, cli.is_keyless) == (Family.ANTHROPIC, "", "none", True)
    assert cli.command_template == ("claude", "-p", "{prompt_file}", "--model", "{model}", "--output", "{output_file}")
    assert cli.env == (("CLAUDE_CONFIG_DIR", "/home/me/.claude-personal"),)
    assert (llm.family, llm.credential_ref) == (Family.OPENAI, "env:OPENAI_API_KEY")
    assert llm.command_template == ("llm", "-m", "{model}", "--no-stream", "--out", "{output_file}", "{prompt_file}")
    assert ladder(found, "claude-sonnet-4-5") == [("claude-cli", "claude-sonnet-4-5"), ("anthropic", "claude-sonnet-4-5")]


def test_row_3_2_prices_are_exact_and_capabilities_are_kept():
    found = catalog("models").models
    assert found["claude-sonnet-4-5"].price.tiers == ((0, Rates(input_pusd=3_000_000, output_pusd=15_000_000)),)
    assert found["deepseek/deepseek-chat"].price.tiers == ((0, Rates(input_pusd=140_000, output_pusd=280_000)),)
    assert found["claude-opus-4"].capabilities == ("code", "reasoning", "vision", "critical")


FACTS = Facts(priority=1, hour=12, task_id="7", provider_status={"claude-cli": ProviderStatus.OK})


@pytest.mark.parametrize(
    ("facts", "position"),
    [
        ({"priority": 0}, 1),
        ({"labels": ("a", "documentation")}, 2),
        ({"hour": 22}, 3),
        ({"hour": 6}, 3),
        ({"provider_status": {"claude-cli": ProviderStatus.DOWN}}, 4),
        ({"task_id": "20"}, 5),
        ({"retry_count": 2}, 6),
        ({}, None),
        ({"priority": None, "hour": None, "task_id": None, "provider_status": {}}, None),
    ],
)
def test_row_3_3_the_sample_conditions_run_as_they_are_written(facts, position):
    """The first that matches is tried first; what is not known of a call matches nothing."""
    book = catalog("rules").rule_book
    values = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__} | facts
    traces = book.trace(Facts(**values), call_id="c")
    holds = [trace.position for trace in traces if trace.standing != "no_match"]
    assert holds[:1] == ([] if position is None else [position])


def test_row_3_3_rules_carry_what_they_say():
    found = catalog("rules")
    assert (found.default_model, found.timezone) == ("claude-sonnet-4-5", "Europe/Berlin")
    first, *_, share, last = found.rules
    assert (first.model, first.reason, first.on_unusable) == (
        "claude-opus-4",
        "Critical tasks get best model",
        OnUnusable.FALL_THROUGH,
    )
    assert (share.share, last.on_unusable) == (Fraction(1, 2), OnUnusable.REFUSE)
    assert [rule.name for rule in found.rules] == [f"file-{place}" for place in range(1, 7)]


def test_row_3_4_workflows_have_named_stages_each_with_its_model():
    found = catalog("workflows").workflows
    assert [(stage.name, stage.model) for stage in found["standard"].stages] == [
        ("plan", "claude-haiku-4"),
        ("implement", "claude-sonnet-4-5"),
        ("review", "claude-haiku-4"),
    ]
    assert found["quick"].find_stage("all") == Stage(name="all", model="claude-haiku-4")
    assert found["quick"].find_stage("plan") is None


def test_row_1_1_a_pool_reuses_the_providers_and_their_credentials():
    found = catalog("pool")
    assert found.default_model == "default"
    assert ladder(found, "default") == [
        ("claude-work", "claude-sonnet-4-5-20250929"),
        ("claude-home", "claude-sonnet-4-5"),
    ]
    assert [found.providers[rung.provider].credential_ref for rung in found.models["default"].attachments] == [
        "env:CLAUDE_WORK_KEY",
        "env:CLAUDE_HOME_KEY",
    ]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_sample_has_no_key_of_its_own(sample):
    """Threat S7: what is copied from an example never signs a call."""
    text = sample.read_text()
    assert tomllib.loads(text)
    assert "sk-" not in text


def test_row_3_9_the_chapter_on_fallback_shows_a_file_that_loads():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    chapter = readme.partition("## Fallback\n")[2].partition("\n## ")[0]
    text = chapter.partition("```toml\n")[2].partition("```")[0]
    found = build_catalog(parse_catalog(text, "README"))
    assert ladder(found, "claude-sonnet-4-5") == [("work", "claude-sonnet-4-5"), ("home", "claude-sonnet-4-5")]
    assert {rung.priority for rung in found.models["claude-sonnet-4-5"].attachments} == {0}

"""A LiteLLM proxy's configuration becomes ours, and what does not is said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_router.cli.common import Exit
from quota_router.cli.litellm import convert
from quota_router.config import parse_catalog
from quota_router.core.desired import build_catalog
from quota_router.core.toml_text import write_toml

SAMPLE = Path(__file__).parent / "samples" / "litellm.yaml"


def test_a_file_is_converted_and_loads(home, command):
    said = command("import", "litellm", str(SAMPLE))
    catalog = build_catalog(parse_catalog(said.stdout, "imported"))
    assert said.returncode == Exit.OK
    assert {name: (p.base_url, p.credential_ref, p.network) for name, p in catalog.providers.items()} == {
        "openai": ("https://api.openai.com/v1", "env:OPENAI_API_KEY", "public"),
        "azure": ("https://res.openai.azure.com/openai/v1", "env:AZURE_OPENAI_API_KEY", "public"),
        "openai-2": ("https://api.openai.com/v1", "env:OPENAI_SECOND_KEY", "public"),
        "anthropic": ("https://api.anthropic.com", "env:CLAUDE_KEY", "public"),
        "openrouter": ("https://openrouter.ai/api/v1", "env:OPENROUTER_API_KEY", "public"),
        "ollama": ("http://192.168.1.5:11434/v1", "none", "private"),
    }
    ladders = {
        name: [(r.provider, r.priority, r.upstream_model, r.weight) for r in m.attachments] for name, m in catalog.models.items()
    }
    assert ladders == {
        "gpt-4o": [("openai", 0, "gpt-4o", 3), ("azure", 0, "my-deployment", 1), ("openai-2", 1, "gpt-4o", 1)],
        "claude-sonnet": [("anthropic", 0, "claude-sonnet-4-5", 1)],
        "claude-sonnet-openai": [("openrouter", 0, "anthropic/claude-sonnet-4.5", 1)],
        "local": [("ollama", 0, "qwen3", 1)],
    }
    gpt, claude = catalog.models["gpt-4o"], catalog.models["claude-sonnet"]
    assert (gpt.strategy, gpt.aliases, gpt.fallbacks) == ("least_used", ("gpt-4",), ("claude-sonnet",))
    assert (claude.context_tokens, claude.max_output_tokens) == (200_000, 64_000)
    rates = claude.attachments[0].price.tiers[0][1]
    assert (rates.input_pusd, rates.output_pusd) == (3_000_000, 15_000_000)
    assert {limit.name: (limit.subject, limit.unit, limit.limit, limit.window) for limit in catalog.limits} == {
        "gpt-4o-openai-rpm": ("attachment:gpt-4o/openai", "requests", 480, "1m"),
        "gpt-4o-openai-tpm": ("attachment:gpt-4o/openai", "tokens", 100_000, "1m"),
        "gpt-4o-azure-parallel": ("attachment:gpt-4o/azure", "concurrency", 4, "forever"),
        "claude-sonnet-anthropic-budget": ("attachment:claude-sonnet/anthropic", "usd", 5_500_000_000, "1d"),
        "litellm-budget": ("everyone", "usd", 100 * 10**9, "month"),
    }
    for part in (
        "'vertex_ai'",
        "'image_generation'",
        "no '*'",
        "environment_variables",
        "drop_params",
        "timeout",
        "nothing",
        "'lost'",
    ):
        assert part in said.stderr
    assert "plain-text-key" not in said.stdout + said.stderr


def test_it_is_written_where_it_is_wanted_and_told_as_json(home, command):
    said = command("import", "litellm", str(SAMPLE), "--path", "mine.toml", "--json")
    told = json.loads(said.stdout)
    assert (told["path"], Path("mine.toml").read_text()) == ("mine.toml", told["text"])
    assert any("master_key" in note for note in told["notes"])
    assert "--force" in command("import", "litellm", str(SAMPLE), "--path", "mine.toml").stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model_list: [", "line 1: the file is not valid YAML."),
        ("!!python/object/apply:os.system ['true']", "line 1: the file is not valid YAML."),
        ("[" * 100_000, "the file is not valid YAML."),
        ("a: 1", "has no model_list"),
        ("- 1", "has no model_list"),
        ("", "has no model_list"),
    ],
)
def test_a_file_that_is_none_is_said_in_a_sentence(home, command, text, says):
    Path("config.yaml").write_text(text)
    said = command("import", "litellm", "config.yaml")
    assert (said.returncode, said.stdout) == (Exit.BAD_CONFIG, "")
    assert says in said.stderr
    assert command("import", "litellm", "missing.yaml").returncode == Exit.BAD_CONFIG


def test_without_the_extra_it_says_which_package_to_add(home):
    copy = Path("config.yaml")
    copy.write_text(SAMPLE.read_text())
    code = "import sys; sys.modules['yaml'] = None; from quota_router.cli import main; main(['import', 'litellm', 'config.yaml'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 -- our own words
    assert (said.returncode, said.stdout) == (Exit.FAILURE, "")
    assert said.stderr == "Reading YAML takes one more package: run `pip install 'quota-router[litellm]'`, then this again.\n"


KEYS = st.sampled_from(
    [
        "model_name",
        "litellm_params",
        "model_info",
        "model",
        "api_key",
        "api_base",
        "order",
        "weight",
        "rpm",
        "max_budget",
        "mode",
        "budget_duration",
        "input_cost_per_token",
        "output_cost_per_token",
        "fallbacks",
        "model_group_alias",
        "gpt",
        "x",
    ]
)
WORDS = st.sampled_from(["openai/gpt", "claude-3", "azure/x", "gpt", "os.environ/K", "https://h.example", "1d", "http://[", ""])
SCALARS = st.none() | st.booleans() | st.integers(-2, 10**20) | WORDS | st.decimals() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=4), max_leaves=12
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "model_list": st.lists(
                st.fixed_dictionaries({"model_name": WORDS | VALUES, "litellm_params": st.dictionaries(KEYS, VALUES, max_size=8)})
                | VALUES,
                max_size=4,
            )
        },
        optional={"router_settings": VALUES, "litellm_settings": VALUES, "general_settings": VALUES, "x": VALUES},
    )
)
def test_whatever_stands_in_the_file_what_comes_out_loads(config):
    """Nothing breaks, and whatever is made is a file that loads."""
    tables, notes = convert(config)
    build_catalog(parse_catalog(write_toml(tables), "imported"))
    assert all(note.endswith((".", "?")) for note in notes)

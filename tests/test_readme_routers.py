"""The routing patterns of the README, as they stand there: each is loaded as the file would load it, and asked."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import environ, provider_toml, write_config
from routers_kit import ask_one

from quota_router import CatalogView, RouterContext, RoutingRequest, RoutingResult
from quota_router.core.desired import build_catalog
from quota_router.core.routers import AnyRouter, flatten
from quota_router.own_routers import load_routers
from quota_router.simulator import Account, Reply, Simulator

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
CHAPTER = README.partition("\n## Routers of your own\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL)
POOL, CANARY, NEEDS, CUSTOM, HOOK, ASKING, EMBEDDED = range(7)
TAGS = {"gpt-5": ["talk"], "gpt-5-mini": ["cheap"], "coder": ["code", "blue"]}
MODELS = ["sonnet-work", "sonnet-home", "sonnet-paid", "gpt-5", "gpt-5-mini", "gpt-6-mini", "coder", "llama"]
CATALOG = build_catalog(
    {
        "providers": {"in-house": {"family": "openai", "base_url": "https://in.example/v1", "credential": "none"}},
        "models": [
            {
                "name": name,
                "provider": "in-house",
                "tags": TAGS.get(name, []),
                "capabilities": ["vision"] if name == "gpt-5" else [],
                "context_tokens": 400_000 if name == "gpt-5" else 100_000,
            }
            for name in MODELS
        ],
    }
)


def context(*draws: float, answer: str = "") -> RouterContext:
    left = list(draws)

    async def say(*_: str, **_options: Any) -> str:
        return answer

    return RouterContext(catalog=CatalogView(CATALOG), draw=lambda: left.pop(0), ask=say)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load an example as a file names it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def load(place: int) -> AnyRouter:
        (tmp_path / f"readme_pattern_{place}.py").write_text(EXAMPLES[place])
        return load_routers([f"readme_pattern_{place}:router"], tmp_path)[0].router

    yield load
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def models_of(router: AnyRouter, request: RoutingRequest | None = None, ctx: RouterContext | None = None) -> list[str]:
    said = await ask_one(router, request, ctx or context())
    assert isinstance(said, RoutingResult | None)
    return [way.model for way in flatten(said)] if said else []


def test_row_4_2_the_readme_has_six_patterns_and_one_that_embeds():
    assert len(EXAMPLES) == 7


async def test_row_4_2_pattern_of_a_pool_with_a_last_resort(load):
    router = load(POOL)
    assert [await models_of(router) for _ in range(2)] == [
        ["sonnet-work", "sonnet-home", "sonnet-paid"],
        ["sonnet-home", "sonnet-work", "sonnet-paid"],
    ]


async def test_row_4_2_pattern_of_one_call_in_twenty(load):
    router = load(CANARY)
    assert [(await models_of(router, ctx=context(draw, 0.0)))[0] for draw in (0.94, 0.96)] == ["gpt-5-mini", "gpt-6-mini"]


async def test_row_4_2_pattern_of_what_a_call_needs(load):
    router = load(NEEDS)
    assert await models_of(router, RoutingRequest(requires=frozenset({"vision"}))) == ["gpt-5"]
    assert (await models_of(router, RoutingRequest(input_tokens=150_000)))[0] == "gpt-5"
    assert await models_of(router, RoutingRequest(input_tokens=10)) == ["gpt-5-mini"]


async def test_row_4_2_pattern_of_a_custom_router_in_fewer_than_twenty_lines(load):
    router = load(CUSTOM)
    assert await models_of(router, RoutingRequest(priority=0)) == ["gpt-5"]
    assert await models_of(router, RoutingRequest(labels=("docs", "team:blue"))) == ["coder"]
    assert await models_of(router, RoutingRequest(labels=("team:nobody",))) == []
    assert len(EXAMPLES[CUSTOM].strip().splitlines()) < 20


async def test_row_4_2_pattern_of_a_hook_before_routing(load):
    router = load(HOOK)
    said = await ask_one(router, RoutingRequest(model="fast", read=lambda: {"max_tokens": 5_000}), context())
    assert isinstance(said, RoutingRequest)
    assert (said.model, said.body["max_tokens"]) == ("gpt-5-mini", 1_000)
    private = await ask_one(router, RoutingRequest(labels=("private",)), context())
    assert private == RoutingResult("llama", "in-house", "private")


async def test_row_4_2_pattern_of_a_router_that_asks_a_model(load):
    router = load(ASKING)
    request = RoutingRequest(model="whoever-fits", read=lambda: {"messages": [{"role": "user", "content": "def f"}]})
    assert await models_of(router, request, context(answer=" Code\n")) == ["coder"]
    assert await models_of(router, request, context(answer="weather")) == []
    assert await models_of(router, RoutingRequest(model="gpt-5")) == []


async def test_row_4_2_the_example_of_the_readme_embeds_us(tmp_path, monkeypatch, capsys):
    (tmp_path / "readme_embedding.py").write_text(EXAMPLES[EMBEDDED])
    monkeypatch.syspath_prepend(tmp_path)
    main = importlib.import_module("readme_embedding").main
    async with Simulator([Account(key="one")]) as sim:
        sim.script("one", Reply(text="hello"))
        model = '[[models]]\nname = "gpt-5-mini"\nprovider = "one"\ncost_per_million_input = "1"\ncost_per_million_output = "2"\n'
        file = write_config(tmp_path, provider_toml("one", sim.openai_base_url) + model, 'durability = "process"\n')
        cost_nusd, text = await main(file, environ=environ(tmp_path, KEY_ONE="one"))
    assert (cost_nusd, text) == (1_180 * 1_000 + 212 * 2_000, "hello")
    assert "ask gpt-5-mini at http://127.0.0.1" in capsys.readouterr().out

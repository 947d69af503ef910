"""A catalog as a file: what is written is read back, and what the file has no words for is named."""

import tomllib
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_router import config
from quota_router.config import load, parse_catalog
from quota_router.core.catalog import Catalog, ManagedBy, RoutingRule
from quota_router.core.desired import build_catalog
from quota_router.core.exported import export_catalog, provider_table
from quota_router.core.toml_text import write_toml
from quota_router.core.vendors import VENDORS

EXAMPLES = [Path(config.__file__).parents[1] / "example.toml", *sorted((Path(__file__).parent / "samples").glob("*.toml"))]


def there_and_back(catalog):
    tables, left_out = export_catalog(catalog)
    assert left_out == []
    return build_catalog(parse_catalog(write_toml(tables), "exported"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_file_that_was_exported_asks_for_the_same_catalog(path):
    catalog = build_catalog(load(path, {}).desired)
    assert there_and_back(catalog) == catalog


@pytest.mark.parametrize("vendor", [name for name, preset in VENDORS.items() if preset.base_url])
def test_what_goes_without_saying_is_not_written(vendor):
    catalog = build_catalog({"providers": {"p": {"vendor": vendor}}})
    assert provider_table(catalog.providers["p"]) == {"vendor": vendor}


def test_a_ladder_keeps_its_tiers_and_its_gaps():
    attachments = [
        "a",
        ["b", {"provider": "c", "weight": 3}],
        {"provider": "d", "priority": 7},
        {"provider": "e", "priority": 7},
        "f",
    ]
    desired = {
        "providers": {name: {"vendor": "openai"} for name in "abcdef"},
        "models": [{"name": "m", "attachments": attachments}],
    }
    catalog = build_catalog(desired)
    assert export_catalog(catalog)[0]["models"] == desired["models"]
    assert there_and_back(catalog) == catalog


# --- any catalog at all -------------------------------------------------------------------------------------------------

NAMES = st.text("abz-_.é'\"\\", min_size=1, max_size=6)
NOTES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
SHARES = st.integers(0, 999_999).map(lambda ppm: Decimal(ppm) / 10**6)
PRICES = st.integers(0, 10**9).map(lambda pusd: str(Decimal(pusd) / 10**6))
TEXTS = st.lists(NAMES, max_size=3, unique=True)

COMMANDS = [
    {"command": "claude", "family": "openai"},
    {"command": "codex", "credential": "env:K", "run_timeout_s": Decimal("7.5")},
    {
        "command": "claude",
        "family": "openai",
        "command_template": ["claude", "{prompt_file}"],
        "prompt_on_stdin": False,
        "run_timeout_s": 5,
    },
    {"command_template": ["claude", "-p"], "prompt_on_stdin": True},
    {
        "command_template": ["run", "{prompt_file}", "{output_file}"],
        "credential": "file:/k",
        "credential_env": "KEY",
        "answer": {
            "format": "json_lines",
            "text": {"at": "/result", "when": {"/type": "result"}},
            "failed": ["/is_error", {"at": "/b", "when": {"/type": "x"}}],
            "input_tokens": "/usage/in",
            "cache_read_tokens": "/usage/cached",
            "within": {"cache_read_tokens": "input_tokens"},
        },
    },
]


def maybe(**keys):
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def pollers(draw):
    names = draw(st.lists(NAMES.filter(lambda name: name != "headers"), max_size=2, unique=True))
    by_share = {"share": "/a/0", "window": "5h", "scale": Decimal("0.01")}
    by_money = {"used": "/a~1b", "limit": "", "unit": "usd", "window": "month", "every_s": 60}
    return [
        {
            "name": name,
            "url": "https://u.example/q?x=1",
            **draw(st.sampled_from([by_share, by_money])),
            **draw(maybe(credential=st.just("env:K"))),
        }
        for name in names
    ]


@st.composite
def providers(draw):
    common = draw(
        maybe(
            billing=st.sampled_from(["flat", "metered"]),
            account=NAMES,
            enabled=st.booleans(),
            display_name=NOTES,
            description=NOTES,
            model=NAMES,
            reserve=SHARES,
            pause_at=SHARES.filter(bool),
            pace=st.booleans(),
            quota_sources=st.sampled_from([[], ["headers"]]),
            pollers=pollers(),
        )
    )
    if draw(st.booleans()):
        words = draw(st.lists(NOTES.filter(lambda word: not {*"{}"} & {*word}), max_size=3))
        env = draw(st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), NOTES, max_size=2))
        command = draw(st.sampled_from([{"command_template": ["run", *words, "{prompt_file}"]}, *COMMANDS]))
        return {**common, **command, **({"env": env} if env else {})}
    where = st.sampled_from(
        [
            {"vendor": "openai"},
            {"vendor": "openai", "credential": "file:/k"},
            {"vendor": "ollama", "allow": ["10.0.0.1:80"]},
            {"family": "openai", "base_url": "http://10.0.0.1/v1", "network": "private", "credential": "none"},
            {"vendor": "azure", "base_url": "https://r.example/openai/v1"},
        ]
    )
    return {**common, **draw(where)}


@st.composite
def models(draw, name, there):
    ladder = draw(st.lists(st.sampled_from(there), min_size=1, max_size=4, unique=True))
    entries = [{"provider": provider, **draw(rungs())} for provider in ladder]
    cut = draw(st.integers(0, len(entries)))
    if cut > 1:
        tier = [{key: value for key, value in entry.items() if key != "priority"} for entry in entries[:cut]]
        entries = [tier, *entries[cut:]]
    more = maybe(
        strategy=st.sampled_from(["weighted", "priority", "cheapest"]),
        display_name=NOTES,
        capabilities=TEXTS,
        tags=TEXTS,
        context_tokens=st.integers(1, 10**6),
        max_output_tokens=st.integers(1, 10**6),
    )
    return {"name": name, "attachments": entries, **draw(more), **draw(prices())}


def prices():
    keys = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning")
    both = st.fixed_dictionaries(
        {f"cost_per_million_{key}": PRICES for key in keys[:2]}, optional={f"cost_per_million_{key}": PRICES for key in keys[2:]}
    )
    return st.just({}) | both


def rungs():
    more = maybe(
        upstream_model=NAMES,
        weight=st.integers(1, 9),
        priority=st.integers(0, 9),
        unmetered=st.booleans(),
        enabled=st.booleans(),
    )
    return st.tuples(more, prices()).map(lambda parts: {**parts[0], **parts[1]})


@st.composite
def desired(draw):
    """The tables of a file that loads."""
    there = draw(st.dictionaries(NAMES, providers(), min_size=1, max_size=4))
    names = draw(st.lists(NAMES.map(lambda name: f"lab/{name}"), max_size=3, unique=True))
    tables = {"providers": there, "models": [draw(models(name, sorted(there))) for name in names]}
    window = st.sampled_from(
        [
            {"window": "month", "anchor": "15"},
            {"window": "5h", "anchor": "first_use"},
            {"window": "week", "timezone": "Europe/Berlin"},
        ]
    )
    tables["budgets"] = [
        {
            "name": name,
            "subject": draw(st.sampled_from(["everyone", f"provider:{min(there)}", "label:a b"])),
            "unit": "usd",
            "limit": draw(PRICES),
            **draw(window),
        }
        for name in draw(TEXTS)
    ]
    if draw(st.booleans()):
        there[min(there)]["quotas"] = [
            {"unit": "tokens", "limit": draw(st.integers(0, 10**12)), **draw(window)},
            {"unit": "concurrency", "limit": 2},
        ]
    tables["callers"] = [
        {"name": name, "token_sha256": f"{place:064x}", **draw(maybe(scopes=st.just(["read", "call"])))}
        for place, name in enumerate(draw(TEXTS))
    ]
    if names:
        rule = st.fixed_dictionaries(
            {"condition": st.sampled_from(["priority == 0", "labels contains 'a\"b\\\\'", f"headroom[{min(there)!r}] < 0.1"])},
            optional={
                "model": st.sampled_from(names),
                "share": SHARES,
                "on_unusable": st.sampled_from(["refuse", "fall_through"]),
                "reason": NOTES,
            },
        ).map(lambda table: {"strategy": "fastest", **table})
        routing = maybe(
            default_model=st.sampled_from(names),
            timezone=st.just("Europe/Berlin"),
            routers=st.just(["a.b:c"]),
            rules=st.lists(rule, max_size=3),
        )
        tables["routing"] = draw(routing)
        stages = st.lists(NAMES, min_size=1, max_size=3, unique=True)
        tables["workflows"] = {
            name: {"stages": [{"name": stage, "model": draw(st.sampled_from(names))} for stage in draw(stages)]}
            for name in draw(TEXTS)
        }
    return tables


@settings(max_examples=150, deadline=None)
@given(desired())
def test_whatever_the_catalog_the_exported_file_asks_for_it(tables):
    catalog = build_catalog(tables)
    assert there_and_back(catalog) == catalog


# --- text -----------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.booleans() | st.integers(-(10**18), 10**18) | NOTES | st.decimals(allow_nan=False, allow_infinity=False, places=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NOTES, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(NOTES, VALUES, max_size=4))
def test_any_tables_are_read_back_as_they_were(tables):
    assert tomllib.loads(write_toml(tables), parse_float=Decimal) == tables


def test_the_text_is_laid_out_for_people():
    catalog = build_catalog(load(EXAMPLES[0], {}).desired)
    text = write_toml(export_catalog(catalog)[0])
    assert text.startswith('[providers.claude-work]\nvendor = "anthropic"\ncredential = "env:CLAUDE_WORK_KEY"\n')
    assert "\n[[providers.claude-work.quotas]]\n" in text
    assert '\nattachments = [\n    "claude-work",\n' in text
    assert '\n[[routing.rules]]\ncondition = "priority == 0"\n' in text
    assert max(len(line) for line in text.splitlines()) <= 132


# --- what cannot be said --------------------------------------------------------------------------------------------------


def test_what_names_what_is_gone_is_left_out_and_named():
    """The file always loads: a rule to nowhere would not."""
    text = """
        [providers.a]
        vendor = "openai"
        [providers.b]
        vendor = "openai"
        account = "shared"
        [[providers.b.quotas]]
        unit = "tokens"
        limit = 1
        window = "5h"
        [[models]]
        name = "m"
        provider = "a"
        fallbacks = ["n"]
        [[models]]
        name = "n"
        provider = "b"
        [[budgets]]
        name = "of-n"
        subject = "model:n"
        unit = "usd"
        limit = 1
        window = "day"
        [routing]
        default_model = "n"
        [[routing.rules]]
        condition = "priority == 0"
        model = "n"
        [[routing.rules]]
        condition = "priority == 1"
        model = "m"
        [workflows.w]
        stages = [{ name = "s", model = "n" }]
    """
    whole = build_catalog(tomllib.loads(text))
    gone = replace(
        whole,
        models=whole.models | {"n": replace(whole.models["n"], enabled=False, attachments=())},
        providers={"a": whole.providers["a"]},
    )
    tables, left_out = export_catalog(gone)
    assert [sentence.partition(" is left out")[0] for sentence in left_out] == [
        "limit shared/tokens/5h",
        "fallback 'n' of model m",
        "budget of-n",
        "rule 'priority == 0'",
        "workflow w",
        "routing.default_model",
    ]
    assert all(sentence.endswith((".", "?")) for sentence in left_out)
    again = build_catalog(tables)
    assert (set(again.models), [rule.condition for rule in again.rules], again.workflows) == ({"m"}, ["priority == 1"], {})


def test_rows_of_the_api_are_exported_as_others_and_disabled_ones_are_not():
    rule = RoutingRule(name="0198", condition="priority == 0", strategy="fastest", rank=5, managed_by=ManagedBy.API)
    catalog = Catalog(rules=(rule, replace(rule, name="file-1", rank=1000, enabled=False)))
    assert export_catalog(catalog)[0] == {"routing": {"rules": [{"condition": "priority == 0", "strategy": "fastest"}]}}


def test_a_share_is_written_as_a_number():
    catalog = build_catalog({"providers": {"p": {"vendor": "openai", "reserve": "0.020000"}}})
    assert catalog.providers["p"].reserve == Fraction(1, 50)
    assert write_toml(export_catalog(catalog)[0]) == '[providers.p]\nvendor = "openai"\nreserve = 0.02\n'

"""The catalog in its tables: what is applied is what is loaded, and what the file does not own stays as it is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from database_kit import url_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from quota_router.core.catalog import (
    Attachment,
    Billing,
    Caller,
    Catalog,
    Family,
    ManagedBy,
    Model,
    Network,
    OnUnusable,
    Poller,
    Provider,
    RoutingRule,
    Stage,
    Strategy,
    Workflow,
)
from quota_router.core.command_output import CLAUDE, CODEX
from quota_router.core.commands import CommandSpec
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable, Rates
from quota_router.errors import ConfigError, LedgerUnavailable
from quota_router.store import migrate
from quota_router.store.catalog import apply_catalog, load_catalog
from quota_router.store.open import Durability, open_engines
from quota_router.store.tables import attachments, callers, limits, models, providers, rules, workflows

TABLES = (providers, models, limits, callers, rules, workflows)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICE = PriceTable(
    tiers=(
        (0, Rates(input_pusd=3_000_000, output_pusd=15_000_000)),
        (200_000, Rates(input_pusd=6, output_pusd=7, reasoning_pusd=8)),
    ),
    per_call_nusd=5,
    version="1",
)


def provider(name, **parts):
    base = {"family": Family.OPENAI, "vendor": "openai", "account": name, "base_url": "https://u/v1", "credential_ref": "env:KEY"}
    return Provider(name=name, **(base | parts))


def model(name, *ladder, **parts):
    rungs = tuple(
        Attachment(model=name, provider=rung, priority=priority, position=0, upstream_model=name)
        for priority, rung in enumerate(ladder)
    )
    return Model(**({"name": name, "family": Family.OPENAI, "attachments": rungs} | parts))


def limit(name, **parts):
    base = {"kind": Kind.BUDGET, "subject": "everyone", "unit": Unit.USD, "limit": 50, "window": "month"}
    return Limit(name=name, **(base | parts))


def caller(name, digit="a", **parts):
    return Caller(name=name, token_sha256=digit * 64, **parts)


def rule(place, **parts):
    base = {"condition": "priority == 0", "strategy": Strategy.CHEAPEST, "rank": place * 1000}
    return RoutingRule(name=f"file-{place}", **(base | parts))


def workflow(name, *stages):
    return Workflow(name=name, stages=tuple(Stage(name=stage, model=f"m-{stage}") for stage in stages or ("plan",)))


def catalog(*values):
    of = {kind: {v.name: v for v in values if isinstance(v, kind)} for kind in (Provider, Model, Caller, Workflow)}
    found = tuple(v for v in values if isinstance(v, Limit))
    rules = tuple(v for v in values if isinstance(v, RoutingRule))
    return Catalog(providers=of[Provider], models=of[Model], callers=of[Caller], limits=found, rules=rules, workflows=of[Workflow])


FULL = catalog(
    provider(
        "work",
        network=Network.PRIVATE,
        allow=("10.0.0.1:80",),
        billing=Billing.FLAT,
        default_upstream_model="up",
        display_name="Work",
        description="at work",
        reserve=Fraction(1, 50),
        pause_at=Fraction(9, 10),
        pace=True,
        quota_sources=("headers", "a-preset"),
        pollers=(
            Poller(
                name="money",
                url="https://u/quota",
                credential_ref="file:/k",
                used="/data/usage",
                limit="/data/limit",
                share=None,
                remaining="/data/left~1over",
                resets_at="/data/at",
                scale=Fraction(1, 100),
                unit="usd",
                window="month",
                every_s=60,
            ),
            Poller(name="known", preset="a-preset", every_s=900),
        ),
    ),
    provider(
        "spare",
        family=Family.ANTHROPIC,
        enabled=False,
        base_url="",
        command=CommandSpec(
            template=("claude", "-p", "{prompt_file}", "--model", "{model}"),
            env={"CLAUDE_CONFIG_DIR": "/home/me/.claude", "X": "a b"},
            credential_env="KEY",
            reads=replace(CLAUDE, message=CODEX.message),
            prompt_on_stdin=True,
            run_timeout_s=7.5,
        ),
    ),
    model(
        "gpt",
        attachments=(
            Attachment(model="gpt", provider="work", priority=0, position=1, upstream_model="g-1", weight=3, price=PRICE),
            Attachment(model="gpt", provider="spare", priority=0, position=0, upstream_model="g-2", unmetered=True, enabled=False),
        ),
        display_name="GPT",
        aliases=("z", "a"),
        capabilities=("vision", "code"),
        tags=("fast", "eu"),
        strategy=Strategy.SOONEST_RESET,
        context_tokens=200_000,
        max_output_tokens=64_000,
        fallbacks=("other",),
        price=PRICE,
    ),
    model("bare"),
    limit("day", kind=Kind.QUOTA, unit=Unit.TOKENS, window="5h", anchor="first_use", timezone="Europe/Berlin"),
    limit("month", enforcement=Enforcement.STRICT),
    caller("ci", scopes=("call", "read")),
    rule(
        1,
        condition="labels contains 'a' and provider_status['work'] == 'down'",
        model="gpt",
        provider="work",
        share=Fraction(1, 8),
        on_unusable=OnUnusable.REFUSE,
        reason="Tried out",
    ),
    rule(2),
    workflow("standard", "plan", "write"),
)


@pytest.fixture
async def engines(tmp_path, database):
    async with open_engines(url_of(tmp_path), Durability.PROCESS) as engines:
        await migrate.upgrade(engines.write)
        yield engines


@pytest.fixture
def apply(engines):
    async def apply(*values, now=NOW, prune=False):
        desired = values[0] if isinstance(values[0], Catalog) else catalog(*values)
        async with engines.write.begin() as conn:
            return [change.describe() for change in await conn.run_sync(apply_catalog, desired, now, prune=prune)]

    return apply


@pytest.fixture
def load(engines):
    async def load():
        async with engines.read.connect() as conn:
            return await conn.run_sync(load_catalog)

    return load


async def hand_to_the_api(engines, table, name):
    async with engines.write.begin() as conn:
        await conn.execute(update(table).where(table.c.name == name).values(managed_by=ManagedBy.API))


async def rows_of(engines, table):
    async with engines.read.connect() as conn:
        return [row._asdict() for row in await conn.execute(select(table))]


async def test_an_empty_ledger_has_an_empty_catalog(load):
    assert await load() == Catalog()


async def test_what_was_applied_is_what_is_loaded(apply, load):
    """Every field of every value survives; the ladder is in order, aliases are sorted."""
    assert await apply(FULL) == [
        "added provider work",
        "added provider spare",
        "added model gpt",
        "added model bare",
        "added limit day",
        "added limit month",
        "added caller ci",
        "added rule file-1",
        "added rule file-2",
        "added workflow standard",
    ]
    loaded = await load()
    gpt = FULL.models["gpt"]
    expected = replace(gpt, aliases=("a", "z"), attachments=gpt.attachments[::-1])
    assert loaded == replace(FULL, epoch=1, models=FULL.models | {"gpt": expected})
    assert loaded.find_model("z") == expected


async def test_applying_the_same_twice_changes_nothing(apply, load, engines):
    await apply(FULL)
    before = await load(), await rows_of(engines, providers)
    assert await apply(FULL, now=NOW + timedelta(days=1)) == []
    assert (await load(), await rows_of(engines, providers)) == before


async def test_a_change_names_its_fields_and_raises_version_and_epoch(apply, load, engines):
    await apply(FULL)
    gpt = FULL.models["gpt"]
    changed = replace(
        FULL,
        providers=FULL.providers | {"work": replace(FULL.providers["work"], base_url="https://v/v1", network=Network.PUBLIC)},
        models=FULL.models | {"gpt": replace(gpt, aliases=("z",), attachments=gpt.attachments[:1], price=None)},
        limits=(FULL.limits[0], replace(FULL.limits[1], limit=51)),
        callers={"ci": replace(FULL.callers["ci"], scopes=("call",))},
        rules=(FULL.rules[0], replace(FULL.rules[1], condition="priority == 1")),
        workflows={"standard": workflow("standard", "plan")},
    )
    later = NOW + timedelta(hours=1)
    assert await apply(changed, now=later) == [
        "changed provider work (base_url, network)",
        "changed model gpt (attachments, aliases, price)",
        "changed limit month (limit)",
        "changed caller ci (scopes)",
        "changed rule file-2 (condition)",
        "changed workflow standard (stages)",
    ]
    loaded = await load()
    assert loaded.epoch == 2
    assert (loaded.providers["work"].version, loaded.providers["spare"].version) == (2, 1)
    assert (loaded.models["gpt"].version, loaded.models["gpt"].attachments) == (2, gpt.attachments[:1])
    assert loaded.limits == changed.limits
    assert (loaded.rules[0].version, loaded.rules[1].version, loaded.workflows["standard"].version) == (1, 2, 2)
    assert loaded.callers["ci"].version == 2
    for table in TABLES:
        times = {row["name"]: (row["created_at"], row["updated_at"]) for row in await rows_of(engines, table)}
        assert all(created == NOW for created, _ in times.values())
        assert later in {updated for _, updated in times.values()}


async def test_rows_gone_from_the_file_are_disabled_and_named_once(apply, load):
    await apply(FULL)
    gone = [
        "disabled provider work: no longer in the file",
        "disabled model bare: no longer in the file",
        "disabled model gpt: no longer in the file",
        "disabled limit day: no longer in the file",
        "disabled limit month: no longer in the file",
        "disabled caller ci: no longer in the file",
        "disabled rule file-1: no longer in the file",
        "disabled rule file-2: no longer in the file",
        "disabled workflow standard: no longer in the file",
    ]
    assert await apply(Catalog()) == gone
    assert await apply(Catalog()) == []
    loaded = await load()
    kinds = (loaded.providers, loaded.models, loaded.callers, loaded.workflows)
    assert not any(value.enabled for kind in kinds for value in kind.values())
    assert (len(loaded.rules), loaded.rule_book.rules) == (2, ())
    assert loaded.limits == ()
    assert len(loaded.models["gpt"].attachments) == 2


async def test_a_disabled_provider_stays_attached_and_comes_back(apply, load):
    await apply(provider("a"), provider("b"), model("m", "a", "b"))
    assert await apply(provider("a", enabled=False), provider("b"), model("m", "a", "b")) == ["changed provider a (enabled)"]
    assert [rung.provider for rung in (await load()).models["m"].attachments] == ["a", "b"]
    await apply(Catalog())
    assert await apply(provider("a"), provider("b"), model("m", "a", "b"), limit("l")) == [
        "changed provider a (enabled)",
        "changed provider b (enabled)",
        "changed model m (enabled)",
        "added limit l",
    ]


async def test_a_limit_that_comes_back_is_named_as_changed(apply, load):
    """Its balances have to be projected anew."""
    await apply(limit("l"))
    await apply(Catalog())
    assert await apply(limit("l")) == ["changed limit l (enabled)"]
    assert (await load()).limits == (limit("l"),)


async def test_prune_deletes_what_is_gone_disabled_before_or_not(apply, load):
    await apply(FULL)
    await apply(Catalog())
    described = await apply(Catalog(), prune=True)
    assert described == [
        "pruned provider spare",
        "pruned provider work",
        "pruned model bare",
        "pruned model gpt",
        "pruned limit day",
        "pruned limit month",
        "pruned caller ci",
        "pruned rule file-1",
        "pruned rule file-2",
        "pruned workflow standard",
    ]
    assert await load() == Catalog(epoch=3)


async def test_prune_leaves_a_provider_that_a_model_of_the_api_needs(apply, load, engines):
    await apply(provider("a"), provider("b"), model("theirs", "a"), model("ours", "a", "b"))
    await hand_to_the_api(engines, models, "theirs")
    assert await apply(Catalog(), prune=True) == [
        "disabled provider a: no longer in the file",
        "pruned provider b",
        "pruned model ours",
    ]
    loaded = await load()
    assert (set(loaded.providers), set(loaded.models)) == ({"a"}, {"theirs"})


@pytest.mark.parametrize(
    ("table", "name", "key_path"),
    [
        (providers, "work", ("providers", "work")),
        (models, "gpt", ("models", "gpt")),
        (limits, "month", ("budgets", "month")),
        (callers, "ci", ("callers", "ci")),
        (workflows, "standard", ("workflows", "standard")),
    ],
)
async def test_a_file_that_names_a_row_of_the_api_is_refused_whole(apply, engines, load, table, name, key_path):
    await apply(FULL)
    await hand_to_the_api(engines, table, name)
    before = await load()
    with pytest.raises(ConfigError, match=f"{name} is managed through the API") as refused:
        await apply(replace(FULL, models=FULL.models | {"new": model("new")}))
    assert refused.value.key_path == key_path
    assert await load() == before


async def test_rows_of_the_api_are_never_touched(apply, engines, load):
    await apply(FULL)
    for table in TABLES:
        for row in await rows_of(engines, table):
            await hand_to_the_api(engines, table, row["name"])
    before = await load()
    assert await apply(Catalog(), prune=True) == []
    assert await load() == before


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        (model("new", aliases=("x",)), "alias of theirs"),
        (caller("new"), "token of theirs"),
        (model("new", "nobody"), "the provider nobody, which does not exist"),
    ],
)
async def test_what_the_api_owns_cannot_be_taken(apply, engines, load, taken, says):
    await apply(model("theirs", aliases=("x",)), caller("theirs"))
    await hand_to_the_api(engines, models, "theirs")
    await hand_to_the_api(engines, callers, "theirs")
    before = await load()
    with pytest.raises(ConfigError, match=says):
        await apply(taken)
    assert await load() == before


async def test_a_model_of_the_file_may_be_attached_to_a_provider_of_the_api(apply, engines, load):
    await apply(provider("theirs"))
    await hand_to_the_api(engines, providers, "theirs")
    assert await apply(model("ours", "theirs")) == ["added model ours"]
    assert (await load()).models["ours"].attachments[0].provider == "theirs"


async def test_aliases_and_tokens_change_hands(apply, load):
    """Swapped between two rows, or taken over from a row that is gone."""
    await apply(model("m", aliases=("x",)), model("n", aliases=("y",)), caller("c", "1"), caller("d", "2"))
    await apply(model("m", aliases=("y",)), model("n", aliases=("x",)), caller("c", "2"), caller("d", "1"))
    assert await apply(model("o", aliases=("x", "y")), caller("e", "1")) == [
        "added model o",
        "disabled model m: no longer in the file",
        "disabled model n: no longer in the file",
        "added caller e",
        "disabled caller c: no longer in the file",
        "pruned caller d",
    ]
    loaded = await load()
    assert loaded.find_model("x") is None
    assert loaded.models["o"].aliases == ("x", "y")
    assert set(loaded.callers) == {"c", "e"}


async def test_a_pause_outlives_an_apply(apply, engines, load):
    await apply(provider("a"))
    async with engines.write.begin() as conn:
        await conn.execute(update(providers).values(paused=1))
    assert await apply(provider("a", display_name="A")) == ["changed provider a (display_name)"]
    assert (await load()).providers["a"].paused


async def test_attachments_are_replaced_only_when_they_changed(apply, engines):
    await apply(provider("a"), provider("b"), model("m", "a", "b"))
    await apply(provider("a"), provider("b"), model("m", "a", "b", display_name="M"), now=NOW + timedelta(days=1))
    assert {row["created_at"] for row in await rows_of(engines, attachments)} == {NOW}
    assert await apply(provider("a"), provider("b"), model("m", "b", "a", display_name="M")) == ["changed model m (attachments)"]


async def test_rules_are_asked_in_the_files_order_and_compiled_once(apply, load):
    many = [rule(place, condition=f"priority == {place}") for place in range(1, 13)]
    await apply(*many)
    loaded = await load()
    assert [found.condition for found in loaded.rules] == [found.condition for found in many]
    assert [found.condition.text for found in loaded.rule_book.rules] == [found.condition for found in many]
    assert replace(loaded, default_model="x").rule_book.rules[0].condition is loaded.rule_book.rules[0].condition


async def test_a_rule_that_went_away_is_no_longer_asked_and_comes_back(apply, load):
    await apply(rule(1), rule(2, condition="hour > 3"))
    assert await apply(rule(1)) == ["disabled rule file-2: no longer in the file"]
    loaded = await load()
    assert ([found.name for found in loaded.rules], len(loaded.rule_book.rules)) == (["file-1", "file-2"], 1)
    assert await apply(rule(1), rule(2)) == ["changed rule file-2 (condition, enabled)"]


async def test_prune_leaves_what_rules_and_workflows_of_the_api_name(apply, load, engines):
    """They would say something else, or nothing, without it."""
    await apply(
        provider("a"),
        provider("b"),
        provider("c"),
        *(model("m-plan", "a"), model("n", "a", aliases=("nick",)), model("o", "c")),
        limit("cap"),
        rule(1, provider="b", model="nick", condition="budget_used['cap'] > 0.5 and headroom['c'] < 0.1"),
        workflow("w", "plan"),
    )
    await hand_to_the_api(engines, rules, "file-1")
    await hand_to_the_api(engines, workflows, "w")
    assert await apply(Catalog(), prune=True) == [
        "disabled provider a: no longer in the file",
        "disabled provider b: no longer in the file",
        "disabled provider c: no longer in the file",
        "disabled model m-plan: no longer in the file",
        "disabled model n: no longer in the file",
        "pruned model o",
        "disabled limit cap: no longer in the file",
    ]


async def test_a_rule_that_nobody_can_read_is_no_reason_to_route_without_it(apply, load, engines):
    await apply(rule(1))
    async with engines.write.begin() as conn:
        await conn.execute(update(rules).values(condition="a language of later versions"))
    with pytest.raises(LedgerUnavailable, match="The routing rules in the ledger cannot be read: column"):
        await load()


async def test_the_pools_model_is_the_default(apply, load):
    await apply(model("default"))
    assert (await load()).default_model == "default"


# --- laws over examples -----------------------------------------------------------------------------------------------

NAMES = st.sets(st.sampled_from("abc"))


@st.composite
def catalogs(draw):
    there = sorted(draw(NAMES))
    values = [provider(name, enabled=draw(st.booleans())) for name in there]
    aliases = iter(draw(st.permutations("xyz")))
    tokens = iter(draw(st.permutations("123")))
    for name in sorted(draw(NAMES)):
        ladder = draw(st.permutations(there))[: draw(st.integers(0, 3))]
        values.append(model(f"m{name}", *ladder, aliases=tuple(next(aliases) for _ in range(draw(st.integers(0, 1))))))
    values += [limit(name, limit=draw(st.integers(0, 2))) for name in sorted(draw(NAMES))]
    values += [caller(name, next(tokens)) for name in sorted(draw(NAMES))]
    values += [rule(place, condition=f"priority == {draw(st.integers(0, 1))}") for place in range(1, draw(st.integers(0, 2)) + 1)]
    values += [workflow(name, *"xy"[: draw(st.integers(1, 2))]) for name in sorted(draw(NAMES))]
    return catalog(*values)


def without_versions(found):
    return replace(
        found,
        epoch=0,
        providers={name: replace(value, version=1) for name, value in found.providers.items()},
        models={name: replace(value, version=1) for name, value in found.models.items()},
        callers={name: replace(value, version=1) for name, value in found.callers.items()},
        rules=tuple(replace(value, version=1) for value in found.rules),
        workflows={name: replace(value, version=1) for name, value in found.workflows.items()},
    )


@given(history=st.lists(st.tuples(catalogs(), st.booleans()), max_size=3), last=catalogs())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_came_before_the_pruned_catalog_is_the_files(engines, history, last):
    """After any history an apply with prune gives the file's catalog, and a second one finds nothing to do."""
    async with engines.write.connect() as conn:
        transaction = await conn.begin()
        for desired, prune in history:
            await conn.run_sync(apply_catalog, desired, NOW, prune=prune)
            now_enabled = await conn.run_sync(load_catalog)
            assert {name: p.enabled for name, p in now_enabled.providers.items() if name in desired.providers} == {
                name: p.enabled for name, p in desired.providers.items()
            }
        await conn.run_sync(apply_catalog, last, NOW, prune=True)
        loaded = await conn.run_sync(load_catalog)
        assert without_versions(loaded) == last
        assert await conn.run_sync(apply_catalog, last, NOW, prune=True) == []
        assert (await conn.run_sync(load_catalog)).epoch == loaded.epoch
        await transaction.rollback()

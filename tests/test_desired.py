import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.config import parse_catalog
from quota_router.core.catalog import Billing, Family, Network, Strategy
from quota_router.core.desired import build_catalog
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import Rates
from quota_router.core.vendors import VENDORS
from quota_router.errors import ConfigError

PROVIDERS = """
[providers.a]
vendor = "anthropic"
[providers.b]
vendor = "anthropic"
[providers.c]
vendor = "anthropic"
[providers.o]
vendor = "openai"
"""


def build(text):
    """The catalog of a file, which its shape is checked for first."""
    return build_catalog(parse_catalog(text, "f.toml"))


def ladder(catalog, model):
    return [(rung.provider, rung.priority, rung.position, rung.upstream_model) for rung in catalog.models[model].attachments]


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        build(text)
    return caught.value.key_path, caught.value.message


# --- providers --------------------------------------------------------------------------------------------------------


def test_nothing_desired_is_an_empty_catalog():
    catalog = build_catalog({})
    assert (catalog.providers, catalog.models, catalog.limits, catalog.callers, catalog.default_model) == ({}, {}, (), {}, None)


@pytest.mark.parametrize("vendor", [name for name, preset in VENDORS.items() if preset.base_url])
def test_row_4_7_a_known_vendor_is_enough_for_a_provider(vendor):
    provider = build(f'[providers.p]\nvendor = "{vendor}"\n').providers["p"]
    preset = VENDORS[vendor]
    assert (provider.vendor, provider.family, provider.base_url) == (vendor, preset.family, preset.base_url)
    assert provider.credential_ref == (f"env:{preset.key_env}" if preset.key_env else "none")
    assert provider.is_keyless == (provider.network is Network.LOOPBACK)
    assert (provider.account, provider.billing, provider.enabled) == ("p", Billing.METERED, True)


@pytest.mark.parametrize("vendor", [name for name, preset in VENDORS.items() if not preset.base_url])
def test_row_4_7_a_vendor_whose_addresses_are_the_operators_asks_for_one(vendor):
    preset = VENDORS[vendor]
    path, message = refusal(f'[providers.p]\nvendor = "{vendor}"\n')
    assert path == ("providers", "p")
    assert message == f"the address of vendor {vendor!r} is your own: add base_url, such as {preset.base_url_example!r}."
    address = preset.base_url_example.lower()
    provider = build(f'[providers.p]\nvendor = "{vendor}"\nbase_url = "{address}"\n').providers["p"]
    assert (provider.vendor, provider.base_url, provider.credential_ref) == (vendor, address, f"env:{preset.key_env}")


def test_row_0_5_providers_share_a_family_a_vendor_and_a_prefix():
    """Two subscriptions of one vendor are two providers: each has its own credential and account, and nobody has to name them."""
    catalog = build("""
        [providers.work]
        vendor = "anthropic"
        credential = "env:WORK_KEY"
        models = { "claude/sonnet" = "claude-sonnet-4-5" }
        [providers.home]
        vendor = "anthropic"
        credential = "env:HOME_KEY"
        models = { "claude/sonnet" = "claude-sonnet-4-5" }
    """)
    assert ladder(catalog, "claude/sonnet") == [("work", 0, 0, "claude-sonnet-4-5"), ("home", 1, 0, "claude-sonnet-4-5")]
    work, home = catalog.providers["work"], catalog.providers["home"]
    assert (work.family, work.vendor, work.base_url) == (home.family, home.vendor, home.base_url)
    assert (work.account, work.credential_ref) != (home.account, home.credential_ref)


def test_every_field_of_a_provider_may_be_given():
    provider = build("""
        [providers.p]
        family = "anthropic"
        base_url = "http://10.1.2.3:8000/api/v1/"
        credential = "file:/run/key"
        network = "private"
        allow = ["10.1.2.3:8000", "10.0.0.0/8:443"]
        billing = "flat"
        account = "shared"
        enabled = false
        model = "claude-x"
        display_name = "P"
        description = "D"
    """).providers["p"]
    assert (provider.family, provider.vendor, provider.base_url) == (Family.ANTHROPIC, "anthropic", "http://10.1.2.3:8000/api")
    assert (provider.credential_ref, provider.network, provider.billing) == ("file:/run/key", Network.PRIVATE, Billing.FLAT)
    assert provider.allow == ("10.1.2.3:8000", "10.0.0.0/8:443")
    assert (provider.account, provider.enabled, provider.default_upstream_model) == ("shared", False, "claude-x")
    assert (provider.display_name, provider.description) == ("P", "D")


@pytest.mark.parametrize(
    ("family", "written", "kept"),
    [
        ("openai", "https://x.example/v1", "https://x.example/v1"),
        ("openai", "https://x.example/v1///", "https://x.example/v1"),
        ("openai", "https://x.example/api/paas/v4/", "https://x.example/api/paas/v4"),
        ("openai", "https://x.example", "https://x.example"),
        ("anthropic", "https://x.example", "https://x.example"),
        ("anthropic", "https://x.example/v1", "https://x.example"),
        ("anthropic", "https://x.example/v1/", "https://x.example"),
        ("anthropic", "https://x.example/api/v1", "https://x.example/api"),
        ("anthropic", "https://[::1]:8443/v1", "https://[::1]:8443"),
    ],
)
def test_base_urls_have_one_normal_form(family, written, kept):
    catalog = build(f'[providers.p]\nfamily = "{family}"\nbase_url = "{written}"\ncredential = "none"\n')
    assert catalog.providers["p"].base_url == kept


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        ('vendor = "opnai"', "vendor", "vendor 'opnai' is not known: did you mean 'openai'?"),
        ('family = "opena"', "family", "family 'opena' is not known: did you mean 'openai'?"),
        (
            'family = "gemini"',
            "family",
            "family 'gemini' is not supported by this version yet: write one of 'openai', 'anthropic'.",
        ),
        ('vendor = "openai"\nbilling = "flatrate"', "billing", "billing 'flatrate' is not known: did you mean 'flat'?"),
        (
            'vendor = "openai"\nnetwork = "lan"',
            "network",
            "network 'lan' is not known: write one of 'loopback', 'private', 'public'.",
        ),
        ('credential = "none"', None, 'neither vendor nor base_url is given: add one, such as vendor = "openai".'),
        (
            'vendor = "openrouter"\nfamily = "anthropic"',
            None,
            "the preset of vendor 'openrouter' speaks openai: add the base_url that speaks anthropic.",
        ),
        (
            'base_url = "https://x.example/v1"',
            None,
            'credential is missing: add one such as "env:NAME", or "none" for a server without keys.',
        ),
        (
            'vendor = "openai"\nbase_url = "http://x.example/v1"',
            "base_url",
            "a public provider is reached by https only: write https, or network = 'private' or 'loopback'.",
        ),
        (
            'vendor = "openai"\ncredential = "env:A"\napi_key_env = "A"',
            "api_key_env",
            "credential and api_key_env say the same thing: keep one of them.",
        ),
    ],
)
def test_a_provider_that_cannot_be_is_refused(lines, key, message):
    path = ("providers", "p", key) if key else ("providers", "p")
    assert refusal(f"[providers.p]\n{lines}\n") == (path, message)


@pytest.mark.parametrize(
    "url",
    [
        "api.openai.com/v1",
        "ftp://x.example",
        "https://",
        "https://x.example:port",
        "https://x.example:99999",
        "https://x.example:0",
        "https://[::1",
        "https://x.example/a b",
        "https://me:hunter2@x.example/v1",
        "https://x.example/v1?key=hunter2",
        "https://x.example/v1#hunter2",
    ],
)
def test_a_base_url_that_is_none_or_holds_more_is_refused_and_not_repeated(url):
    path, message = refusal(f'[providers.p]\nvendor = "openai"\nbase_url = "{url}"\n')
    assert path == ("providers", "p", "base_url")
    assert "hunter2" not in message


@pytest.mark.parametrize("entry", ["10.0.0.1", ":80", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:http", "host:80"])
def test_an_address_to_allow_is_no_name_and_has_a_port(entry):
    path, _ = refusal(f'[providers.p]\nvendor = "openai"\nallow = ["10.0.0.2:80", "{entry}"]\n')
    assert path == ("providers", "p", "allow", 1)


@pytest.mark.parametrize("name", ["a/b", "a,b", "a=b", "a b", "", "x" * 201])
def test_a_provider_s_name_fits_into_subjects_and_headers(name):
    path, _ = refusal(f'[providers."{name}"]\nvendor = "openai"\n')
    assert path == ("providers", name)


# --- models and ladders -----------------------------------------------------------------------------------------------


def test_the_order_of_the_file_is_the_order_of_the_ladder():
    catalog = build(f'{PROVIDERS}[[models]]\nname = "m"\nattachments = ["b", "a"]\n')
    assert ladder(catalog, "m") == [("b", 0, 0, "m"), ("a", 1, 0, "m")]
    assert catalog.models["m"].family is Family.ANTHROPIC


def test_a_nested_list_is_one_tier():
    catalog = build(f'{PROVIDERS}[[models]]\nname = "m"\nattachments = [["b", {{ provider = "a", weight = 3 }}], "c"]\n')
    assert ladder(catalog, "m") == [("b", 0, 0, "m"), ("a", 0, 1, "m"), ("c", 1, 0, "m")]
    assert [rung.weight for rung in catalog.models["m"].attachments] == [1, 3, 1]


def test_a_priority_goes_before_the_order_and_the_next_entry_follows_it():
    catalog = build(f"""{PROVIDERS}
        [[models]]
        name = "m"
        attachments = [{{ provider = "a", priority = 5 }}, "b", {{ provider = "c", priority = 5, upstream_model = "x" }}]
    """)
    assert ladder(catalog, "m") == [("a", 5, 0, "m"), ("c", 5, 1, "x"), ("b", 6, 0, "m")]


def test_row_0_1_blocks_of_one_name_merge_in_order():
    catalog = build(f"""{PROVIDERS}
        [[models]]
        name = "m"
        provider = "c"
        aliases = ["one"]
        context_tokens = 5
        [[models]]
        name = "other"
        provider = "a"
        [[models]]
        name = "m"
        attachments = ["a", "b"]
        aliases = ["two", "one"]
        fallbacks = ["other"]
        context_tokens = 5
        capabilities = []
    """)
    assert ladder(catalog, "m") == [("c", 0, 0, "m"), ("a", 1, 0, "m"), ("b", 2, 0, "m")]
    model = catalog.models["m"]
    assert (model.aliases, model.fallbacks, model.context_tokens) == (("one", "two"), ("other",), 5)
    assert (model.capabilities, catalog.models["other"].capabilities) == ((), None)
    assert catalog.find_model("two") is model


def test_row_0_1_a_provider_s_own_table_names_upstream_models_and_joins_the_end():
    """The file of the design page: the ladder is the block's, the table gives the name upstream."""
    catalog = build("""
        [providers.late]
        vendor = "anthropic"
        models = { "m" = "m-late", "alone/x" = "upstream/x" }
        [providers.a]
        vendor = "anthropic"
        models = { "m" = "m-20250929" }
        [providers.b]
        vendor = "anthropic"
        models = { "m" = "unused" }
        [[models]]
        name = "m"
        attachments = ["a", { provider = "b", upstream_model = "m-own" }]
    """)
    assert ladder(catalog, "m") == [("a", 0, 0, "m-20250929"), ("b", 1, 0, "m-own"), ("late", 2, 0, "m-late")]
    assert ladder(catalog, "alone/x") == [("late", 0, 0, "upstream/x")]


def test_row_1_7_a_provider_s_model_default_is_for_pool_entries_alone():
    catalog = build('[providers.a]\nvendor = "anthropic"\nmodel = "d"\n[[models]]\nname = "m"\nprovider = "a"\n')
    assert ladder(catalog, "m") == [("a", 0, 0, "m")]


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        ('provider = "aa"', ("provider",), "provider 'aa' is not known: did you mean 'a'?"),
        (
            'attachments = ["a", "o"]',
            ("attachments", 1),
            "provider 'o' speaks openai, but model 'm' is anthropic: name another one.",
        ),
        (
            'family = "openai"\nprovider = "a"',
            ("provider",),
            "provider 'a' speaks anthropic, but model 'm' is openai: name another one.",
        ),
        ('attachments = ["a", "b", "a"]', ("attachments", 2), "provider 'a' serves model 'm' already: name it once."),
        ('attachments = [["a", "a"]]', ("attachments", 0, 1), "provider 'a' serves model 'm' already: name it once."),
        ("", (), "no explicit provider attachments configured for model 'm': add provider or attachments."),
        ("attachments = []", (), "no explicit provider attachments configured for model 'm': add provider or attachments."),
        ("attachments = [[]]", ("attachments", 0), "a tier has at least one provider: name one or leave the tier out."),
        (
            'attachments = [["a", { provider = "b", priority = 3 }]]',
            ("attachments", 0, 1, "priority"),
            "a nested list is one tier already: leave out its priority.",
        ),
        (
            'provider = "a"\nattachments = ["b"]',
            ("provider",),
            "provider is short for attachments with one entry: keep one of them.",
        ),
        ('provider = "a"\nfallbacks = ["m"]', ("fallbacks", 0), "model 'm' cannot be its own fallback: name another model."),
        ('provider = "a"\nfallbacks = ["nn"]', ("fallbacks", 0), "model 'nn' is not known: did you mean 'n'?"),
        ('provider = "a"\naliases = ["n"]', ("aliases", 0), "alias 'n' would hide the model of that name: choose another alias."),
        ('provider = "a"\naliases = ["nick"]', ("aliases", 0), "alias 'nick' stands for model 'n' already: choose another alias."),
        (
            'provider = "a"\n[[models]]\nname = "n"\ncontext_tokens = 2',
            None,
            "an earlier block of this model says another context_tokens: keep one of them.",
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused(lines, path, message):
    first = '[[models]]\nname = "n"\nprovider = "a"\naliases = ["nick"]\ncontext_tokens = 1\n'
    home = ("models", 2, "context_tokens") if path is None else ("models", 1, *path)
    assert refusal(f'{PROVIDERS}{first}[[models]]\nname = "m"\n{lines}\n') == (home, message)


# --- pools ------------------------------------------------------------------------------------------------------------

POOL = """
[providers.a]
vendor = "anthropic"
model = "own-default"
[providers.b]
vendor = "anthropic"
[routing]
policy = "priority"
"""


@pytest.mark.parametrize(("named", "name"), [("", "default"), ('default_model = "mine"\n', "mine")])
def test_row_1_1_a_pool_makes_a_model_of_its_pairs(named, name):
    catalog = build(f'{POOL}{named}models = [{{ provider = "b", model = "x/y" }}, {{ provider = "a" }}]\n')
    assert ladder(catalog, name) == [("b", 0, 0, "x/y"), ("a", 1, 0, "own-default")]
    assert catalog.default_model == name


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        (
            'default_model = "mine"\nmodels = [{ provider = "b" }]',
            ("models", 0),
            "no upstream model for provider 'b': add model here or in the provider's table.",
        ),
        ("", ("policy",), "a policy orders a pool: add models = [{ provider, model }, …] beside it."),
        ("models = []", ("policy",), "a policy orders a pool: add models = [{ provider, model }, …] beside it."),
        ('models = [{ provider = "d", model = "x" }]', ("models", 0), "provider 'd' is not known: write one of 'a', 'b'."),
        (
            'models = [{ provider = "a", model = "x" }, { provider = "a", model = "y" }]',
            ("models", 1),
            "provider 'a' serves model 'default' already: name it once.",
        ),
        (
            'default_model = "taken"\nmodels = [{ provider = "a" }]\n[[models]]\nname = "taken"\nprovider = "a"',
            ("models",),
            "model 'taken' is there already: name another default_model for the pool.",
        ),
    ],
)
def test_row_1_7_a_pool_that_cannot_be_is_refused(lines, path, message):
    assert refusal(f"{POOL}{lines}\n") == (("routing", *path), message)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("prioritise", "policy 'prioritise' is not known: did you mean 'priority'?"),
        ("round robin", "policy 'round robin' is not known: did you mean 'round_robin'?"),
        ("", "text is not empty and has no line breaks or control characters."),
    ],
)
def test_row_1_2_a_policy_that_is_not_known_is_never_ignored(policy, message):
    _, said = refusal(f'[routing]\npolicy = "{policy}"\n')
    assert said.endswith(message)


@pytest.mark.parametrize("policy", Strategy)
def test_row_1_2_a_policy_orders_the_pool_as_a_strategy_does_a_model(policy):
    catalog = build(POOL.replace('"priority"', f'"{policy}"') + 'models = [{ provider = "a" }]\n')
    assert catalog.models["default"].strategy is policy
    catalog = build(f'{PROVIDERS}[[models]]\nname = "m"\nprovider = "a"\nstrategy = "{policy}"\n')
    assert catalog.models["m"].strategy is policy


def test_a_pool_without_a_policy_is_refused():
    path, _ = refusal(POOL.replace('policy = "priority"', 'models = [{ provider = "a" }]'))
    assert path == ("routing", "models")


def test_the_default_model_is_a_model_or_an_alias():
    block = f'{PROVIDERS}[[models]]\nname = "vendor/m"\nprovider = "a"\naliases = ["short"]\n'
    assert build(f'{block}[routing]\ndefault_model = "short"\n').default_model == "vendor/m"
    assert build(block).default_model is None
    assert build(block.replace("vendor/m", "default")).default_model == "default"
    assert refusal(f'{block}[routing]\ndefault_model = "vendor/n"\n') == (
        ("routing", "default_model"),
        "model 'vendor/n' is not known: did you mean 'vendor/m'?",
    )


def test_the_routing_zone_exists():
    assert refusal('[routing]\ntimezone = "Europe/Berln"\n')[0] == ("routing", "timezone")
    build('[routing]\ntimezone = "Europe/Berlin"\n')


# --- prices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "pusd"),
    [
        ('"3.0"', 3_000_000),
        ("3", 3_000_000),
        ("0.1", 100_000),
        ('"0.0028"', 2_800),
        ("0.000001", 1),
        ("0", 0),
        ("1e2", 100_000_000),
    ],
)
def test_prices_are_exact(written, pusd):
    block = f'[[models]]\nname = "m"\nprovider = "a"\ncost_per_million_input = {written}\ncost_per_million_output = "15"\n'
    price = build(PROVIDERS + block).models["m"].price
    assert price.tiers == ((0, Rates(input_pusd=pusd, output_pusd=15_000_000)),)
    assert price.source == "file"


@given(st.decimals(min_value=0, max_value=10**6, places=6), st.booleans())
def test_no_digit_of_a_price_is_lost(usd_per_million, in_quotes):
    written = f'"{usd_per_million}"' if in_quotes else f"{usd_per_million:f}"
    price = build(
        f'[providers.a]\nvendor = "openai"\n[[models]]\nname = "m"\nprovider = "a"\n'
        f"cost_per_million_input = 0\ncost_per_million_output = {written}\n"
    )
    assert Decimal(price.models["m"].price.tiers[0][1].output_pusd) == usd_per_million * 10**6


def test_all_buckets_have_a_key_and_the_version_is_of_the_numbers():
    def price(text):
        keys = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning")
        lines = "".join(f"cost_per_million_{key} = {value}\n" for key, value in zip(keys, text.split(), strict=True))
        return build(f'{PROVIDERS}[[models]]\nname = "m"\nprovider = "a"\n{lines}').models["m"].price

    first = price("1 2 3 4 5 6")
    assert first.tiers[0][1] == Rates(
        input_pusd=10**6,
        output_pusd=2 * 10**6,
        cache_read_pusd=3 * 10**6,
        cache_write_5m_pusd=4 * 10**6,
        cache_write_1h_pusd=5 * 10**6,
        reasoning_pusd=6 * 10**6,
    )
    assert price('"1.0" 2.00 3 4 5 6').version == first.version
    assert price("1 2 3 4 5 7").version != first.version


@pytest.mark.parametrize(
    "written", ["0.0000001", '"-1"', "-1", "nan", "inf", '"free"', "1e-999999", "1e999999", '"1_0_0e99"', "9e12"]
)
def test_a_price_that_is_none_is_refused(written):
    block = f'[[models]]\nname = "m"\nprovider = "a"\ncost_per_million_output = 1\ncost_per_million_input = {written}\n'
    assert refusal(PROVIDERS + block)[0] == ("models", 0, "cost_per_million_input")


def test_a_price_has_input_and_output():
    block = '[[models]]\nname = "m"\nprovider = "a"\ncost_per_million_input = 1\n'
    assert refusal(PROVIDERS + block) == (
        ("models", 0),
        "cost_per_million_output is missing beside the other prices: add it, even if it is 0.",
    )


def test_an_attachment_s_price_goes_before_its_block_s_and_blocks_of_one_name_keep_their_own():
    prices = "cost_per_million_input = {0}\ncost_per_million_output = {0}\n"
    catalog = build(
        f'{PROVIDERS}[[models]]\nname = "m"\n{prices.format(1)}unmetered = true\n'
        'attachments = ["a", { provider = "b", cost_per_million_input = 9, cost_per_million_output = 9, unmetered = false }]\n'
        f'[[models]]\nname = "m"\nprovider = "c"\n{prices.format(2)}'
    )
    rungs = catalog.models["m"].attachments
    assert [rung.price.tiers[0][1].input_pusd for rung in rungs] == [10**6, 9 * 10**6, 2 * 10**6]
    assert [rung.unmetered for rung in rungs] == [True, False, False]
    assert catalog.models["m"].price is None


# --- limits -----------------------------------------------------------------------------------------------------------

SLASHES = """
[providers.p]
vendor = "openrouter"
account = "shared"
[[models]]
name = "deepseek/deepseek-chat"
provider = "p"
[[callers]]
name = "ci"
token_sha256 = "{digest}"
""".format(digest=hashlib.sha256(b"t").hexdigest())


def budget(subject="everyone", **keys):
    given_keys = {"name": '"b"', "subject": f'"{subject}"', "unit": '"usd"', "limit": '"50"', "window": '"month"', **keys}
    return "[[budgets]]\n" + "".join(f"{key} = {value}\n" for key, value in given_keys.items() if value is not None)


def test_a_budget_is_a_limit():
    text = budget(timezone='"Europe/Berlin"', enforcement='"strict"', limit='"50.000000001"', anchor="15")
    assert build(text).limits == (
        Limit(
            name="b",
            kind=Kind.BUDGET,
            subject="everyone",
            unit=Unit.USD,
            limit=50_000_000_001,
            window="month",
            anchor="15",
            timezone="Europe/Berlin",
            enforcement=Enforcement.STRICT,
        ),
    )


def test_a_quota_is_a_limit_of_the_account():
    text = SLASHES + '[[providers.p.quotas]]\nunit = "tokens"\nlimit = 2_000_000\nwindow = "5h"\nanchor = "first_use"\n'
    (quota,) = build(text).limits
    assert (quota.name, quota.kind, quota.subject) == ("shared/tokens/5h", Kind.QUOTA, "account:shared")
    assert (quota.unit, quota.limit, quota.enforcement) == (Unit.TOKENS, 2_000_000, Enforcement.BOUNDED)


def test_open_requests_need_no_window():
    (limit,) = build(budget(unit='"concurrency"', limit="4", window=None)).limits
    assert (limit.window, limit.limit) == ("forever", 4)


@pytest.mark.parametrize(
    ("written", "kept"),
    [("2026-01-31T00:00:00Z", "2026-01-31T00:00:00+00:00"), ('"2026-01-31T00:00:00Z"', "2026-01-31T00:00:00Z")],
)
def test_an_anchor_may_be_an_instant_of_toml(written, kept):
    (limit,) = build(budget(window='"5h"', anchor=written)).limits
    assert limit.anchor == kept
    assert datetime.fromisoformat(limit.anchor) == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "subject",
    [
        "everyone",
        "provider:p",
        "account:shared",
        "model:deepseek/deepseek-chat",
        "caller:ci",
        "caller:admin",
        "label:team:blue/1",
        "attachment:deepseek/deepseek-chat/p",
    ],
)
def test_subjects_that_exist(subject):
    assert build(SLASHES + budget(subject)).limits[0].subject == subject


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("provider:q", "provider 'q' is not known: write one of 'p'."),
        ("account:p", "account 'p' is not known: write one of 'shared'."),
        ("model:deepseek/deepseek-chatt", "model 'deepseek/deepseek-chatt' is not known: did you mean 'deepseek/deepseek-chat'?"),
        ("caller:cj", "caller 'cj' is not known: write one of 'admin', 'ci'."),
        ("attachment:deepseek/p", "attachment 'deepseek/p' is not known: write one of 'deepseek/deepseek-chat/p'."),
        ("label:", "subject 'label:' names nothing: write label:NAME."),
        (
            "user:me",
            (
                "subject 'user:me' is not known: write one of everyone, provider:NAME, account:NAME, model:NAME, caller:NAME, "
                "attachment:NAME, label:NAME, where an attachment is MODEL/PROVIDER."
            ),
        ),
    ],
)
def test_subjects_that_do_not(subject, message):
    assert refusal(SLASHES + budget(subject)) == (("budgets", 0, "subject"), message)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"limit": '"0.0000000001"'}, "limit"),
        ({"limit": '"-1"'}, "limit"),
        ({"limit": '"lots"'}, "limit"),
        ({"limit": "1e15"}, "limit"),
        ({"unit": '"tokens"', "limit": "1.5"}, "limit"),
        ({"unit": '"tokens"', "limit": '"1e3"'}, "limit"),
        ({"unit": '"tokens"', "limit": "9223372036854775808"}, "limit"),
        ({"unit": '"token"'}, "unit"),
        ({"enforcement": '"hard"'}, "enforcement"),
        ({"window": '"fortnight"'}, "window"),
        ({"window": '"0h"'}, "window"),
        ({"window": '"5h"', "anchor": "2026-01-31T00:00:00"}, "anchor"),
        ({"window": '"day"', "anchor": '"monday"'}, "window"),
        ({"timezone": '"Mars/Olympus"'}, "timezone"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(keys, key):
    assert refusal(budget(**keys))[0] == ("budgets", 0, key)


def test_a_limit_has_a_window():
    assert refusal(budget(window=None)) == (
        ("budgets", 0),
        "window is missing for a limit in usd: add one such as 'month' or '5h'.",
    )


def test_no_two_limits_share_a_name():
    assert refusal(budget() + budget()) == (("budgets", 1, "name"), "there is a limit 'b' already: name it differently.")
    quota = '[[providers.p.quotas]]\nunit = "tokens"\nlimit = 1\nwindow = "5h"\n'
    assert refusal(SLASHES + quota + quota) == (
        ("providers", "p", "quotas", 1),
        "there is a limit 'shared/tokens/5h' already: keep one.",
    )


# --- callers ----------------------------------------------------------------------------------------------------------

DIGEST = hashlib.sha256(b"token").hexdigest()


def test_a_caller_is_known_by_the_digest_of_its_token():
    caller = build(f'[[callers]]\nname = "ci"\ntoken_sha256 = "{DIGEST.upper()}"\n').callers["ci"]
    assert (caller.token_sha256, caller.scopes) == (DIGEST, ("call",))
    caller = build(f'[[callers]]\nname = "ci"\ntoken_sha256 = "{DIGEST}"\nscopes = ["read", "call"]\n').callers["ci"]
    assert caller.scopes == ("read", "call")


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        (f'name = "ci"\ntoken_sha256 = "{DIGEST[:-1]}0"', ("name",), "caller 'ci' is there already: give this one another name."),
        (f'name = "admin"\ntoken_sha256 = "{DIGEST}"', ("name",), "caller 'admin' is there already: give this one another name."),
        (f'name = "x"\ntoken_sha256 = "{DIGEST}"', ("token_sha256",), "caller 'ci' has the same token: give each caller its own."),
        (
            'name = "x"\ntoken_sha256 = "short"',
            ("token_sha256",),
            "token_sha256 is the SHA-256 of the token in 64 hex digits, not the token.",
        ),
        (
            f'name = "x"\ntoken_sha256 = "{"0" * 64}"\nscopes = ["call", "reed"]',
            ("scopes", 1),
            "scope 'reed' is not known: did you mean 'read'?",
        ),
    ],
)
def test_a_caller_that_cannot_be_is_refused(lines, path, message):
    text = f'[[callers]]\nname = "ci"\ntoken_sha256 = "{DIGEST}"\n[[callers]]\n{lines}\n'
    assert refusal(text) == (("callers", 1, *path), message)

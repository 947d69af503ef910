"""What a provider may say beside its address: commands, pollers, and headroom that is left alone."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.config import parse_catalog
from quota_router.core.catalog import Network, Poller
from quota_router.core.desired import build_catalog
from quota_router.core.shares import PPM, read_share, show_share
from quota_router.errors import ConfigError


def provider(lines, *, head='vendor = "openai"', pollers=()):
    """The provider `p` of a file; *pollers* are the presets that somebody reads."""
    return build_catalog(parse_catalog(f"[providers.p]\n{head}\n{lines}\n", "f.toml"), pollers=pollers).providers["p"]


def refusal(lines, **said):
    with pytest.raises(ConfigError) as caught:
        provider(lines, **said)
    return caught.value.key_path[2:], caught.value.message


# --- headroom ---------------------------------------------------------------------------------------------------------


def test_row_7_9_a_provider_keeps_headroom_back_exactly():
    found = provider('reserve = 0.02\npause_at = "0.9"\npace = true')
    assert (found.reserve, found.pause_at, found.pace) == (Fraction(1, 50), Fraction(9, 10), True)
    found = provider("")
    assert (found.reserve, found.pause_at, found.pace) == (0, None, False)


@given(st.integers(0, PPM))
def test_a_share_is_kept_to_the_millionth(ppm):
    share = Fraction(ppm, PPM)
    assert read_share(show_share(share)) == share


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("reserve = 1", "reserve"),
        ("reserve = 20", "reserve"),
        ("reserve = -0.1", "reserve"),
        ("reserve = 1e-999999", "reserve"),
        ("reserve = 1e999999", "reserve"),
        ("reserve = nan", "reserve"),
        ('reserve = "some"', "reserve"),
        ("reserve = 0.1234567", "reserve"),
        (f"reserve = 0.{'1' * 4000}", "reserve"),
        ("pause_at = 0", "pause_at"),
        ("pause_at = 1.1", "pause_at"),
    ],
)
def test_a_share_that_is_none_is_refused_at_once(line, key):
    assert refusal(line)[0] == (key,)


def test_a_share_in_percent_is_told_how_to_write_it():
    assert refusal("reserve = 20")[1] == "'20' is no share of 1: write 0.2 for 20 %."


# --- pollers ----------------------------------------------------------------------------------------------------------

URL = 'url = "https://u.example/quota?team=1"'


def poller(lines):
    return f'[[providers.p.pollers]]\nname = "money"\n{lines}'


def test_a_poller_says_where_the_numbers_stand():
    lines = f'{URL}\nused = "/data/usage"\nlimit = "/data/0/li~1mit"\nresets_at = ""\nunit = "usd"\nwindow = "month"\nscale = 0.01'
    found = provider(poller(f'{lines}\nevery_s = 60\ncredential = "file:/key"'))
    assert found.pollers == (
        Poller(
            name="money",
            url="https://u.example/quota?team=1",
            credential_ref="file:/key",
            used="/data/usage",
            limit="/data/0/li~1mit",
            resets_at="",
            scale=Fraction(1, 100),
            unit="usd",
            window="month",
            every_s=60,
        ),
    )
    assert found.quota_sources == ("headers",)


def test_a_share_is_a_unit_of_its_own():
    (found,) = provider(poller(f'{URL}\nshare = "/five_hour/utilization"\nscale = 0.01\nwindow = "5h"')).pollers
    assert (found.unit, found.scale, found.every_s, found.credential_ref) == ("share", Fraction(1, 100), 300, None)


def test_presets_are_those_that_somebody_reads():
    lines = 'quota_sources = ["headers", "openrouter-key"]'
    assert provider(lines, pollers=["openrouter-key"]).quota_sources == ("headers", "openrouter-key")
    assert refusal(lines) == (
        ("quota_sources", 1),
        "quota source 'openrouter-key' is not known: write one of 'headers'.",
    )
    table = poller('preset = "openrouter-key"\ncredential = "env:MANAGEMENT_KEY"')
    (found,) = provider(table, pollers=["openrouter-key"]).pollers
    assert found == Poller(name="money", preset="openrouter-key", credential_ref="env:MANAGEMENT_KEY")
    assert refusal(table)[0] == ("pollers", 0, "preset")


def test_a_table_is_asked_whether_it_is_listed_or_not():
    table = poller(f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "month"')
    assert provider(f'quota_sources = ["money"]\n{table}').quota_sources == ()
    assert len(provider(f"quota_sources = []\n{table}").pollers) == 1


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ('used = "/u"', ()),
        (f'{URL}\nlimit = "/l"\nunit = "usd"\nwindow = "x"', ()),
        (f'{URL}\nused = "u"\nunit = "usd"\nwindow = "x"', ("used",)),
        (f'{URL}\nused = "/a~2"\nunit = "usd"\nwindow = "x"', ("used",)),
        (f'{URL}\nused = "/u"\nwindow = "x"', ()),
        (f'{URL}\nused = "/u"\nunit = "usd"', ()),
        (f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "5 hours"', ("window",)),
        (f'{URL}\nused = "/u"\nunit = "euro"\nwindow = "x"', ("unit",)),
        (f'{URL}\nused = "/u"\nunit = "concurrency"\nwindow = "x"', ("unit",)),
        (f'{URL}\nused = "/u"\nunit = "share"\nwindow = "x"', ("unit",)),
        (f'{URL}\nshare = "/u"\nunit = "usd"\nwindow = "x"', ("unit",)),
        (f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "x"\nscale = 0', ("scale",)),
        (f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "x"\nscale = 1e-999999', ("scale",)),
        (f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "x"\nscale = 1e999999', ("scale",)),
        (f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "x"\nevery_s = 1', ("every_s",)),
        ('url = "http://u.example/q"\nused = "/u"\nunit = "usd"\nwindow = "x"', ("url",)),
        ('url = "https://k:hunter2@u.example/q"\nused = "/u"\nunit = "usd"\nwindow = "x"', ("url",)),
        ('url = "quota"\nused = "/u"\nunit = "usd"\nwindow = "x"', ("url",)),
        ('preset = "known"\nused = "/u"', ("used",)),
        ('preset = "known"\nurl = "https://u.example"', ("url",)),
    ],
)
def test_a_poller_that_could_read_nothing_is_refused(lines, path):
    found, message = refusal(poller(lines), pollers=["known"])
    assert found == ("pollers", 0, *path)
    assert "hunter2" not in message


def test_two_sources_of_a_provider_have_two_names():
    table = poller(f'{URL}\nused = "/u"\nunit = "usd"\nwindow = "x"')
    assert refusal(f"{table}\n{table}")[0] == ("pollers", 1, "name")
    assert refusal(table.replace("money", "headers"))[0] == ("pollers", 0, "name")
    assert refusal('quota_sources = ["headers", "headers"]')[0] == ("quota_sources", 1)


# --- commands ---------------------------------------------------------------------------------------------------------


def command(template, more=""):
    return f"command_template = {template}\n{more}"


def test_row_3_1_a_command_needs_no_address_and_no_credential():
    found = provider(command('["claude", "-p", "{prompt_file}"]'), head='vendor = "anthropic"')
    assert (found.vendor, found.family, found.base_url, found.network) == ("anthropic", "anthropic", "", Network.PUBLIC)
    assert (found.credential_ref, found.is_keyless, found.is_command) == ("none", True, True)
    found = provider(command('["x", "{prompt_file}", "{literal braces}", "{}"]', 'credential = "env:K"'), head="")
    assert (found.family, found.credential_ref, found.is_keyless) == ("openai", "env:K", False)


def test_the_variables_of_a_command_have_one_order():
    found = provider(command('["x", "{prompt_file}"]', 'env = { B = "2", A = "1" }'), head="")
    assert found.env == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        (command("[]"), (), 'names no program: write one such as ["claude", "-p", "{prompt_file}"].'),
        (command('""'), (), "names no program"),
        (command('["", "{prompt_file}"]'), (), "names no program"),
        (command('["claude"]'), (), "does not say where the prompt goes"),
        (command('["{model}", "{prompt_file}"]'), (), "the program itself is no placeholder"),
        (command('["x", "{promptfile}"]'), (1,), "did you mean 'prompt_file'?"),
        (command('"x {prompt_file} {api_key}"'), (), "placeholder 'api_key' is not known"),
        (command('"x \'{prompt_file}"'), (), "a quote in command_template is not closed"),
        (
            command(f'["x", "{{prompt_file}}"{", ".join([""] + ["1"] * 0)}]'.replace("]", ', "a"' * 100 + "]")),
            (),
            "at most 100 words",
        ),
    ],
)
def test_a_command_that_cannot_be_is_refused(lines, path, message):
    found, said = refusal(lines, head="")
    assert found == ("command_template", *path)
    assert message in said


@pytest.mark.parametrize("key", ['base_url = "https://u.example/v1"', 'network = "loopback"', 'allow = ["10.0.0.1:80"]'])
def test_a_command_has_nothing_of_an_api(key):
    path, message = refusal(command('["x", "{prompt_file}"]', key), head="")
    assert path == (key.partition(" ")[0],)
    assert "or leave out command_template" in message


def test_variables_without_a_command_are_refused():
    assert refusal('env = { A = "1" }')[0] == ("env",)


@pytest.mark.parametrize(
    "line", ["command_template = [1]", 'command_template = "a\\u0000b"', 'env = { "A B" = "1" }', "env = { A = 1 }"]
)
def test_what_no_process_takes_is_refused_by_its_shape(line):
    with pytest.raises(ConfigError, match=r"line 3, providers\.p\."):
        parse_catalog(f"[providers.p]\nfamily = 'openai'\n{line}\n", "f.toml")

"""What a provider may say beside its address: commands, pollers, and headroom that is left alone."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.config import parse_catalog
from quota_router.core.catalog import Network, Poller
from quota_router.core.command_output import Format, Pick, Reads, Source
from quota_router.core.command_presets import PRESETS
from quota_router.core.desired import build_catalog
from quota_router.core.desired_commands import command_table
from quota_router.core.shares import PPM, read_share, show_share
from quota_router.errors import ConfigError

CLAUDE = PRESETS["claude"]


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
    found = provider(command('["x", "{prompt_file}", "{{literal}}", "{{}}"]', 'credential = "env:K"'), head="")
    assert (found.family, found.credential_ref, found.is_keyless) == ("openai", "env:K", False)


def test_the_variables_of_a_command_have_one_order():
    found = provider(command('["x", "{prompt_file}"]', 'env = { B = "2", A = "1" }'), head="")
    assert found.env == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        (command("[]"), "command_template", "has 1 to 256 arguments"),
        (command('""'), "command_template", "has 1 to 256 arguments"),
        (command('["", "{prompt_file}"]'), "command_template", "neither a name to look up on PATH nor an absolute path"),
        (command('["bin/x", "{prompt_file}"]'), "command_template", "neither a name to look up on PATH nor an absolute path"),
        (command('["claude"]'), "command_template", "a command needs its prompt"),
        (command('["{model}", "{prompt_file}"]'), "command_template", "the program is named, not filled in"),
        (command('["x", "{promptfile}"]'), "command_template", "did you mean 'prompt_file'?"),
        (command('"x {prompt_file} {api_key}"'), "command_template", "placeholder {api_key} is not known"),
        (command('["x", "{prompt_file}", "{}"]'), "command_template", "write it twice if it is meant"),
        (command('["sh", "-c", "x {prompt_file}"]'), "command_template", "a shell would read what is filled in as code"),
        (command('"x \'{prompt_file}"'), "command_template", "a quote in command_template is not closed"),
        (command('["x", "{prompt_file}"]', 'env = { QUOTA_ROUTER_ADMIN_TOKEN = "1" }'), "env", "this daemon's own"),
    ],
)
def test_a_command_that_cannot_be_called_is_refused(lines, key, message):
    path, said = refusal(lines, head="")
    assert path == (key,)
    assert message in said


@pytest.mark.parametrize("key", ['base_url = "https://u.example/v1"', 'network = "loopback"', 'allow = ["10.0.0.1:80"]'])
def test_a_command_has_nothing_of_an_api(key):
    path, message = refusal(command('["x", "{prompt_file}"]', key), head="")
    assert path == (key.partition(" ")[0],)
    assert "or leave out command_template" in message


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("env", 'env = { A = "1" }'),
        ("credential_env", 'credential_env = "A"'),
        ("prompt_on_stdin", "prompt_on_stdin = true"),
        ("run_timeout_s", "run_timeout_s = 5"),
        ("answer", 'answer = { text = "/a" }'),
    ],
)
def test_what_is_for_a_command_is_refused_without_one(key, line):
    assert refusal(line)[0] == (key,)


def test_a_known_tool_says_all_of_its_command_and_the_file_says_what_differs():
    for name, preset in PRESETS.items():
        found = provider(f'command = "{name}"', head="")
        assert (found.family, found.vendor, found.base_url) == (preset.family, preset.family.value, "")
        assert found.command == replace(preset.spec, credential_env=None)
    found = provider('command = "claude"\nrun_timeout_s = 30\nenv = { CLAUDE_CONFIG_DIR = "/two" }\ncredential = "cred:k"', head="")
    assert found.command == replace(CLAUDE.spec, run_timeout_s=30.0, env={"CLAUDE_CONFIG_DIR": "/two"})
    found = provider(command('["my-claude", "{model}"]', 'command = "claude"\nfamily = "openai"'), head="")
    assert found.command == replace(CLAUDE.spec, template=("my-claude", "{model}"), credential_env=None)
    assert found.family == "openai"
    assert refusal('command = "claud"', head="") == (("command",), "command 'claud' is not known: did you mean 'claude'?")


def test_a_key_reaches_its_program_in_a_variable_that_somebody_named():
    x = '["x", "{prompt_file}"]'
    assert provider(command(x, 'api_key_env = "K"'), head="").command.credential_env == "K"
    assert provider(command(x, 'credential = "file:/k"\ncredential_env = "V"'), head="").command.credential_env == "V"
    assert refusal(command(x, 'credential = "file:/k"'), head="")[0] == ("credential",)
    assert refusal(command(x, 'credential_env = "V"'), head="")[0] == ("credential_env",)
    assert refusal(command(x, 'api_key_env = "V"\nenv = { V = "1" }'), head="")[0] == ("credential_env",)


ANSWER = """
[providers.p.answer]
format = "json_lines"
text = { at = "/text", when = { "/type" = "answer" } }
failed = "/error"
message = ["/error/message", { at = "/said", when = { "/type" = "error" } }]
status = "/status"
cost_usd = "/cost"
input_tokens = "/usage/in"
cache_read_tokens = "/usage/cached"
output_tokens = "/usage/out"
within = { cache_read_tokens = "input_tokens" }
"""


def test_an_answer_is_read_where_the_file_says_it_stands():
    found = provider(command('["x", "{output_file}"]', f"prompt_on_stdin = true\n{ANSWER}"), head="").command
    assert found.prompt_on_stdin
    assert found.reads == Reads(
        source=Source.OUTPUT_FILE,
        format=Format.JSON_LINES,
        text=Pick(at="/text", when=(("/type", "answer"),)),
        failed=(Pick(at="/error"),),
        message=(Pick(at="/error/message"), Pick(at="/said", when=(("/type", "error"),))),
        status=Pick(at="/status"),
        counts={"input": Pick(at="/usage/in"), "cache_read": Pick(at="/usage/cached"), "output": Pick(at="/usage/out")},
        within=(("cache_read", "input"),),
        cost_usd=Pick(at="/cost"),
    )


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        ('format = "jsn"\ntext = "/a"', "format", "did you mean 'json'?"),
        ('format = "json"', "answer", "write the JSON pointer to it"),
        ('text = "a"', "text", "is not a JSON pointer"),
        ('failed = ["/a", { at = "b" }]', "failed", "is not a JSON pointer"),
        ('within = { cached_tokens = "input_tokens" }', "within", "count 'cached_tokens' is not known"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused(lines, key, message):
    path, said = refusal(command('["x", "{prompt_file}"]', f"[providers.p.answer]\n{lines}"), head="")
    assert key in path
    assert message in said


@pytest.mark.parametrize("line", ["text = 1", "text = { at = 1 }", 'text = { at = "/a", where = {} }', "failed = [1]", "input = 1"])
def test_a_place_in_an_answer_is_a_pointer(line):
    with pytest.raises(ConfigError, match=r"line 3, providers\.p\.answer"):
        parse_catalog(f"[providers.p]\n[providers.p.answer]\n{line}\n", "f.toml")


@pytest.mark.parametrize(
    "lines", ['command = "claude"', 'command = "codex"\ncredential = "cred:k"', command('["x", "{prompt_file}"]', ANSWER)]
)
def test_a_command_is_told_in_the_words_of_the_file_and_is_the_same_again(lines):
    found = provider(lines, head="")
    told = {"family": str(found.family), "credential": found.credential_ref, **command_table(found.command)}
    assert build_catalog({"providers": {"p": told}}).providers["p"] == found


def test_a_model_whose_name_a_program_could_take_for_an_option_is_refused():
    lines = command('["x", "{prompt_file}"]', '[[models]]\nname = "m"\nattachments = [{ provider = "p", upstream_model = "-m" }]')
    with pytest.raises(ConfigError, match="does not begin with a dash") as caught:
        provider(lines, head="")
    assert caught.value.key_path == ("models", 0, "attachments", 0)


@pytest.mark.parametrize(
    "line", ["command_template = [1]", 'command_template = "a\\u0000b"', 'env = { "A B" = "1" }', "env = { A = 1 }"]
)
def test_what_no_process_takes_is_refused_by_its_shape(line):
    with pytest.raises(ConfigError, match=r"line 3, providers\.p\."):
        parse_catalog(f"[providers.p]\nfamily = 'openai'\n{line}\n", "f.toml")

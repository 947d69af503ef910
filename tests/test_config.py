import pickle
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router import config
from quota_router.config import Credentials, admin_token, explain, line_of, load, parse_catalog, shapes
from quota_router.config.lines import read_lines
from quota_router.core.desired import build_catalog
from quota_router.core.secrets import Secret
from quota_router.errors import ConfigError

EXAMPLE = Path(config.__file__).parents[1] / "example.toml"

KEY = "sk-ant-api03-AbCdEf"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test finds a file that happens to lie about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def read(text):
    """What `serve` does with a file, from text to catalog."""
    try:
        return build_catalog(parse_catalog(text, "f.toml"))
    except ConfigError as error:
        raise explain(error, text, "f.toml") from error


PROVIDERS = """
[providers.a]
vendor = "anthropic"
[providers.o]
vendor = "openai"
"""
MODEL = f"""{PROVIDERS}
[[models]]
name = "m"
provider = "a"
"""

BAD_FILES = [
    # --- shape
    ("[server]\nlisten = \n", "f.toml, line 2: the file is not valid TOML here: Invalid value."),
    (
        '[server]\nlisten = "127.0.0.1:1"\nlisten = "127.0.0.1:2"\n',
        "f.toml, line 3: key 'listen' is given twice: keep one of them.",
    ),
    (
        '[providers.a]\nvendor = "openai"\n[providers.a]\n',
        "f.toml, line 3: table 'providers.a' is given twice: keep one of them.",
    ),
    ("a = [1, 2", "f.toml, line 1: the file is not valid TOML here: Unclosed array."),
    (
        "[providers.a]\nmodels = { x = 'y', x = 'z' }\n",
        "f.toml, line 2: key 'x' is given twice: keep one of them.",
    ),
    (f"limit = {'9' * 5000}", "f.toml: the file is not valid TOML: one of its numbers is too long."),
    (f"a = {'[' * 100_000}", "f.toml: the file is nested too deeply."),
    (
        "[server]\n\nlissten = 'x'\n",
        "f.toml, line 3, server.lissten: key 'lissten' is not known: did you mean 'listen'?",
    ),
    (
        "[sever]\n",
        "f.toml, line 1, sever: key 'sever' is not known: did you mean 'server'?",
    ),
    (
        '[providers.a]\nvendor = "openai"\nbiling = "flat"\n',
        "f.toml, line 3, providers.a.biling: key 'biling' is not known: did you mean 'billing'?",
    ),
    (
        f'{MODEL}attachments = [\n  "a",\n  {{ provider = "o", wieght = 2 }},\n]\n',
        "f.toml, line 12, models[0].attachments[1].wieght: key 'wieght' is not known: did you mean 'weight'?",
    ),
    (
        '[providers."my claude"]\nvendor = 3\n',
        'f.toml, line 2, providers."my claude".vendor: must be text in quotes, not 3.',
    ),
    (
        '[providers.a]\nvendor = "openai"\nenabled = "yes"\n',
        "f.toml, line 3, providers.a.enabled: must be true or false, not 'yes'.",
    ),
    (
        '[server]\ndrain_s = "30"\n',
        "f.toml, line 2, server.drain_s: must be a number of seconds, not '30'.",
    ),
    ("[server]\ndrain_s = true\n", "f.toml, line 2, server.drain_s: must be a number of seconds, not true."),
    ("[server]\ndrain_s = -1\n", "f.toml, line 2, server.drain_s: must be greater than 0, not -1."),
    (
        "[server]\nmax_body_bytes = 1.5\n",
        "f.toml, line 2, server.max_body_bytes: must be a whole number, not 1.5.",
    ),
    (
        '[server]\ndurability = "powr"\n',
        "f.toml, line 2, server.durability: durability 'powr' is not known: did you mean 'power'?",
    ),
    (
        '[server]\nlisten = "4141"\n',
        "f.toml, line 2, server.listen: '4141' is not HOST:PORT: write one such as '127.0.0.1:4141'.",
    ),
    (
        '[server]\ndatabase = "postgres://me:hunter2@db/x"\n',
        (
            "f.toml, line 2, server.database: a database URL begins with one of "
            "sqlite+aiosqlite:///, postgresql+psycopg://, postgresql+asyncpg://."
        ),
    ),
    (f"{PROVIDERS}[[models]]\nprovider = 'a'\n", "f.toml, line 6, models[0].name: name is missing: add it."),
    (
        f"{PROVIDERS}[[models]]\nname = 'm'\nattachments = [['a', ['o']]]\n",
        "f.toml, line 8, models[0].attachments[0][1]: must be the name of a provider, a list of names, or a table.",
    ),
    (
        f'{PROVIDERS}[[models]]\nname = "m"\nprovider = "a"\ncost_per_million_input = true\n',
        "f.toml, line 9, models[0].cost_per_million_input: must be a number, in quotes or not, not true.",
    ),
    # --- rules, commands, pollers, workflows
    (
        "[providers.a]\nvendor = 'openai'\nreserve = 1e-999999\n",
        "f.toml, line 3, providers.a.reserve: '1E-999999' is no share of 1: write 0.2 for 20 %.",
    ),
    (
        '[providers.a]\ncommand_template = ["claude", "{prompt}", "{prompt_file}"]\n',
        "f.toml, line 2, providers.a.command_template: placeholder {prompt} is not known: did you mean 'prompt_file'?",
    ),
    (
        '[providers.a]\ncommand_template = ["x", "{prompt_file}"]\n[providers.a.env]\nDIR-1 = "1"\n',
        "f.toml, line 4, providers.a.env.DIR-1: a variable is named by letters, digits and _ alone, such as CLAUDE_CONFIG_DIR.",
    ),
    (
        f"[providers.a]\nvendor = 'openai'\n[[providers.a.pollers]]\nname = 'm'\ncredential = '{KEY}'\n",
        (
            "f.toml, line 5, providers.a.pollers[0].credential: a credential is a reference, never the key itself: put the key "
            'into an environment variable or a file and write "env:NAME", "file:PATH", "cred:NAME" or "none".'
        ),
    ),
    (
        f'{MODEL}[routing]\n[[routing.rules]]\n\ncondition = "hour > 22 an priority == 1"\nmodel = "m"\n',
        "f.toml, line 13, routing.rules[0].condition: rule 1, column 11: 'an' is no operator: write 'and'.",
    ),
    (
        f'{MODEL}[[routing.rules]]\ncondition = "hour > 22"\nmodel = "mm"\n',
        "f.toml, line 12, routing.rules[0].model: rule 1 (hour > 22) names model 'mm', which is not known: did you mean 'm'?",
    ),
    (
        f'{MODEL}[[routing.rules]]\nmodel = "m"\n',
        "f.toml, line 10, routing.rules[0].condition: condition is missing: add it.",
    ),
    (
        f'{MODEL}[workflows.standard]\nstages = [\n  {{ name = "plan", model = "m" }},\n  {{ name = "do", model = "n" }},\n]\n',
        (
            "f.toml, line 13, workflows.standard.stages[1].model: stage 'do' of workflow 'standard' names model 'n', which is not"
            " known: write one of 'm'."
        ),
    ),
    (
        '[server]\napi_networks = ["public"]\n',
        "f.toml, line 2, server.api_networks[0]: api_networks 'public' is not known: write one of 'loopback', 'private'.",
    ),
    # --- secrets are not repeated
    (
        f'[providers.a]\nvendor = "anthropic"\ncredential = "{KEY}"\n',
        (
            "f.toml, line 3, providers.a.credential: a credential is a reference, never the key itself: put the key into an "
            'environment variable or a file and write "env:NAME", "file:PATH", "cred:NAME" or "none".'
        ),
    ),
    (
        f'[providers.a]\nvendor = "anthropic"\ncredential = "env:{KEY}"\n',
        (
            "f.toml, line 3, providers.a.credential: a credential is a reference, never the key itself: put the key into an "
            'environment variable or a file and write "env:NAME", "file:PATH", "cred:NAME" or "none".'
        ),
    ),
    (
        f'[providers.a]\nvendor = "anthropic"\napi_key_env = "{KEY}"\n',
        (
            "f.toml, line 3, providers.a.api_key_env: api_key_env is the name of an environment variable, never the key itself: "
            "write one such as OPENAI_API_KEY."
        ),
    ),
    (
        f'[providers.a]\nvendor = "anthropic"\napi_key = "{KEY}"\n',
        "f.toml, line 3, providers.a.api_key: key 'api_key' is not known: did you mean 'api_key_env'?",
    ),
    (
        f'[[callers]]\nname = "ci"\ntoken_sha256 = "{KEY}"\n',
        "f.toml, line 3, callers[0].token_sha256: token_sha256 is the SHA-256 of the token in 64 hex digits, not the token.",
    ),
    # --- meaning, found by the core and located here
    (
        "[providers.a]\n# the wrong one\nvendor = 'antropic'\n",
        "f.toml, line 3, providers.a.vendor: vendor 'antropic' is not known: did you mean 'anthropic'?",
    ),
    (
        f'{MODEL}strategy = "priorty"\n',
        "f.toml, line 10, models[0].strategy: strategy 'priorty' is not known: did you mean 'priority'?",
    ),
    (
        f'{PROVIDERS}[routing]\npolicy = "prioritty"\nmodels = [{{ provider = "a", model = "x" }}]\n',
        "f.toml, line 7, routing.policy: policy 'prioritty' is not known: did you mean 'priority'?",
    ),
    (
        f"{PROVIDERS}[[models]]\nname = 'm'\nattachments = [\n 'a',\n 'b',\n]\n",
        "f.toml, line 10, models[0].attachments[1]: provider 'b' is not known: write one of 'a', 'o'.",
    ),
    (
        "[[budgets]]\nname = 'x'\nsubject = 'everyone'\nunit = 'dollars'\nlimit = 1\nwindow = 'month'\n",
        (
            "f.toml, line 4, budgets[0].unit: unit 'dollars' is not known: write one of "
            "'concurrency', 'input_tokens', 'output_tokens', 'requests', 'tokens', 'usd'."
        ),
    ),
    (
        "[[budgets]]\nname = 'x'\nsubject = 'everyone'\nunit = 'usd'\nlimit = '1'\nwindow = 'fortnight'\n",
        (
            "f.toml, line 6, budgets[0].window: window 'fortnight' is not known: write hour, day, week, month, year, forever, "
            "or a number with s, m, h or d, such as '5h'."
        ),
    ),
    (
        f"{MODEL}[[models]]\nname = 'n'\n\n[[models]]\nname = 'm'\nprovider = 'a'\n",
        "f.toml, line 15, models[2].provider: provider 'a' serves model 'm' already: name it once.",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), BAD_FILES, ids=[sentence[:70] for _, sentence in BAD_FILES])
def test_a_bad_file_is_one_sentence_with_file_line_key_and_remedy(text, sentence):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.message == sentence
    assert caught.value.file == "f.toml"
    assert KEY not in sentence
    assert "hunter2" not in sentence


def test_of_several_problems_the_first_in_the_file_is_told():
    text = "[[models]]\nname = 1\n[server]\ndrain_s = 'x'\n"
    with pytest.raises(ConfigError, match=r"line 2, models\[0\]\.name"):
        read(text)


def test_numbers_with_a_point_are_read_exactly():
    catalog = parse_catalog("[[models]]\nname = 'm'\ncost_per_million_input = 0.1\n", "f")
    assert catalog["models"][0]["cost_per_million_input"] == Decimal("0.1")


def test_row_3_9_the_example_loads_as_it_is_and_gives_the_catalog_it_describes():
    loaded = load(EXAMPLE, {})
    catalog = build_catalog(loaded.desired)
    assert catalog.default_model == "claude-sonnet-4-5"
    assert {name: [a.provider for a in model.attachments] for name, model in catalog.models.items()} == {
        "claude-sonnet-4-5": ["claude-work", "claude-home", "claude-cli", "openrouter-messages"],
        "claude-haiku-4-5": ["claude-work", "claude-home"],
        "gpt-5-mini": ["openai", "openrouter"],
        "qwen3": ["local"],
    }
    assert catalog.providers["claude-work"].account != catalog.providers["claude-home"].account
    assert {limit.name for limit in catalog.limits} >= {"month", "claude-work/tokens/5h"}
    assert "server" not in loaded.desired
    assert (len(catalog.rules), list(catalog.workflows), catalog.timezone) == (5, ["standard"], "Europe/Berlin")
    assert catalog.providers["claude-cli"].is_command
    assert [poller.name for poller in catalog.providers["openrouter"].pollers] == ["key"]


def test_row_3_9_the_example_shows_every_key_of_the_file():
    """A key that is not there is one that nobody finds."""
    text = EXAMPLE.read_text()
    tables = [shape for shape in vars(shapes).values() if isinstance(shape, type) and issubclass(shape, shapes.Table)]
    keys = {key for shape in tables for key in shape.model_fields if key != "state_dir"}
    assert {key for key in keys if not re.search(rf"\b{key}\b|{key.removeprefix('cost_per_million')}\b", text)} == set()


def test_each_default_that_the_example_shows_is_the_default():
    """The commented keys of `[server]` in the example are the settings' own values."""
    shown = [
        line[2:] for line in EXAMPLE.read_text().split("# --- providers")[0].splitlines() if line.startswith("# ") and " = " in line
    ]
    names = [line.partition(" = ")[0] for line in shown]
    settings = load(None, {}).settings
    assert {*names, "listen"} == set(config.ServerTable.model_fields)
    without_database = [line for line in shown if not line.startswith("database")]
    parsed = load_text("[server]\n" + "\n".join(without_database))
    assert parsed.settings == settings


def load_text(text, environ=None):
    path = Path("given.toml").absolute()
    path.write_text(text)
    return load(path, environ or {})


# --- search order and variables ---------------------------------------------------------------------------------------


def test_without_a_file_the_catalog_is_empty_and_the_database_lies_in_the_state_directory(tmp_path):
    loaded = load(None, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert loaded.path is None
    assert loaded.desired == {}
    assert loaded.settings.state_dir == tmp_path / "state/quota-router"
    assert loaded.settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/state/quota-router/ledger.db"
    assert (loaded.settings.listen_host, loaded.settings.listen_port) == ("127.0.0.1", 4141)


def test_files_are_found_in_order(tmp_path):
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    places = [
        tmp_path / "xdg/quota-router/config.toml",
        Path("quota-router.toml"),
        tmp_path / "variable.toml",
        tmp_path / "explicit.toml",
    ]
    for port, place in enumerate(places, start=1):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'[server]\nlisten = "[::1]:{port}"\n')
        named = place if place.name == "explicit.toml" else None
        if place.name == "variable.toml":
            environ["QUOTA_ROUTER_CONFIG"] = str(place)
        loaded = load(named, environ)
        assert (loaded.path, loaded.settings.listen_port, loaded.settings.listen_host) == (place, port, "::1")


def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nothere\.toml cannot be read: No such file or directory\."):
        load(tmp_path / "nothere.toml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(None, {"QUOTA_ROUTER_CONFIG": str(tmp_path)})
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# \xfc\n")
    with pytest.raises(ConfigError, match=r"latin\.toml, line 2: the file is not UTF-8 text\."):
        load(tmp_path / "latin.toml", {})
    (tmp_path / "huge.toml").write_bytes(b"#" * (config.FILE_MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than 4194304 bytes"):
        load(tmp_path / "huge.toml", {})


def test_variables_go_before_the_file():
    environ = {
        "QUOTA_ROUTER_SERVER__LISTEN": "0.0.0.0:0",
        "QUOTA_ROUTER_SERVER__DRAIN_S": "1.5",
        "QUOTA_ROUTER_SERVER__DRAIN_TOKENS": "7",
        "QUOTA_ROUTER_SERVER__DURABILITY": "process",
        "QUOTA_ROUTER_SERVER__DATABASE": "postgresql+psycopg://me:hunter2@db/ledger",
        "QUOTA_ROUTER_SERVER__ALLOWED_HOSTS": "router.example, other.example",
        "QUOTA_ROUTER_SERVER__API_NETWORKS": "private, loopback",
        "QUOTA_ROUTER_SERVER__GAP_TIMEOUT_S": "",
    }
    settings = load_text('[server]\nlisten = "127.0.0.1:1"\nsweep_s = 0.25\ngap_timeout_s = 3\n', environ).settings
    assert settings.listen == "0.0.0.0:0"
    assert (settings.drain_s, settings.drain_tokens, settings.durability) == (1.5, 7, "process")
    assert (settings.sweep_s, settings.gap_timeout_s) == (0.25, 3.0)
    assert settings.allowed_hosts == ("router.example", "other.example")
    assert settings.api_networks == ("private", "loopback")
    assert settings.database_url.endswith("@db/ledger")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "QUOTA_ROUTER_SERVER__LISTNE",
            "x",
            "variable QUOTA_ROUTER_SERVER__LISTNE is not known: did you mean 'QUOTA_ROUTER_SERVER__LISTEN'?",
        ),
        ("QUOTA_ROUTER_CONFG", "x", "variable QUOTA_ROUTER_CONFG is not known: did you mean 'QUOTA_ROUTER_CONFIG'?"),
        ("QUOTA_ROUTER_SERVER__DRAIN_S", "soon", "QUOTA_ROUTER_SERVER__DRAIN_S: must be a number of seconds, not 'soon'."),
        ("QUOTA_ROUTER_SERVER__DRAIN_TOKENS", "1.5", "QUOTA_ROUTER_SERVER__DRAIN_TOKENS: must be a whole number, not '1.5'."),
        (
            "QUOTA_ROUTER_SERVER__DURABILITY",
            "proces",
            "QUOTA_ROUTER_SERVER__DURABILITY: durability 'proces' is not known: did you mean 'process'?",
        ),
    ],
)
def test_a_variable_that_is_wrong_is_named(name, value, sentence):
    with pytest.raises(ConfigError) as caught:
        load_text("", {name: value})
    assert caught.value.message == sentence


def test_names_read_elsewhere_and_of_others_are_left_alone():
    names = ("ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "TEST_PG_URL", "UI", "URL", "TOKEN")
    load_text("", {**{f"QUOTA_ROUTER_{name}": "x" for name in names}, "QUOTA": "1", "PATH": "/bin"})


# --- lines ------------------------------------------------------------------------------------------------------------

LAYOUT = """\
# a comment with [brackets] and = signs
top = 1

[server]
text = '''
[not.a.table]
key = 1 '''   # [comment]
"quo\\"ted.key" = "a # no comment"
a.b . c = { d = 1, e.f = [1,
    2, { g = 2026-01-01 10:00:00 }] }

[providers."x.y"]
[[providers."x.y".quotas]]
unit = \"\"\"two
lines\"\"\"\"
[[providers."x.y".quotas]]
unit = 'usd'
[providers."x.y".quotas.deep]
z = 1
"""


@pytest.mark.parametrize(
    ("key_path", "line"),
    [
        (("top",), 2),
        (("server",), 4),
        (("server", "text"), 5),
        (("server", 'quo"ted.key'), 8),
        (("server", "a", "b", "c", "d"), 9),
        (("server", "a", "b", "c", "e", "f", 1), 10),
        (("server", "a", "b", "c", "e", "f", 2, "g"), 10),
        (("providers", "x.y"), 12),
        (("providers", "x.y", "quotas", 0, "unit"), 14),
        (("providers", "x.y", "quotas", 1), 16),
        (("providers", "x.y", "quotas", 1, "unit"), 17),
        (("providers", "x.y", "quotas", 1, "deep", "z"), 19),
        (("server", "missing", "deeper"), 4),
        (("not", "there"), None),
        ((), None),
    ],
)
def test_lines_are_found(key_path, line):
    assert line_of(LAYOUT, key_path) == line


@given(st.text(alphabet="ab.[]{}=,'\"#\\ \n1", max_size=60))
def test_no_text_makes_the_scanner_fail(text):
    lines = read_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_every_key_of_the_example_has_a_line():
    def paths(value, path=()):
        if path:
            yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from paths(inner, (*path, key))

    text = EXAMPLE.read_text()
    found = read_lines(text)
    written = text.splitlines()
    for path in paths(dict(parse_catalog(text, "f"))):
        line = written[found[path] - 1]
        assert isinstance(path[-1], int) or path[-1] in line, path


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_shows_nothing():
    secret = Secret(KEY)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s" % secret, repr([secret])):  # noqa: UP031 -- a way to spill
        assert "sk-ant" not in shown
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == KEY


def test_a_secret_is_neither_pickled_nor_hashed_nor_equal_to_plain_text():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError):
        hash(Secret(KEY))
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert Secret("ü") == Secret("ü")


def test_references_lead_to_secrets_and_what_is_missing_is_none(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "two-lines").write_text("one\ntwo")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_text("x" * 70_000)
    environ = {"SET": KEY, "EMPTY": "", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    resolve = Credentials(environ, Secret).resolve
    for reference in ("env:SET", f"file:{tmp_path}/key", "cred:key", "file:~/key"):
        assert resolve(reference) == Secret(KEY), reference
    files = ("empty", "two-lines", "binary", "huge", "missing", ".")
    for reference in ("env:UNSET", "env:EMPTY", "none", *(f"file:{tmp_path}/{name}" for name in files), "cred:missing"):
        assert resolve(reference) is None, reference
    assert Credentials({}, Secret).resolve("cred:key") is None


def test_a_rotated_file_is_seen_at_the_next_call(tmp_path):
    resolve = Credentials({}, Secret).resolve
    for key in ("first", "second"):
        (tmp_path / "key").write_text(key)
        assert resolve(f"file:{tmp_path}/key") == Secret(key)


def test_the_admin_token_comes_from_its_variable_or_its_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("t0ken\n")
    assert admin_token({}, Secret) is None
    assert admin_token({"QUOTA_ROUTER_ADMIN_TOKEN": "t0ken"}, Secret) == Secret("t0ken")
    assert admin_token({"QUOTA_ROUTER_ADMIN_TOKEN_FILE": str(path)}, Secret) == Secret("t0ken")
    with pytest.raises(ConfigError, match="are both set: keep one of them"):
        admin_token({"QUOTA_ROUTER_ADMIN_TOKEN": "t", "QUOTA_ROUTER_ADMIN_TOKEN_FILE": str(path)}, Secret)
    with pytest.raises(ConfigError, match="QUOTA_ROUTER_ADMIN_TOKEN_FILE leads to no token"):
        admin_token({"QUOTA_ROUTER_ADMIN_TOKEN_FILE": str(tmp_path / "none")}, Secret)

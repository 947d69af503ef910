"""Single rows of the catalog on the command line, with a real daemon behind."""

import json
from types import SimpleNamespace

import pytest
from cli_kit import CATALOG, move_in, serving

from quota_router.cli.common import Exit

RULES = """
[routing]
default_model = "small"
[[routing.rules]]
condition = "priority == 0"
model = "big"
reason = "Critical"
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One daemon for all of them: each test makes rows of its own names."""
    home = tmp_path_factory.mktemp("rows")
    (home / "quota-router.toml").write_text(CATALOG + RULES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        move_in(home, monkeypatch)
        with serving() as running:
            monkeypatch.undo()
            yield SimpleNamespace(home=home, url=running.url)


@pytest.fixture
def daemon(house, monkeypatch):
    move_in(house.home, monkeypatch)
    monkeypatch.setenv("QUOTA_ROUTER_URL", house.url)


@pytest.fixture
def ok(command, daemon):
    """Run a command that must end well, and return what it printed."""

    def ok(*arguments):
        said = command(*arguments)
        assert said.returncode == Exit.OK, said.stderr
        return said.stdout

    return ok


@pytest.fixture
def refused(command, daemon):
    """Run a command that must fail, and return its exit code and its sentence."""

    def refused(*arguments):
        said = command(*arguments)
        assert said.returncode != Exit.OK
        assert len(said.stderr.splitlines()) == 1
        return said.returncode, said.stderr

    return refused


def as_json(text):
    return json.loads(text)


def cells(table, name):
    """The cells of the row of a table that begins with *name*."""
    line = next(line for line in table.splitlines() if line.strip().startswith(name))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_provider_is_added_shown_changed_paused_and_removed(ok, refused):
    said = ok("providers", "add", "p1", "--vendor", "anthropic", "--credential", "env:NO_SUCH_KEY", "--reserve", "0.02", "--pace")
    assert said.splitlines()[0] == "Added provider p1."
    assert "Its key is not where the daemon looks for it" in said
    assert cells(ok("providers", "list"), "p1") == ["p1", "no_credential", "anthropic", "anthropic", "p1", "0", "api", "-"]
    shown = ok("providers", "show", "p1")
    assert "reserve         0.02\n" in shown
    assert "pace            yes\n" in shown
    assert ok("providers", "set", "p1", "--display-name", "One", "--disable") == "Changed provider p1.\n"
    assert ok("providers", "set", "p1", "--display-name", "One") == "Nothing to change in provider p1.\n"
    row = as_json(ok("providers", "show", "p1", "--json"))
    assert (row["display_name"], row["enabled"], row["pace"], row["version"]) == ("One", False, True, 2)
    assert ok("providers", "pause", "near", "--reason", "moving house") == "Paused provider near.\n"
    assert cells(ok("providers", "list"), "near")[-1] == "moving house"
    assert ok("providers", "resume", "near") == "Resumed provider near: it is ok.\n"
    assert ok("providers", "remove", "p1") == "Removed provider p1.\n"
    assert refused("providers", "show", "p1")[0] == Exit.NOT_FOUND
    assert refused("providers", "set", "near")[0] == Exit.USAGE
    code, sentence = refused("providers", "set", "near", "--display-name", "x")
    assert (code, "comes from the configuration file" in sentence) == (Exit.FAILURE, True)
    code, sentence = refused("providers", "add", "p2", "--vendor", "anthropic", "--credential", "sk-ant-secret")
    assert (code, "sk-ant" in sentence) == (Exit.USAGE, False)
    code, sentence = refused("providers", "add", "p2", "--vendor", "ollama")
    assert (code, "set that in the file on the host" in sentence) == (Exit.FAILURE, True)


@pytest.fixture
def three(ok):
    """Three providers of the API, gone again afterwards."""
    for name in ("qa", "qb", "qc"):
        ok("providers", "add", name, "--family", "openai", "--base-url", "https://u.example/v1", "--credential", "none")
    yield
    for name in ("qa", "qb", "qc"):
        ok("providers", "remove", name)


def test_row_3_8_a_model_and_its_ladder_are_edited_by_names_with_slashes(ok, refused, three):
    assert refused("models", "add", "lab/m")[0] == Exit.USAGE
    more = ("--alias", "lab/nick", "--tag", "x", "--context-tokens", "1000", "--input-price", "1", "--output-price", "2.5")
    assert ok("models", "add", "lab/m", "--attach", "qa,qb", "--attach", "qc", *more) == "Added model lab/m.\n"
    assert cells(ok("models", "list"), "lab/m") == ["lab/m", "yes", "openai", "3", "qa = qb, qc", "priority", "lab/nick", "api"]
    assert "cost_per_million_output 2.5" in ok("models", "show", "lab/m")
    assert ok("attachments", "add", "lab/m", "near", "--upstream-model", "other", "--first").endswith("now: near, qa = qb, qc.\n")
    assert ok("attachments", "set", "lab/m", "qc", "qb,near") == "lab/m is tried in this order now: qc, qb = near.\n"
    kept = as_json(ok("attachments", "list", "lab/m", "--json"))
    assert [(rung["provider"], rung["priority"], rung["upstream_model"]) for rung in kept] == [
        ("qc", 0, "lab/m"),
        ("qb", 1, "lab/m"),
        ("near", 1, "other"),
    ]
    assert ok("attachments", "remove", "lab/m", "qb") == "lab/m is tried in this order now: qc, near.\n"
    assert "called there" in ok("attachments", "list", "lab/m")
    assert refused("attachments", "remove", "lab/m", "qb")[0] == Exit.NOT_FOUND
    assert refused("attachments", "set", "lab/m", "qb", "qb")[0] == Exit.USAGE
    assert ok("models", "set", "lab/m", "--strategy", "fastest") == "Changed model lab/m.\n"
    said = ok("providers", "remove", "qc")
    ok("providers", "add", "qc", "--family", "openai", "--base-url", "https://u.example/v1", "--credential", "none")
    assert said.splitlines() == ["Removed provider qc.", "It was taken off lab/m."]
    assert ok("models", "remove", "lab/m") == "Removed model lab/m.\n"


def test_a_limit_is_added_changed_and_removed(ok, refused):
    said = ok("limits", "add", "cap", "--subject", "model:small", "--unit", "usd", "--limit", "2.5", "--window", "day")
    assert said == "Added limit cap.\n"
    assert cells(ok("limits", "list"), "cap")[:7] == ["cap", "budget", "model:small", "$2.5", "$0", "$0", "$2.5"]
    assert ok("limits", "set", "cap", "--limit", "3") == "Changed limit cap.\n"
    assert "remaining     $3\n" in ok("limits", "show", "cap")
    quota = ("--quota", "--subject", "account:near", "--unit", "tokens", "--limit", "5", "--window", "5h", "--anchor", "first_use")
    assert ok("limits", "add", *quota) == "Added limit near/tokens/5h.\n"
    assert ok("limits", "remove", "near/tokens/5h") == "Removed limit near/tokens/5h.\n"
    assert ok("limits", "remove", "cap") == "Removed limit cap.\n"
    assert refused("limits", "add", "x", "--subject", "model:smal", "--unit", "usd", "--limit", "1", "--window", "day") == (
        Exit.USAGE,
        "model 'smal' is not known: did you mean 'small'?\n",
    )


def test_a_caller_s_token_is_printed_once_and_alone(command, ok, daemon):
    said = command("callers", "add", "bob", "--scope", "read")
    token = said.stdout.strip()
    assert (said.returncode, token.startswith("qr_"), "not shown again" in said.stderr) == (Exit.OK, True, True)
    assert cells(ok("callers", "list"), "bob") == ["bob", "read", "yes", "api"]
    assert token not in ok("callers", "show", "bob")
    assert ok("callers", "set", "bob", "--scope", "read", "--scope", "call") == "Changed caller bob.\n"
    assert as_json(ok("callers", "show", "bob", "--json"))["scopes"] == ["read", "call"]
    assert ok("callers", "remove", "bob") == "Removed caller bob.\n"
    assert ok("callers", "list").startswith("Only the admin's token is known")


def test_rules_are_edited_by_their_place(ok, refused):
    said = ok("rules", "add", "labels contains 'docs'", "--model", "small", "--provider", "near", "--position", "1")
    assert said == "Added rule 1: when labels contains 'docs', then small, only near.\n"
    table = ok("rules", "list")
    assert cells(table, "1") == ["1", "labels contains 'docs'", "small, only near", "all", "fall through", "-", "api"]
    assert cells(table, "2") == ["2", "priority == 0", "big", "all", "fall through", "Critical", "file"]
    assert ok("rules", "set", "1", "--position", "2", "--share", "0.5", "--provider", "").startswith("Rule 2 is now: when labels")
    rule = as_json(ok("rules", "show", "2", "--json"))
    assert (rule["share"], rule["provider"], ok("rules", "show", rule["id"])) == ("0.5", None, ok("rules", "show", "2"))
    assert refused("rules", "set", "1", "--reason", "x")[0] == Exit.FAILURE
    assert refused("rules", "add", "prioritty == 0", "--model", "small") == (
        Exit.USAGE,
        "the rule, column 1: name 'prioritty' is not known: did you mean 'priority'?\n",
    )
    assert ok("rules", "remove", "2") == "Removed rule 2: labels contains 'docs'.\n"
    for place in ("2", "nobody"):
        assert refused("rules", "remove", place)[0] == Exit.NOT_FOUND


def test_row_3_3_rules_are_tried_out_and_say_why(command, ok, daemon):
    said = ok("rules", "test", "--label", "x")
    assert cells(said, "1")[3:] == ["no match", "`priority == 0` does not hold: priority is not known"]
    assert said.splitlines()[-1] == "near takes it as small: no rule decides it."
    told = as_json(ok("rules", "test", "--label", "x", "--json"))
    assert (told["outcome"], told["provider"], told["rule"], told["hold"]) == ("chosen", "near", None, None)
    fell = ok("rules", "test", "--priority", "0", "--task-id", "7", "--retry-count", "1", "--requires", "vision")
    assert fell.splitlines()[-1] == "near takes it as small: no rule decides it."
    nobody = command("rules", "test", "--model", "big")
    assert (nobody.returncode, "no_credential" in nobody.stdout) == (Exit.NONE_USABLE, True)


def test_somebody_quicker_is_told_as_such(ok, refused, monkeypatch):
    """The version that was read is the one that is edited: between them another edit may have come."""
    ok("providers", "add", "race", "--vendor", "openai")
    from quota_router.cli import rows  # noqa: PLC0415 -- the one place where the two steps part

    read = rows.Desk.read

    def read_then_lose(self, *path):
        row = read(self, *path)
        self.daemon.edit("PATCH", "/api/v1/providers/race", {"description": f"{row['version']}"}, row["version"])
        return row

    monkeypatch.setattr(rows.Desk, "read", read_then_lose)
    code, sentence = refused("providers", "set", "race", "--display-name", "x")
    assert (code, "was edited meanwhile: it is at version 2 now" in sentence) == (Exit.FAILURE, True)
    monkeypatch.undo()


@pytest.mark.parametrize("group", ["providers", "models", "limits", "callers", "rules"])
def test_lists_are_told_as_json_too(ok, group):
    assert isinstance(as_json(ok(group, "list", "--json")), list)


@pytest.mark.parametrize("group", ["providers", "models", "attachments", "limits", "callers", "rules", "catalog", "import"])
def test_a_group_without_a_command_says_what_it_can(command, home, group):
    said = command(group)
    assert (said.returncode, "Commands:" in said.stdout + said.stderr) == (Exit.USAGE, True)

"""
The commands, as a shell runs them: what they print, where, and how they end.

What needs a daemon has a real one; what would reach an upstream never does.
"""

import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_kit import CATALOG, COMMAND, TIMEOUT_S, move_in, run, serving

from quota_router.cli import client
from quota_router.cli.common import CommandFailed, Exit
from quota_router.config import load
from quota_router.core.desired import build_catalog
from quota_router.core.secrets import Secret


@pytest.fixture
def file(home):
    path = home / "quota-router.toml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def up(file, monkeypatch):
    """A daemon of the test's own, to be changed."""
    with serving() as running:
        monkeypatch.setenv("QUOTA_ROUTER_URL", running.url)
        yield running.url


@pytest.fixture(scope="module")
def shared_house(tmp_path_factory):
    home = tmp_path_factory.mktemp("shared")
    (home / "quota-router.toml").write_text(CATALOG)
    with pytest.MonkeyPatch.context() as monkeypatch:
        move_in(home, monkeypatch)
        with serving() as running:
            monkeypatch.undo()
            yield SimpleNamespace(home=home, url=running.url)


@pytest.fixture
def shared(shared_house, monkeypatch):
    """One daemon for all tests that only look, or take a hold that no other test counts."""
    move_in(shared_house.home, monkeypatch)
    monkeypatch.setenv("QUOTA_ROUTER_URL", shared_house.url)
    return shared_house


# --- the program --------------------------------------------------------------------------------------------------------


def test_help_waits_for_nothing_heavy():
    script = "import sys, quota_router.cli; print({'pydantic', 'sqlalchemy', 'aiohttp', 'structlog'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 -- our own words
    assert found.stdout == "set()\n"


def test_without_arguments_it_says_what_it_can(command):
    said = command()
    assert said.returncode == Exit.USAGE
    for name in ("demo", "init", "serve", "env", "status", "route", "usage", "apply", "db"):
        assert f"\n  {name} " in said.stdout + said.stderr


def test_it_says_its_version(command):
    assert command("--version").stdout == "quota-router 0.1.0\n"


def test_an_unknown_command_is_a_usage_error_that_knows_better(command):
    said = command("rute")
    assert said.returncode == Exit.USAGE
    assert "Did you mean 'route'" in said.stderr


# --- init and env -------------------------------------------------------------------------------------------------------


def test_init_prints_a_file_that_loads(home, command):
    said = command("init")
    (home / "quota-router.toml").write_text(said.stdout)
    assert build_catalog(load(None, {}).desired).providers
    assert "--path" in said.stderr


def test_init_writes_a_private_file_and_never_over_another(home, command):
    written = command("init", "--path", "mine.toml")
    assert (written.returncode, stat.S_IMODE(Path("mine.toml").stat().st_mode)) == (Exit.OK, 0o600)
    assert "quota-router serve --config mine.toml" in written.stdout
    Path("mine.toml").write_text("mine")
    Path("mine.toml").chmod(0o644)
    refused = command("init", "--path", "mine.toml")
    assert (refused.returncode, Path("mine.toml").read_text()) == (Exit.FAILURE, "mine")
    assert "--force" in refused.stderr
    assert command("init", "--path", "mine.toml", "--force").returncode == Exit.OK
    assert (Path("mine.toml").read_text() != "mine", stat.S_IMODE(Path("mine.toml").stat().st_mode)) == (True, 0o600)
    assert command("init", "--path", "no/such/folder.toml").returncode == Exit.FAILURE


def test_env_before_the_first_start_prints_nothing_to_evaluate(home, command):
    said = command("env")
    assert (said.returncode, said.stdout) == (Exit.FAILURE, "")
    assert "quota-router serve" in said.stderr


def test_a_shell_takes_what_env_prints(shared):
    script = f'eval "$({COMMAND} env)" && echo "$OPENAI_BASE_URL $OPENAI_API_KEY $ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN"'
    found = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 -- our own words
    token = (shared.home / "state" / "quota-router" / "admin-token").read_text().strip()
    assert found.stdout == f"{shared.url}/v1 {token} {shared.url} {token}\n"


def test_env_prefers_the_callers_own_token(home, command, monkeypatch):
    monkeypatch.setenv("QUOTA_ROUTER_TOKEN", "mine $HOME")
    monkeypatch.setenv("QUOTA_ROUTER_ADMIN_TOKEN", "admins")
    assert "export OPENAI_API_KEY='mine $HOME'\n" in command("env").stdout


# --- serve --------------------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_ledger_is_refused_in_a_sentence(shared):
    said, checked = run("serve", "--listen", "127.0.0.1:0"), run("db", "check")
    assert (said.returncode, said.stdout) == (Exit.FAILURE, "")
    assert "owns the ledger" in said.stderr.splitlines()[-1]
    assert "Traceback" not in said.stderr
    assert (checked.returncode, "owns the ledger" in checked.stderr) == (Exit.FAILURE, True)


def test_an_address_that_is_taken_is_said_in_a_sentence(file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert said.returncode == Exit.FAILURE
    assert "Address already in use. Choose another address with --listen HOST:PORT." in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("listen", ["nowhere", ":80", "localhost:http", "localhost:65536"])
def test_an_address_that_is_none_is_a_usage_error(file, command, listen):
    assert command("serve", "--listen", listen).returncode == Exit.USAGE


@pytest.mark.parametrize("arguments", [["serve"], ["status"], ["apply"], ["db", "upgrade"], ["env"], ["--json", "usage"]])
def test_a_bad_file_is_one_sentence_and_changes_nothing(home, file, command, arguments):
    file.write_text('[providers.near]\nvendor = "openai"\nvender = 1\n')
    said = command(*arguments)
    assert (said.returncode, said.stdout) == (Exit.BAD_CONFIG, "")
    assert said.stderr == "quota-router.toml, line 3, providers.near.vender: key 'vender' is not known: did you mean 'vendor'?\n"
    assert not (home / "state").exists()


def test_a_file_that_contradicts_itself_is_refused_the_same_way(home, file):
    file.write_text('[[models]]\nname = "m"\nprovider = "nobody"\n')
    said = run("serve")
    assert said.returncode == Exit.BAD_CONFIG
    assert said.stderr.startswith("quota-router.toml, line 3, models[0].provider: ")
    assert not (home / "state").exists()


def test_serve_in_a_directory_without_a_file_says_so(home):
    command = [COMMAND, "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own command
        process.stdout.readline()
        process.terminate()
        assert "no configuration file was found" in process.communicate(timeout=TIMEOUT_S)[1]


def test_an_admin_token_file_that_holds_none_is_said_with_its_remedy(home, file):
    kept = home / "state" / "quota-router" / "admin-token"
    kept.parent.mkdir(parents=True)
    kept.touch()
    said = run("serve", "--listen", "127.0.0.1:0")
    assert (said.returncode, said.stdout) == (Exit.BAD_CONFIG, "")
    assert said.stderr == f"{kept} holds no admin token that this user can read: remove it, and a new one is made.\n"


def test_a_state_directory_that_cannot_be_made_is_said_as_such(home, file):
    (home / "state").touch()
    said = run("serve", "--listen", "127.0.0.1:0")
    assert said.returncode == Exit.BAD_CONFIG
    assert said.stderr.startswith(f"The admin token cannot be kept in {home}/state/quota-router/admin-token: Not a directory.")


def test_serve_says_its_address_as_json_too(file):
    command = [COMMAND, "--json", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603 -- our own command
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
    assert json.loads("".join(lines))["url"].startswith("http://127.0.0.1:")


# --- with a daemon ------------------------------------------------------------------------------------------------------


def test_status_shows_providers_models_and_limits(shared, command):
    said = command("status").stdout
    assert said.startswith(f"{shared.url} is ready\n")
    assert "far (no_credential), near" in said
    assert "near/requests/day" in said
    before, after = command("--json", "status"), command("status", "--json")
    assert before.stdout == after.stdout
    assert json.loads(after.stdout)["limits"][0]["limit"] == 100


def test_an_empty_house_says_what_to_do_next(home, command, monkeypatch):
    with serving() as running:
        monkeypatch.setenv("QUOTA_ROUTER_URL", running.url)
        said = command("status")
    assert said.returncode == Exit.OK
    assert "quota-router init" in said.stdout


def test_what_cools_is_tried_again_once_it_is_cleared(shared, command):
    """
    A refused key is one example: whoever has set another need not wait for ten minutes.
    """
    held = json.loads(command("route", "small", "--hold", "--json", "--max-output-tokens", "1").stdout)["hold"]["id"]
    house = client.find_daemon(load(None, os.environ), os.environ)
    house.post(client.path_of("holds", held, "settle"), {"failure": {"status": 401}})
    assert [(row["provider"], row["cause"]) for row in json.loads(command("cooldowns", "--json").stdout)] == [("near", "auth")]
    assert command("providers", "clear", "near", "--model", "small").returncode == Exit.NOT_FOUND
    assert command("providers", "clear", "near").stdout == "Cleared near.\n"
    assert json.loads(command("cooldowns", "--json").stdout) == []
    assert command("providers", "clear", "near").returncode == Exit.NOT_FOUND


def test_route_explains_and_books_nothing_unless_told_to(shared, command):
    def held():
        return json.loads(command("status", "--json").stdout)["limits"][0]["held"]

    before = held()
    said = command("route", "small", "--explain", "--input-tokens", "1000", "--max-output-tokens", "10").stdout
    assert "near takes it" in said
    assert "no_credential" in said
    assert held() == before
    taken = json.loads(command("route", "small", "--hold", "--json", "--input-tokens", "1000", "--max-output-tokens", "10").stdout)
    assert taken["hold"]["estimate_nusd"] == 1_020_000
    assert held() == before + 1


def test_route_says_by_its_exit_code_that_nobody_can_or_that_nobody_knows_the_model(shared, command):
    nobody = command("route", "big")
    assert (nobody.returncode, "no_credential" in nobody.stdout) == (Exit.NONE_USABLE, True)
    assert nobody.stderr == "No provider is available (far: no_credential).\n"
    as_json = command("route", "big", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["outcome"]) == (Exit.NONE_USABLE, "none_usable")
    assert command("route", "nobody-knows").returncode == Exit.NOT_FOUND
    assert command("route", "small", "--provider", "far").returncode == Exit.NONE_USABLE


def test_usage_is_summed_by_the_keys_asked_for(shared, command):
    assert command("usage", "--until", "2026-01-01").stdout == "Nothing was used in that time.\n"
    command("route", "small", "--hold", "--label", "a", "--label", "b", "--max-output-tokens", "1", "--input-tokens", "1")
    table = command("usage", "--group-by", "label,provider").stdout
    assert [line.split()[:2] for line in table.splitlines() if line.startswith(("  a ", "  b "))] == [["a", "near"], ["b", "near"]]
    groups = json.loads(command("usage", "--group-by", "label", "--json").stdout)["groups"]
    assert {group["label"]: group["attempts"] for group in groups if group["label"]} == {"a": 1, "b": 1}
    misspelt = command("usage", "--group-by", "provder")
    assert (misspelt.returncode, "did you mean" in misspelt.stderr) == (Exit.USAGE, True)


def test_a_wrong_token_is_told_where_the_right_one_is(shared, command, monkeypatch):
    monkeypatch.setenv("QUOTA_ROUTER_TOKEN", "mistyped")
    said = command("status")
    assert said.returncode == Exit.FAILURE
    assert "admin-token" in said.stderr
    assert "mistyped" not in said.stderr


def test_apply_lets_the_daemon_read_its_own_file_again(up, file, command):
    assert command("apply").stdout.startswith("Nothing to change")
    file.write_text(CATALOG.replace('name = "big"', 'name = "huge"'))
    dry = command("apply", "--dry-run").stdout
    assert dry.splitlines()[:2] == ["added model huge", "disabled model big: no longer in the file"]
    assert command("route", "huge").returncode == Exit.NOT_FOUND
    done = json.loads(command("apply", str(file), "--prune", "--json").stdout)
    assert [change["text"] for change in done["changes"]] == ["added model huge", "pruned model big"]
    assert command("route", "huge").returncode == Exit.NONE_USABLE
    file.write_text(CATALOG.replace("requests", "request"))
    refused = command("apply")
    assert (refused.returncode, "did you mean 'requests'?" in refused.stderr) == (Exit.BAD_CONFIG, True)
    assert command("route", "huge").returncode == Exit.NONE_USABLE


def test_another_file_goes_to_the_daemon_as_text_and_may_not_open_its_networks(up, home, command):
    other = home / "other.toml"
    other.write_text(CATALOG.replace('name = "big"', 'name = "huge"'))
    assert "added model huge" in command("apply", str(other)).stdout
    other.write_text(CATALOG.replace("127.0.0.1:9", "127.0.0.1:10"))
    refused = command("apply", str(other))
    assert (refused.returncode, "file on the host" in refused.stderr) == (Exit.FAILURE, True)
    sent = client.find_daemon(load(None, os.environ), os.environ).ask(
        "POST", "/api/v1/apply", b'[[models]]\nname = "m"\nprovider = "x"'
    )
    assert (sent.status, sent.value["code"]) == (400, "bad_config")
    assert sent.value["detail"].startswith("the file that was sent, line 3, models[0].provider: ")


# --- without one --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["status"], ["route", "small"], ["usage"]])
def test_without_a_daemon_it_is_said_how_to_start_one(file, command, monkeypatch, arguments):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("QUOTA_ROUTER_URL", url)
    said = command(*arguments)
    assert (said.returncode, said.stdout) == (Exit.UNREACHABLE, "")
    assert said.stderr == f"No daemon answers at {url}. Start one with `quota-router serve`.\n"


def test_a_token_is_not_sent_beyond_loopback():
    """Judged by the address that the connection stands to, whatever the name was."""
    stranger = SimpleNamespace(sock=SimpleNamespace(getpeername=lambda: ("192.0.2.1", 4141)))
    daemon_afar = client.Client(url="http://daemon.example:4141", token=Secret("t"))
    with pytest.raises(CommandFailed, match="loopback"):
        daemon_afar._credentials(stranger)


@pytest.mark.parametrize("url", ["127.0.0.1:4141", "https://127.0.0.1:4141", "http://", "http://u@127.0.0.1", "http://[::1"])
def test_a_url_that_is_none_is_said(home, command, monkeypatch, url):
    monkeypatch.setenv("QUOTA_ROUTER_URL", url)
    assert command("status").returncode == Exit.BAD_CONFIG


@pytest.mark.parametrize(
    ("listen", "url"),
    [("0.0.0.0:1", "http://127.0.0.1:1"), ("[::]:2", "http://[::1]:2"), ("localhost:3", "http://localhost:3")],
)
def test_a_listener_on_every_address_is_reached_over_loopback(home, listen, url):
    loaded = load(None, {"QUOTA_ROUTER_SERVER__LISTEN": listen})
    assert client.find_url(loaded, {}) == url


def test_apply_without_a_daemon_works_on_the_ledger_itself(home, file, monkeypatch):
    monkeypatch.setenv("QUOTA_ROUTER_URL", "http://127.0.0.1:1")  # nobody listens there, whatever runs on this machine
    dry = run("apply", "--dry-run", "--json")
    assert len(json.loads(dry.stdout)["changes"]) == 5
    assert not (home / "state" / "quota-router" / "ledger.db").exists()
    first, again = run("apply"), run("apply", str(file))
    assert "added provider near" in first.stdout
    assert again.stdout.startswith("Nothing to change")


def test_apply_without_a_file_says_how_to_get_one(home, command):
    said = command("apply")
    assert (said.returncode, "quota-router init" in said.stderr) == (Exit.USAGE, True)


def test_db_check_makes_no_ledger_and_upgrade_does(home):
    assert run("db", "check").returncode == Exit.FAILURE
    assert not (home / "state").exists()
    assert "revision" in run("db", "upgrade").stdout
    assert run("db", "check", "--json").stdout == json.dumps({"ledger": str(ledger_of(home)), "problems": []}, indent=2) + "\n"


def test_a_ledger_of_a_newer_program_is_left_alone(home):
    run("db", "upgrade")
    with sqlite3.connect(ledger_of(home)) as ledger:
        ledger.execute("UPDATE alembic_version SET version_num = '9999'")
    ledger.close()
    for arguments in (["serve"], ["db", "upgrade"], ["db", "check"]):
        said = run(*arguments)
        assert (said.returncode, said.stdout) == (Exit.FAILURE, "")
        assert "newer quota_router" in said.stderr.splitlines()[-1]
        assert "Traceback" not in said.stderr


def ledger_of(home):
    return home / "state" / "quota-router" / "ledger.db"

"""The commands of the ledger, as a shell runs them: with a daemon, without one, and on each database."""

import csv
import json
import logging
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
import structlog
from database_kit import is_postgres, url_of
from tamper_kit import tampering
from test_cli import CATALOG, COMMAND, TIMEOUT_S, ledger_of, move_in, run, serving

from quota_router.cli import main
from quota_router.cli.common import Exit

BUDGET = CATALOG + '[[budgets]]\nname = "month"\nsubject = "everyone"\nunit = "usd"\nlimit = "50"\nwindow = "month"\n'
NOWHERE = "http://127.0.0.1:1"
"""Nobody listens there, whatever runs on this machine."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    move_in(tmp_path, monkeypatch)
    (tmp_path / "quota-router.toml").write_text(BUDGET)
    monkeypatch.setenv("QUOTA_ROUTER_URL", NOWHERE)
    return tmp_path


@pytest.fixture
def command(capfd, monkeypatch):
    """
    Run a command in this process: it is quicker.

    What a command sets up for the logs of its whole process must not outlive it here, where other tests follow: they would write to
    a stderr that is closed.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    monkeypatch.setattr(structlog, "configure", lambda **_: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=said.out, stderr=said.err)

    yield command
    structlog.reset_defaults()


@pytest.fixture
def ledger(home, command, database, monkeypatch):
    """A ledger that no daemon has, on each database."""
    monkeypatch.setenv("QUOTA_ROUTER_SERVER__DATABASE", url_of(home))
    assert command("apply").returncode == Exit.OK
    return home


@pytest.fixture
def up(home, monkeypatch):
    """A daemon of the test's own."""
    with serving() as running:
        monkeypatch.setenv("QUOTA_ROUTER_URL", running.url)
        yield home


def adjust(command, cost="1.5", *more, provider="near"):
    return command("ledger", "adjust", "--cost-usd", cost, "--reason", "the invoice", "--provider", provider, *more)


def balances(command):
    return json.loads(command("ledger", "rebuild", "--json").stdout)["changes"]


# --- without a daemon ---------------------------------------------------------------------------------------------------


def test_every_command_works_without_a_daemon(ledger, command):
    assert "holds no entry yet" in command("ledger", "verify").stdout
    first = adjust(command, "-0.25", "--model", "small", "--label", "docs", "--key", "k")
    assert (first.returncode, first.stderr) == (Exit.OK, "")
    assert first.stdout.startswith("Booked -$0.25 as entry 1 of journal main.\nIt counts at ")
    assert first.stdout.endswith(" in: month.\n")
    again = adjust(command, "-0.25", "--model", "small", "--label", "docs", "--key", "k")
    assert again.stdout.startswith("This key was booked before: -$0.25 is entry 1 of journal main. Nothing was added.\n")
    other = adjust(command, "-0.5", "--model", "small", "--label", "docs", "--key", "k")
    assert (other.returncode, "Use a new key" in other.stderr, other.stdout) == (Exit.FAILURE, True, "")
    entry = json.loads(adjust(command, "1e-9", "--json").stdout)
    assert (entry["seq"], entry["cost_nusd"], entry["admin"], entry["replayed"]) == (2, 1, "admin", False)
    assert command("ledger", "rebuild").stdout == "Nothing changed: every balance is what entries and open holds come to.\n"
    verified = command("ledger", "verify")
    assert (verified.returncode, verified.stderr) == (Exit.OK, "")
    assert re.search(r"^  main +2 +-\$0\.249999999 ", verified.stdout, re.MULTILINE)
    assert re.search(r"^main:2:[0-9a-f]{64}$", verified.stdout, re.MULTILINE)
    exported = command("ledger", "export")
    assert [line["seq"] for line in csv.DictReader(exported.stdout.splitlines())] == ["1", "2"]


def test_a_correction_of_a_name_or_an_amount_that_is_none_is_a_usage_error(ledger, command):
    for arguments, code, says in (
        (["--cost-usd", "1", "--reason", "r", "--provider", "naer"], Exit.USAGE, "did you mean 'near'?"),
        (["--cost-usd", "much", "--reason", "r", "--provider", "near"], Exit.USAGE, "not an amount"),
        (["--cost-usd", "0", "--reason", "r", "--provider", "near"], Exit.USAGE, "changes nothing"),
        (["--cost-usd", "1", "--reason", " ", "--provider", "near"], Exit.USAGE, "`reason` is empty"),
        (["--cost-usd", "1", "--reason", "r", "--provider", "near", "--held-at", "soon"], Exit.USAGE, "`held_at` must be a date"),
        (["--cost-usd", "1", "--reason", "r", "--provider", "near", "--key", ""], Exit.USAGE, "`Idempotency-Key`"),
        (["--cost-usd", "1", "--reason", "r"], Exit.USAGE, "exactly one of --call, --hold and --provider"),
        (["--cost-usd", "1", "--reason", "r", "--call", "x", "--hold", "y"], Exit.USAGE, "exactly one of --call"),
        (["--cost-usd", "1", "--reason", "r", "--call", "x"], Exit.NOT_FOUND, "no call of that id"),
        (["--cost-usd", "1", "--provider", "near"], Exit.USAGE, "'--reason'"),
    ):
        said = command("ledger", "adjust", *arguments)
        assert (said.returncode, says in said.stderr, said.stdout) == (code, True, ""), (arguments, said)
    assert "holds no entry yet" in command("ledger", "verify").stdout


def test_what_is_wrong_is_named_and_ends_with_1_until_it_is_rebuilt(ledger, command):
    adjust(command, "0.5")
    with tampering(ledger) as tamper:
        tamper("UPDATE balances SET posted = posted + 250000000, held = 3")
    said = command("ledger", "verify")
    assert said.returncode == Exit.FAILURE
    assert re.search(r"^  month .* posted +\$0\.75 +\$0\.5 +$", said.stdout, re.MULTILINE)
    assert re.search(r"^  month .* held +\$0\.000000003 +\$0 +$", said.stdout, re.MULTILINE)
    assert said.stderr == (
        "2 things are wrong with this ledger. The entries are whole: `quota-router ledger rebuild` works the balances out anew.\n"
    )
    shown = json.loads(command("ledger", "verify", "--json").stdout)
    assert (shown["ok"], shown["found"], [found["kind"] for found in shown["findings"]]) == (False, 2, ["balance", "balance"])
    numbers = {name: shown["findings"][0][name] for name in ("limit", "what", "unit", "expected", "found")}
    assert numbers == {"limit": "month", "what": "posted", "unit": "usd", "expected": 500_000_000, "found": 750_000_000}
    rebuilt = command("ledger", "rebuild")
    assert (rebuilt.returncode, re.search(r"\$0\.75 +\$0\.5 +\$0\.000000003 +\$0 ", rebuilt.stdout) is not None) == (Exit.OK, True)
    assert command("ledger", "verify").returncode == Exit.OK


def test_an_altered_entry_is_no_case_for_rebuilding(ledger, command):
    adjust(command)
    with tampering(ledger) as tamper:
        tamper("UPDATE entries SET reason = 'nothing to see'")
    said = command("ledger", "verify")
    assert said.returncode == Exit.FAILURE
    assert "WRONG Entry 1 of journal main was altered" in said.stdout
    assert said.stderr.startswith("One thing is wrong with this ledger. Entries are not what was booked: keep it as it is")


def test_a_head_kept_elsewhere_is_compared_from_a_word_a_file_and_what_was_said_before(ledger, command):
    adjust(command)
    said = command("ledger", "verify", "--json").stdout
    head = json.loads(said)["journals"][0]
    word = f"main:1:{head['hash']}"
    (ledger / "heads.txt").write_text(f"{word}\n\n")
    (ledger / "verify.json").write_text(said)
    (ledger / "journals.json").write_text(json.dumps({"items": [head], "next": None}))
    adjust(command)
    for kept in (word, word.upper().replace("MAIN", "main"), "heads.txt", "verify.json", "journals.json"):
        assert command("ledger", "verify", "--head", kept).returncode == Exit.OK, kept
    missing = command("ledger", "verify", "--head", f"main:3:{head['hash']}", "--head", word)
    assert (missing.returncode, "Entry 3 of journal main is missing" in missing.stdout) == (Exit.FAILURE, True)
    other = command("ledger", "verify", "--head", f"main:1:{'0' * 64}")
    assert (other.returncode, "has another hash than was kept elsewhere" in other.stdout) == (Exit.FAILURE, True)


@pytest.mark.parametrize(
    "word", ["main:1:00", f"main:0:{'0' * 64}", f":1:{'0' * 64}", f"main:\u0661:{'0' * 64}", "", "no-such-file", "."]
)
def test_a_head_that_is_none_is_a_usage_error(home, command, word):
    said = command("ledger", "verify", "--head", word)
    assert (said.returncode, said.stdout, "JOURNAL:SEQ:HASH" in said.stderr) == (Exit.USAGE, "", True)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", '{"items": [{"journal": "main"}]}', "x\n" * 3, "[" * 100_000, '{"items": 5}'])
def test_a_file_without_heads_is_a_usage_error(home, command, text):
    (home / "heads").write_text(text)
    said = command("ledger", "verify", "--head", "heads")
    assert (said.returncode, "holds no heads" in said.stderr) == (Exit.USAGE, True)


@pytest.mark.parametrize("arguments", [["verify"], ["rebuild"], ["export"], ["backup", "copy.db"], ["export", "--out", "x"]])
def test_where_no_ledger_is_none_is_made(home, command, arguments):
    said = command("ledger", *arguments)
    assert (said.returncode, said.stdout) == (Exit.FAILURE, "")
    assert "There is no ledger at " in said.stderr
    assert not (home / "state").exists()
    assert not (home / "x").exists()


@pytest.mark.parametrize("arguments", [["verify"], ["rebuild"], ["export"], ["backup", "copy.db"], ["adjust"]])
def test_a_bad_file_is_exit_3(home, command, arguments):
    (home / "quota-router.toml").write_text("[server]\nlisten = 5\n")
    more = ["--cost-usd", "1", "--reason", "r", "--provider", "x"] if arguments == ["adjust"] else []
    assert command("ledger", *arguments, *more).returncode == Exit.BAD_CONFIG


def test_a_ledger_of_another_schema_is_not_written(ledger, command):
    with tampering(ledger) as tamper:
        tamper("UPDATE alembic_version SET version_num = '0003'")
    for said in (adjust(command), command("ledger", "rebuild")):
        assert (said.returncode, "run `quota-router db upgrade`" in said.stderr) == (Exit.FAILURE, True)
    said = command("ledger", "verify")
    assert (said.returncode, "run `quota-router db upgrade`" in said.stdout) == (Exit.FAILURE, True)


# --- export -------------------------------------------------------------------------------------------------------------


def test_an_export_is_a_new_private_file_or_goes_to_stdout(ledger, command):
    adjust(command, "1", "--held-at", "2026-01-31")
    adjust(command, "2")
    written = command("ledger", "export", "--out", "entries.csv")
    assert (written.returncode, written.stdout) == (Exit.OK, "Wrote 2 entries to entries.csv.\n")
    assert stat.S_IMODE((ledger / "entries.csv").stat().st_mode) == 0o600
    assert (ledger / "entries.csv").read_text() == command("ledger", "export").stdout
    refused = command("ledger", "export", "--out", "entries.csv")
    assert (refused.returncode, "is there already" in refused.stderr) == (Exit.FAILURE, True)
    as_json = command("ledger", "export", "--json", "--out", "entries.jsonl")
    assert json.loads(as_json.stdout) == {"file": "entries.jsonl", "format": "jsonl", "entries": 2}
    assert (ledger / "entries.jsonl").read_text() == command("--json", "ledger", "export").stdout
    berlin = ["ledger", "export", "--format", "jsonl", "--tz", "Europe/Berlin"]
    (line,) = command(*berlin, "--until", "2026-02-01").stdout.splitlines()
    assert json.loads(line)["held_at_local"] == "2026-01-31T01:00:00.000000+01:00"
    assert command(*berlin, "--since", "2026-01-31T00:00:00+01:00", "--until", "2026-01-31").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "yesterday"], "`--since` must be a date"),
        (["--until", "2026-13-01"], "`--until` must be a date"),
        (["--tz", "Mars/Olympus"], "`--tz` must be an IANA time zone"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_what_export_does_not_understand_is_a_usage_error(home, command, arguments, says):
    said = command("ledger", "export", *arguments)
    assert (said.returncode, says in said.stderr) == (Exit.USAGE, True), said


def test_an_export_that_fails_leaves_no_file(ledger, command):
    if is_postgres():
        pytest.skip("a server takes no such bytes")
    adjust(command)
    with tampering(ledger) as tamper:
        tamper("UPDATE entries SET reason = CAST(x'ff' AS TEXT)")
    said = command("ledger", "export", "--out", "entries.csv")
    assert (said.returncode, "cannot be read" in said.stderr, (ledger / "entries.csv").exists()) == (Exit.FAILURE, True, False)
    assert (
        command("ledger", "export", "--out", "no/such.csv").stderr == "no/such.csv cannot be written: No such file or directory.\n"
    )


def test_whoever_reads_only_the_beginning_of_an_export_breaks_nothing(home, command):
    command("apply")
    for number in range(3):
        adjust(command, "1", "--label", "x" * 100 + str(number))
    command_line = f"{COMMAND} ledger export --format jsonl | head -n 1"
    said = subprocess.run(["/bin/sh", "-c", command_line], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603 -- our own words
    assert (said.returncode, json.loads(said.stdout)["seq"], said.stderr) == (Exit.OK, 1, "")


# --- backup -------------------------------------------------------------------------------------------------------------


def test_a_backup_is_verified_and_can_be_verified_again(ledger, command, monkeypatch):
    adjust(command)
    said = command("ledger", "backup", "copy.db")
    if is_postgres():
        assert (said.returncode, "pg_dump --format=custom --file=copy.db" in said.stderr) == (Exit.FAILURE, True)
        assert not (ledger / "copy.db").exists()
        return
    assert (said.returncode, said.stdout.endswith("1 entries. The copy was read again and is whole.\n")) == (Exit.OK, True)
    again = command("ledger", "backup", "copy.db")
    assert (again.returncode, "is there already" in again.stderr) == (Exit.FAILURE, True)
    shown = json.loads(command("ledger", "backup", "other.db", "--json").stdout)
    assert (shown["ok"], shown["bytes"], shown["backup"]) == (True, (ledger / "other.db").stat().st_size, "other.db")
    monkeypatch.setenv("QUOTA_ROUTER_SERVER__DATABASE", f"sqlite+aiosqlite:///{ledger}/copy.db")
    assert command("ledger", "verify").returncode == Exit.OK
    assert not (ledger / "copy.db-wal").exists()


def test_a_backup_of_a_damaged_ledger_is_kept_and_said_to_be_one(ledger, command):
    if is_postgres():
        pytest.skip("pg_dump's work")
    adjust(command)
    with tampering(ledger) as tamper:
        tamper("UPDATE balances SET posted = 1")
    said = command("ledger", "backup", "copy.db")
    assert (said.returncode, "with what is wrong in it" in said.stdout, (ledger / "copy.db").exists()) == (Exit.FAILURE, True, True)


# --- with a daemon ------------------------------------------------------------------------------------------------------


def test_every_command_works_beside_a_daemon(up, command):
    hold = json.loads(command("route", "small", "--hold", "--json", "--input-tokens", "1000", "--max-output-tokens", "10").stdout)
    booked = adjust(command, "-1", "--key", "k")
    assert booked.stdout.startswith("Booked -$1 as entry 1 of journal main.")
    assert "Nothing was added" in adjust(command, "-1", "--key", "k").stdout
    of_call = json.loads(command("ledger", "adjust", "--cost-usd=2", "--reason", "r", "--call", hold["call_id"], "--json").stdout)
    assert (of_call["provider"], of_call["model"], of_call["call_id"]) == ("near", "small", hold["call_id"])
    (month,) = [cap for cap in json.loads(command("status", "--json").stdout)["limits"] if cap["name"] == "month"]
    assert (month["posted"], month["held"]) == (10**9, 1_020_000)
    assert command("ledger", "verify").returncode == Exit.OK
    assert len(command("ledger", "export").stdout.splitlines()) == 3
    assert command("ledger", "backup", "copy.db").returncode == Exit.OK
    with closing(sqlite3.connect(ledger_of(up))) as other:
        other.execute("UPDATE balances SET posted = 7 WHERE limit_name = 'month'")
        other.commit()
    assert command("ledger", "verify").returncode == Exit.FAILURE
    (changed,) = json.loads(command("ledger", "rebuild", "--json").stdout)["changes"]
    assert (changed["limit"], changed["posted_before"], changed["posted"]) == ("month", 7, 10**9)
    assert command("ledger", "verify").returncode == Exit.OK


def test_usage_shows_money_without_a_call(up, command):
    adjust(command, "2")
    said = command("usage").stdout
    assert re.search(r"^  near +0 .*\$2 ", said, re.MULTILINE), said
    assert command("usage", "--until", "2026-01-01").stdout == "Nothing was used in that time.\n"


def test_a_key_is_one_with_a_daemon_and_without(home, command, monkeypatch):
    command("apply")
    adjust(command, "1", "--key", "k")
    with serving() as running:
        monkeypatch.setenv("QUOTA_ROUTER_URL", running.url)
        assert "Nothing was added" in adjust(command, "1", "--key", "k").stdout
        monkeypatch.setenv("QUOTA_ROUTER_URL", NOWHERE)
        said = adjust(command)
        assert (said.returncode, "QUOTA_ROUTER_URL=http://127.0.0.1:PORT" in said.stderr) == (Exit.FAILURE, True)
        assert run("ledger", "verify").returncode == Exit.OK


def test_an_adjustment_needs_an_admin(up, command, monkeypatch):
    monkeypatch.setenv("QUOTA_ROUTER_TOKEN", "somebody")
    assert adjust(command).returncode == Exit.FAILURE


def test_help_names_every_command(command):
    said = command("ledger", "--help")
    for name in ("verify", "rebuild", "export", "adjust", "backup"):
        assert f"\n  {name} " in said.stdout

"""The catalog on the command line: written back as a file, and what is known of vendors."""

import json
import stat
from pathlib import Path

import pytest
from cli_kit import CATALOG, run, serving

from quota_router.cli.common import Exit
from quota_router.config import load, parse_catalog
from quota_router.core.desired import build_catalog
from quota_router.core.vendors import VENDORS

MORE = """
[providers.far.env]
[routing]
default_model = "big"
timezone = "Europe/Berlin"
[[routing.rules]]
condition = "priority == 0"
model = "big"
[workflows.w]
stages = [{ name = "plan", model = "small" }]
""".replace("[providers.far.env]\n", "")


@pytest.fixture
def file(home):
    path = home / "quota-router.toml"
    path.write_text(CATALOG + MORE)
    return path


def catalog_of(text):
    return build_catalog(parse_catalog(text, "exported"))


def test_the_catalog_is_printed_as_a_file_and_applying_that_changes_nothing(file, command, monkeypatch):
    with serving() as running:
        monkeypatch.setenv("QUOTA_ROUTER_URL", running.url)
        said = command("export")
        assert (said.returncode, said.stderr) == (Exit.OK, "")
        assert catalog_of(said.stdout) == build_catalog(load(file, {}).desired)
        Path("exported.toml").write_text(said.stdout)
        assert command("apply", "exported.toml").stdout.startswith("Nothing to change")
        as_json = json.loads(command("export", "--json").stdout)
    assert (as_json["text"], as_json["path"], as_json["left_out"]) == (said.stdout, None, [])


def test_without_a_daemon_the_ledger_itself_is_exported(file, monkeypatch):
    monkeypatch.setenv("QUOTA_ROUTER_URL", "http://127.0.0.1:1")  # nobody listens there, whatever runs on this machine
    missing = run("export")
    assert (missing.returncode, "quota-router serve" in missing.stderr, missing.stdout) == (Exit.FAILURE, True, "")
    run("apply")
    said = run("export", "--path", "exported.toml")
    assert (said.returncode, said.stdout) == (Exit.OK, "Wrote exported.toml.\n")
    written = Path("exported.toml")
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert catalog_of(written.read_text()) == build_catalog(load(file, {}).desired)
    again = run("export", "--path", "exported.toml")
    assert (again.returncode, "--force" in again.stderr) == (Exit.FAILURE, True)
    assert run("apply", "exported.toml").stdout.startswith("Nothing to change")


def test_row_4_7_every_vendor_with_a_preset_is_listed(home, command):
    listed = json.loads(command("catalog", "providers", "--json").stdout)
    assert {vendor["vendor"]: (vendor["family"], vendor["base_url"], vendor["key_env"]) for vendor in listed} == {
        name: (preset.family, preset.base_url, preset.key_env) for name, preset in VENDORS.items()
    }
    table = command("catalog", "providers").stdout
    assert all(name in table for name in VENDORS)
    assert "yours: https://RESOURCE.openai.azure.com/openai/v1" in table

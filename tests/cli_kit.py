"""The commands, as a shell runs them, and a user with nothing but an empty directory."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from quota_router.cli import main
from quota_router.cli.common import Exit

COMMAND = Path(sys.executable).with_name("quota-router")
TIMEOUT_S = 30
CATALOG = """\
[providers.near]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[providers.near.quotas]]
unit = "requests"
limit = 100
window = "day"

[providers.far]
vendor = "openai"
credential = "env:NO_SUCH_KEY"

[[models]]
name = "small"
attachments = ["far", "near"]
cost_per_million_input = "1"
cost_per_million_output = "2"

[[models]]
name = "big"
provider = "far"
"""


def move_in(home, monkeypatch):
    """Be a user whose home this is."""
    for name in [name for name in os.environ if name.startswith("QUOTA_ROUTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.chdir(home)


def run(*arguments):
    return subprocess.run(  # noqa: S603 -- our own command
        [COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def serving(*arguments):
    """A daemon on a free port, from the line it prints to the end of SIGTERM, which is an end in peace."""
    command = [COMMAND, "serve", "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own command
        try:
            line = process.stdout.readline()
            assert line.startswith("quota_router listens on http://127.0.0.1:"), process.stderr.read()
            yield SimpleNamespace(url=line.split()[-1], process=process)
        finally:
            process.send_signal(signal.SIGTERM)
            rest, logs = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == Exit.OK, logs
    assert rest == ""
    assert all("event" in json.loads(entry) for entry in logs.splitlines())


def run_here(capsys, *arguments):
    """Run a command in this process, where a daemon is asked and nothing is opened: it is quicker."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    return SimpleNamespace(returncode=ended.value.code, stdout=said.out, stderr=said.err)

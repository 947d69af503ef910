"""
The programs that the README names for its figures run, and say at a small size what they are to say at a large one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BOUND_S = 120
"""On a busy machine; they take some seconds."""
PROGRAMS = {
    "kill": (["--rounds", "2"], "over 2 kills: 0 lost, 0 doubled."),
    "reconcile": (["--holds", "200"], "Each hold was booked once, and the ledger is whole."),
    "verify": (["--entries", "10000"], "A limit check on the larger ledger takes 1.00 times"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_runs_and_finds_nothing_lost(tmp_path, name):
    options, says = PROGRAMS[name]
    ran = subprocess.run(  # noqa: S603 -- a program of ours
        [sys.executable, BENCHMARKS / f"{name}.py", *options, "--state", tmp_path],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, ""), ran.stderr + ran.stdout
    assert says in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_holds_something_is_refused(tmp_path):
    """No benchmark touches a ledger that was there."""
    url = f"sqlite:///{tmp_path}/there.db"
    subprocess.run(  # noqa: S603 -- likewise
        [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(tmp_path / 'there.db')!r}).execute('CREATE TABLE t (x)')"],
        check=True,
        timeout=BOUND_S,
    )
    ran = subprocess.run(  # noqa: S603 -- likewise
        [sys.executable, BENCHMARKS / "kill.py", "--database", url, "--state", tmp_path],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert ran.returncode == 1
    assert "not empty" in ran.stderr

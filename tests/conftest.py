"""
What tests of every room may ask for.

Law: the gate tries the same examples in every run, however slow the machine is: what fails once fails again. The profile `night`
tries others each time, and remembers those that failed: `pytest --hypothesis-profile=night`.
"""

import functools

import database_kit
import pytest
from cli_kit import move_in, run_here
from hypothesis import settings

settings.register_profile("night", deadline=None)
settings.register_profile("gate", deadline=None, derandomize=True, database=None)
settings.load_profile("gate")


def pytest_collection_modifyitems(config, items):
    """Leave the heavy runs out unless they are asked for, with `-m slow`: what is not to run is not skipped either."""
    if "slow" not in config.getoption("markexpr"):
        heavy = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in heavy]
        config.hook.pytest_deselected(items=heavy)


def _on_each_database(request):
    database_kit.use(request.param)
    yield request.param
    database_kit.use(database_kit.SQLITE)


database = pytest.fixture(params=database_kit.DATABASES, name="database")(_on_each_database)
"""Run the test on each database that a ledger may lie in."""
module_database = pytest.fixture(scope="module", params=database_kit.DATABASES, name="module_database")(_on_each_database)
"""Likewise, for a daemon that serves all tests of a module."""


@pytest.fixture
def postgres():
    """Let the ledgers of one test lie on the server: the test is about several daemons on one."""
    database_kit.use(database_kit.POSTGRES)
    yield
    database_kit.use(database_kit.SQLITE)


@pytest.fixture(scope="module")
def module_postgres():
    """Likewise, for daemons that serve all tests of a module."""
    database_kit.use(database_kit.POSTGRES)
    yield
    database_kit.use(database_kit.SQLITE)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user who has nothing yet, in a directory of his own."""
    move_in(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def command(capsys):
    """Run a command in this process: it says what it printed, and how it ended."""
    return functools.partial(run_here, capsys)

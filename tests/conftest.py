"""What tests of every room may ask for."""

import database_kit
import pytest


@pytest.fixture(params=database_kit.DATABASES)
def database(request):
    """Run the test on each database that a ledger may lie in."""
    database_kit.use(request.param)
    yield request.param
    database_kit.use(database_kit.SQLITE)

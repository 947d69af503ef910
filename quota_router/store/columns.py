"""
What the tables are made of.

Law: the same bytes on SQLite (STRICT tables) and PostgreSQL: instants are integers (microseconds since 1970, UTC), amounts
integers, lists JSON text, flags 0 or 1; every constraint has a name.
Never: names a table: those are in `tables` and `catalog_tables`.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Whole = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit integer: SQLite's STRICT tables know only the word INTEGER."""


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole microseconds since 1970."""

    impl = Whole
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Store whole microseconds, rounded down."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- likewise
        """Read it back, aware and in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


def table(name: str, *parts: SchemaItem) -> Table:
    """A table in our way."""
    return Table(name, metadata, *parts, sqlite_strict=True, sqlite_with_rowid=False)


def one_of(column: str, *words: str) -> CheckConstraint:
    """The column holds one of *words*, or nothing."""
    # Not `IN`: for three words or more SQLite builds a table of them, anew for every row.
    return CheckConstraint(" OR ".join(f"{column} = '{word}'" for word in words), name=f"{column}_known")


def flag(name: str, default: int) -> tuple[Column[int], CheckConstraint]:
    """A column of 0 and 1."""
    column = Column(name, Whole, nullable=False, server_default=str(default))
    return column, CheckConstraint(f"{name} IN (0, 1)", name=f"{name}_flag")


def text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    """A column of text."""
    return Column(name, Text, nullable=null, server_default=default)


def microseconds(at: datetime) -> int:
    """An instant as it is stored, rounded down."""
    return (at - EPOCH) // MICROSECOND


def whole(name: str, *, null: bool = False, default: int | None = None) -> Column[int]:
    """A column of whole numbers."""
    return Column(name, Whole, nullable=null, server_default=None if default is None else str(default))


def instant(name: str, *, null: bool = False) -> Column[datetime]:
    """A column of instants."""
    return Column(name, Instant, nullable=null)

"""
The triggers that keep booked rows as they were booked.

Law: an entry is never changed, removed or written over, by whatever program; a resolved hold never changes its state.
Revisions and the start-up check share these words: what is checked is what was made.
Never: guards against someone who drops the triggers first; the hash chain shows him.

Decision 2026-11 -- the guard against writing over a row asks for every unique key of `entries`, not only for its primary one:
    a REPLACE that meets an old (hold_id, kind) deletes that row, silently where `recursive_triggers` is off. PostgreSQL has no
    REPLACE, and what stands in its place there fires the triggers of an UPDATE.
Decision 2026-11 -- on PostgreSQL the triggers are ENABLE ALWAYS: a session that plays a replica skips all others.
"""

from sqlalchemy import Connection, inspect, text

_APPEND_ONLY = "entries are append-only"
_RESOLVED_ONCE = "a resolved hold never changes its state again"

# --- SQLite -----------------------------------------------------------------------------------------------------------

_IS_BOOKED = """\
EXISTS (SELECT 1 FROM entries WHERE journal = NEW.journal AND seq = NEW.seq)
OR EXISTS (SELECT 1 FROM entries WHERE hold_id = NEW.hold_id AND kind = NEW.kind)"""
_IS_RESOLVED = "EXISTS (SELECT 1 FROM holds WHERE id = NEW.id AND state <> 'held')"
_ABORT_ENTRY = f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
_ABORT_HOLD = f"BEGIN SELECT RAISE(ABORT, '{_RESOLVED_ONCE}'); END"
_IS_CHANGED = "OLD.state <> 'held' AND NEW.state <> OLD.state"

_ON_SQLITE = {
    "entries_refuse_update": ("entries", f"BEFORE UPDATE ON entries {_ABORT_ENTRY}"),
    "entries_refuse_delete": ("entries", f"BEFORE DELETE ON entries {_ABORT_ENTRY}"),
    "entries_refuse_overwrite": ("entries", f"BEFORE INSERT ON entries WHEN {_IS_BOOKED} {_ABORT_ENTRY}"),
    "holds_refuse_second_state": ("holds", f"BEFORE UPDATE OF state ON holds WHEN {_IS_CHANGED} {_ABORT_HOLD}"),
    "holds_refuse_overwrite": ("holds", f"BEFORE INSERT ON holds WHEN {_IS_RESOLVED} {_ABORT_HOLD}"),
}
"""name -> (the table it guards, what follows its name)"""

# --- PostgreSQL -------------------------------------------------------------------------------------------------------

_FUNCTIONS = {
    "entries_are_append_only": f"BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END",
    "holds_resolve_once": f"BEGIN RAISE EXCEPTION '{_RESOLVED_ONCE}'; END",
}
_IS_CHANGED_SAID = "(((old.state <> 'held'::text) AND (new.state <> old.state)))"
_ON_POSTGRES = {
    "entries_refuse_change": (
        "entries",
        "BEFORE DELETE OR UPDATE ON {schema}.entries FOR EACH ROW EXECUTE FUNCTION entries_are_append_only()",
    ),
    "entries_refuse_truncate": (
        "entries",
        "BEFORE TRUNCATE ON {schema}.entries FOR EACH STATEMENT EXECUTE FUNCTION entries_are_append_only()",
    ),
    "holds_refuse_second_state": (
        "holds",
        f"BEFORE UPDATE OF state ON {{schema}}.holds FOR EACH ROW WHEN {_IS_CHANGED_SAID} EXECUTE FUNCTION holds_resolve_once()",
    ),
}
"""name -> (the table it guards, what follows its name, in the words in which the server tells it again)"""


def recreate_triggers(connection: Connection) -> None:
    """Drop and make again the triggers of every guarded table that exists: a table that was rebuilt has lost its own."""
    if _is_postgres(connection):
        for name, body in _FUNCTIONS.items():
            connection.execute(text(f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS '{_quoted(body)}'"))
    for name, (table, sql) in _expected(connection).items():
        connection.execute(text(_drop(connection, name, table)))
        connection.execute(text(sql))
        if _is_postgres(connection):
            connection.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"))


def drop_triggers(connection: Connection) -> None:
    """Drop them all, before a downgrade drops their tables."""
    for name, (table, _) in _expected(connection).items():
        connection.execute(text(_drop(connection, name, table)))


def find_wrong_triggers(connection: Connection) -> tuple[str, ...]:
    """The names of those that are missing or read differently, of every guarded table that exists."""
    found = _read_postgres(connection) if _is_postgres(connection) else _read_sqlite(connection)
    wrong = [name for name, (_, sql) in _expected(connection).items() if found.get(name) != sql]
    if _is_postgres(connection) and wrong == [] and inspect(connection).has_table("entries"):
        rows = connection.execute(text("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"))
        bodies = {row.proname: row.prosrc for row in rows}
        wrong = [name for name, body in _FUNCTIONS.items() if bodies.get(name) != body]
    return tuple(wrong)


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _expected(connection: Connection) -> dict[str, tuple[str, str]]:
    """Name -> (table, the statement that makes it), for the guarded tables that exist."""
    tables = inspect(connection).get_table_names()
    wanted, schema = _ON_SQLITE, ""
    if _is_postgres(connection):
        wanted, schema = _ON_POSTGRES, connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    return {
        name: (table, f"CREATE TRIGGER {name} {body.replace('{schema}', schema)}")
        for name, (table, body) in wanted.items()
        if table in tables
    }


def _drop(connection: Connection, name: str, table: str) -> str:
    return f"DROP TRIGGER IF EXISTS {name}" + (f" ON {table}" if _is_postgres(connection) else "")


def _read_sqlite(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    return {row.name: row.sql for row in rows}


def _read_postgres(connection: Connection) -> dict[str, str]:
    """The triggers that fire in every session, in the server's own words."""
    rows = connection.execute(
        text(
            "SELECT tgname, pg_get_triggerdef(t.oid) AS sql FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid"
            " WHERE c.relnamespace = current_schema()::regnamespace AND NOT tgisinternal AND tgenabled = 'A'"
        )
    )
    return {row.tgname: row.sql for row in rows}


def _quoted(body: str) -> str:
    return body.replace("'", "''")

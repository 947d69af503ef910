"""
The triggers that keep booked rows as they were booked.

Law: an entry is never changed, removed or written over, by whatever program; a resolved hold never changes its state.
Revisions and the start-up check share these words: what is checked is what was made.
Never: guards against someone who drops the triggers first; the hash chain shows him.

Decision 2026-11 -- the guard against writing over a row asks for every unique key of `entries`, not only for its primary one:
    a REPLACE that meets an old (hold_id, kind) deletes that row, silently where `recursive_triggers` is off.
"""

from sqlalchemy import Connection, inspect, text

_APPEND_ONLY = "BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END"
_RESOLVED_ONCE = "BEGIN SELECT RAISE(ABORT, 'a resolved hold never changes its state again'); END"
_IS_BOOKED = """\
EXISTS (SELECT 1 FROM entries WHERE journal = NEW.journal AND seq = NEW.seq)
OR EXISTS (SELECT 1 FROM entries WHERE hold_id = NEW.hold_id AND kind = NEW.kind)"""
_IS_RESOLVED = "EXISTS (SELECT 1 FROM holds WHERE id = NEW.id AND state <> 'held')"

_TRIGGERS = {
    "entries_refuse_update": ("entries", f"BEFORE UPDATE ON entries {_APPEND_ONLY}"),
    "entries_refuse_delete": ("entries", f"BEFORE DELETE ON entries {_APPEND_ONLY}"),
    "entries_refuse_overwrite": ("entries", f"BEFORE INSERT ON entries WHEN {_IS_BOOKED} {_APPEND_ONLY}"),
    "holds_refuse_second_state": (
        "holds",
        f"BEFORE UPDATE OF state ON holds WHEN OLD.state <> 'held' AND NEW.state <> OLD.state {_RESOLVED_ONCE}",
    ),
    "holds_refuse_overwrite": ("holds", f"BEFORE INSERT ON holds WHEN {_IS_RESOLVED} {_RESOLVED_ONCE}"),
}
"""name -> (the table it guards, what follows its name)"""


def recreate_triggers(connection: Connection) -> None:
    """Drop and make again the triggers of every guarded table that exists: a table that was rebuilt has lost its own."""
    for name, sql in _expected(connection).items():
        connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))
        connection.execute(text(sql))


def drop_triggers(connection: Connection) -> None:
    """Drop them all, before a downgrade drops their tables."""
    for name in _TRIGGERS:
        connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))


def find_wrong_triggers(connection: Connection) -> tuple[str, ...]:
    """The names of those that are missing or read differently, of every guarded table that exists."""
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    found = {row.name: row.sql for row in rows}
    return tuple(name for name, sql in _expected(connection).items() if found.get(name) != sql)


def _expected(connection: Connection) -> dict[str, str]:
    tables = inspect(connection).get_table_names()
    return {name: f"CREATE TRIGGER {name} {body}" for name, (table, body) in _TRIGGERS.items() if table in tables}

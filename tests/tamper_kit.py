"""Somebody who edits a closed ledger behind our back, and the one who verifies it."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from database_kit import is_postgres, url_of

from quota_router.store.audit import verify
from quota_router.store.lines import chain
from quota_router.store.open import reading_beside
from quota_router.store.verdict import Verdict

Run = Callable[..., list[Any]]


@contextmanager
def tampering(folder: Path) -> Iterator[Run]:
    """Run statements with every trigger out of the way, and put the triggers back as they were."""
    with _on_server(folder) if is_postgres() else _on_file(folder) as run:
        yield run


@contextmanager
def _on_file(folder: Path) -> Iterator[Run]:
    with closing(sqlite3.connect(folder / "state" / "ledger.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA ignore_check_constraints = ON")
        triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            conn.execute(f"DROP TRIGGER {name}")
        yield lambda sql, *values: conn.execute(sql, values).fetchall()
        for _, sql in triggers:
            conn.execute(sql)


@contextmanager
def _on_server(folder: Path) -> Iterator[Run]:
    with psycopg.connect(url_of(folder).replace("+psycopg", ""), autocommit=True) as conn:

        def run(sql: str, *values: Any) -> list[Any]:
            cursor = conn.execute(sql.replace("?", "%s") if values else sql, values or None)
            return cursor.fetchall() if cursor.description else []

        named = run("SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal")
        for name, table in named:
            run(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
        yield run
        for name, table in named:
            run(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def rehash(run: Run, journal: str = "main") -> bytes:
    """Chain every entry anew, as whoever knows the format can. Returns the new head, which is not written."""
    columns = "journal, seq, kind, call_id, hold_id, provider, account, model, upstream_model, caller, labels, workflow, stage, \
cost_nusd, estimate_nusd, shadow_cost_nusd, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, quality, \
price_source, price_version, reason, admin, held_at, at"
    digest = bytes(32)
    for row in run(f"SELECT {columns} FROM entries WHERE journal = ? ORDER BY seq", journal):  # noqa: S608 -- our own words
        digest = chain(digest, row)
        run("UPDATE entries SET hash = ? WHERE journal = ? AND seq = ?", digest, journal, row[1])
    return digest


def judge(folder: Path, now: datetime, marks: Mapping[str, Mapping[int, bytes]] | None = None) -> Verdict:
    """Verify the ledger in *folder*, beside whoever has it open."""
    with reading_beside(url_of(folder)) as conn:
        return verify(conn, now, marks)


def said(verdict: Verdict) -> list[tuple[str, str]]:
    """What was found, by kind."""
    return [(finding.kind.value, finding.text) for finding in verdict.findings]

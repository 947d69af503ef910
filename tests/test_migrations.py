"""The revisions: one head, up from empty is the tables, every step can be undone, and booked rows stay as booked."""

import asyncio
import os
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from database_kit import url_of
from pytest_alembic.tests import (  # noqa: F401 -- collected here: these are the plugin's own laws
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import create_engine, event
from sqlalchemy.exc import IntegrityError

from quota_router.errors import LedgerError, SchemaNewer
from quota_router.store import migrate
from quota_router.store.catalog import load_catalog
from quota_router.store.open import Durability, open_engines
from quota_router.store.tables import metadata

ROOT = Path(__file__).parent.parent
HEAD = ScriptDirectory.from_config(migrate.make_config()).get_current_head()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
async def engines(path):
    async with open_engines(f"sqlite+aiosqlite:///{path}", Durability.PROCESS) as engines:
        yield engines


@pytest.fixture
async def ledger(engines):
    await migrate.upgrade(engines.write)
    return engines.write


@pytest.fixture
def alembic_config():
    return migrate.make_config()


@pytest.fixture
def alembic_engine(tmp_path):
    """The plugin is synchronous; it runs the revisions in a transaction of ours, as the daemon does."""
    engine = create_engine(f"sqlite:///{tmp_path}/plugin.db", connect_args={"isolation_level": None})
    event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    with engine.connect() as conn, conn.begin():
        yield conn
    engine.dispose()


async def move_to(engine, revision):
    move = command.downgrade if revision == "base" or revision < (await migrate.current(engine) or "") else command.upgrade
    await migrate.run_in_one_transaction(engine, lambda conn: move(migrate.make_config(conn), revision))


async def run(engine, *statements):
    async with engine.begin() as conn:
        for statement in statements:
            await conn.exec_driver_sql(statement)


async def ask(engine, sql):
    async with engine.connect() as conn:
        return [tuple(row) for row in await conn.exec_driver_sql(sql)]


def read_schema(path):
    """
    name -> the parts of its SQL, without their order: SQLAlchemy and Alembic list constraints differently.

    A column that was added later carries its constraint itself.
    """
    with closing(sqlite3.connect(path)) as conn:
        rows = conn.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sorted(parts_of(sql)) for name, sql in rows}


def parts_of(sql):
    """What stands between the commas of the outermost parentheses, and what stands around those."""
    head, _, inside = sql.partition("(")
    inside, _, tail = inside.rpartition(")")
    depth, parts = 0, [""]
    for sign in inside:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    split = [piece for part in parts for piece in re.split(r" (?=CONSTRAINT )", part)]
    return [" ".join(piece.split()) for piece in (head, *split, tail)]


async def test_up_from_empty_equals_the_tables(ledger, path, tmp_path):
    """Columns, keys, indexes and also every CHECK, DEFAULT and STRICT, word for word."""
    async with ledger.connect() as conn:
        assert await conn.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []
    by_hand = create_engine(f"sqlite:///{tmp_path}/by_hand.db")
    metadata.create_all(by_hand)
    by_hand.dispose()
    migrated = read_schema(path)
    for name in [name for name in migrated if "refuse" in name or name == "alembic_version"]:
        del migrated[name]
    assert migrated == read_schema(tmp_path / "by_hand.db")


async def test_up_down_up_gives_the_same_schema(ledger, path):
    first = read_schema(path)
    await move_to(ledger, "base")
    assert set(read_schema(path)) == {"alembic_version"}
    await migrate.upgrade(ledger)
    assert read_schema(path) == first


async def test_on_every_database_each_revision_goes_up_and_down_and_the_head_equals_the_tables(tmp_path, database):
    """The laws above look into a file's own words; these two are asked of a server as well."""
    async with open_engines(url_of(tmp_path), Durability.PROCESS) as engines:
        await migrate.upgrade(engines.write)
        revisions = [script.revision for script in ScriptDirectory.from_config(migrate.make_config()).walk_revisions()]
        assert await differences(engines.write) == []
        for revision in (*revisions[1:], "base"):
            await move_to(engines.write, revision)
        for revision in reversed(revisions):
            await move_to(engines.write, revision)
        assert await differences(engines.write) == []
        assert await migrate.check(engines.write) == ()


async def differences(engine):
    async with engine.connect() as conn:
        return await conn.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata))


async def test_what_the_catalog_gained_has_the_values_that_were_meant_before(ledger):
    """A ledger of an older program opens with no reserve, headers as its source, no tags, and callers at their first version."""
    await move_to(ledger, "0004")
    digest = "0" * 64
    await run(
        ledger,
        *(provider("p", "openai"), model("m", "openai")),
        "INSERT INTO callers (name, token_sha256, scopes, managed_by, created_at, updated_at)"  # noqa: S608 -- the test's own words
        f" VALUES ('c', '{digest}', '[\"call\"]', 'file', 5, 5)",
    )
    await migrate.upgrade(ledger)
    async with ledger.connect() as conn:
        catalog = await conn.run_sync(load_catalog)
    one = catalog.providers["p"]
    assert (one.reserve, one.pause_at, one.pace, one.quota_sources, one.pollers) == (0, None, False, ("headers",), ())
    assert (one.command, one.command_template, one.env, one.paused_reason, one.is_command) == (None, (), (), "", False)
    assert (catalog.models["m"].tags, catalog.callers["c"].version, catalog.rules, catalog.workflows) == ((), 1, (), {})


async def test_upgrade_says_the_head_and_does_nothing_twice(engines):
    assert await migrate.current(engines.write) is None
    assert "quota-router db upgrade" in (await migrate.check(engines.read))[0]
    head = await migrate.upgrade(engines.write)
    before = await ask(engines.write, "PRAGMA schema_version")
    assert await migrate.upgrade(engines.write) == head == await migrate.current(engines.read)
    assert await ask(engines.write, "PRAGMA schema_version") == before
    assert await migrate.check(engines.read) == ()
    assert await ask(engines.write, "PRAGMA foreign_keys") == [(1,)]
    assert await ask(engines.write, "SELECT name, value FROM epochs") == [("catalog", 0)]


# --- the back-fill ----------------------------------------------------------------------------------------------------


def provider(name, family, *, enabled=1, upstream="NULL"):
    columns = "name, family, vendor, account, base_url, credential_ref, network, billing, managed_by, created_at, updated_at"
    return (
        f"INSERT INTO providers ({columns}, enabled, default_upstream_model) VALUES ('{name}', '{family}', 'v', '{name}',"  # noqa: S608 -- the test's own words
        f" 'https://u', 'none', 'public', 'metered', 'file', 5, 5, {enabled}, {upstream})"
    )


def model(name, family):
    columns = "name, family, strategy, managed_by, created_at, updated_at"
    return f"INSERT INTO models ({columns}) VALUES ('{name}', '{family}', 'priority', 'file', 5, 5)"  # noqa: S608 -- likewise


ATTACHED = "SELECT model, provider, priority, upstream_model FROM attachments ORDER BY model"


@pytest.mark.parametrize(
    ("providers", "attached"),
    [
        pytest.param([], [], id="no provider"),
        pytest.param([("one", "openai", 1)], [("gpt", "one", 0, "gpt")], id="one"),
        pytest.param([("b", "openai", 1), ("a", "openai", 1)], [("gpt", "a", 0, "gpt")], id="several: the lowest name"),
        pytest.param([("b", "openai", 1), ("B", "openai", 1)], [("gpt", "B", 0, "gpt")], id="lowest by code point"),
        pytest.param([("a", "openai", 0), ("b", "openai", 1)], [("gpt", "b", 0, "gpt")], id="disabled ones do not count"),
        pytest.param([("a", "openai", 0)], [], id="only a disabled one"),
        pytest.param([("a", "anthropic", 1)], [], id="only another family"),
    ],
)
async def test_row_2_1_models_are_attached_to_their_familys_provider(engines, providers, attached):
    await move_to(engines.write, "0003")
    await run(engines.write, model("gpt", "openai"), *(provider(n, f, enabled=e) for n, f, e in providers))
    await migrate.upgrade(engines.write)
    assert await ask(engines.write, ATTACHED) == attached


async def test_row_2_1_each_family_gets_its_own_and_the_providers_upstream_name(engines):
    await move_to(engines.write, "0003")
    await run(
        engines.write,
        *(model("gpt", "openai"), model("claude", "anthropic"), model("haiku", "anthropic")),
        *(provider("o", "openai"), provider("a", "anthropic", upstream="'claude-1'")),
    )
    await migrate.upgrade(engines.write)
    assert await ask(engines.write, ATTACHED) == [
        ("claude", "a", 0, "claude-1"),
        ("gpt", "o", 0, "gpt"),
        ("haiku", "a", 0, "claude-1"),
    ]


async def test_row_2_1_the_back_fill_leaves_attachments_that_are_there_and_takes_back_only_its_own(engines):
    await move_to(engines.write, "0003")
    attach = (
        "INSERT INTO attachments (model, provider, priority, position, upstream_model, created_at, updated_at)"
        " VALUES ('gpt', 'b', 3, 0, 'x', 5, 5)"
    )
    await run(
        engines.write,
        *(model("gpt", "openai"), model("new", "openai"), provider("a", "openai"), provider("b", "openai"), attach),
    )
    await migrate.upgrade(engines.write)
    assert await ask(engines.write, ATTACHED) == [("gpt", "b", 3, "x"), ("new", "a", 0, "new")]
    await move_to(engines.write, "0003")
    assert await ask(engines.write, ATTACHED) == [("gpt", "b", 3, "x")]


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("'gpt', 'a', 1, 0, 'x'", "attachments.model, attachments.provider"),
        ("'gpt', 'b', 0, 0, 'x'", "attachments.model, attachments.priority, attachments.position"),
        ("'gpt', 'nobody', 1, 0, 'x'", "FOREIGN KEY"),
        ("'nothing', 'b', 1, 0, 'x'", "FOREIGN KEY"),
        ("'gpt', 'b', -1, 0, 'x'", "ck_attachments_priority_counted"),
    ],
)
async def test_row_2_1_the_join_table_holds_no_rung_twice_nowhere_or_out_of_order(ledger, columns, constraint):
    rung = "INSERT INTO attachments (model, provider, priority, position, upstream_model, created_at, updated_at) VALUES"
    await run(ledger, model("gpt", "openai"), provider("a", "openai"), provider("b", "openai"))
    await run(ledger, f"{rung} ('gpt', 'a', 0, 0, 'x', 5, 5)")
    with pytest.raises(IntegrityError, match=constraint):
        await run(ledger, f"{rung} ({columns}, 5, 5)")


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused_and_the_file_untouched(path):
    url = f"sqlite+aiosqlite:///{path}"
    async with open_engines(url, Durability.PROCESS) as engines:
        await migrate.upgrade(engines.write)
        await run(engines.write, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    async with open_engines(url, Durability.PROCESS) as engines:
        for refuse in (migrate.upgrade, migrate.current, migrate.check):
            with pytest.raises(SchemaNewer, match="revision 9999"):
                await refuse(engines.write)
    assert path.read_bytes() == before


async def test_a_migration_that_breaks_a_reference_is_rolled_back(ledger):
    orphan = "INSERT INTO model_aliases (alias, model) VALUES ('x', 'nobody')"
    with pytest.raises(LedgerError, match="1 rows"):
        await migrate.run_in_one_transaction(ledger, lambda conn: conn.exec_driver_sql(orphan))
    with pytest.raises(LedgerError, match="nothing was changed"):
        await migrate.run_in_one_transaction(ledger, lambda conn: conn.exec_driver_sql("DROP TABLE nothing"))
    assert await ask(ledger, "SELECT * FROM model_aliases") == []
    assert await ask(ledger, "PRAGMA foreign_keys") == [(1,)]


@pytest.mark.parametrize(
    "tampering",
    [
        ["DROP TRIGGER entries_refuse_update"],
        [
            "DROP TRIGGER entries_refuse_update",
            "CREATE TRIGGER entries_refuse_update BEFORE UPDATE ON entries WHEN 0 BEGIN SELECT 1; END",
        ],
    ],
)
async def test_start_up_refuses_a_ledger_whose_triggers_are_gone_or_altered(engines, tampering):
    await migrate.upgrade(engines.write)
    await run(engines.write, *tampering)
    with pytest.raises(LedgerError, match="entries_refuse_update"):
        await migrate.upgrade(engines.write)
    assert await migrate.check(engines.read) == ("The trigger entries_refuse_update is missing or was altered.",)


async def test_every_revision_ends_with_the_triggers(ledger):
    await run(ledger, "DROP TRIGGER entries_refuse_update")
    await move_to(ledger, "0003")
    async with ledger.connect() as conn:
        await conn.run_sync(migrate.assert_triggers)


# --- booked rows ------------------------------------------------------------------------------------------------------

ENTRY = (
    "INTO entries (journal, seq, kind, hold_id, provider, account, model, upstream_model, caller, input, cache_read,"
    " cache_write_5m, cache_write_1h, output, reasoning, quality, held_at, at, hash) VALUES"
    " ('j', {seq}, '{kind}', '{hold}', 'p', 'a', 'm', 'u', 'c', 0, 0, 0, 0, 0, 0, 'reported', 1, 1, x'00')"
)
HOLD = (
    "INTO holds (id, call_id, journal, attempt, provider, account, model, upstream_model, caller, plane, state,"
    " estimate, held_at, expires_at, resolved_at) VALUES"
    " ('{id}', 'call', 'j', 1, 'p', 'a', 'm', 'u', 'c', 'data', '{state}', '[]', 1, 2, {resolved_at})"
)


@pytest.fixture
async def booked(ledger):
    await run(
        ledger,
        "INSERT INTO calls (id, caller, plane, operation, decision, at) VALUES ('call', 'c', 'data', 'chat', '{}', 1)",
        "INSERT " + HOLD.format(id="open", state="held", resolved_at="NULL"),
        "INSERT " + HOLD.format(id="done", state="posted", resolved_at=2),
        "INSERT " + ENTRY.format(seq=1, kind="post", hold="done"),
    )
    return ledger


EDITS = [
    ("UPDATE entries SET cost_nusd = 0", "append-only"),
    ("UPDATE entries SET seq = 2", "append-only"),
    ("DELETE FROM entries", "append-only"),
    ("INSERT " + ENTRY.format(seq=1, kind="post", hold="other"), "append-only"),
    ("INSERT OR REPLACE " + ENTRY.format(seq=1, kind="post", hold="other"), "append-only"),
    ("INSERT OR REPLACE " + ENTRY.format(seq=2, kind="post", hold="done"), "append-only"),
    ("INSERT OR IGNORE " + ENTRY.format(seq=1, kind="post", hold="other"), "append-only"),
    ("UPDATE OR REPLACE entries SET seq = 1", "append-only"),
    ("UPDATE holds SET state = 'voided' WHERE id = 'done'", "never changes its state"),
    ("UPDATE holds SET state = 'held', resolved_at = NULL WHERE id = 'done'", "never changes its state"),
    ("INSERT OR REPLACE " + HOLD.format(id="done", state="held", resolved_at="NULL"), "never changes its state"),
]


@pytest.mark.parametrize(("edit", "says"), EDITS)
@pytest.mark.parametrize("recursive_triggers", [0, 1])
async def test_booked_rows_refuse_raw_sql(booked, path, edit, says, recursive_triggers):
    """Also from another program, whose connection has none of our settings."""
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute(f"PRAGMA recursive_triggers = {recursive_triggers}")
        before = list(stranger.iterdump())
        with pytest.raises(sqlite3.IntegrityError, match=says):
            stranger.execute(edit)
        assert list(stranger.iterdump()) == before


async def test_what_the_ledger_itself_does_passes(booked):
    """A hold is resolved once and learns its outcome later; an expired hold takes a late entry beside the first."""
    await run(
        booked,
        "UPDATE holds SET expires_at = 9 WHERE id = 'open'",
        "UPDATE holds SET state = 'expired', resolved_at = 3 WHERE id = 'open'",
        "UPDATE holds SET outcome = 'ok', state = 'expired' WHERE id = 'open'",
        "INSERT " + ENTRY.format(seq=2, kind="expire", hold="open"),
        "INSERT " + ENTRY.format(seq=3, kind="late", hold="open"),
    )


# --- where the revisions are ------------------------------------------------------------------------------------------


async def run_outside(*args, cwd, **env):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", *args),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    assert child.returncode == 0, output.decode()
    return output.decode()


async def test_a_wheel_finds_its_revisions_and_upgrades(tmp_path):
    """Laid out as the wheel lays it out, in a directory whose name would break a careless settings file."""
    site = tmp_path / "site 100%s"
    shutil.copytree(ROOT / "quota_router", site / "quota_router")
    shutil.copytree(ROOT / "migrations", site / "quota_router" / "_migrations")
    shutil.copy(ROOT / "alembic.ini", site / "quota_router" / "_migrations")
    script = (
        "import asyncio\n"
        "from quota_router.store import migrate\n"
        "from quota_router.store.open import Durability, open_engines\n"
        "async def main():\n"
        "    async with open_engines('sqlite+aiosqlite:///ledger.db', Durability.PROCESS) as engines:\n"
        "        print(await migrate.upgrade(engines.write), migrate.locate_migrations())\n"
        "asyncio.run(main())\n"
    )
    said = await run_outside("-c", script, cwd=tmp_path, PYTHONPATH=str(site))
    assert f"{HEAD} {site}/quota_router/_migrations" in said


async def test_alembics_own_command_line_works_in_a_checkout(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    await run_outside("-m", "alembic", "-x", f"database={url}", "upgrade", "head", cwd=ROOT, PYTHONPATH=str(ROOT))
    async with open_engines(url, Durability.PROCESS) as engines:
        assert await migrate.check(engines.read) == ()

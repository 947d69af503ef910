"""Entries are only ever added: whatever a database can say against a row is refused, on each of them, also after a migration."""

from types import SimpleNamespace

import pytest
from alembic import command
from database_kit import is_postgres, url_of
from ledger_kit import Clock, admit, catalog, open_ledger, post
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from tamper_kit import judge

from quota_router.errors import LedgerError
from quota_router.store import migrate
from quota_router.store.ledger import Settle
from quota_router.store.open import Durability, open_engines
from quota_router.store.triggers import find_wrong_triggers

pytestmark = pytest.mark.usefixtures("database")

OTHERS = "kind, call_id, provider, account, model, upstream_model, caller, labels, cost_nusd, estimate_nusd, input, cache_read, \
cache_write_5m, cache_write_1h, output, reasoning, quality, price_source, held_at, at, hash"


def copy_of_the_first(seq="seq", hold_id="hold_id"):
    """A line like the first, in another place or of another hold."""
    return f"INTO entries (journal, seq, hold_id, {OTHERS}) SELECT journal, {seq}, {hold_id}, {OTHERS} FROM entries WHERE seq = 1"  # noqa: S608 -- our own words


SAME_PLACE, SAME_HOLD = copy_of_the_first(hold_id="'another'"), copy_of_the_first(seq="99")
NEW = copy_of_the_first(seq="99", hold_id="'another'")

ANYWHERE = {
    "update": "UPDATE entries SET cost_nusd = 0",
    "update one": "UPDATE entries SET reason = 'x' WHERE seq = 2",
    "update to the same": "UPDATE entries SET seq = seq",
    "move": "UPDATE entries SET journal = 'other'",
    "delete": "DELETE FROM entries",
    "delete one": "DELETE FROM entries WHERE seq = 2",
    "insert over": f"INSERT {SAME_PLACE}",
    "insert over a hold's": f"INSERT {SAME_HOLD}",
    "upsert": f"INSERT {SAME_PLACE} AND true ON CONFLICT (journal, seq) DO UPDATE SET cost_nusd = 0",
    "upsert on a hold's": f"INSERT {SAME_HOLD} AND true ON CONFLICT (hold_id, kind) DO UPDATE SET cost_nusd = 0",
    "update from": "UPDATE entries SET cost_nusd = j.seq FROM journals j",
}
ON_SQLITE = {
    "replace": f"REPLACE {SAME_PLACE}",
    "replace a hold's": f"REPLACE {SAME_HOLD}",
    "insert or replace": f"INSERT OR REPLACE {SAME_PLACE}",
    "insert or replace a hold's": f"INSERT OR REPLACE {SAME_HOLD}",
    "insert or ignore": f"INSERT OR IGNORE {SAME_PLACE}",
    "update or replace": "UPDATE OR REPLACE entries SET seq = 1",
    "delete returning": "DELETE FROM entries RETURNING seq",
}
ON_POSTGRES = {
    "truncate": "TRUNCATE entries",
    "truncate cascade": "TRUNCATE entries, holds CASCADE",
    "delete using": "DELETE FROM entries USING journals j WHERE j.name = journal",
    "merge": "MERGE INTO entries e USING journals j ON j.name = e.journal WHEN MATCHED THEN DELETE",
    "as a replica": "SET session_replication_role = replica; DELETE FROM entries",
    "truncate as a replica": "SET session_replication_role = replica; TRUNCATE entries",
}
CASES = [
    *((name, sql, None) for name, sql in ANYWHERE.items()),
    *((name, sql, False) for name, sql in ON_SQLITE.items()),
    *((name, sql, True) for name, sql in ON_POSTGRES.items()),
]


@pytest.fixture
async def ledger(tmp_path):
    """Two lines of money, and a way to say SQL to them."""
    clock, of = Clock(), catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        for _ in range(2):
            hold = (await lane.run(admit(of))).hold
            clock.forward(minutes=1)
            await lane.run(Settle(hold_id=hold.id, settlement=post()))
    async with open_engines(url_of(tmp_path), Durability.PROCESS, clock) as engines:
        yield SimpleNamespace(folder=tmp_path, engine=engines.write, now=clock.now)


async def say(engine, sql):
    async with engine.begin() as conn:
        for statement in sql.split("; "):
            await conn.exec_driver_sql(statement)


async def entries_of(engine):
    async with engine.connect() as conn:
        return [tuple(row) for row in await conn.exec_driver_sql("SELECT * FROM entries ORDER BY journal, seq")]


@pytest.mark.parametrize(("name", "sql", "on_postgres"), CASES, ids=[name for name, *_ in CASES])
async def test_whatever_is_said_against_a_row_is_refused(ledger, name, sql, on_postgres):
    if on_postgres is not None and on_postgres is not is_postgres():
        pytest.skip("words of the other database")
    before = await entries_of(ledger.engine)
    assert len(before) == 2
    # What PostgreSQL's own unique keys refuse never comes to an UPDATE: there no trigger is needed.
    says = "append-only|duplicate key" if is_postgres() and name.startswith("insert") else "append-only"
    with pytest.raises(DBAPIError, match=says):
        await say(ledger.engine, sql)
    assert await entries_of(ledger.engine) == before
    assert judge(ledger.folder, ledger.now).is_whole


async def test_a_line_that_is_new_is_taken(ledger):
    """
    The control: what is refused above is refused for what it does, not for how it is said.
    """
    await say(ledger.engine, f"INSERT {NEW}")
    assert len(await entries_of(ledger.engine)) == 3


REVISION = '''\
"""Make `entries` anew, as a later revision may have to."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade():
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE TABLE entries_anew (LIKE entries INCLUDING ALL)")
        op.execute("INSERT INTO entries_anew SELECT * FROM entries")
        op.execute("DROP TABLE entries")
        op.execute("ALTER TABLE entries_anew RENAME TO entries")
        return
    with op.batch_alter_table("entries", recreate="always") as batch:
        batch.add_column(sa.Column("note", sa.Text(), nullable=True))


def downgrade():
    if op.get_bind().dialect.name != "postgresql":
        with op.batch_alter_table("entries", recreate="always") as batch:
            batch.drop_column("note")
'''


@pytest.fixture
def to_revision(tmp_path):
    """Move a ledger to a revision, as a program would that knows one more than ours."""
    folder = tmp_path / "versions"
    folder.mkdir()

    def config_of(connection=None):
        config = migrate.make_config(connection)
        ours = migrate.locate_migrations() / "versions"
        config.set_main_option("version_locations", f"{ours};{folder}".replace("%", "%%"))
        config.set_main_option("path_separator", ";")
        return config

    head = migrate._read_scripts().get_current_head()
    (folder / "9999_make_entries_anew.py").write_text(REVISION.format(head=head))

    async def move(engine, revision):
        step = command.downgrade if revision == head else command.upgrade
        await migrate.run_in_one_transaction(engine, lambda conn: step(config_of(conn), revision))

    return SimpleNamespace(move=move, head=head)


async def test_a_migration_that_makes_the_table_anew_leaves_the_triggers_in_place(ledger, to_revision):
    """
    A table that is dropped loses its triggers: every revision ends with them made again, up and down.
    """
    before = await entries_of(ledger.engine)
    for revision in ("9999", to_revision.head):
        await to_revision.move(ledger.engine, revision)
        async with ledger.engine.connect() as conn:
            assert await conn.run_sync(find_wrong_triggers) == ()
            names = await conn.run_sync(lambda c: [column["name"] for column in inspect(c).get_columns("entries")])
        assert ("note" in names) is (revision == "9999" and not is_postgres())
        for name in ("update", "delete", "insert over"):
            with pytest.raises(DBAPIError, match=r"append-only|duplicate key"):
                await say(ledger.engine, ANYWHERE[name])
    assert await entries_of(ledger.engine) == before
    assert [finding.text for finding in judge(ledger.folder, ledger.now).findings] == []


async def test_a_migration_that_ends_without_them_is_undone(ledger):
    """
    The control: were a revision to forget them, the transaction it ran in would not be committed.
    """
    before = await entries_of(ledger.engine)
    trigger = "entries_refuse_change ON entries" if is_postgres() else "entries_refuse_update"
    with pytest.raises(LedgerError, match="entries_refuse"):
        await migrate.run_in_one_transaction(ledger.engine, lambda conn: conn.exec_driver_sql(f"DROP TRIGGER {trigger}"))
    assert await entries_of(ledger.engine) == before
    assert judge(ledger.folder, ledger.now).is_whole

"""The ledger's connections: what is pinned, who may write, and what is refused before a byte is written."""

import asyncio
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy.exc import DBAPIError

from quota_router.errors import ConfigError, LedgerLocked, LedgerUnavailable
from quota_router.store import sqlite as engine_room
from quota_router.store.open import Durability, open_engines
from quota_router.store.sqlite import APPLICATION_ID


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def url(path):
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def engines(url):
    async with open_engines(url, Durability.POWER) as engines:
        async with engines.write.begin() as conn:
            await conn.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
            await conn.exec_driver_sql("CREATE TABLE counters (n INTEGER)")
            await conn.exec_driver_sql("INSERT INTO counters VALUES (0)")
        yield engines


async def read_pragmas(engine, *names):
    async with engine.connect() as conn:
        return [(await conn.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in names]


PINNED = ("journal_mode", "busy_timeout", "foreign_keys", "trusted_schema", "recursive_triggers", "mmap_size")


@pytest.mark.parametrize("which", ["write", "read"])
async def test_both_engines_pin_the_settings(engines, which):
    assert await read_pragmas(getattr(engines, which), *PINNED) == ["wal", 5000, 1, 0, 1, 0]


async def test_only_the_writer_checkpoints_and_writes(engines):
    names = ("wal_autocheckpoint", "query_only", "application_id")
    assert await read_pragmas(engines.write, *names) == [1000, 0, APPLICATION_ID]
    assert await read_pragmas(engines.read, *names) == [0, 1, APPLICATION_ID]


@pytest.mark.parametrize(("durability", "synchronous"), [(Durability.POWER, 2), (Durability.PROCESS, 1)])
async def test_durability_sets_synchronous(url, durability, synchronous):
    async with open_engines(url, durability) as engines:
        assert await read_pragmas(engines.write, "synchronous") == [synchronous]


async def test_a_reader_cannot_write(engines):
    async with engines.read.connect() as conn:
        with pytest.raises(DBAPIError, match="readonly"):
            await conn.exec_driver_sql("UPDATE counters SET n = 1")


async def test_a_write_transaction_has_the_lock_before_its_first_statement(engines, path):
    """Else two jobs could read the same balance and both hold."""
    async with engines.write.begin() as conn:
        assert conn.in_transaction()
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


async def test_read_then_write_loses_no_update(engines):
    """40 jobs that read and then write on the write engine count to 40."""

    async def add_one():
        async with engines.write.begin() as conn:
            n = (await conn.exec_driver_sql("SELECT n FROM counters")).scalar_one()
            await asyncio.sleep(0)
            await conn.exec_driver_sql("UPDATE counters SET n = ?", (n + 1,))

    await asyncio.gather(*(add_one() for _ in range(40)))
    async with engines.read.connect() as conn:
        assert (await conn.exec_driver_sql("SELECT n FROM counters")).scalar_one() == 40


async def test_a_read_transaction_sees_one_snapshot(engines):
    async with engines.read.connect() as reader:
        before = (await reader.exec_driver_sql("SELECT n FROM counters")).scalar_one()
        async with engines.write.begin() as writer:
            await writer.exec_driver_sql("UPDATE counters SET n = 7")
        assert (await reader.exec_driver_sql("SELECT n FROM counters")).scalar_one() == before


async def test_a_failed_write_transaction_is_rolled_back(engines):
    async def fail_halfway():
        async with engines.write.begin() as conn:
            await conn.exec_driver_sql("UPDATE counters SET n = 9")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_halfway()
    async with engines.read.connect() as conn:
        assert (await conn.exec_driver_sql("SELECT n FROM counters")).scalar_one() == 0


async def test_files_and_directory_belong_to_the_owner_alone(engines, path):
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604])
async def test_a_file_that_others_reach_is_refused_with_the_chmod(url, path, mode):
    path.parent.mkdir()
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        async with open_engines(url, Durability.POWER):
            pass
    assert path.read_bytes() == b""


async def test_a_second_opener_is_refused_and_told_the_pid(engines, url, path):
    with pytest.raises(LedgerLocked, match=f"Process {os.getpid()} owns"):
        async with open_engines(url, Durability.POWER):
            pass
    by_another_name = path.parent.parent / "link.db"
    by_another_name.symlink_to(path)
    with pytest.raises(LedgerLocked):
        async with open_engines(f"sqlite+aiosqlite:///{by_another_name}", Durability.POWER):
            pass


async def test_a_lock_dies_with_its_process(url, path):
    """A killed daemon never blocks its successor; its pid is named while it lives."""
    script = (
        "import asyncio, sys\n"
        "from quota_router.store.open import Durability, open_engines\n"
        "async def main():\n"
        "    async with open_engines(sys.argv[1], Durability.POWER):\n"
        "        print('open', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        while b"open" not in (line := await child.stdout.readline()):
            assert line, "the child died"
        with pytest.raises(LedgerLocked, match=f"Process {child.pid} owns"):
            async with open_engines(url, Durability.POWER):
                pass
    finally:
        child.kill()
        await child.communicate()
    async with open_engines(url, Durability.POWER) as engines:
        assert await read_pragmas(engines.write, "application_id") == [APPLICATION_ID]


async def test_what_was_closed_can_be_opened_again(url):
    for _ in range(2):
        async with open_engines(url, Durability.POWER):
            pass


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("sqlite+aiosqlite:///:memory:", "must be a file"),
        ("sqlite+aiosqlite://", "must be a file"),
        ("sqlite+aiosqlite:///file:x?mode=memory&uri=true", "not one quota_router can use"),
        ("sqlite:///x.db", "not one quota_router can use"),
        ("mysql://u:secret@h/d", "not one quota_router can use"),
        ("secret", "not a URL"),
    ],
)
async def test_other_urls_are_refused_with_the_remedy(bad, says):
    with pytest.raises(ConfigError, match=says) as refused:
        async with open_engines(bad, Durability.POWER):
            pass
    assert "secret" not in refused.value.message
    assert refused.value.key_path == ("server", "database")


@pytest.mark.parametrize("statement", ["CREATE TABLE guests (name)", "PRAGMA application_id = 7"])
async def test_another_programs_database_is_left_alone(url, path, statement):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's database"):
        async with open_engines(url, Durability.POWER):
            pass
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(url, path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be read as one" * 20)
    path.chmod(0o600)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        async with open_engines(url, Durability.POWER):
            pass


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="a path that this user may write"):
        async with open_engines(f"sqlite+aiosqlite:///{tmp_path}/file/ledger.db", Durability.POWER):
            pass


def test_old_libraries_are_refused_or_warned_of():
    with pytest.raises(ConfigError, match="too old"):
        engine_room._judge_version((3, 36, 0))
    with structlog.testing.capture_logs() as logs:
        engine_room._judge_version((3, 51, 2))
        engine_room._judge_version((3, 51, 3))
    assert [(log["action"], log["version"]) for log in logs] == [("sqlite_old", "3.51.2")]


def test_a_setting_that_did_not_take_is_a_refusal(path):
    path.parent.mkdir()
    with (
        closing(sqlite3.connect(path)) as conn,
        pytest.raises(LedgerUnavailable, match="did not take PRAGMA page_size = 7"),
    ):
        engine_room._configure(conn, {"page_size": 7}, path, writes=True)

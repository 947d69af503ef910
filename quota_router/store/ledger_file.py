"""
The ledger's file: found by its URL, locked for one process, closed to other users.

Law: nothing of the file is read or written before its lock is ours, and nobody but its owner can reach it.
Never: looks inside; that is SQLite's.
"""

import fcntl
import os
import shlex
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from quota_router.errors import ConfigError, LedgerLocked

SETTING = ("server", "database")
"""Where the configuration names the file."""


def read_path(text: str) -> Path:
    """
    The file a database URL names, resolved, so that two names of one file share one lock.

    Raises:
        ConfigError: it names no SQLite file. Never quotes the URL, which may hold a password.
    """
    remedy = 'Write `[server] database = "sqlite+aiosqlite:////PATH/ledger.db"`.'
    try:
        url = make_url(text)
    except ArgumentError:
        # Without its cause: SQLAlchemy quotes the whole text.
        raise ConfigError(f"The database is not a URL. {remedy}", key_path=SETTING) from None
    if url.drivername != "sqlite+aiosqlite" or url.query or url.host:
        raise ConfigError(f"This database is not one quota_router can use. {remedy}", key_path=SETTING)
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(f"The ledger must be a file: memory forgets what was spent. {remedy}", key_path=SETTING)
    return Path(url.database).resolve()


def take_lock(path: Path) -> int:
    """
    Lock `PATH.lock` until the descriptor is closed or the process dies, and write our pid into it.

    A missing directory is made, for its owner alone. The lock file is never removed: else two daemons could lock two
    files of one name.

    Returns:
        the descriptor that holds the lock.

    Raises:
        ConfigError: this user may not write there.
        LedgerLocked: another process holds it; names its pid.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _unusable(path, exc) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise LedgerLocked(f"Process {pid} owns the ledger {path}. Stop it first, or give this one its own database.") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_private(path: Path) -> None:
    """
    Make the file for its owner alone, or refuse one that others can reach.

    SQLite gives `-wal` and `-shm` the mode of the database: measured on 3.40.1, 2026-11-20.

    Raises:
        ConfigError: others can reach it (the sentence gives the chmod), or this user may not write it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        open_to_others = [shlex.quote(str(file)) for file in files if file.exists() and file.stat().st_mode & 0o077]
        if open_to_others:
            raise ConfigError(
                f"Other users can reach the ledger. Close it to them: chmod 600 {' '.join(open_to_others)}",
                key_path=SETTING,
            ) from None
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _unusable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"The ledger {path} cannot be opened: {exc.strerror}. Give `[server] database` a path that this user may write.",
        key_path=SETTING,
    )

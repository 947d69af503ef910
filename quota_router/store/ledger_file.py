"""
The ledger's file: found by its URL, locked for one process, closed to other users, watched for as long as it is open.

Law: nothing of the file is read or written before its lock is ours, and nobody but its owner can reach it. What was opened is what
is there: a file that is gone, replaced or cut, or has lost its WAL, is not opened again.
Never: looks inside; that is SQLite's.

Decision 2026-11 -- looked at before each connection too, not only before each batch: SQLite drops the WAL of a file that has become
    empty, and copies it into whatever stands at the ledger's place (measured on 3.40.1, 2026-11-25).
"""

import fcntl
import os
import shlex
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from quota_router.errors import ConfigError, LedgerLocked, LedgerUnavailable

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


class LedgerFile:
    """The file that was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = path.with_name(path.name + "-wal")
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._bytes = 0

    def remember(self) -> None:
        """From now on it is this one. SQLite has opened it, and keeps it and its WAL open."""
        self._identity, self._bytes = _identify(self.path)
        self._wal_identity, _ = _identify(self._wal)

    def refuse_another(self) -> None:
        """
        Compare what stands there with what was opened; before `remember`, anything may.

        Raises:
            LedgerUnavailable: it is another, or less than it was.
        """
        if self._identity is None:
            return
        try:
            found, size = _identify(self.path)
            wal, _ = _identify(self._wal)
        except OSError as exc:
            gone = f"The ledger's file {exc.filename} is gone. Put it back: it is never made anew while we run."
            raise LedgerUnavailable(gone) from exc
        if found != self._identity or wal != self._wal_identity:
            path = self.path if found != self._identity else self._wal
            raise LedgerUnavailable(f"The ledger's file {path} was replaced by another. Put the first one back, or restart.")
        if size < self._bytes:
            raise LedgerUnavailable(f"The ledger {self.path} was cut from {self._bytes} to {size} bytes. Put its content back.")
        self._bytes = size


def _identify(path: Path) -> tuple[tuple[int, int], int]:
    found = path.stat()
    return (found.st_dev, found.st_ino), found.st_size


def make_private(path: Path) -> None:
    """
    Make the file for its owner alone, or refuse one that others can reach.

    SQLite gives `-wal` and `-shm` the mode of the database: measured on 3.40.1, 2026-11-20.

    Raises:
        ConfigError: others can reach it (the sentence gives the chmod), or this user may not write it.
        LedgerUnavailable: it was cut to nothing, and SQLite would drop the WAL that is left of it.
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
        if path.stat().st_size == 0 and files[1].exists() and files[1].stat().st_size > 0:
            remedy = "Put its content back, or move both away to begin anew."
            raise LedgerUnavailable(f"The ledger {path} is empty, but {files[1].name} is not. {remedy}") from None
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _unusable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"The ledger {path} cannot be opened: {exc.strerror}. Give `[server] database` a path that this user may write.",
        key_path=SETTING,
    )

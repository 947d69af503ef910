"""
A copy of a SQLite ledger, made while it is written.

Law: SQLite's own online backup, in one snapshot, so that no entry is halfway in; what was copied is read again and verified before
it gets its name. It is its owner's alone, and never takes the place of a file that is there.
Never: copies the file itself: what stands in the write-ahead log would be missing, or half of a page.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from quota_router.errors import LedgerError
from quota_router.store.audit import Progress, verify
from quota_router.store.open import reading_beside, reading_file
from quota_router.store.tables import epochs
from quota_router.store.verdict import Verdict

PAGES_AT_ONCE = 2_000
"""Eight megabytes between two words about how far it is."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""What file systems say that know no links, such as those of most USB sticks."""

Copied = Callable[[int, int], None]
"""Told (pages copied, pages to be copied)."""


class BackupFailed(LedgerError):
    """The backup could not be made."""

    code = "backup_failed"


def back_up(url: str, target: Path, now: datetime, copied: Copied | None = None, read: Progress | None = None) -> Verdict:
    """
    Copy the ledger at *url*, which is a SQLite file, to *target*, and verify the copy.

    Args:
        url: of the database; a daemon may be writing it.
        target: must not be there yet.
        now: which windows count when it is verified.
        copied: told while it copies.
        read: told while it verifies.

    Returns:
        what was found in the copy. What is wrong with the ledger is wrong with its copy too, which is kept all the same.

    Raises:
        BackupFailed: *target* is there, or cannot be written; nothing is left behind.
        LedgerUnavailable: the ledger cannot be read.
    """
    target = target.absolute()
    partial = target.with_name(target.name + ".partial")
    if os.path.lexists(target):
        raise BackupFailed(f"{target} is there already. Choose another path: a backup takes the place of nothing.")
    with _new_file(partial):
        _copy(url, partial, copied)
        with reading_file(partial) as conn:
            verdict = verify(conn, now, progress=read)
        _give_name(partial, target)
    return verdict


def _copy(url: str, partial: Path, copied: Copied | None) -> None:
    def told(_status: int, remaining: int, total: int) -> None:
        if copied is not None:
            copied(total - remaining, total)

    with (
        reading_beside(url) as conn,
        closing(sqlite3.connect(f"{partial.as_uri()}?mode=rw", uri=True, isolation_level=None)) as copy,
    ):
        # The first read takes the snapshot; it stays while we copy, else every commit would begin the copy anew.
        conn.execute(select(epochs.c.value)).all()
        driver = conn.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            driver.backup(copy, pages=PAGES_AT_ONCE, progress=told, sleep=0)
            # One file, without a log beside it; a daemon that opens it as its ledger sets this again.
            copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as exc:
            raise BackupFailed(f"{partial} could not be written: {exc}.") from exc


@contextmanager
def _new_file(partial: Path) -> Iterator[None]:
    """Make a file for its owner alone, and remove it when it got no name of its own."""
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError as exc:
        raise BackupFailed(f"{partial} is left of a backup that was broken off, or being made now. Remove it first.") from exc
    except OSError as exc:
        raise BackupFailed(f"{partial} cannot be written: {exc.strerror}.") from exc
    try:
        yield
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _give_name(partial: Path, target: Path) -> None:
    """Put the copy on disk, then under its name: a link is made only where nothing is."""
    try:
        _sync(partial)
        try:
            os.link(partial, target)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            partial.rename(target)
        _sync(target.parent)
    except FileExistsError as exc:
        raise BackupFailed(f"{target} is there already. Choose another path: a backup takes the place of nothing.") from exc
    except OSError as exc:
        raise BackupFailed(f"{target} cannot be written: {exc.strerror}.") from exc


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

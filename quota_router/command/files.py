"""
The files of runs: a prompt and a system text to read, and a place for an answer.

Law: each run has a directory of its own that only its user can enter, and it is removed with all that a tool left there. What a
daemon that was killed left behind is removed by the next one that starts.
Never: follows a link that a tool left, or waits for a pipe that stands where a file should.

Decision 2026-11 -- a directory is known to be left behind by its lock: no process numbers, which come round again, and no ages.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from quota_router.command.process import STDOUT_MAX_BYTES
from quota_router.core.commands import CommandSpec, Placeholder
from quota_router.dialects import Prompt

HOME_PREFIX = "quota-router-run-"
"""Of the directory that holds those of all runs of one daemon."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_OUTPUT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Home:
    """
    The directory of one daemon's runs. Made at once; blocks, so in a thread.

    Args:
        directory: where to make it; `None`: where the system keeps temporary files.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path | None) -> None:
        parent = Path(tempfile.gettempdir()) if directory is None else directory
        for left in parent.glob(f"{HOME_PREFIX}*"):
            _remove_if_left(left)
        self._path, self._lock = _make_locked(parent)

    def make_files(self) -> "Files":
        """
        Make the directory of one run; whoever asks for it removes it.

        Raises:
            OSError: it cannot be made.
        """
        return Files(Path(tempfile.mkdtemp(dir=self._path)))

    def remove(self) -> None:
        """Remove it, with whatever is still in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


class Files:
    """The files of one run, in the directory that it works in. What is done with them blocks, so in a thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prompt = directory / "prompt.txt"
        self.system = directory / "system.txt"
        self.output = directory / "output.txt"

    def write(self, prompt: Prompt, spec: CommandSpec) -> None:
        """
        Write what the tool is to read, and make what it is to write.

        Raises:
            OSError: they cannot be written.
        """
        has_system = spec.asks_for(Placeholder.SYSTEM_FILE)
        _write(self.prompt, prompt.text if has_system else prompt.whole)
        if has_system:
            _write(self.system, prompt.system or "")
        if spec.asks_for(Placeholder.OUTPUT_FILE):
            _write(self.output, "")

    def read_output(self) -> bytes:
        """What the tool left in its output file, one byte more than is read at most; nothing if no file can be read there."""
        try:
            descriptor = os.open(self.output, _OPEN_OUTPUT)
        except OSError:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(STDOUT_MAX_BYTES + 1)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, _OPEN_NEW, 0o600), "wb") as file:
        file.write(text.encode(errors="replace"))


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A new directory, and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=HOME_PREFIX, dir=parent))
        # One that starts at the same moment may take it for left behind before it is locked: then another is made.
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(path, _OPEN_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return path, descriptor
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _remove_if_left(path: Path) -> None:
    """Remove a directory of ours that no living daemon holds."""
    try:
        descriptor = os.open(path, _OPEN_DIRECTORY)
    except OSError:
        return
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # it is held
        pass
    finally:
        os.close(descriptor)

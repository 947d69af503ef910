"""
The spill file: settlements that the database could not take, kept until it can.

Law: what `keep` took is on disk when it returns, and read again it is the same. Booked twice it is booked once, since a settlement
names its hold. The file has its whole size from the start: a full disk does not keep us from writing into it.
Never: grows, or holds anything but settlements.

One line per settlement: a CRC-32 of the rest in eight hex digits, a space, JSON, a newline. Behind the last whole line are zeros.
"""

import fcntl
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from quota_router.core.holds import Settlement
from quota_router.errors import ConfigError, LedgerUnavailable

SPILL_BYTES = 4_194_304
"""Some ten thousand settlements."""
SPILLS_MAX = 1_000
_CRC_CHARS = 8


class Spilled(Struct, frozen=True, kw_only=True):
    """One settlement that waits."""

    hold_id: str
    settlement: Settlement


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Spilled).decode


class Spill:
    """
    One daemon's spill file, locked as long as it is open. For one thread at a time.

    Raises:
        BlockingIOError: another daemon has it.
        OSError: it cannot be made, or the disk has no room for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(self._fd, 0, SPILL_BYTES)
            self._end = sum(len(line) for line in self._lines())
        except BaseException:
            os.close(self._fd)
            raise

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self._end > 0

    def keep(self, settlements: Iterable[Spilled]) -> None:
        """
        Write settlements, and return when they are on disk.

        Raises:
            LedgerUnavailable: the file is full, or the disk refuses.
        """
        text = b"".join(_line(spilled) for spilled in settlements)
        if self._end + len(text) > SPILL_BYTES:
            raise LedgerUnavailable("The spill file is full.")
        try:
            written = os.pwrite(self._fd, text, self._end)
            os.fdatasync(self._fd)
        except OSError as exc:
            raise LedgerUnavailable("The spill file cannot be written.") from exc
        assert written == len(text), "a short write to a file that has its size already"
        self._end += len(text)

    def read(self) -> Iterator[Spilled]:
        """Everything that waits, in the order in which it came."""
        for line in self._lines():
            yield _decode(line[_CRC_CHARS + 1 :])

    def clear(self) -> None:
        """Forget it all: it is booked. A crash on the way leaves lines that were booked already."""
        os.pwrite(self._fd, bytes(self._end), 0)
        os.fdatasync(self._fd)
        self._end = 0

    def refuse(self, spilled: Spilled) -> None:
        """
        Put a settlement that the database refuses by itself into the file `*.refused` beside this one: it waits for a person.

        Raises:
            LedgerUnavailable: it could not be written there.
        """
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.path.with_suffix(".refused"), flags, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(_line(spilled))
                file.flush()
                os.fdatasync(fd)
        except OSError as exc:
            raise LedgerUnavailable("A refused settlement cannot be kept beside the spill file.") from exc

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _lines(self) -> Iterator[bytes]:
        """The whole lines from the beginning; a torn one was never acknowledged."""
        for line in os.pread(self._fd, SPILL_BYTES, 0).splitlines(keepends=True):
            rest = line[_CRC_CHARS + 1 :]
            if not line.endswith(b"\n") or line[:_CRC_CHARS] != _crc(rest):
                return
            yield line


def claim_spill(folder: Path) -> Spill:
    """
    Take the first spill file in *folder* that no running daemon has: the next start goes on where a dead one stopped.

    Raises:
        ConfigError: it cannot be made there; the sentence says why.
    """
    for number in range(1, SPILLS_MAX + 1):
        path = folder / f"settlements-{number}.spill"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Spill(path)
        except BlockingIOError:
            continue
        except OSError as exc:
            raise ConfigError(f"The spill file {path} cannot be made: {exc.strerror}. It needs {SPILL_BYTES} bytes.") from exc
    raise ConfigError(f"{SPILLS_MAX} daemons have their spill files in {folder} already.")


def _line(spilled: Spilled) -> bytes:
    rest = _encode(spilled) + b"\n"
    return _crc(rest) + b" " + rest


def _crc(rest: bytes) -> bytes:
    return b"%08x" % zlib.crc32(rest)

"""
The only file that starts processes.

Law: a process is started from an argument list, in a session of its own, and whoever started it awaits `finish`: after that it is
reaped and its whole group was killed. What it writes is bounded: beyond that it is ended.
Never: goes by way of a shell, adds to the environment, or hands on a file but the standard ones.

What puts itself into another process group or session is out of reach. Only a kill -9 of this daemon lets a group live on.

Decision 2026-11 -- `subprocess` and the loop's readers instead of asyncio's own subprocesses: those await between the fork and the
    moment when we know of it, and a loop that was cancelled there left the group alive; and they reap before they tell of an exit,
    so that the group would be killed by a number that may already be somebody else's. The first was met in a test.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import IO

STDOUT_MAX_BYTES = 16 * 1024 * 1024
"""Tools that tell events tell every step they took."""
STDERR_MAX_BYTES = 4 * 1024 * 1024
STDERR_KEPT_BYTES = 64 * 1024
"""Of its end: a tool's last word stands there."""
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
REAP_S = 2.0
"""What the kernel may take to end what was killed."""
DRAIN_S = 1.0
"""What was written may still come this long after the exit: a pipe may be held by what left the group."""
GONE_S = 0.25
"""What those who were killed may take to be gone. They are dead before that, unless the kernel is busy."""
_POLL_S = 0.01
_READ_BYTES = 64 * 1024


class Process:
    """One process, its group, and what it wrote. Started once."""

    def __init__(self) -> None:
        self.stdout = bytearray()
        self.cause: str | None = None
        """why it was ended; `None`: it ended by itself"""
        self.over = asyncio.Event()
        """it has ended, or must"""
        self._stderr = bytearray()
        self._stderr_bytes = 0
        self._pipes: set[int] = set()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, FileIO] = {}
        """what the loop looks after for us, by its number: pipes, and where there is one the process itself"""

    def start(self, arguments: tuple[str, ...], *, stdin: Path | None, cwd: Path, environ: Mapping[str, str]) -> None:
        """
        Start it.

        Args:
            arguments: the program first; a bare name is looked up on the PATH of *environ*.
            stdin: the file that it reads as standard input; `None`: that is closed.
            cwd: its working directory.
            environ: all of its environment.

        Raises:
            OSError: nothing was started, unless `is_started`.
        """
        with stdin.open("rb") if stdin is not None else contextlib.nullcontext(subprocess.DEVNULL) as source:
            child = subprocess.Popen(  # noqa: S603 -- an argument list of the operator's, without a shell
                arguments,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=cwd,
                env=environ,
                start_new_session=True,
            )
        # From here on there is a process, and `finish` must find it: nothing is awaited until it can.
        self._child = child
        self._pipes = {self._watch(child.stdout, self._take_stdout), self._watch(child.stderr, self._take_stderr)}
        self._watch_exit(child)

    @property
    def is_started(self) -> bool:
        """Whether there is, or was, a process."""
        return self._child is not None

    @property
    def exit_code(self) -> int:
        """Of the process; negative: the signal that ended it."""
        code = self._child.returncode if self._child is not None else None
        return -signal.SIGKILL if code is None else code

    @property
    def stderr(self) -> str:
        """The end of what it wrote there."""
        return self._stderr.decode(errors="replace")

    def end(self, cause: str) -> None:
        """Let it be over, unless it is already. The first cause counts."""
        if not self._exited.is_set() and self.cause is None:
            self.cause = cause
            self.over.set()
            # Nobody will read what it writes: whoever writes on is told so by a signal, and a flood costs the loop nothing.
            for number in tuple(self._pipes):
                self._close(number)

    async def finish(self) -> None:
        """
        End the group, reap the process, and take what is still in the pipes.

        A cancellation does not spare the group: it is killed at once then.
        """
        if self._child is None:
            return
        try:
            if not self._exited.is_set():
                self._signal_group(signal.SIGTERM)
                await _within(GRACE_S, self._exited)
        finally:
            # Also after an exit of its own: what it left behind in its group is nobody's any more.
            self.kill()
            try:
                await _within(REAP_S, self._exited)
                self._reap(0)
                await _within(DRAIN_S, self._drained)
                await self._see_off()
            finally:
                self._reap(REAP_S)
                for number in tuple(self._watched):
                    self._close(number)

    def kill(self) -> None:
        """Kill the group; for `finish`, and for when nobody can wait any more."""
        self._signal_group(signal.SIGKILL)

    # --- what it writes -----------------------------------------------------------------------------------------------------

    def _watch(self, pipe: IO[bytes] | None, take: Callable[[bytes], bool]) -> int:
        assert isinstance(pipe, FileIO)  # unbuffered
        number = pipe.fileno()
        os.set_blocking(number, False)
        self._watched[number] = pipe
        self._loop.add_reader(number, self._read, number, take)
        return number

    def _read(self, number: int, take: Callable[[bytes], bool]) -> None:
        data = self._watched[number].read(_READ_BYTES)
        if data is None:  # nothing there after all
            return
        if not data:
            self._close(number)
        elif not take(data):
            self.end("output_too_long")

    def _take_stdout(self, data: bytes) -> bool:
        self.stdout += data
        return len(self.stdout) <= STDOUT_MAX_BYTES

    def _take_stderr(self, data: bytes) -> bool:
        self._stderr_bytes += len(data)
        self._stderr += data
        del self._stderr[:-STDERR_KEPT_BYTES]
        return self._stderr_bytes <= STDERR_MAX_BYTES

    # --- its end ------------------------------------------------------------------------------------------------------------

    def _watch_exit(self, child: "subprocess.Popen[bytes]") -> None:
        """Have `_exited` set when it has ended; it stays unreaped, and its number ours, where the system can tell of that."""
        try:
            number = os.pidfd_open(child.pid)
        except (AttributeError, OSError):  # not Linux, or an old one: a thread waits, and reaps
            threading.Thread(target=self._wait, args=(child,), name=f"wait {child.pid}", daemon=True).start()
            return
        self._watched[number] = FileIO(number, "rb")
        self._loop.add_reader(number, self._on_exit, number)

    def _wait(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._on_exit)

    def _on_exit(self, number: int | None = None) -> None:
        if number is not None:
            self._close(number)
        self._exited.set()
        self.over.set()

    def _close(self, number: int) -> None:
        self._loop.remove_reader(number)
        self._watched.pop(number).close()
        self._pipes.discard(number)
        if not self._pipes:
            self._drained.set()

    def _signal_group(self, number: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left of it, or nobody of ours
                os.killpg(self._child.pid, number)

    def _reap(self, limit_s: float) -> None:
        """Reap the process. It was killed: the limit is only for a kernel that is slow, where nothing can be awaited any more."""
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(limit_s)

    async def _see_off(self) -> None:
        """
        Wait until nobody is left in the group, and reap who was orphaned in it where we are a container's first process.

        Where that first process is somebody who reaps late, the dead stay in their group: then the wait ends by its bound.
        """
        assert self._child is not None
        if self._child.returncode is None:  # it would be reaped by mistake
            return
        for _ in range(int(GONE_S / _POLL_S)):
            try:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(-self._child.pid, os.WNOHANG)  # noqa: ASYNC222 -- it does not wait
                os.killpg(self._child.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            await asyncio.sleep(_POLL_S)


async def _within(limit_s: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()

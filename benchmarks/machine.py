"""
The two cores and the processes on them.

Law: whatever is started here is stopped when the `with` ends, and is pinned before its first instruction.
Never: knows what the processes are for.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

READY_S = 120.0
STOP_S = 40.0
_POLL_S = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message is a sentence for the person at the terminal."""


class Machine:
    """
    Two cores: one for the target under load, one for everything else, this process included.

    Args:
        directory: where the ledger and the logs lie while the benchmark runs; `None`: the system's temporary directory.
    """

    def __init__(self, directory: Path | None) -> None:
        if not Path("/proc/self/stat").exists():
            raise BenchmarkError("This benchmark reads CPU times from /proc and pins processes to cores: it needs Linux.")
        cores = sorted(os.sched_getaffinity(0))
        self.has_two_cores = len(cores) > 1
        self.target_core, self.harness_core = cores[0], cores[-1]
        self._parent_directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # A terminated benchmark must unwind, or its processes would stay behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        os.sched_setaffinity(0, {self.harness_core})
        temporary = tempfile.TemporaryDirectory(prefix="quota-router-bench-", dir=self._parent_directory)
        self.directory = Path(self._stack.enter_context(temporary))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, name: str, command: Sequence[str | Path], ready_url: str, *, core: int, env: Mapping[str, str] | None = None
    ) -> int:
        """
        Start a server on *core*, and wait until *ready_url* answers 200.

        Returns:
            its process id.
        """
        log_path = self.directory / f"{name}.log"
        process = self._stack.enter_context(_running(command, core, log_path, {**clean_environment(), **(env or {})}))
        ready_by = time.monotonic() + READY_S
        while status_of(ready_url) != http.client.OK:
            if process.poll() is not None or time.monotonic() > ready_by:
                tail = log_path.read_text(errors="replace")[-2000:].strip()
                raise BenchmarkError(f"{name} did not become ready. Its log ends:\n{tail}")
            time.sleep(_POLL_S)
        return process.pid


@contextmanager
def _running(command: Sequence[str | Path], core: int, log_path: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log_path.open("wb") as log, _pinned_to(core):
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=log_path.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _pinned_to(core: int) -> Iterator[None]:
    """Children started inside inherit *core*: they never run a single instruction elsewhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clean_environment() -> dict[str, str]:
    """
    Our environment without what would change a target.

    `PYTHONDONTWRITEBYTECODE` makes Python targets compile on every import, and `QUOTA_ROUTER_*` are an operator's settings.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("QUOTA_ROUTER_")
    }


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, token: str | None = None) -> tuple[int, bytes]:
    """GET a plain http *url*: status and body."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", f"/{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def status_of(url: str) -> int | None:
    """The status *url* answers with; `None` while nobody answers."""
    with suppress(OSError, http.client.HTTPException):
        return get(url)[0]
    return None


def cpu_s(root: int) -> float:
    """
    CPU seconds, user and system, of the process tree under *root*, children already reaped included.

    Source: proc_pid_stat(5), fields 4 (ppid) and 14 to 17 (utime, stime, cutime, cstime), read 2026-11-20.
    """
    processes: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It ended while we were looking.
            # The name in field 2 may hold anything, so count from its closing parenthesis: fields[0] is field 3.
            fields = path.read_text().rpartition(")")[2].split()
            processes[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family, found = set[int](), {root}
    while found:
        family |= found
        found = {pid for pid, (parent, _) in processes.items() if parent in family} - family
    return sum(processes[pid][1] for pid in family if pid in processes) / _TICKS_PER_S

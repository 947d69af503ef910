"""
Running the tools of providers.

Law: no hold, no process. Whatever ends a run (its answer, its time, its size, a cancellation, the end of the daemon) ends its
process group and removes its files, and a run keeps its place until both are done.
Never: repeats a run, or hands a tool a variable that is not on the list: no key of another provider and nothing of our own.

Decision 2026-11 -- every run has an empty directory of its own to work in: a tool finds no project there, and may read its prompt
    without asking, as some ask for what lies elsewhere.
Decision 2026-11 -- tools run in UTC unless their own variables say otherwise: some name a reset by a time of day alone.
Decision 2026-11 -- a cancelled caller leaves at once, and his run ends behind him in a task of its own: what he owes is settled
    without waiting for a tool that takes its time to die.
"""

import asyncio
import errno
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog

from quota_router.command.files import Files, Home
from quota_router.command.process import Process
from quota_router.command.requests import CommandAnswer, CommandRequest, unavailable
from quota_router.command.telling import Ended, tell
from quota_router.core.command_output import Source
from quota_router.dialects import Prompt, dialect_of

PROCESSES_MAX = 8
"""Runs at a time; a call beyond waits, and its wait counts as starting. A tool takes a hundred times what a connection takes."""

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR")
_INHERITED_PREFIXES = ("XDG_", "LC_")
_CAUSES_BY_ERRNO = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "not_executable",
    errno.EPERM: "not_executable",
    errno.ENOEXEC: "not_executable",
}
"""Why nothing was started; any other is `not_started`."""


log = structlog.get_logger()


class Commands:
    """
    Runs tools. One per daemon, entered before the first call and left when no call runs any more.

    Args:
        environ: where the few variables come from that every tool gets.
        clock: gives aware UTC.
        directory: where the directories of runs are made; `None`: where the system keeps temporary files.
        processes_max: runs at a time.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        clock: Callable[[], datetime],
        directory: Path | None = None,
        processes_max: int = PROCESSES_MAX,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._places = asyncio.Semaphore(processes_max)
        self._running: dict[asyncio.Task[CommandAnswer], Process] = {}
        self._home: Home | None = None
        self._is_open = False
        self._inherited = {
            name: value for name, value in environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        }

    async def __aenter__(self) -> Self:
        self._is_open = True
        try:
            self._home = await asyncio.to_thread(Home, self._directory)
        except OSError as exc:  # who has no tools must not need a place for their files
            log.warning("there is no place for the files of tools", action="no_command_files", reason=exc.strerror)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        home, self._home, self._is_open = self._home, None, False
        try:
            for process in self._running.values():
                process.end("closing")
            if self._running:
                await asyncio.wait(self._running)
        finally:
            for process in self._running.values():  # only where the wait was cancelled
                process.kill()
            if home is not None:
                home.remove()

    async def run(self, request: CommandRequest, hold_id: str) -> CommandAnswer:
        """
        Run a tool once, to its end.

        Args:
            request: what to run.
            hold_id: of the committed hold that pays for it.

        Raises:
            InvalidRequest: a plain prompt cannot carry the call; nothing was started.
            UpstreamUnavailable: no answer came; `dispatched` says whether the tool ran.
        """
        assert hold_id, "no hold, no process"
        prompt = dialect_of(request.provider.family).prompt_of(request.operation, request.body)
        began = asyncio.get_running_loop().time()
        await self._take_place(request)
        process = Process()
        task = asyncio.create_task(self._run(request, prompt, hold_id, process, began), name=f"command {request.provider.name}")
        self._running[task] = process
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            process.end("cancelled")
            raise

    async def _take_place(self, request: CommandRequest) -> None:
        try:
            async with asyncio.timeout(max(0.0, min(request.start_timeout_s, request.total_timeout_s))):
                await self._places.acquire()
        except TimeoutError as exc:
            cause = "no_place" if request.start_timeout_s < request.total_timeout_s else "total_timeout"
            raise unavailable(request, cause, dispatched=False) from exc

    def _ended(self, task: asyncio.Task[CommandAnswer]) -> None:
        del self._running[task]
        self._places.release()
        if not task.cancelled():
            task.exception()  # asked for, or asyncio would log that nobody did: the caller may have left

    async def _run(self, request: CommandRequest, prompt: Prompt, hold_id: str, process: Process, began: float) -> CommandAnswer:
        """Run it, from its files to its answer; *began*: when its call began to wait, by the loop's clock."""
        if self._home is None:
            raise unavailable(request, "no_files" if self._is_open else "closing", dispatched=False)
        try:
            files = self._home.make_files()
        except OSError as exc:
            raise unavailable(request, "no_files", dispatched=False) from exc
        environ = self._environment(request)
        writing = asyncio.get_running_loop().run_in_executor(None, files.write, prompt, request.spec)
        try:
            await _written(request, writing)
            try:
                _start(request, process, files, environ, began)
                await _wait(request, process, began)
            finally:
                await process.finish()
            is_in_file = request.spec.reads.source is Source.OUTPUT_FILE
            written = await asyncio.to_thread(files.read_output) if is_in_file else bytes(process.stdout)
        finally:
            await asyncio.wait({writing})  # or it would write into what is being removed
            await asyncio.to_thread(files.remove)
        ended = Ended(
            prompt=prompt,
            cause=process.cause,
            exit_code=process.exit_code,
            written=written,
            stderr=process.stderr,
            answer_id=hold_id.replace("-", ""),
            at=self._clock(),
            zone=_zone(environ),
        )
        return await asyncio.to_thread(tell, request, ended)

    def _environment(self, request: CommandRequest) -> dict[str, str]:
        spec, secret = request.spec, request.secret
        credential = {spec.credential_env: secret.reveal()} if spec.credential_env is not None and secret is not None else {}
        return {**self._inherited, "TZ": "UTC", **spec.env, **credential}


async def _written(request: CommandRequest, writing: "asyncio.Future[None]") -> None:
    try:
        await asyncio.shield(writing)
    except OSError as exc:
        raise unavailable(request, "no_files", dispatched=False) from exc


def _start(request: CommandRequest, process: Process, files: Files, environ: Mapping[str, str], began: float) -> None:
    """Start it, unless it is over before it began."""
    cause = process.cause or ("total_timeout" if _left_s(request, began) <= 0 else None)
    if cause is not None:
        raise unavailable(request, cause, dispatched=False)
    try:
        arguments = request.spec.fill(
            model=request.upstream_model,
            prompt_file=str(files.prompt),
            system_file=str(files.system),
            output_file=str(files.output),
        )
    except ValueError as exc:
        raise unavailable(request, "bad_model", dispatched=False) from exc
    stdin = files.prompt if request.spec.prompt_on_stdin else None
    try:
        process.start(arguments, stdin=stdin, cwd=files.directory, environ=environ)
    except OSError as exc:
        cause = _CAUSES_BY_ERRNO.get(exc.errno or 0, "not_started")
        raise unavailable(request, cause, dispatched=process.is_started) from exc


async def _wait(request: CommandRequest, process: Process, began: float) -> None:
    """Return when the process has ended, or must."""
    left_s = _left_s(request, began)
    try:
        async with asyncio.timeout(max(0.0, min(left_s, request.spec.run_timeout_s))):
            await process.over.wait()
    except TimeoutError:
        process.end("run_timeout" if request.spec.run_timeout_s < left_s else "total_timeout")


def _left_s(request: CommandRequest, began: float) -> float:
    return began + request.total_timeout_s - asyncio.get_running_loop().time()


def _zone(environ: Mapping[str, str]) -> tzinfo:
    try:
        return ZoneInfo(environ["TZ"])
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC

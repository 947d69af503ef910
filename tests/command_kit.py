"""Real tools for tests: small scripts, what they leave behind, and whether they still live."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quota_router.command import CommandRequest
from quota_router.core.calls import Operation
from quota_router.core.catalog import Family, Provider
from quota_router.core.commands import CommandSpec

BOUND_S = 30.0
"""A condition that has not come true by then never will: a test that waits for it fails."""
POLL_S = 0.005
HOLD = "0192aaaa-0000-7000-8000-000000000001"
PROMPT = "{prompt_file}"


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until it holds, and return what it gave."""
    async with asyncio.timeout(BOUND_S):
        while not (found := condition()):  # noqa: ASYNC110 -- processes and files tell nobody when they change
            await asyncio.sleep(POLL_S)
    return found


def write_tool(folder: Path, code: str, name: str = "tool") -> str:
    """A script that can be run; sh unless its first line says otherwise."""
    path = folder / name
    path.write_text(code if code.startswith("#!") else f"#!/bin/sh\n{code}")
    path.chmod(0o755)
    return str(path)


def provider(name: str = "cli", family: Family = Family.OPENAI) -> Provider:
    return Provider(name=name, family=family, vendor="command", account=name, base_url="", credential_ref="none")


def asked(text: str = "hi", **more: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}], **more}).encode()


def request(*template: str, body: bytes | None = None, family: Family = Family.OPENAI, **more: Any) -> CommandRequest:
    """A run of a tool; what `CommandSpec` takes goes there."""
    spec = {name: more.pop(name) for name in ("env", "credential_env", "reads", "prompt_on_stdin", "run_timeout_s") if name in more}
    usual = {
        "operation": Operation.CHAT if family is Family.OPENAI else Operation.MESSAGES,
        "upstream_model": "opus",
        "is_stream": False,
        "start_timeout_s": BOUND_S,
        "total_timeout_s": BOUND_S,
    }
    return CommandRequest(
        provider=provider(more.pop("name", "cli"), family),
        spec=CommandSpec(template=template, **spec),
        body=asked() if body is None else body,
        **{**usual, **more},
    )


def state_of(pid: int) -> str | None:
    """As /proc tells it, `None` when there is no such process: `proc_pid_stat(5)`."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_dead(pid: int) -> bool:
    """Gone, or waiting for whoever adopted it."""
    return state_of(pid) in (None, "Z")


def own_children() -> list[int]:
    """Of this process, zombies among them."""
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def pids_in(path: Path, count: int) -> list[int] | None:
    """The process numbers that a tool wrote there, once there are as many."""
    written = path.read_text().split("\n") if path.exists() else []
    return [int(pid) for pid in written[:-1]] if len(written) > count else None

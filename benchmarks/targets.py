"""
What is measured, and how each of them is started.

Law: every gateway has the same upstream, the same core and one process; none is given what another could use and lacks.
Never: measures.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadgen import MODEL
from machine import BenchmarkError, Machine, clean_environment, free_port

HERE = Path(__file__).parent
CHAT_PATH = "/v1/chat/completions"
YARDSTICK = "pass-through"

_LITELLM_PACKAGES = (
    "litellm[proxy]",
    "httptools",
    # Without these three LiteLLM tries a failing import again on every call.
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp",
)
_ON_UVLOOP = "import runpy, sys, uvloop; uvloop.install(); del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"

_CATALOG = """
[server]
database = "sqlite+aiosqlite:///{ledger}"
durability = "power"

[providers.mock]
family = "openai"
vendor = "openai"
base_url = "{upstream}/v1"
network = "loopback"
credential = "env:MOCK_KEY"

[[models]]
name = "{model}"
attachments = ["mock"]
max_output_tokens = 4096
cost_per_million_input = "1"
cost_per_million_output = "2"

[[budgets]]
name = "bench"
subject = "everyone"
unit = "usd"
limit = "1000000"
window = "month"
enforcement = "strict"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of the table."""

    name: str
    base_url: str
    token: str | None = None
    pid: int | None = None
    """whose CPU is counted; `None` for no gateway at all"""


def start_upstream(machine: Machine) -> str:
    """The mock every target calls, on the harness's core; returns scheme, host and port."""
    base_url, port = _address()
    command = [sys.executable, HERE / "upstream_mock.py", port]
    machine.start("upstream", command, base_url, core=machine.harness_core)
    return base_url


def start_pass_through(machine: Machine, upstream: str, *, on_uvloop: bool) -> Target:
    """The yardstick."""
    base_url, port = _address()
    command = [sys.executable, HERE / "passthrough.py", port, upstream, *(["--uvloop"] if on_uvloop else [])]
    pid = machine.start(YARDSTICK, command, f"{base_url}/healthz", core=machine.target_core)
    return Target(name=YARDSTICK, base_url=base_url, pid=pid)


def start_daemon(machine: Machine, upstream: str, command: Path, *, on_uvloop: bool, profile: Path | None) -> Target:
    """
    The daemon: SQLite, durability `power`, one strict budget.

    Args:
        machine: where.
        upstream: the mock's scheme, host and port.
        command: the `quota-router` to measure; the Python it belongs to lies beside it.
        on_uvloop: run its event loop on uvloop, which must be installed beside it.
        profile: run it under cProfile and leave the statistics there when it ends.
    """
    if not command.exists():
        raise BenchmarkError(f"There is no {command}. Install the package first, or name its command with --command.")
    python = command.with_name("python")
    state = machine.directory / "state"
    state.mkdir(mode=0o700)
    config = machine.directory / "quota-router.toml"
    config.write_text(_CATALOG.format(ledger=state / "ledger.db", upstream=upstream, model=MODEL))
    base_url, port = _address()
    token = secrets.token_urlsafe(32)
    launcher: list[str | Path] = []
    if on_uvloop:
        launcher = [python, "-c", _ON_UVLOOP]
    elif profile:
        launcher = [python, "-m", "cProfile", "-o", profile.absolute()]
    pid = machine.start(
        "quota-router",
        [*launcher, command, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"],
        f"{base_url}/readyz",
        core=machine.target_core,
        env={"QUOTA_ROUTER_ADMIN_TOKEN": token, "MOCK_KEY": "the-upstream-key", "XDG_STATE_HOME": str(state)},
    )
    return Target(name=f"quota-router {_version(python, 'quota-router')}", base_url=base_url, token=token, pid=pid)


def start_litellm(machine: Machine, upstream: str, venv: Path | None) -> Target:
    """
    LiteLLM's proxy: one worker, no database, no log, the event loop it chooses itself.

    Args:
        machine: where.
        upstream: the mock's scheme, host and port.
        venv: where LiteLLM is or shall be installed; `None`: a cache of ours in the system's temporary directory.
    """
    venv = _with_litellm(venv or _cache_directory() / "litellm")
    # Its price map must know the upstream's model: an unknown one costs it an exception per call.
    parameters = {"model": "openai/gpt-4o-mini", "api_base": f"{upstream}/v1", "api_key": "the-upstream-key"}
    token = f"sk-{secrets.token_urlsafe(32)}"
    config = machine.directory / "litellm.yaml"
    config.write_text(  # JSON is YAML too.
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
                "router_settings": {"num_retries": 0},
                "litellm_settings": {"telemetry": False, "set_verbose": False},
                "general_settings": {"master_key": token},
            }
        )
    )
    base_url, port = _address()
    options = ["--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", "1", "--telemetry", "False"]
    pid = machine.start(
        "litellm",
        [venv / "bin" / "litellm", *options],
        f"{base_url}/health/liveliness",
        core=machine.target_core,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"},
    )
    return Target(name=f"LiteLLM {_version(venv / 'bin' / 'python', 'litellm')}", base_url=base_url, token=token, pid=pid)


def _address() -> tuple[str, str]:
    port = free_port()
    return f"http://127.0.0.1:{port}", str(port)


def _version(python: Path, distribution: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def _cache_directory() -> Path:
    """A directory that outlives us and that nobody else may write into: programs are run from it."""
    cache = Path(tempfile.gettempdir()) / f"quota-router-bench-cache-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    facts = cache.lstat()
    if cache.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise BenchmarkError(f"{cache} can be written by somebody else. Name another place with --litellm-venv.")
    return cache


def _with_litellm(venv: Path) -> Path:
    """*venv*, after LiteLLM has been installed there if it was not."""
    if not (venv / "bin" / "litellm").exists():
        print(f"installing LiteLLM into {venv}, once", file=sys.stderr)
        pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", *_LITELLM_PACKAGES]
        try:
            for command in ([sys.executable, "-m", "venv", venv], pip):
                subprocess.run(command, check=True, env=clean_environment(), stdout=sys.stderr)
        except subprocess.CalledProcessError as exc:
            raise BenchmarkError(f"LiteLLM could not be installed into {venv}: pip's own words are above.") from exc
    return venv

"""
Tools as real processes: what they are given, what their answers become, and that nothing of them is left.
"""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_kit import BOUND_S, HOLD, PROMPT, asked, is_dead, own_children, pids_in, request, until, write_tool
from structlog.testing import capture_logs

from quota_router.command import Commands
from quota_router.command.files import HOME_PREFIX, Home
from quota_router.command.process import STDERR_MAX_BYTES, STDOUT_MAX_BYTES
from quota_router.core.calls import Operation
from quota_router.core.command_output import Format, Pick, Reads, Source
from quota_router.core.command_presets import PRESETS
from quota_router.core.health import FailureKind
from quota_router.core.secrets import Secret
from quota_router.core.usage import Quality, Usage
from quota_router.dialects import anthropic, openai
from quota_router.errors import InvalidRequest, UpstreamCut, UpstreamUnavailable

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
KEY = "CANARY-key-7f3a"
SHORT_S = 0.05
"""A time-out that is meant to pass."""
ECHO = 'cat "$1"'
IN_A_FILE = Reads(source=Source.OUTPUT_FILE)
BRIEF = json.dumps({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]}).encode()
PYTHON = f"#!{sys.executable} -IS\n"


@pytest.fixture
def runs(tmp_path):
    """Where the directories of runs are made."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
async def house():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def open_commands(house, runs):
    async def open_commands(environ=None, **more):
        given = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **(environ or {})}
        return await house.enter_async_context(Commands(environ=given, clock=lambda: NOW, directory=runs, **more))

    return open_commands


@pytest.fixture
async def commands(open_commands):
    return await open_commands()


@pytest.fixture
def tool(tmp_path):
    return lambda code, name="tool": write_tool(tmp_path, code, name)


@pytest.fixture(autouse=True)
async def nothing_is_left(runs, commands):
    """
    After each run, whatever became of it: no process, no zombie, no file.
    """
    before = set(own_children())
    yield
    await until(lambda: set(own_children()) <= before)
    await until(lambda: [*runs.glob("*/*")] == [])


async def text_of(commands, asked_for):
    answer = await commands.run(asked_for, HOLD)
    assert (answer.status, answer.headers["Content-Type"], answer.is_eof) == (200, "application/json", True)
    return json.loads(await answer.read(10**7))["choices"][0]["message"]["content"]


async def failure_of(commands, asked_for, dialect=openai):
    answer = await commands.run(asked_for, HOLD)
    body = await answer.read(10**6)
    assert answer.status >= 400
    return dialect.classify(answer.status, answer.headers, body, NOW), body


async def no_answer(commands, asked_for):
    with pytest.raises(UpstreamUnavailable) as gone:
        await commands.run(asked_for, HOLD)
    return gone.value.cause, gone.value.dispatched


# --- what a tool is given -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["file", "stdin"])
async def test_a_prompt_reaches_its_tool_byte_for_byte(commands, tool, by):
    hard = "--help\n'\"`id` $(touch /tmp/x) \\ {model} %s\r\n\ttab \U0001f600 \0 end\n-n\n"
    program = tool(
        PYTHON + 'import sys; print(ascii((sys.stdin.buffer if sys.argv[1] == "-" else open(sys.argv[1], "rb")).read()))'
    )
    how = {"prompt_on_stdin": True} if by == "stdin" else {}
    seen = await text_of(commands, request(program, PROMPT if by == "file" else "-", body=asked(hard), **how))
    assert seen == ascii(hard.encode())


async def test_arguments_are_never_a_shells(commands, tool, tmp_path):
    program = tool('for argument; do printf "<%s>" "$argument"; done')
    odd = f"$(touch {tmp_path}/pwned);`touch {tmp_path}/pwned` && a  b *"
    seen = await text_of(commands, request(program, "--model={model}", "", "*", "$HOME", PROMPT, upstream_model=odd))
    assert seen.startswith(f"<--model={odd}><><*><$HOME><")
    assert not (tmp_path / "pwned").exists()


async def test_standard_input_is_closed_unless_a_tool_reads_its_prompt_there(commands, tool):
    program = tool('cat; printf "end of %s" "$1"')
    assert (await text_of(commands, request(program, PROMPT))).startswith("end of ")
    assert await text_of(commands, request(program, "x", prompt_on_stdin=True)) == "hiend of x"


async def test_a_tool_gets_the_variables_of_the_list_its_providers_and_no_others(open_commands, tool):
    surroundings = {
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "USER": "me",
        "XDG_CONFIG_HOME": "/x",
        "TMPDIR": "/tmp",  # noqa: S108 -- handed on, not used
        "QUOTA_ROUTER_ADMIN_TOKEN": KEY,
        "OPENAI_API_KEY": KEY,
        "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil",
        "TZ": "Europe/Berlin",
    }
    commands = await open_commands(surroundings)
    program = tool(PYTHON + "import os, json; print(json.dumps(dict(os.environ)))")
    seen = json.loads(await text_of(commands, request(program, PROMPT, env={"CLAUDE_CONFIG_DIR": "/home/me/.claude-work"})))
    given = {name: surroundings[name] for name in ("LANG", "LC_ALL", "USER", "XDG_CONFIG_HOME", "TMPDIR")}
    assert seen == {
        "PATH": os.environ["PATH"],
        "HOME": "/nowhere",
        "TZ": "UTC",
        "CLAUDE_CONFIG_DIR": "/home/me/.claude-work",
        **given,
    }


async def test_two_logins_of_one_tool_run_side_by_side(commands, tool):
    """
    Each sees its own login and its own key, though both run at the same moment.
    """
    program = tool('echo "$LOGIN ${WORK_KEY-none} ${HOME_KEY-none}"; : > "$MINE"; while [ ! -e "$OTHERS" ]; do :; done', "login")
    place = Path(program).parent
    files = {"work": str(place / "a"), "home": str(place / "b")}
    asks = [
        request(
            program,
            PROMPT,
            name=login,
            env={"LOGIN": login, "MINE": files[login], "OTHERS": files[other]},
            credential_env=f"{login.upper()}_KEY",
            secret=Secret(f"key-of-{login}"),
        )
        for login, other in (("work", "home"), ("home", "work"))
    ]
    assert await asyncio.gather(*(text_of(commands, ask) for ask in asks)) == ["work key-of-work none", "home none key-of-home"]


async def test_a_credential_is_a_variable_and_never_an_argument(commands, tool):
    program = tool('echo "$KEY"; tr "\\0" " " < /proc/$$/cmdline')
    seen = await text_of(commands, request(program, PROMPT, credential_env="KEY", secret=Secret(KEY)))
    assert (seen.splitlines()[0], seen.count(KEY)) == (KEY, 1)
    assert (await text_of(commands, request(program, PROMPT, secret=Secret(KEY)))).count(KEY) == 0, "no variable was named"


async def test_files_are_its_users_alone_and_it_works_among_them(commands, tool, runs):
    program = tool('stat -c "%a %F" . "$1" "$2" "$3"; pwd; cat "$2"; ls | wc -l; mkdir deep; echo x > deep/file')
    seen = await text_of(commands, request(program, PROMPT, "{system_file}", "{output_file}", body=BRIEF))
    modes, directory, system = seen.splitlines()[:4], seen.splitlines()[4], seen.splitlines()[5]
    assert modes == ["700 directory", "600 regular file", "600 regular file", "600 regular empty file"]
    assert system == "Be brief.3"
    assert directory.startswith(f"{runs}/{HOME_PREFIX}")
    assert [stat.S_IMODE(home.stat().st_mode) for home in runs.iterdir()] == [0o700]


async def test_system_text_stands_in_the_prompt_where_no_file_was_asked_for(commands, tool):
    seen = await text_of(commands, request(tool(ECHO), PROMPT, body=BRIEF))
    assert seen == "[system]\nBe brief.\n\n[user]\nhi"


# --- what an answer becomes -----------------------------------------------------------------------------------------------


async def test_what_a_tool_prints_is_the_answer_and_its_tokens_are_estimated(commands, tool):
    answer = await commands.run(request(tool("echo 'four tokens, about'"), PROMPT, body=asked("x" * 30)), HOLD)
    read = openai.read_answer(Operation.CHAT, await answer.read(10**6))
    assert read.usage == Usage(input=10, output=6, quality=Quality.ESTIMATED)
    assert (read.cost_nusd, read.answer_id) == (None, f"chatcmpl-{HOLD.replace('-', '')}")


async def test_an_answer_in_a_file_is_read_from_there(commands, tool):
    program = tool('echo noise; printf "the answer\n" > "$2"')
    assert await text_of(commands, request(program, PROMPT, "{output_file}", reads=IN_A_FILE)) == "the answer"


@pytest.mark.parametrize("left", ["ln -sf /etc/passwd", "rm", "rm {}; mkfifo", "rm {}; mkdir"])
async def test_what_is_no_file_is_not_an_answer(commands, tool, left):
    program = tool(f"""{left.replace("{}", '"$1"')} "$1" """)
    ask = request(program, "{output_file}", reads=IN_A_FILE, prompt_on_stdin=True)
    assert await no_answer(commands, ask) == ("no_answer", True)


async def test_bytes_that_are_no_text_are_replaced(commands, tool):
    assert await text_of(commands, request(tool(r"printf 'caf\351 \377\376'"), PROMPT)) == "caf\ufffd \ufffd\ufffd"


CLAUDE_ANSWER = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "Ça va?",
    "total_cost_usd": 0.0079825,
    "usage": {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 15_635, "output_tokens": 6},
}
CLAUDE_USAGE = Usage(input=3, cache_read=15_635, cache_write_5m=20, output=6)


def preset(name, folder, **more):
    """A preset as it stands, with a scripted tool found first on its PATH."""
    known = PRESETS[name].spec
    spec = {"reads": known.reads, "prompt_on_stdin": known.prompt_on_stdin, "credential_env": known.credential_env}
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return request(*known.template, family=PRESETS[name].family, env=env, **spec, **more)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_claude_preset_reads_json(commands, tool, tmp_path, is_stream):
    tool(f'cat > "{tmp_path}/seen"; for it; do echo "$it"; done >> "{tmp_path}/seen"; cat "{tmp_path}/told"', "claude")
    (tmp_path / "told").write_text(json.dumps(CLAUDE_ANSWER))
    answer = await commands.run(preset("claude", tmp_path, is_stream=is_stream, body=asked("What?\n")), HOLD)
    assert (tmp_path / "seen").read_text().startswith("What?\n-p\n--output-format\njson\n--model\nopus\n--tools\n\n")
    body = await answer.read(10**6)
    if is_stream:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert [piece async for piece in answer.chunks()] == [body]
        reader = anthropic.reader(Operation.MESSAGES, None)
        reader.feed(body)
        assert (reader.usage, reader.cost_nusd, reader.is_complete) == (CLAUDE_USAGE, 7_982_500, True)
    else:
        read = anthropic.read_answer(Operation.MESSAGES, body)
        assert (read.usage, read.cost_nusd) == (CLAUDE_USAGE, 7_982_500)
        assert json.loads(body)["content"] == [{"type": "text", "text": "Ça va?"}]
    answer.close()
    answer.close()


async def test_the_codex_preset_reads_json_lines(commands, tool, tmp_path):
    events = [
        {"type": "turn.started"},
        {"type": "error", "message": "Reconnecting... 1/5"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "No."}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "Yes."}},
        {"type": "turn.completed", "usage": {"input_tokens": 30, "cached_input_tokens": 20, "output_tokens": 2}},
    ]
    tool(f'cat > /dev/null; echo Reading >&2; cat "{tmp_path}/told"', "codex")
    (tmp_path / "told").write_text("\n".join(map(json.dumps, events)))
    answer = await commands.run(preset("codex", tmp_path), HOLD)
    read = openai.read_answer(Operation.CHAT, body := await answer.read(10**6))
    assert (read.usage, read.cost_nusd) == (Usage(input=10, cache_read=20, output=2), None)
    assert json.loads(body)["choices"][0]["message"]["content"] == "Yes."


async def test_a_body_beyond_what_its_reader_takes_is_cut(commands, tool):
    answer = await commands.run(request(tool(ECHO), PROMPT), HOLD)
    with pytest.raises(UpstreamCut, match="longer than 10 bytes"):
        await answer.read(10)


# --- failures -------------------------------------------------------------------------------------------------------------


async def test_an_exit_that_nobody_explains_names_its_code_and_may_have_cost_something(commands, tool):
    assert await no_answer(commands, request(tool("echo half an answer; exit 3"), PROMPT)) == ("exit_3", True)
    assert await no_answer(commands, request(tool("kill -9 $$"), PROMPT)) == ("signal_9", True)
    assert await no_answer(commands, request(tool("exit 0"), PROMPT)) == ("no_answer", True)
    json_reads = Reads(format=Format.JSON, text=Pick(at="/text"))
    assert await no_answer(commands, request(tool("echo no json"), PROMPT, reads=json_reads)) == ("no_answer", True)
    assert await no_answer(commands, request(tool("echo '{\"text\": 1}'"), PROMPT, reads=json_reads)) == ("no_answer", True)


def spoil(path, how):
    """Make of a tool what cannot be started."""
    match how:
        case "gone":
            path.unlink()
        case "not executable":
            path.chmod(0o644)
        case "a directory":
            path.unlink()
            path.mkdir()
        case "no program":
            path.write_bytes(b"\x7fELF garbage")
        case "no interpreter":
            path.write_text("#!/nowhere/interpreter\n")


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("gone", "not_found"),
        ("no interpreter", "not_found"),
        ("not executable", "not_executable"),
        ("a directory", "not_executable"),
        ("no program", "not_executable"),
    ],
)
async def test_what_was_never_started_cost_nothing(commands, tool, tmp_path, how, cause):
    program = tool(ECHO, "spoilt")
    spoil(tmp_path / "spoilt", how)
    assert await no_answer(commands, request(program, PROMPT)) == (cause, False)
    assert await no_answer(commands, request("spoilt", PROMPT, env={"PATH": str(tmp_path)})) == (cause, False)


async def test_a_program_that_is_nowhere_and_a_model_that_is_no_name_start_nothing(commands, tool):
    assert await no_answer(commands, request("quota-router-no-such-tool", PROMPT)) == ("not_found", False)
    assert await no_answer(commands, request(tool(ECHO), PROMPT, upstream_model="--yolo")) == ("bad_model", False)


@pytest.mark.parametrize("where", ["stderr", "stdout"])
async def test_an_empty_window_is_told_with_its_end(commands, tool, where):
    to = ">&2" if where == "stderr" else ""
    program = tool(f"""echo "ERROR: You've hit your usage limit. Try again at 3:28 PM." {to}; exit 1""")
    failure, body = await failure_of(commands, request(program, PROMPT))
    assert (failure.kind, failure.until) == (FailureKind.QUOTA_WINDOW, datetime(2026, 11, 25, 15, 28, tzinfo=UTC))
    assert b"3:28" not in body, "a tool's own words reach nobody"


async def test_a_time_is_of_the_zone_that_the_tool_was_given(commands, tool):
    program = tool("""echo "You've hit your limit · resets 3pm" >&2; exit 1""")
    failure, _ = await failure_of(commands, request(program, PROMPT, env={"TZ": "America/New_York"}))
    assert failure.until == NOW + timedelta(hours=8)
    failure, _ = await failure_of(commands, request(program, PROMPT, env={"TZ": ":/no/zone"}))
    assert failure.until == NOW + timedelta(hours=3)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"result": "You've hit your session limit · resets 4:50pm (UTC)", "api_error_status": 429}, FailureKind.QUOTA_WINDOW),
        ({"result": "API Error: Rate limit reached", "api_error_status": 429}, FailureKind.RATE_LIMITED),
        ({"result": "Not logged in · Please run /login"}, FailureKind.AUTH),
        ({"result": "x", "api_error_status": 529}, FailureKind.OVERLOADED),
        ({"result": "There's an issue with the selected model (opus)."}, FailureKind.MODEL_UNAVAILABLE),
        ({"result": "Prompt is too long"}, FailureKind.CONTEXT_TOO_LONG),
    ],
)
@pytest.mark.parametrize("code", [0, 1])
async def test_an_error_of_claude_is_one_whatever_its_exit_code(commands, tool, tmp_path, told, kind, code):
    """
    Some versions exit with 0 and call it a success (anthropics/claude-code#79500).
    """
    tool(f'cat "{tmp_path}/told"; exit {code}', "claude")
    nothing = {"input_tokens": 0, "output_tokens": 0}
    (tmp_path / "told").write_text(json.dumps({**CLAUDE_ANSWER, "is_error": True, "total_cost_usd": 0, "usage": nothing, **told}))
    failure, _ = await failure_of(commands, preset("claude", tmp_path), anthropic)
    assert failure.kind is kind


@pytest.mark.parametrize("result", ["Not logged in · Please run /login", "Prompt is too long", "something else"])
async def test_tokens_of_a_run_that_failed_are_still_told(commands, tool, tmp_path, result):
    """
    As an error inside a 200, which moves on: only there usage is read.
    """
    tool(f'cat "{tmp_path}/told"; exit 1', "claude")
    (tmp_path / "told").write_text(json.dumps({**CLAUDE_ANSWER, "is_error": True, "result": result}))
    answer = await commands.run(preset("claude", tmp_path), HOLD)
    read = anthropic.read_answer(Operation.MESSAGES, body := await answer.read(10**6))
    assert (answer.status, read.failed, read.usage, read.cost_nusd) == (200, True, CLAUDE_USAGE, 7_982_500)
    assert anthropic.classify_event(body, NOW).kind.moves_on


async def test_a_caller_who_quotes_a_limit_closes_nothing(commands, tool):
    sentence = "You've hit your usage limit. Try again at Dec 20th, 2026 12:00 PM."
    program = tool('cat "$1" >&2; cat "$1"; exit 1')
    assert await no_answer(commands, request(program, PROMPT, body=asked(f"Repeat:\n{sentence}"))) == ("exit_1", True)


async def test_what_a_prompt_cannot_carry_starts_nothing(commands, tool, tmp_path):
    program = tool(f'touch "{tmp_path}/ran"')
    with pytest.raises(InvalidRequest, match="tools to call"):
        await commands.run(request(program, PROMPT, body=asked(tools=[{"type": "function"}])), HOLD)
    with pytest.raises(AssertionError, match="no hold, no process"):
        await commands.run(request(program, PROMPT), "")
    assert not (tmp_path / "ran").exists()


async def test_neither_a_key_nor_a_prompt_is_in_an_error_or_a_log(commands, tool):
    program = tool(f'cat "$1" >&2; echo "bad key $KEY" >&2; printf "\\033[31m{"x" * 900}" >&2; echo "bad key $KEY" >&2; exit 4')
    ask = request(program, PROMPT, body=asked("PROMPT-CANARY"), credential_env="KEY", secret=Secret(KEY))
    with capture_logs() as logs, pytest.raises(UpstreamUnavailable) as gone:
        await commands.run(ask, HOLD)
    (entry,) = [entry for entry in logs if entry["action"] == "command_failed"]
    assert entry["log_level"] == "debug"
    assert len(entry["said"]) < 300
    assert entry["said"].isascii()
    assert entry["said"].isprintable()
    assert KEY not in f"{logs} {gone.value} {ask}"
    assert "PROMPT-CANARY" not in f"{logs} {gone.value}"


# --- bounds ---------------------------------------------------------------------------------------------------------------

FAMILY = """
trap '' TERM
sh -c 'trap "" TERM; echo $$ >> "{pids}"; while :; do sleep 60; done' &
sh -c 'echo $$ >> "{pids}"; exec sleep 600' &
echo $$ >> "{pids}"
while :; do wait; done
"""
"""A tool with two children that will not go when asked to."""


@pytest.fixture
def family(tool, tmp_path):
    """Such a tool, and a way to wait for its three process numbers."""
    pids = tmp_path / "pids"
    program = tool(FAMILY.replace("{pids}", str(pids)))
    return program, lambda: pids_in(pids, 3)


async def test_a_run_that_takes_too_long_is_ended_with_all_that_it_started(commands, family, tmp_path):
    program, _ = family
    assert await no_answer(commands, request(program, PROMPT, run_timeout_s=1.0)) == ("run_timeout", True)
    await until(lambda: all(map(is_dead, pids_in(tmp_path / "pids", 1))))


async def test_the_calls_own_time_ends_a_run_too(commands, tool):
    program = tool("exec sleep 600")
    assert await no_answer(commands, request(program, PROMPT, total_timeout_s=SHORT_S)) == ("total_timeout", True)
    assert await no_answer(commands, request(program, PROMPT, total_timeout_s=0)) == ("total_timeout", False)


async def test_a_cancelled_call_leaves_at_once_and_its_tool_is_ended_behind_it(commands, family):
    program, pids = family
    run = asyncio.create_task(commands.run(request(program, PROMPT), HOLD))
    started = await until(pids)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not any(map(is_dead, started)), "it does not wait for a tool that takes its time to die"
    await until(lambda: all(map(is_dead, started)))


async def test_a_call_that_is_cancelled_before_its_tool_runs_starts_nothing(commands, tool, tmp_path):
    run = asyncio.create_task(commands.run(request(tool(f'touch "{tmp_path}/ran"'), PROMPT), HOLD))
    for _ in range(3):  # from here to its place, and to its task, which writes its files first
        await asyncio.sleep(0)
    assert commands._running
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until(lambda: not commands._running)
    assert not (tmp_path / "ran").exists()


async def test_a_call_may_be_cancelled_at_any_moment(open_commands, tool):
    """
    From before it has a place until after its tool has ended: a place is free again each time, and nothing is left.
    """
    commands = await open_commands(processes_max=2)
    program, slow = tool("echo done"), tool("exec sleep 600", "slow")
    for moment in range(0, 400, 8):
        for ask in (request(program, PROMPT), request(slow, PROMPT)):
            run = asyncio.create_task(commands.run(ask, HOLD))
            for _ in range(moment):
                await asyncio.sleep(0)
            run.cancel()
            await asyncio.wait([run])
    assert await asyncio.gather(*(text_of(commands, request(program, PROMPT)) for _ in range(4))) == ["done"] * 4


async def test_a_closing_daemon_ends_every_tool_and_takes_no_more(open_commands, family, tool, runs):
    program, pids = family
    commands = await open_commands()
    run = asyncio.create_task(no_answer(commands, request(program, PROMPT)))
    started = await until(pids)
    await commands.__aexit__(None, None, None)
    await until(lambda: all(map(is_dead, started)))
    assert await run == ("closing", True)
    assert await no_answer(commands, request(tool(ECHO, "late"), PROMPT)) == ("closing", False)


async def test_a_closing_that_is_cancelled_kills_at_once(open_commands, family):
    program, pids = family
    commands = await open_commands()
    run = asyncio.create_task(no_answer(commands, request(program, PROMPT)))
    started = await until(pids)
    closing = asyncio.create_task(commands.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await run == ("closing", True)
    await until(lambda: all(map(is_dead, started)))


def test_a_loop_that_ends_in_the_middle_leaves_no_process(family, runs):
    """
    As when the daemon's main task breaks: the loop cancels what is left, and does not wait for callers.
    """
    program, pids = family
    started = []

    async def main():
        commands = await Commands(environ={"PATH": os.environ["PATH"]}, clock=lambda: NOW, directory=runs).__aenter__()
        keep = asyncio.create_task(commands.run(request(program, PROMPT), HOLD))
        started.extend(await until(pids))
        assert not keep.done()

    asyncio.run(main())
    assert len(started) == 3
    asyncio.run(until(lambda: all(map(is_dead, started))))
    for left in runs.iterdir():  # its home is removed by whoever starts next
        assert [*left.iterdir()] == []


def test_a_loop_may_end_at_any_moment(tool, tmp_path, runs):
    """
    Also between a start and the moment when somebody could know of it.
    """
    program = tool(f'echo $$ >> "{tmp_path}/pids"; sleep 600 & exec sleep 600')

    async def main(moment):
        commands = await Commands(environ={"PATH": os.environ["PATH"]}, clock=lambda: NOW, directory=runs).__aenter__()
        keep = asyncio.create_task(commands.run(request(program, PROMPT), HOLD))
        for _ in range(moment):
            await asyncio.sleep(0)
        assert not keep.done()

    for moment in range(0, 300, 6):
        asyncio.run(main(moment))
    asyncio.run(until(lambda: all(map(is_dead, pids_in(tmp_path / "pids", 1)))))


async def test_what_a_tool_leaves_running_ends_with_it(commands, tool, tmp_path):
    """
    A child in the background would hold the pipes open, and nobody would ever end it.
    """
    pids = tmp_path / "pids"
    program = tool(f'sleep 600 & echo $! >> "{pids}"; echo done')
    assert await text_of(commands, request(program, PROMPT)) == "done"
    await until(lambda: all(map(is_dead, pids_in(pids, 1))))


ESCAPES = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    open(sys.argv[2], "w").write(f"{os.getpid()}\\n")
    time.sleep(600)
while not (os.path.exists(sys.argv[2]) and open(sys.argv[2]).read()):
    pass
print("done")
"""


async def test_where_the_system_cannot_tell_of_an_exit_a_thread_does(commands, family, tool, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert await text_of(commands, request(tool("echo done", "quick"), PROMPT)) == "done"
    program, pids = family
    run = asyncio.create_task(commands.run(request(program, PROMPT), HOLD))
    started = await until(pids)
    run.cancel()
    await until(lambda: all(map(is_dead, started)))


async def test_what_left_the_group_does_not_hold_an_answer_back(commands, tool, tmp_path):
    pids = tmp_path / "pids"
    assert await text_of(commands, request(tool(PYTHON + ESCAPES), PROMPT, str(pids))) == "done"
    (escaped,) = pids_in(pids, 1)
    assert not is_dead(escaped)
    os.kill(escaped, signal.SIGKILL)


@pytest.mark.parametrize("stream", ["1", "2"])
async def test_a_tool_that_never_stops_writing_is_ended(commands, tool, tmp_path, stream):
    program = tool(f'trap "" TERM PIPE; echo $$ >> "{tmp_path}/pids"; exec cat /dev/zero >&{stream}')
    assert await no_answer(commands, request(program, PROMPT)) == ("output_too_long", True)
    await until(lambda: all(map(is_dead, pids_in(tmp_path / "pids", 1))))


async def test_much_on_standard_error_blocks_nothing(commands, tool):
    program = tool(f"head -c {STDERR_MAX_BYTES // 2} /dev/zero >&2; echo done")
    assert await text_of(commands, request(program, PROMPT)) == "done"


@pytest.mark.parametrize("where", [Source.STDOUT, Source.OUTPUT_FILE])
async def test_a_text_longer_than_any_answer_is_none(commands, tool, where):
    program = tool('head -c 1048577 /dev/zero | tr "\\0" x > "${1:-/dev/stdout}"')
    reads = Reads(source=where)
    ask = request(program, *(["{output_file}"] if where is Source.OUTPUT_FILE else []), reads=reads, prompt_on_stdin=True)
    assert await no_answer(commands, ask) == ("output_too_long", True)
    program = tool(f'head -c {STDOUT_MAX_BYTES + 1} /dev/zero > "${{1:-/dev/stdout}}"')
    assert await no_answer(commands, ask) == ("output_too_long", True)


async def test_as_many_tools_run_as_there_are_places(open_commands, tool, tmp_path):
    """
    One that waits for a place has not been sent, and a place is free again when its tool is gone.
    """
    commands = await open_commands(processes_max=1)
    gate = tmp_path / "gate"
    program = tool(f'echo $$ >> "{tmp_path}/pids"; while [ ! -e "{gate}" ]; do sleep 0.01; done; echo done')
    first = asyncio.create_task(text_of(commands, request(program, PROMPT)))
    await until(lambda: pids_in(tmp_path / "pids", 1))
    assert await no_answer(commands, request(program, PROMPT, start_timeout_s=SHORT_S)) == ("no_place", False)
    assert await no_answer(commands, request(program, PROMPT, total_timeout_s=SHORT_S)) == ("total_timeout", False)
    left = asyncio.create_task(commands.run(request(program, PROMPT), HOLD))
    waits = asyncio.create_task(text_of(commands, request(program, PROMPT)))
    await until(lambda: commands._places._waiters)
    left.cancel()
    gate.touch()
    assert [await first, await waits] == ["done", "done"]
    assert len(pids_in(tmp_path / "pids", 2)) == 2


# --- what a killed daemon leaves behind -----------------------------------------------------------------------------------


async def test_what_a_killed_daemon_left_behind_is_removed_by_the_next(open_commands, tool, runs, tmp_path):
    """
    A prompt must not outlive its call on the disk. What a living daemon holds is its own, and so is what is not ours.
    """
    living = await open_commands()
    left = runs / f"{HOME_PREFIX}left"
    (left / "run").mkdir(parents=True)
    (left / "run" / "prompt.txt").write_text("secret")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (runs / f"{HOME_PREFIX}link").symlink_to(elsewhere)
    (runs / "other").mkdir()
    await open_commands()
    assert not left.exists()
    assert elsewhere.is_dir()
    assert (runs / "other").is_dir()
    assert await text_of(living, request(tool(ECHO), PROMPT)) == "hi"


def test_daemons_that_start_at_the_same_moment_do_not_take_each_other_for_dead(tmp_path):
    with ThreadPoolExecutor(16) as threads:
        homes = list(threads.map(lambda _: Home(tmp_path), range(64)))
    assert len({home._path for home in homes}) == 64
    assert all(home._path.is_dir() for home in homes)
    for home in homes:
        home.remove()
    assert [*tmp_path.glob(f"{HOME_PREFIX}*")] == []


async def test_without_a_place_for_files_a_daemon_starts_and_its_tools_do_not(open_commands, house, tool, tmp_path):
    commands = await open_commands()
    shutil.rmtree(commands._home._path)
    assert await no_answer(commands, request(tool(ECHO), PROMPT)) == ("no_files", False)
    nowhere = Commands(environ={}, clock=lambda: NOW, directory=tmp_path / "nowhere")
    with capture_logs() as logs:
        await house.enter_async_context(nowhere)
    assert [entry["action"] for entry in logs] == ["no_command_files"]
    assert await no_answer(nowhere, request(tool(ECHO), PROMPT)) == ("no_files", False)


ADOPTS = """
import asyncio, ctypes, os, sys
sys.path[:0] = sys.argv[1:3]
from datetime import UTC, datetime
from pathlib import Path
from command_kit import HOLD, own_children, request
from quota_router.command import Commands

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans become ours, as those of process 1 do

async def main():
    async with Commands(environ=os.environ, clock=lambda: datetime.now(UTC), directory=Path(sys.argv[3])) as commands:
        answer = await commands.run(request(sys.argv[4], "{prompt_file}"), HOLD)
    print(answer.status, own_children())

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word for it")
def test_orphans_of_a_tool_are_reaped_where_we_are_a_containers_first_process(tool, runs):
    program = tool("(sleep 600 & sleep 600 &) ; sleep 600 & echo done")
    here = Path(__file__).parent
    script = subprocess.run(  # noqa: S603 -- the interpreter of this environment, on a script of ours
        [sys.executable, "-c", ADOPTS, str(here), str(here.parent), str(runs), program],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert (script.stdout, script.stderr) == ("200 []\n", "")

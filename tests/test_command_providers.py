"""
Programs as providers, end to end: a real daemon, real programs, real sockets, and the SDKs that people use.

Law: whatever a call could expect of an address it can expect of a program: an answer in its dialect, its cost in the ledger, the
next rung where this one fails, and nothing left behind when nobody waits any more.
"""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from between_kit import ASKED, Told, read
from command_kit import BOUND_S, is_dead, pids_in, until, write_tool
from daemon_kit import AUTH, TOKEN, Process, environ, open_here, open_process, provider_toml, write_config
from ledger_kit import ForgetCooldowns
from msgspec.structs import replace

from quota_router.command.commands import _INHERITED, _INHERITED_PREFIXES
from quota_router.command.files import HOME_PREFIX
from quota_router.command.process import STDOUT_MAX_BYTES
from quota_router.config import parse_catalog
from quota_router.core.calls import Call, CallFacts, Operation
from quota_router.core.catalog import Caller, Family
from quota_router.core.desired import build_catalog
from quota_router.core.ways import ASKED as ASKED_FOR
from quota_router.daemon import Daemon
from quota_router.ladder import Ladders
from quota_router.simulator import Account, Refusal, Reply, Simulator
from quota_router.store.prices import PriceBook

CANARY = "CANARY-key-of-the-tool"
NOWHERE = "http://127.0.0.1:9/v1"
OTHERS = "CANARY-key-of-another"
PRICES = 'cost_per_million_input = "3"\ncost_per_million_output = "15"\ncontext_tokens = 10_000\nmax_output_tokens = 1_000\n'
LOGINS = ("claude-1", "claude-2")
LISTED = "claude-sonnet-4-5"
"""Its price is on the list: a budget takes it, and what the tool itself reports goes before."""
CLAUDE_COST_NUSD = 7_982_500
FAMILIES = {"chat": "openai", "messages": "anthropic"}
TEXT = {
    "chat": lambda body: body["choices"][0]["message"]["content"],
    "messages": lambda body: body["content"][0]["text"],
}
dialects = pytest.mark.parametrize("dialect", ["chat", "messages"])
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def claude_says(text: str, **more: Any) -> str:
    told = {"type": "result", "subtype": "success", "is_error": False, "result": text, "total_cost_usd": 0.0079825}
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 15_635, "output_tokens": 6}
    return f"cat > /dev/null; cat <<'END'\n{json.dumps({**told, 'usage': usage, **more})}\nEND\n"


def codex_says(text: str) -> str:
    events = [
        {"type": "thread.started", "thread_id": "t"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": text}},
        {"type": "turn.completed", "usage": {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 7}},
    ]
    lines = "\n".join(map(json.dumps, events))
    return f"cat > /dev/null; cat <<'END'\n{lines}\nEND\n"


def model_toml(name: str, *providers: str, more: str = "") -> str:
    return f'[[models]]\nname = "{name}"\nattachments = {json.dumps(list(providers))}\n{PRICES}{more}\n'


def command_toml(name: str, program: str, family: str, more: str = "") -> str:
    words = json.dumps([program, "{prompt_file}", "{model}"])
    return f'[providers.{name}]\nfamily = "{family}"\ncommand_template = {words}\n{more}\n'


@dataclass(slots=True, kw_only=True)
class House:
    """A daemon, the programs and the upstream behind it, and clients before it."""

    folder: Path
    daemon: Daemon | Process
    sim: Simulator | None
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.daemon.url

    def script(self, name: str, code: str) -> None:
        """What a program does when it is run next."""
        (self.folder / f"{name}.sh").write_text(code)

    def forever(self, name: str) -> Path:
        """Have a program run with a child until somebody ends both; they tell their numbers there."""
        pids = self.folder / f"{name}.pids"
        pids.unlink(missing_ok=True)
        self.script(name, f'sleep 300 & printf "%s\\n%s\\n" $! $$ > "{pids}.new"; mv "{pids}.new" "{pids}"; wait')
        return pids

    def post(self, path: str, body: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"{self.url}{path}", json=body, headers={**AUTH, **named})

    async def send(self, path: str, body: Any, **headers: str) -> Told:
        async with self.post(path, body, **headers) as answer:
            return await read(answer)

    async def ask(self, dialect: str, model: str, *, stream: bool = False, **headers: str) -> Told:
        path, asked = ASKED[dialect]
        return await self.send(path, {**asked, "model": model, "stream": stream}, **headers)

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", headers=AUTH) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def entries(self, told: Any) -> list[Any]:
        return (await self.get(f"entries?call_id={told.headers['x-quota-router-call']}"))["items"]

    async def story(self, told: Any) -> Any:
        return await self.get(f"calls/{told.headers['x-quota-router-call']}")

    def runs(self) -> list[Path]:
        """What is left of runs on disk."""
        return [found for home in (self.folder / "runtime").glob(f"{HOME_PREFIX}*") for found in home.iterdir()]


PROGRAMS = ("chat-cli", "messages-cli", "chat-spare", "messages-spare", "capped", "hasty")
CATALOG_MODELS = (
    *(model_toml(f"{kind}-api-first", f"{kind}-api", f"{kind}-cli") for kind in FAMILIES),
    *(model_toml(f"{kind}-cli-first", f"{kind}-cli", f"{kind}-api") for kind in FAMILIES),
    *(model_toml(f"{kind}-cli-alone", f"{kind}-cli") for kind in FAMILIES),
    *(model_toml(f"{kind}-two", f"{kind}-cli", f"{kind}-spare") for kind in FAMILIES),
    model_toml("codex", "codex"),
    '[[models]]\nname = "claude"\ncontext_tokens = 10_000\n',
    *(
        f'[[models]]\nname = "claude"\nattachments = [{{ provider = "{login}", upstream_model = "{LISTED}" }}]\n'
        for login in LOGINS
    ),
    '[[models]]\nname = "claude-turns"\nattachments = [["claude-1", "claude-2"]]\nstrategy = "round_robin"\n' + PRICES,
    model_toml("capped", "capped"),
    model_toml("hasty", "hasty", "chat-spare"),
)


def write_programs(folder: Path, openai_url: str = NOWHERE, anthropic_url: str = NOWHERE) -> str:
    """Every program, and the catalog that knows them. The tools `claude` and `codex` are found on PATH."""
    (folder / "bin").mkdir()
    (folder / "runtime").mkdir()
    write_tool(folder / "bin", '. "$CLAUDE_CONFIG_DIR/does.sh"', "claude")
    write_tool(folder / "bin", f'. "{folder}/codex.sh"', "codex")
    for login in LOGINS:
        (folder / login).mkdir()
        (folder / login / "does.sh").write_text(f'. "{folder}/{login}.sh"')
    catalog = ""
    for name in PROGRAMS:
        family = FAMILIES.get(name.partition("-")[0], "openai")
        program = write_tool(folder, f'. "{folder}/{name}.sh"', name)
        more = "run_timeout_s = 0.5" if name == "hasty" else 'api_key_env = "TOOL_KEY"'
        catalog += command_toml(name, program, family, more)
    for login in LOGINS:
        catalog += f'[providers.{login}]\ncommand = "claude"\nenv = {{ CLAUDE_CONFIG_DIR = "{folder / login}" }}\n'
    catalog += '[providers.codex]\ncommand = "codex"\n'
    catalog += provider_toml("chat-api", openai_url) + provider_toml("messages-api", anthropic_url, vendor="anthropic")
    catalog += '[[budgets]]\nname = "little"\nsubject = "provider:capped"\nunit = "usd"\nlimit = "0.02"\nwindow = "month"\n'
    catalog += '[[budgets]]\nname = "all"\nsubject = "everyone"\nunit = "usd"\nlimit = "1000"\nwindow = "month"\n'
    return catalog + "".join(CATALOG_MODELS)


def variables(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    keys = {"KEY_CHAT_API": "chat", "KEY_MESSAGES_API": "messages", "TOOL_KEY": CANARY, "OTHER_KEY": OTHERS}
    return {"PATH": path, "XDG_RUNTIME_DIR": str(folder / "runtime"), **keys}


@asynccontextmanager
async def open_house(folder: Path, *, opened: Any) -> AsyncIterator[House]:
    """A house whose daemon is a process of its own (`open_process`), or in this one (`open_here`)."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key="chat"), Account(key="messages")]))
        catalog = write_programs(folder, sim.openai_base_url, sim.anthropic_base_url)
        daemon = await stack.enter_async_context(opened(folder, catalog, **variables(folder)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield House(folder=folder, daemon=daemon, sim=sim, http=http)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory, module_database):
    async with open_house(tmp_path_factory.mktemp("programs"), opened=open_here) as house:
        yield house


@pytest.fixture
def house(shared):
    """The one daemon, with no cooldown standing."""
    shared.sim.reset()
    _ = shared.daemon.lane.submit(ForgetCooldowns())
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def own_house(tmp_path):
    """A daemon as a process of its own, for this test alone."""
    async with open_house(tmp_path, opened=open_process) as house:
        yield house


pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- the SDKs -----------------------------------------------------------------------------------------------------------


async def test_row_3_1_the_openai_sdk_is_served_by_codex_and_what_it_reports_is_booked(house):
    house.script("codex", codex_says("Ça va?\nOui."))
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=TOKEN, max_retries=0) as client:
        asked = {"model": "codex", "messages": [{"role": "user", "content": "hi"}]}
        raw = await client.chat.completions.with_raw_response.create(**asked)
        assert raw.parse().choices[0].message.content == "Ça va?\nOui."
        assert (raw.parse().usage.prompt_tokens, raw.parse().usage.completion_tokens) == (100, 7)
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
        assert contents == ["Ça va?\nOui."]
        assert (await client.responses.create(model="codex", input="hi")).output_text == "Ça va?\nOui."
    (entry,) = await house.entries(raw)
    told = {name: count for name, count in entry["usage"].items() if count}
    assert (told, entry["quality"]) == ({"input_tokens": 60, "cache_read_tokens": 40, "output_tokens": 7}, "reported")
    assert entry["cost_nusd"] == 100 * 3_000 + 7 * 15_000
    assert house.runs() == []


async def test_row_3_1_the_anthropic_sdk_is_served_by_claude_and_what_it_reports_is_booked(house):
    house.script("claude-1", claude_says("Ça va?"))
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=TOKEN, max_retries=0) as client:
        asked = {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
        raw = await client.messages.with_raw_response.create(**asked)
        message = await raw.parse()
        assert (message.content[0].text, message.usage.cache_read_input_tokens) == ("Ça va?", 15_635)
        async with client.messages.stream(**asked) as stream:
            assert [text async for text in stream.text_stream] == ["Ça va?"]
            assert (await stream.get_final_message()).usage.output_tokens == 6
    (entry,) = await house.entries(raw)
    assert (entry["quality"], entry["price_source"], entry["cost_nusd"]) == ("reported", "upstream", CLAUDE_COST_NUSD)
    assert raw.headers["x-quota-router-cost-usd"] == "0.0079825"


# --- one ladder with an API ---------------------------------------------------------------------------------------------


@deliveries
@dialects
async def test_row_3_1_a_tool_and_an_api_share_a_ladder_and_each_falls_to_the_other(house, dialect, stream):
    house.script(f"{dialect}-cli", 'cat "$1"')
    house.sim.script(dialect, Refusal(status=503))
    told = await house.ask(dialect, f"{dialect}-api-first", stream=stream)
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, f"{dialect}-cli", "2")
    assert b"hi" in told.body
    if not stream:
        assert TEXT[dialect](told.json) == "hi"
    house.script(f"{dialect}-cli", "echo something unheard of >&2; exit 3")
    house.sim.script(dialect, Reply(input_tokens=10, output_tokens=2))
    told = await house.ask(dialect, f"{dialect}-cli-first", stream=stream)
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, f"{dialect}-api", "2")
    broke, served = (await house.story(told))["attempts"]
    assert (broke["outcome"], broke["failure"], broke["quality"]) == ("unknown", "transient", "assumed")
    assert (served["outcome"], served["usage"]["output_tokens"]) == ("ok", 2)
    told = await house.ask(dialect, f"{dialect}-cli-first", stream=stream)
    assert (told.ours("attempts"), told.ours("skipped")) == ("1", f"{dialect}-cli=cooldown")


@pytest.mark.parametrize(
    ("said", "failure", "reason"),
    [
        ("You've hit your session limit - resets in 3h", "quota_window", "cooldown"),
        ("Invalid API key - Please run /login", "auth", "auth_failed"),
        ("API Error: 529 overloaded_error", "overloaded", "cooldown"),
    ],
)
async def test_row_7_11_what_a_tool_says_of_its_failure_is_what_its_rung_is_left_alone_for(house, said, failure, reason):
    house.script("messages-cli", f'echo "{said}" >&2; exit 1')
    house.script("messages-spare", "echo spare")
    told = await house.ask("messages", "messages-two")
    assert (told.status, TEXT["messages"](told.json).strip(), told.ours("provider")) == (200, "spare", "messages-spare")
    assert [attempt["failure"] for attempt in (await house.story(told))["attempts"]] == [failure, None]
    assert (await house.ask("messages", "messages-two")).ours("skipped") == f"messages-cli={reason}"


@dialects
async def test_row_4_4_what_a_tool_cannot_be_told_goes_to_the_rung_that_can(house, dialect):
    image = {
        "chat": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    }[dialect]
    house.script(f"{dialect}-cli", "echo no")
    house.sim.script(dialect, Reply(input_tokens=10, output_tokens=2))
    path, asked = ASKED[dialect]
    seeing = {**asked, "messages": [{"role": "user", "content": [image]}]}
    told = await house.send(path, {**seeing, "model": f"{dialect}-cli-first"})
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, f"{dialect}-api", "1")
    assert told.ours("skipped") == f"{dialect}-cli=capability_missing"
    told = await house.send(path, {**seeing, "model": f"{dialect}-cli-alone"})
    assert told.status == 400
    error = told.json["error"]
    assert f"of type '{image['type']}'" in error["message"]
    assert error["rungs"][0]["detail"]["why"].startswith("`messages[0].content[0]`")


async def test_row_4_4_a_rung_that_can_be_told_serves_though_the_tool_behind_it_could_not(house):
    house.sim.script("messages", Reply(input_tokens=10, output_tokens=2))
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    path, asked = ASKED["messages"]
    told = await house.send(path, {**asked, "model": "messages-api-first", "tools": tools})
    assert (told.status, told.ours("provider")) == (200, "messages-api")


# --- logins and keys ----------------------------------------------------------------------------------------------------


async def test_row_0_1_two_logins_of_one_tool_serve_one_model_side_by_side(house):
    for login in LOGINS:
        house.script(login, claude_says(f"I am {login}"))
    said = [TEXT["messages"]((await house.ask("messages", "claude-turns")).json) for _ in range(4)]
    assert said == ["I am claude-1", "I am claude-2"] * 2
    assert TEXT["messages"]((await house.ask("messages", "claude")).json) == "I am claude-1"
    house.script("claude-1", claude_says("You've hit your weekly limit - resets in 2h", is_error=True, usage={}))
    told = await house.ask("messages", "claude")
    assert (TEXT["messages"](told.json), told.ours("attempts")) == ("I am claude-2", "2")
    assert (await house.ask("messages", "claude")).ours("skipped") == "claude-1=cooldown"


async def test_row_3_1_a_credential_reaches_its_tool_by_environment_alone(own_house):
    house = own_house
    house.script("chat-cli", f'env > "{house.folder}/seen"; echo "$@" > "{house.folder}/arguments"; cat "$1"; echo "$TOOL_KEY"')
    told = await house.ask("chat", "chat-cli-alone")
    assert TEXT["chat"](told.json) == f"hi{CANARY}"
    seen = (house.folder / "seen").read_text()
    assert f"TOOL_KEY={CANARY}\n" in seen
    assert CANARY not in (house.folder / "arguments").read_text()
    assert not any(word in seen for word in (OTHERS, "KEY_CHAT_API", TOKEN, "QUOTA_ROUTER"))
    assert CANARY not in (house.folder / "daemon.log").read_text()


# --- what it costs ------------------------------------------------------------------------------------------------------


async def test_row_3_5_what_a_tool_reads_and_writes_counts_against_a_budget(house):
    """Eight tenths of a cent a call by the price list, counted by its length: the third may take more than is left."""
    house.script("capped", "head -c 1600 /dev/zero | tr '\\0' x")
    asked = {"model": "capped", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 600}
    answers = [await house.send("/v1/chat/completions", asked) for _ in range(4)]
    assert [told.status for told in answers] == [200, 200, 429, 429]
    (entry,) = await house.entries(answers[0])
    assert (entry["quality"], entry["usage"]["input_tokens"], entry["usage"]["output_tokens"]) == ("estimated", 1, 534)
    limit = next(item for item in (await house.get("limits"))["items"] if item["name"] == "little")
    assert (limit["posted"], limit["held"]) == (2 * (3_000 + 534 * 15_000), 0)
    assert answers[2].json["error"]["rungs"][0]["reason"] == "over_budget"


# --- ends ---------------------------------------------------------------------------------------------------------------


@deliveries
@dialects
async def test_a_caller_who_leaves_ends_the_whole_process_group_and_what_he_asked_is_booked(house, dialect, stream):
    pids, before = house.forever(f"{dialect}-cli"), await house.get("entries?limit=1000")
    path, asked = ASKED[dialect]
    asking = asyncio.create_task(house.send(path, {**asked, "model": f"{dialect}-cli-alone", "stream": stream}))
    numbers = await until(lambda: pids_in(pids, 2))
    asking.cancel()
    await asyncio.wait({asking})
    await until(lambda: all(map(is_dead, numbers)))
    await until(lambda: house.runs() == [])
    async with asyncio.timeout(BOUND_S):
        while len(entries := (await house.get("entries?limit=1000"))["items"]) == len(before["items"]):  # noqa: ASYNC110 -- the ledger tells nobody when it grows
            await asyncio.sleep(0.05)
    (entry,) = [entry for entry in entries if entry not in before["items"]]
    story = await house.get(f"calls/{entry['call_id']}")
    assert [attempt["outcome"] for attempt in story["attempts"]] == ["cancelled"]
    assert (entry["quality"], entry["usage"]["output_tokens"]) == ("estimated", 0)


async def test_row_1_4_a_call_whose_own_time_is_over_ends_its_tool_and_asks_nobody_else(house):
    pids = house.forever("chat-cli")
    told = await house.ask("chat", "chat-cli-first", x_quota_router_timeout="1")
    assert told.status == 408
    assert all(map(is_dead, pids_in(pids, 2)))
    house.script("chat-cli", "echo well")
    assert (await house.ask("chat", "chat-cli-first")).ours("skipped") is None


async def test_row_1_3_a_run_that_takes_too_long_is_ended_and_the_next_rung_answers(house):
    pids = house.forever("hasty")
    house.script("chat-spare", "echo spare")
    told = await house.ask("chat", "hasty")
    assert (told.ours("provider"), told.ours("attempts")) == ("chat-spare", "2")
    assert all(map(is_dead, pids_in(pids, 2)))
    rungs = (await house.story(told))["decision"]["rungs"]
    assert (rungs[0]["reason"], rungs[0]["detail"]["cause"]) == ("already_tried", "run_timeout")


async def test_row_1_3_a_tool_that_writes_without_end_is_ended_and_the_next_rung_answers(house):
    house.script("chat-cli", f'echo $$ > "{house.folder}/endless"; exec yes {"y" * 1000}')
    house.script("chat-spare", "echo spare")
    told = await house.ask("chat", "chat-two")
    assert (told.ours("provider"), told.ours("attempts")) == ("chat-spare", "2")
    assert len(told.body) < STDOUT_MAX_BYTES
    assert is_dead(int((house.folder / "endless").read_text()))
    assert (await house.story(told))["decision"]["rungs"][0]["detail"]["cause"] == "output_too_long"


# --- the daemon's end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_row_7_2_a_daemon_that_ends_leaves_no_file_and_no_money_behind(tmp_path, how):
    """With SIGTERM no process either; what is killed outright cleans up when it starts again."""
    catalog, env = write_programs(tmp_path), environ(tmp_path, **variables(tmp_path))
    path = write_config(tmp_path, catalog, "drain_s = 0.5\n")
    daemon = await Process.start(path, env)
    async with aiohttp.ClientSession() as http:
        house = House(folder=tmp_path, daemon=daemon, sim=None, http=http)
        pids = house.forever("chat-cli")
        asking = asyncio.create_task(house.ask("chat", "chat-cli-alone"))
        numbers = await until(lambda: pids_in(pids, 2))
        assert len(house.runs()) == 1
        try:
            await daemon.stop(how)
            if how is signal.SIGTERM:
                assert (await asking).status == 503
                assert all(map(is_dead, numbers))
                assert list((tmp_path / "runtime").iterdir()) == []
            else:
                await asyncio.wait({asking})
                assert isinstance(asking.exception(), aiohttp.ClientError)
        finally:
            for number in numbers:
                if not is_dead(number):
                    os.kill(number, signal.SIGKILL)
        again = await Process.start(path, env)
        house.daemon = again
        try:
            assert house.runs() == []
            (entry,) = (await house.get("entries"))["items"]
            assert entry["quality"] == ("assumed" if how is signal.SIGKILL else "estimated")
        finally:
            await again.stop()
        assert list((tmp_path / "runtime").iterdir()) == []


async def test_row_3_1_a_command_is_set_in_the_file_on_the_host_alone(own_house):
    """Sent again as it stands it changes nothing; with one word, one variable or another way to its key changed it is refused."""
    file = (own_house.folder / "quota-router.toml").read_text()
    catalog = file[file.index("[providers.") :]
    changed = {
        catalog: 200,
        catalog.replace('"{model}"]', '"{model}", "-x"]', 1): 403,
        catalog.replace("CLAUDE_CONFIG_DIR", "PYTHONSTARTUP", 1): 403,
        catalog.replace("TOOL_KEY", "OTHER_KEY", 1): 403,
        catalog.replace('command = "codex"', 'command = "codex"\nrun_timeout_s = 5'): 403,
    }
    for text, status in changed.items():
        async with own_house.http.post(f"{own_house.url}/api/v1/apply", data=text, headers=AUTH) as answer:
            assert answer.status == status, await answer.text()


# --- callers that run the tool themselves -------------------------------------------------------------------------------


async def test_row_7_5_a_caller_who_runs_the_tool_himself_gets_the_ready_argument_list(house):
    told = await house.send("/api/v1/route", {"model": "claude", "input_tokens": 10, "max_output_tokens": 10})
    assert told.status == 201
    body = told.json
    assert body["command"][:7] == ["claude", "-p", "--output-format", "json", "--model", LISTED, "--tools"]
    assert (body["prompt_on_stdin"], body["family"], body["base_url"], body["credential_ref"]) == (True, "anthropic", "", "none")
    assert "CLAUDE_CONFIG_DIR" not in told.body.decode()
    told = await house.send("/api/v1/route", {"model": "chat-cli-alone", "dry_run": True})
    program = str(house.folder / "chat-cli")
    assert (told.json["command"], told.json["prompt_on_stdin"]) == ([program, "{prompt_file}", "chat-cli-alone"], False)
    settled = await house.send(f"/api/v1/holds/{body['hold']['id']}/settle", {"cost_usd": "0.01"})
    assert settled.json["cost_nusd"] == 10_000_000
    told = await house.send("/api/v1/route", {"model": "chat-api-first", "dry_run": True})
    assert (told.json["command"], told.json["prompt_on_stdin"]) == (None, None)


# --- what the README shows, and what is not looked at -------------------------------------------------------------------


class Sealed:
    """A body that nobody may read."""

    size = 100

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")


async def test_row_4_4_a_body_is_not_read_as_a_prompt_where_no_rung_is_a_tool():
    """Reading it costs as much as it is long: only a ladder with a program pays for that."""
    text = command_toml("cli", "tool", "openai") + provider_toml("api", NOWHERE)
    text += "".join(model_toml(name, *providers) for name, providers in {"api": ["api"], "cli": ["api", "cli"]}.items())
    catalog = build_catalog(parse_catalog(text, "f.toml"))
    ladders = Ladders(prices=PriceBook(), credential_of=lambda _: None, draw=lambda: 0, stale_after_s=900.0)
    caller = Caller(name="ci", token_sha256="0" * 64)
    call = Call(
        id="c", caller=caller, family=Family.OPENAI, operation=Operation.CHAT, facts=CallFacts(), model="api", body=Sealed()
    )
    assert [rung.cannot_be_told for rung in ladders.climb(call, (ASKED_FOR,), catalog, {}, datetime.now(UTC)).candidates] == [""]
    with pytest.raises(AssertionError, match="for_model was asked for"):
        ladders.climb(replace(call, model="cli"), (ASKED_FOR,), catalog, {}, datetime.now(UTC))


async def test_row_3_9_what_the_readme_shows_of_tools_loads():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    chapter = readme.partition("### Command-line tools\n")[2].partition("\n**Whose")[0]
    shown = chapter.partition("```toml\n")[2].partition("```")[0]
    catalog = build_catalog(parse_catalog(f'{shown}\n[providers.claude-work]\nvendor = "anthropic"\n', "README"))
    assert catalog.providers["claude-personal"].command.env == {"CLAUDE_CONFIG_DIR": "/home/me/.claude-personal"}
    told = set(re.findall(r"`([A-Z_]+)\*?`", chapter.partition("It gets ")[2].partition("and its")[0]))
    assert told == {*_INHERITED, *_INHERITED_PREFIXES}

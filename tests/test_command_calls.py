"""
Tools on the way of a call: where an upstream stands, a tool can, and neither router nor relay nor ledger sees a difference.
"""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import anthropic
import openai
import pytest
from command_kit import PROMPT, write_tool
from daemon_kit import TOKEN, get, open_here

HI = [{"role": "user", "content": "hi"}]
TOLD = {
    "type": "result",
    "is_error": False,
    "result": "Ça va?",
    "total_cost_usd": 0.0079825,
    "usage": {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 15_635, "output_tokens": 6},
}
LIMIT = "You've hit your session limit"


def command_toml(name, program, family, more=""):
    return f'[providers.{name}]\nfamily = "{family}"\ncommand_template = {json.dumps(program)}\n{more}\n'


@pytest.fixture
async def house(tmp_path):
    """A daemon over four tools, and both SDKs before it: the two of `text` serve `gpt`, those of `json` serve `claude`."""
    tools = {name: write_tool(tmp_path, f'. "{tmp_path}/{name}.sh"', name) for name in ("text-1", "text-2", "json-1", "json-2")}
    catalog = "".join(
        command_toml(name, [program, PROMPT], "openai")
        if name.startswith("text")
        else command_toml(name, [program], "anthropic", 'command = "claude"')
        for name, program in tools.items()
    )
    catalog += '[[models]]\nname = "gpt"\nattachments = ["text-1", "text-2"]\n'
    catalog += '[[models]]\nname = "claude"\nattachments = ["json-1", "json-2"]\n'
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(open_here(tmp_path, catalog))
        same = {"api_key": TOKEN, "max_retries": 0}
        by_openai = await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", **same))
        by_anthropic = await stack.enter_async_context(anthropic.AsyncAnthropic(base_url=daemon.url, **same))

        class House:
            url, openai, anthropic = daemon.url, by_openai, by_anthropic

            @staticmethod
            def script(name, code):
                (tmp_path / f"{name}.sh").write_text(code)

            @staticmethod
            def remove(name):
                Path(tools[name]).unlink()

            @staticmethod
            def tell(name, code=0, **changed):
                (tmp_path / f"{name}.json").write_text(json.dumps({**TOLD, **changed}))
                (tmp_path / f"{name}.sh").write_text(f'cat > /dev/null; cat "{tmp_path}/{name}.json"; exit {code}')

            @staticmethod
            async def entries(raw):
                return (await get(daemon.url, f"/api/v1/entries?call_id={raw.headers['x-quota-router-call']}"))["items"]

            @staticmethod
            async def story(raw):
                return await get(daemon.url, f"/api/v1/calls/{raw.headers['x-quota-router-call']}")

        yield House


async def test_a_tools_text_answers_each_endpoint_of_its_family_and_is_booked_by_estimate(house):
    house.script("text-1", 'cat "$1"')
    raw = await house.openai.chat.completions.with_raw_response.create(model="gpt", messages=HI)
    assert raw.parse().choices[0].message.content == "hi"
    (entry,) = await house.entries(raw)
    assert (entry["quality"], entry["usage"]["input_tokens"], entry["usage"]["output_tokens"]) == ("estimated", 1, 1)
    assert raw.headers["x-quota-router-provider"] == "text-1"
    assert (await house.openai.completions.create(model="gpt", prompt="once")).choices[0].text == "once"
    assert (await house.openai.responses.create(model="gpt", input="twice")).output_text == "twice"
    async with house.openai.chat.completions.stream(model="gpt", messages=HI) as stream:
        assert (await stream.get_final_completion()).choices[0].message.content == "hi"
    async with house.openai.responses.stream(model="gpt", input="hi") as stream:
        assert (await stream.get_final_response()).output_text == "hi"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_a_tool_reports_of_tokens_and_cost_is_what_is_booked(house, is_stream):
    house.tell("json-1")
    asked = {"model": "claude", "max_tokens": 9, "messages": HI, "stream": is_stream}
    raw = await house.anthropic.messages.with_raw_response.create(**asked)
    answer = await raw.parse()
    if is_stream:
        text = "".join([event.delta.text async for event in answer if event.type == "content_block_delta"])
    else:
        text = answer.content[0].text
    assert text == "Ça va?"
    (entry,) = await house.entries(raw)
    assert (entry["quality"], entry["price_source"], entry["cost_nusd"]) == ("reported", "upstream", 7_982_500)
    assert entry["usage"]["cache_read_tokens"] == 15_635


async def test_an_empty_window_is_left_alone_until_its_end_and_the_next_rung_serves(house):
    house.script("text-1", f'echo "{LIMIT} · resets in 3h" >&2; exit 1')
    house.script("text-2", "echo second")
    raw = await house.openai.chat.completions.with_raw_response.create(model="gpt", messages=HI)
    assert raw.headers["x-quota-router-provider"] == "text-2"
    first, second = (await house.story(raw))["attempts"]
    assert (first["failure"], first["cost_nusd"], second["outcome"]) == ("quota_window", 0, "ok")
    house.script("text-1", "echo first")
    raw = await house.openai.chat.completions.with_raw_response.create(model="gpt", messages=HI)
    assert raw.headers["x-quota-router-skipped"].startswith("text-1=")


async def test_tokens_of_a_run_that_failed_are_booked_before_the_next_rung_is_tried(house):
    house.tell("json-1", 1, is_error=True, result="Prompt is too long")
    house.tell("json-2")
    raw = await house.anthropic.messages.with_raw_response.create(model="claude", max_tokens=9, messages=HI)
    assert raw.headers["x-quota-router-provider"] == "json-2"
    failed, _ = (await house.story(raw))["attempts"]
    assert (failed["outcome"], failed["usage"]["cache_read_tokens"]) == ("failed", 15_635)


async def test_a_context_that_is_too_long_reaches_its_caller_as_his_familys_error(house):
    nothing = {"input_tokens": 0, "output_tokens": 0}
    house.tell("json-1", 1, is_error=True, result="Prompt is too long", usage=nothing)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await house.anthropic.messages.create(model="claude", max_tokens=9, messages=HI)


async def test_a_tool_that_was_never_started_cost_nothing_and_one_that_broke_is_assumed(house):
    house.remove("text-1")
    house.script("text-2", "exit 3")
    with pytest.raises(openai.APIStatusError) as refused:
        await house.openai.chat.completions.create(model="gpt", messages=HI)
    assert refused.value.status_code == 503
    never, broke = (await house.story(refused.value.response))["attempts"]
    assert (never["outcome"], never["usage"]) == ("failed", None)
    assert (broke["outcome"], broke["quality"], broke["usage"]["output_tokens"]) == ("unknown", "assumed", 0)


async def test_what_a_tool_cannot_carry_is_told_to_its_caller_by_name(house):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError, match="`tools`: a provider that is a command-line tool cannot carry"):
        await house.openai.chat.completions.create(model="gpt", messages=HI, tools=tools)
    with pytest.raises(openai.BadRequestError, match="does not serve embeddings"):
        await house.openai.embeddings.create(model="gpt", input="hi")

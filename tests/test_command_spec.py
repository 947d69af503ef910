"""
How a tool is called: a template becomes an argument list and nothing else, and one that cannot is refused with a remedy.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.catalog import Family
from quota_router.core.command_output import Format, Pick, Reads, Source
from quota_router.core.command_presets import PRESETS
from quota_router.core.commands import RUN_TIMEOUT_MAX_S, CommandSpec, Placeholder, check_model

FILES = {"prompt_file": "/run/prompt.txt", "system_file": "/run/system.txt", "output_file": "/run/output.txt"}
PROMPT = "{prompt_file}"


def spec(*template, **more):
    return CommandSpec(template=template, **more)


def filled(*template, model="opus", **more):
    return spec(*template, **more).fill(model=model, **FILES)


# --- filling --------------------------------------------------------------------------------------------------------------


def test_each_argument_is_filled_by_itself():
    assert filled("claude", "-p", PROMPT, "--model", "{model}") == ("claude", "-p", "/run/prompt.txt", "--model", "opus")
    assert filled("/opt/tool", "--in={prompt_file}", "--out={output_file}", "{system_file}{model}") == (
        "/opt/tool",
        "--in=/run/prompt.txt",
        "--out=/run/output.txt",
        "/run/system.txtopus",
    )


def test_a_brace_that_is_meant_is_written_twice():
    assert filled("tool", PROMPT, '{{"model":"{model}"}}', "{{model}}", "{{{model}}}")[2:] == (
        '{"model":"opus"}',
        "{model}",
        "{opus}",
    )


@pytest.mark.parametrize("model", ["$(id)", "a b", "x;y", "'", '"', "`w`", "*", "{prompt_file}", "deepseek/deepseek-chat", "Ü"])
def test_a_models_name_is_one_text_whatever_it_looks_like(model):
    assert filled("tool", PROMPT, "--model={model}", "{model}", model=model)[2:] == (f"--model={model}", model)


@given(st.text())
def test_a_name_that_is_accepted_is_neither_an_option_nor_more_than_a_line(name):
    try:
        check_model(name)
    except ValueError:
        return
    assert filled("tool", PROMPT, "{model}", model=name)[2] == name
    assert not name.startswith("-")
    assert name.isprintable()


@pytest.mark.parametrize("name", ["", "-p", "--dangerously-skip-permissions", "a\nb", "a\0b", "\x1b[2J", "a\u2028b"])
def test_a_name_that_could_be_an_option_or_a_line_is_refused(name):
    with pytest.raises(ValueError, match="does not begin with a dash"):
        filled("tool", PROMPT, "{model}", model=name)
    with pytest.raises(ValueError, match="does not begin with a dash"):
        spec("tool", PROMPT).ready(name)


def test_callers_who_run_the_tool_themselves_get_a_list_with_only_their_files_left_to_fill_in():
    given_out = spec("tool", "--in", PROMPT, "--out={output_file}", "{{x}}", "{model}").ready("opus")
    assert given_out == ("tool", "--in", "{prompt_file}", "--out={output_file}", "{x}", "opus")


# --- what is refused at load ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ((), "the program first"),
        (("tool",), r"put \{prompt_file\} into one of its arguments"),
        (("tool", "{prompt}"), r"placeholder \{prompt\} is not known: did you mean 'prompt_file'"),
        (("tool", PROMPT, "{}"), "write it twice if it is meant"),
        (("tool", PROMPT, "{model!r}"), "write it twice if it is meant"),
        (("tool", PROMPT, "{0}"), "write it twice if it is meant"),
        (("tool", PROMPT, '{"a": 1}'), "write it twice if it is meant"),
        (("tool", PROMPT, "a{"), "write it twice if it is meant"),
        (("tool", PROMPT, "}b"), "write it twice if it is meant"),
        (("{model}", PROMPT), "the program is named, not filled in"),
        (("{prompt_file}",), "the program is named, not filled in"),
        (("", PROMPT), "neither a name to look up on PATH nor an absolute path"),
        (("./tool", PROMPT), "neither a name"),
        (("bin/tool", PROMPT), "neither a name"),
        (("~/bin/tool", PROMPT), "neither a name"),
        (("-tool", PROMPT), "neither a name"),
        (("tool", PROMPT, "a\0b"), "none of them NUL"),
        (("tool", PROMPT, "x" * 8_193), "at most 8192 characters"),
        (("tool", PROMPT, *["x"] * 255), "1 to 256 arguments"),
        (("sh", "-c", "tool {prompt_file} --model {model}"), "a shell would read what is filled in as code"),
        (("/bin/bash", "-eu", "-ec", "tool {prompt_file}"), "a shell would read"),
        (("/usr/bin/env", "zsh", "-c", "tool {prompt_file}"), "a shell would read"),
    ],
)
def test_a_template_that_could_not_be_called_is_refused_with_its_remedy(template, says):
    with pytest.raises(ValueError, match=says):
        spec(*template)


def test_a_shell_may_be_given_the_files_as_arguments_of_its_own():
    assert filled("sh", "-c", 'tool "$1"', "sh", PROMPT)[4] == "/run/prompt.txt"
    assert filled("bash", "/opt/wrapper.sh", PROMPT)[2] == "/run/prompt.txt"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"env": {"QUOTA_ROUTER_ADMIN_TOKEN": "x"}}, "this daemon's own"),
        ({"credential_env": "QUOTA_ROUTER_X"}, "this daemon's own"),
        ({"env": {"A-B": "x"}}, "not the name of an environment variable"),
        ({"env": {"": "x"}}, "not the name of an environment variable"),
        ({"env": {"A": "x\0y"}}, "cannot hold NUL"),
        ({"env": {f"V{number}": "" for number in range(65)}}, "at most 64 variables"),
        ({"env": {"KEY": "x"}, "credential_env": "KEY"}, "set twice"),
        ({"reads": Reads(source=Source.OUTPUT_FILE)}, r"put \{output_file\} into one of the arguments"),
        ({"run_timeout_s": 0}, "write another run_timeout_s"),
        ({"run_timeout_s": RUN_TIMEOUT_MAX_S + 1}, "write another run_timeout_s"),
        ({"run_timeout_s": float("nan")}, "write another run_timeout_s"),
    ],
)
def test_surroundings_that_could_not_be_given_are_refused(more, says):
    with pytest.raises(ValueError, match=says):
        spec("tool", PROMPT, **more)


def test_a_tool_that_reads_standard_input_needs_no_file():
    made = spec("tool", "-", prompt_on_stdin=True)
    assert made.fill(model="m", **FILES) == ("tool", "-")
    assert not made.asks_for(Placeholder.PROMPT_FILE)


@pytest.mark.parametrize("made", [preset.spec for preset in PRESETS.values()])
def test_a_command_survives_being_kept_as_json(made):
    """
    And what was kept is judged again when it is read.
    """
    kept = msgspec.json.encode(made)
    assert msgspec.json.decode(kept, type=CommandSpec) == made
    assert hash(msgspec.json.decode(kept, type=CommandSpec)) == hash(made)
    with pytest.raises(msgspec.ValidationError, match="the program first"):
        msgspec.json.decode(b'{"template": []}', type=CommandSpec)


def test_values_of_variables_are_not_shown():
    assert "hidden" not in repr(spec("tool", PROMPT, env={"LOGIN": "hidden"}))


# --- where an answer stands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", ["", "/", "/a/b", "/a~1b/~0", "/0", "/a b"])
def test_a_json_pointer_is_accepted(pointer):
    """
    Source: RFC 6901 section 5, read 2026-11-25.
    """
    assert Pick(at=pointer).at == pointer


@pytest.mark.parametrize("pointer", ["a", "a/b", "/~", "/~2", "#/a", "/" + "x" * 512])
def test_what_is_no_pointer_is_refused(pointer):
    with pytest.raises(ValueError, match="is not a JSON pointer: write one such as"):
        Pick(at=pointer)
    with pytest.raises(ValueError, match="is not a JSON pointer"):
        Pick(at="/a", when=((pointer, "x"),))


@pytest.mark.parametrize(
    ("reads", "says"),
    [
        ({"format": Format.JSON}, "has its text somewhere"),
        ({"counts": {"inptu": Pick(at="/a")}}, "did you mean 'input'"),
        ({"within": (("cache", "input"),)}, "'cache' is not known"),
    ],
)
def test_reads_that_make_no_sense_are_refused(reads, says):
    with pytest.raises(ValueError, match=says):
        Reads(**reads)


# --- the tools that are known ---------------------------------------------------------------------------------------------


def test_the_presets_call_their_tools_for_an_answer_and_nothing_else():
    assert {name: preset.family for name, preset in PRESETS.items()} == {"claude": Family.ANTHROPIC, "codex": Family.OPENAI}
    claude = PRESETS["claude"].spec.ready("claude-opus-4")
    assert claude[:6] == ("claude", "-p", "--output-format", "json", "--model", "claude-opus-4")
    assert claude[claude.index("--tools") + 1] == ""
    assert "--strict-mcp-config" in claude
    codex = PRESETS["codex"].spec.ready("gpt-5.2")
    assert (codex[:3], codex[-1]) == (("codex", "exec", "--json"), "-")
    assert codex[codex.index("--sandbox") + 1] == "read-only"
    assert all(preset.spec.prompt_on_stdin for preset in PRESETS.values()), "a prompt as an argument is seen by everybody"

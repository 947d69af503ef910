"""
What a caller of OpenAI's endpoints says, as a plain prompt.

Law: chat, completions and responses are read to the last part; whatever a plain text cannot carry is refused by name.

Decision 2026-11 -- all system and developer messages, wherever they stand, are the system text, in their order: a tool knows one.
Decision 2026-11 -- a conversation that ran tools before is carried in text, calls and results; tools for the answer to call are
    not. Reasoning that is handed back is passed over: it is only for the model that wrote it.

Members and parts: the official SDK's types (openai 3.52), read 2026-11-25.
"""

from typing import Any

from quota_router.core.calls import Operation
from quota_router.dialects.prompts import (
    Prompt,
    Turn,
    join_texts,
    make_prompt,
    objects,
    read_members,
    refuse,
    refuse_given,
    text_of,
)
from quota_router.errors import InvalidRequest

_TEXTS = ("text", "input_text", "output_text")
_SYSTEM = ("system", "developer")

_CHAT_CANNOT = {
    "tools": "tools to call",
    "functions": "functions to call",
    "audio": "audio",
    "stop": "stop sequences",
    "logprobs": "log probabilities",
    "top_logprobs": "log probabilities",
    "web_search_options": "a web search",
    "prediction": "a predicted answer",
    "plugins": "plug-ins",
}
_COMPLETIONS_CANNOT = {
    "stop": "stop sequences",
    "logprobs": "log probabilities",
    "echo": "an echo of the prompt",
    "suffix": "a text to end with",
}
_RESPONSES_CANNOT = {
    "tools": "tools to call",
    "previous_response_id": "an answer that is kept elsewhere",
    "conversation": "a conversation that is kept elsewhere",
    "prompt": "a prompt that is kept elsewhere",
    "background": "a call that outlives its caller",
    "top_logprobs": "log probabilities",
}


def prompt_of(operation: Operation, body: bytes) -> Prompt:
    """
    The conversation of a body.

    Raises:
        MalformedBody: it is no JSON object.
        InvalidRequest: it holds what a plain prompt cannot carry, or nothing to answer.
    """
    match operation:
        case Operation.CHAT:
            return _chat(read_members(body))
        case Operation.COMPLETIONS:
            return _completion(read_members(body))
        case Operation.RESPONSES:
            return _response(read_members(body))
        case _:
            raise InvalidRequest(f"A provider that is a command-line tool does not serve {operation.value}.")


def _chat(asked: dict[str, Any]) -> Prompt:
    refuse_given(asked, _CHAT_CANNOT)
    _refuse_choices(asked, "n")
    if asked.get("modalities") not in (None, [], ["text"]):
        refuse("an answer that is not text", "modalities")
    _refuse_format(asked.get("response_format"), "response_format")
    system: list[str] = []
    turns: list[Turn] = []
    for number, message in enumerate(objects(asked.get("messages"), "messages")):
        place = f"messages[{number}]"
        role = message.get("role")
        text = join_texts(message.get("content"), _TEXTS, f"{place}.content")
        if role in _SYSTEM:
            system.append(text)
        elif role == "user":
            turns.append(Turn(speaker="user", text=text))
        elif role == "assistant":
            refuse_given(message, {"audio": "audio"})
            turns += _said(text, message, place)
        elif role in ("tool", "function"):
            turns.append(Turn(speaker="tool result", text=text))
        else:
            refuse(f"a message of role {role!r}", f"{place}.role")
    return make_prompt(system, turns, "messages")


def _said(text: str, message: dict[str, Any], place: str) -> list[Turn]:
    """What an assistant's message said, and what it called."""
    turns = [Turn(speaker="assistant", text=text)] if text else []
    calls = message.get("tool_calls") or []
    old = message.get("function_call")
    asked = [call.get("function") or call.get("custom") for call in objects(calls, f"{place}.tool_calls")] + ([old] if old else [])
    turns += [_call(call.get("name"), call.get("arguments") or call.get("input")) for call in objects(asked, f"{place}.tool_calls")]
    return turns


def _call(name: object, arguments: object) -> Turn:
    return Turn(speaker="tool call", text=f"{name} {arguments if isinstance(arguments, str) else ''}".rstrip())


def _completion(asked: dict[str, Any]) -> Prompt:
    refuse_given(asked, _COMPLETIONS_CANNOT)
    _refuse_choices(asked, "n")
    _refuse_choices(asked, "best_of")
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        refuse("several prompts, or a prompt in tokens", "prompt")
    return make_prompt([], [Turn(speaker="user", text=prompt)], "prompt")


def _response(asked: dict[str, Any]) -> Prompt:
    refuse_given(asked, _RESPONSES_CANNOT)
    text = asked.get("text")
    _refuse_format(text.get("format") if isinstance(text, dict) else None, "text.format")
    instructions = asked.get("instructions")
    system = [text_of(instructions, "instructions")] if instructions is not None else []
    given = asked.get("input")
    if isinstance(given, str):
        return make_prompt(system, [Turn(speaker="user", text=given)], "input")
    turns: list[Turn] = []
    for number, item in enumerate(objects(given, "input")):
        _take_item(item, f"input[{number}]", system, turns)
    return make_prompt(system, turns, "input")


def _take_item(item: dict[str, Any], place: str, system: list[str], turns: list[Turn]) -> None:
    """Put one item of a response's input where it belongs."""
    match item.get("type", "message"):
        case "message":
            role = item.get("role")
            text = join_texts(item.get("content"), _TEXTS, f"{place}.content")
            if role in _SYSTEM:
                system.append(text)
            elif role in ("user", "assistant"):
                turns.append(Turn(speaker=role, text=text))
            else:
                refuse(f"a message of role {role!r}", f"{place}.role")
        case "function_call" | "custom_tool_call":
            turns.append(_call(item.get("name"), item.get("arguments") or item.get("input")))
        case "function_call_output" | "custom_tool_call_output":
            turns.append(Turn(speaker="tool result", text=join_texts(item.get("output"), _TEXTS, f"{place}.output")))
        case "reasoning":
            pass
        case kind:
            refuse(f"an item of type {kind!r}", place)


def _refuse_choices(asked: dict[str, Any], name: str) -> None:
    if asked.get(name) not in (None, 1):
        refuse("more than one answer", name)


def _refuse_format(wanted: object, param: str) -> None:
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        refuse(f"the format {wanted.get('type')!r}", param)

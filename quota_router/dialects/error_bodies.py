"""
The bodies in which vendors say that something failed, read into one shape.

Law: whatever the bytes are, reading them raises nothing. A text is what the vendor wrote, in lower case; numbers stay numbers.
Never: judges what it read, nor keeps a vendor's text beyond the judging.

Shapes, by who sends them: `{"error": {…}}`; the same in a list of one (Google), in an event's `response` or in a choice (OpenAI,
OpenRouter), or in another `error` (relays of OpenRouter); `{"error": "text", "code": …}` (xAI, Ollama); flat `{"message", "code"}`
(vLLM, Cerebras, the Responses API); `{"detail": "text"}` (Codex, FastAPI); `{"base_resp": {"status_code", "status_msg"}}`
(MiniMax); `{"code", "msg", "success"}` (z.ai).

From upstreams.md C.2 and C.3, read 2026-11-20, and from the threads that the fixtures in `tests/wire` name, read 2026-11-25.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from quota_router.dialects.json import is_given, text_or_none
from quota_router.dialects.sse import data_of

_STATUSES = {str(status): status for status in range(400, 600)}
_FINE = frozenset({None, 0, "0", 200, "200", 20000})
"""What `code` says when nothing is wrong; 20000 is SiliconFlow's."""
_NESTED_AT_MOST = 3
_WRAPPED = re.compile(r"(?:\d{3}: )?litellm\.(\w+): (?:\w+: )?(?:\w+(?: \w+)? - )?")
"""What LiteLLM's proxy writes before another upstream's words."""
_QUOTED = re.compile(r"(?:b')?(\{.*\})", re.DOTALL)


class _State(msgspec.Struct):
    status_code: int = 0


class Trouble(msgspec.Struct):
    """The ways in which a 200 says that it is an error: `error`, and what MiniMax and z.ai send."""

    error: msgspec.Raw = msgspec.Raw()
    base_resp: _State | None = None
    success: Any = None

    @property
    def is_error(self) -> bool:
        """Whether any of them says so."""
        refused = self.success is False or (self.base_resp is not None and self.base_resp.status_code != 0)
        return is_given(self.error) or refused


def is_refusal(code: object) -> bool:
    """Whether a `code` beside no answer says that there is none; z.ai, Moonshot and SiliconFlow send it with a 200."""
    return isinstance(code, int | str) and code not in _FINE


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The parts of an error that are classified. Texts are lower case, empty when absent."""

    fields: Mapping[str, Any]
    outer: Mapping[str, Any]
    """the object that `fields` stands in; itself when it is flat"""
    is_json: bool
    """whether the body held an error of a known shape"""
    message: str
    """what it says, without what a relay wrote before it"""
    relayed_as: str = ""
    """the class that LiteLLM's proxy gave it, lower case"""

    def text(self, *path: str) -> str:
        """The text at *path*, in lower case; empty when it is absent or no text."""
        return (text_or_none(self.at(*path)) or "").lower()

    def at(self, *path: str) -> Any:  # noqa: ANN401 -- a vendor's value is what he sent
        """The value at *path* as it came; `None` when it is absent."""
        value: Any = self.fields
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def objects(self, name: str) -> list[dict[str, Any]]:
        """The objects in the list under *name*."""
        found = self.at(name)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    @property
    def status(self) -> int | None:
        """The HTTP status that an error inside a 200 names; `None`: none."""
        named = (self.at("code"), *(self.outer.get(name) for name in ("status", "status_code", "code")))
        return next((_STATUSES[str(value)] for value in named if isinstance(value, int | str) and str(value) in _STATUSES), None)


def read_error(body: bytes) -> ErrorBody:
    """The error object of a body or of an SSE event, wherever the family's vendors put it."""
    found = _decoded(body if body.lstrip()[:1] in {b"{", b"["} else data_of(body) or b"")
    if isinstance(found, list):
        found = found[0] if found else None
    if not isinstance(found, dict):
        return ErrorBody(fields={}, outer={}, is_json=False, message="")
    fields = _innermost(found)
    message = next((text for name in ("message", "msg", "detail") if (text := text_or_none(fields.get(name))) is not None), None)
    if message is None:
        return ErrorBody(fields=fields, outer=found, is_json=fields is not found, message="")
    relayed = _WRAPPED.match(message)
    if relayed is None:
        return ErrorBody(fields=fields, outer=found, is_json=True, message=message.lower())
    fields, message = _quoted(message[relayed.end() :]) or (fields, message[relayed.end() :])
    return ErrorBody(fields=fields, outer=found, is_json=True, message=message.lower(), relayed_as=relayed[1].lower())


def _decoded(text: bytes | str) -> Any:  # noqa: ANN401 -- whatever it is
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None


def _innermost(found: dict[str, Any]) -> dict[str, Any]:
    """The object that says what went wrong; *found* itself when it is flat."""
    response, choices = found.get("response"), found.get("choices")
    beside = response if isinstance(response, dict) else choices[0] if isinstance(choices, list) and choices else None
    error = found.get("error") or (beside.get("error") if isinstance(beside, dict) else None)
    for _ in range(_NESTED_AT_MOST):
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            error = error["error"]
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**found, "message": error}
    state = found.get("base_resp")
    return {"message": state.get("status_msg"), "base_resp": state} if isinstance(state, dict) else found


def _quoted(words: str) -> tuple[dict[str, Any], str] | None:
    """Another upstream's error, where a relay quotes it whole, perhaps as Python prints bytes."""
    quoted = _QUOTED.match(words)
    found = _decoded(quoted[1].replace("\\n", " ").replace("\\'", "'")) if quoted is not None else None
    fields = _innermost(found) if isinstance(found, dict) else {}
    text = text_or_none(fields.get("message"))
    return (fields, text) if text is not None else None

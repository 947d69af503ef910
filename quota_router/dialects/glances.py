"""
What a body tells at a second look: its session, how its prompt begins, and what its media ask of a model.

Law: asked only where the answer makes a difference to a call. Whatever the body holds, a glance raises nothing.
Never: keeps a prompt: its beginning is digested by whoever asks for it.

A body names its session as OpenAI's `prompt_cache_key`, or as the `metadata.user_id` of Claude Code: a JSON object with
`session_id`, or in older versions a text that ends in `_session_` and an id (oh-my-pi #971, read 2026-11-25).
"""

import re
from typing import Any, TypeVar

import msgspec

from quota_router.dialects.json import TopLevel, name_or_none

T = TypeVar("T")

CACHED_BYTES = 4_096
"""Vendors cache prompts from 1,024 tokens on (OpenAI's and Anthropic's documentation, read 2026-11-20), at 4 bytes each."""

_OPENINGS = ("tools", "system", "instructions")
_CONVERSATIONS = ("messages", "input")
_OLD_SESSION = re.compile(r"_session_([0-9A-Za-z-]{8,64})\Z")
_BLANKS = b" \t\r\n"
_NOTHING = (b"", b"null", b"{}")
_FORMATS = ("response_format", "text", "output_format", "output_config")
_JSON_SCHEMA = re.compile(rb'"type"\s*+:\s*+"json_schema"')
_THOUGHTS = ("reasoning_effort", "reasoning", "thinking")
_NO_THOUGHT = re.compile(rb'"(?:disabled|none|minimal)"')
_MEDIUM = re.compile(
    rb'"type"\s*+:\s*+"(?:(?P<vision>image|image_url|input_image)|(?P<audio>input_audio|audio_url|audio)'
    rb'|(?P<files>file|input_file|document|container_upload))"'
)
"""Quotes inside a JSON string are escaped: these bytes can only be a member of the body."""


class _Turn(msgspec.Struct):
    role: Any = None


class _Metadata(msgspec.Struct):
    user_id: Any = None


class _User(msgspec.Struct):
    session_id: Any = None


def named_session(top: TopLevel) -> str | None:
    """The session that a body names; `None`: it names none."""
    if key := _read(top.raw("prompt_cache_key"), str):
        return name_or_none(key)
    metadata = _read(top.raw("metadata"), _Metadata)
    user = metadata.user_id if metadata is not None else None
    if not isinstance(user, str):
        return None
    told = _read(user.encode("utf-8", "replace"), _User) if user.startswith("{") else None
    found = _OLD_SESSION.search(user)
    return name_or_none(told.session_id) if told is not None else found[1] if found else None


def prefix(top: TopLevel) -> bytes:
    """
    How a prompt begins: tools, system text, and the conversation up to the first word of its user.

    The rest grows from call to call; this part stays the same, and differs from that of other conversations.

    Returns:
        empty when it is too short for any cache.
    """
    parts = [raw for name in _OPENINGS if (raw := top.raw(name)) is not None]
    for name in _CONVERSATIONS:
        for turn in _read(top.raw(name), list[msgspec.Raw]) or ():
            parts.append(bytes(turn))
            said = _read(parts[-1], _Turn)
            if said is not None and said.role == "user":
                break
    return b"\n".join(parts) if sum(map(len, parts)) >= CACHED_BYTES else b""


def needs(top: TopLevel) -> frozenset[str]:
    """The capabilities that a body asks of a model: `vision`, `audio`, `files`; `tools`, `json_schema`, `reasoning`."""
    found = {medium.lastgroup for medium in _MEDIUM.finditer(top.body) if medium.lastgroup is not None}
    if (top.raw("tools") or b"[]").strip(_BLANKS + b"[]") not in _NOTHING:
        found.add("tools")
    if any(_JSON_SCHEMA.search(raw) for name in _FORMATS if (raw := top.raw(name)) is not None):
        found.add("json_schema")
    if any(_asks_thought(raw) for name in _THOUGHTS if (raw := top.raw(name)) is not None):
        found.add("reasoning")
    return frozenset(found)


def _asks_thought(raw: bytes) -> bool:
    return raw.strip(_BLANKS) not in _NOTHING and not _NO_THOUGHT.search(raw)


def _read(raw: bytes | None, shape: type[T]) -> T | None:
    """A member's value if it has this shape."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=shape)
    except (ValueError, RecursionError):
        return None

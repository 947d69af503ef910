"""
Reading the routing fields of a body into a struct, and saying plainly which one is wrong.

Law: a wrong field is the caller's to mend: it raises `InvalidRequest` with a sentence and the field's name.
Never: reads what it does not route by.
"""

import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from quota_router.errors import InvalidRequest

S = TypeVar("S", bound=msgspec.Struct)

MAX_COUNT = 1_000_000_000
"""No answer has more tokens: a larger number is a mistake, and is read as one."""
MAX_CHOICES = 10_000
MAX_LABELS = 16
MAX_LABEL_CHARS = 64 + 1 + 512
"""OpenAI's own bounds of `metadata`: 16 pairs, keys of 64 and values of 512 characters, read 2026-11-20."""

Cap = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
CapOrZero = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Choices = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]

_FIELD = re.compile(r"`\$\.(\w+)")
_MUST_BE = {
    "model": "a name: text of at most 256 characters, none of them a control character",
    "stream": "true or false",
    "stream_options": "an object whose `include_usage` is true or false",
    "max_tokens": "a positive integer",
    "max_completion_tokens": "a positive integer",
    "max_output_tokens": "a positive integer",
    "n": f"an integer from 1 to {MAX_CHOICES}",
    "best_of": f"an integer from 1 to {MAX_CHOICES}",
    "metadata": "an object",
    "tools": "a list of objects",
    "modalities": "a list of strings",
    "background": "true or false",
    "previous_response_id": "a string",
    "conversation": "an id, or an object with one",
    "input": "a string or a list of items",
    "prompt": "a string or a list",
    "service_tier": "a string",
    "speed": "a string",
    "inference_geo": "a string",
    "mcp_servers": "a list",
}


def read_fields(body: bytes, decoder: msgspec.json.Decoder[S], must_be: Mapping[str, str] | None = None) -> S:
    """
    Decode the routing fields of a body that is known to be a JSON object.

    Args:
        body: the whole body.
        decoder: of the operation's struct.
        must_be: what this dialect says of a field, where it differs from the others.

    Raises:
        InvalidRequest: a field has the wrong type or is out of its range.
    """
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as exc:
        found = _FIELD.search(str(exc))
        if found is None:
            raise InvalidRequest from exc
        name = found[1]
        expected = (must_be or {}).get(name) or _MUST_BE.get(name) or "of another type"
        raise InvalidRequest(f"`{name}` must be {expected}.", param=name) from exc


def labels_of(metadata: Mapping[str, msgspec.Raw] | None) -> tuple[str, ...]:
    """
    `metadata` as labels `key:value`.

    Values that are not strings, pairs beyond OpenAI's own bounds, and control characters make no label.
    """
    labels: list[str] = []
    for key, raw in (metadata or {}).items():
        value = bytes(raw)
        if value.startswith(b'"'):
            label = f"{key}:{msgspec.json.decode(value, type=str)}"
            if len(label) <= MAX_LABEL_CHARS and label.isprintable():
                labels.append(label)
    return tuple(labels[:MAX_LABELS])

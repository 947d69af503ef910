"""
How many input tokens a body can be at most, read off its bytes.

Law: the bound is never below what a vendor will count. Where that cannot be promised it is `None`, and the model's context
bounds the call instead.

Text in byte-level tokens has at most one token per byte, and JSON's own bytes outweigh what a chat template adds per message
(upstreams.md F, read 2026-11-20). Media and references are not bounded by their bytes: a small image may be large, a file id
is ten letters.
"""

import re

TOOLS_TOKENS = 1024
"""
What a vendor writes into the prompt once tools are sent, and again for each tool whose schema is the vendor's own and so not in
the body. Anthropic's published figures lie between 245 and 804 tokens each.
"""

_BY_REFERENCE = re.compile(
    rb'"type"\s*+:\s*+"(?:image|image_url|input_image|input_audio|input_file|file|document|container_upload'
    rb'|item_reference|video_url|audio_url)"'
    rb'|"(?:image_url|video_url|audio_url|input_audio|file_id|file_url|file_data)"\s*+:',
)
"""Quotes inside a JSON string are escaped: these bytes can only be a member of the body."""
_HIDDEN_LETTER = re.compile(rb"\\u00(?:[46][0-9a-fA-F]|[57][0-9aA]|5[fF])")
"""
A letter or an underscore written as an escape, which no ordinary encoder does, could spell any of the words above. Python's own
escapes DEL.
"""
_FILE_ID = re.compile(rb'"file_id"\s*+:\s*+"(file[-_][^"\\]{1,200})"')


def input_bound(body: bytes, *, tools: int, vendor_tools: int) -> int | None:
    """
    The upper bound of a body's input tokens.

    Args:
        body: valid JSON.
        tools: how many tools were sent.
        vendor_tools: how many of them the vendor defines, not the body.

    Returns:
        `None` when the body refers to, or may refer to, content whose tokens its bytes do not bound.
    """
    if _BY_REFERENCE.search(body) or (b"\\u00" in body and _HIDDEN_LETTER.search(body)):
        return None
    return len(body) + (TOOLS_TOKENS * (1 + vendor_tools) if tools else 0)


def file_id(body: bytes) -> str | None:
    """The first file kept at a vendor that the body refers to; `None`: it refers to none."""
    if b'"file_id"' not in body:
        return None
    found = _FILE_ID.search(body)
    return found[1].decode() if found else None

"""Anthropic's dialect: messages, and counting their tokens."""

from quota_router.dialects.anthropic.failures import classify, classify_event
from quota_router.dialects.anthropic.replies import error_event, model_page, models_page, render_error
from quota_router.dialects.anthropic.usage import read_answer, reader
from quota_router.dialects.anthropic.wire import (
    answer_headers,
    outgoing_body,
    outgoing_headers,
    read,
    upstream_path,
)

__all__ = [
    "answer_headers",
    "classify",
    "classify_event",
    "error_event",
    "model_page",
    "models_page",
    "outgoing_body",
    "outgoing_headers",
    "read",
    "read_answer",
    "reader",
    "render_error",
    "upstream_path",
]

"""Anthropic's dialect: messages, and counting their tokens."""

from quota_router.dialects.anthropic.failures import classify, classify_event
from quota_router.dialects.anthropic.prompt import prompt_of
from quota_router.dialects.anthropic.question import QUESTION, render_question, text_of
from quota_router.dialects.anthropic.replies import error_event, model_page, models_page, render_error, render_refusal
from quota_router.dialects.anthropic.speech import render_answer, render_stream
from quota_router.dialects.anthropic.usage import read_answer, reader
from quota_router.dialects.anthropic.wire import (
    answer_headers,
    outgoing_headers,
    read,
    upstream_path,
)

__all__ = [
    "QUESTION",
    "answer_headers",
    "classify",
    "classify_event",
    "error_event",
    "model_page",
    "models_page",
    "outgoing_headers",
    "prompt_of",
    "read",
    "read_answer",
    "reader",
    "render_answer",
    "render_error",
    "render_question",
    "render_refusal",
    "render_stream",
    "text_of",
    "upstream_path",
]

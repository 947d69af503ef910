"""OpenAI's dialect, and that of the many who speak it: chat completions, completions, responses, embeddings."""

from quota_router.dialects.openai.failures import classify, classify_event
from quota_router.dialects.openai.prompt import prompt_of
from quota_router.dialects.openai.question import QUESTION, render_question, text_of
from quota_router.dialects.openai.replies import error_event, model_page, models_page, render_error, render_refusal
from quota_router.dialects.openai.speech import render_answer, render_stream
from quota_router.dialects.openai.stream import reader
from quota_router.dialects.openai.usage import read_answer
from quota_router.dialects.openai.wire import (
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

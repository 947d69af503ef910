"""
What a run came to, told in its family's dialect.

Law: a text is told as that family's answer or stream, a failure that the tool explains as that family's error, and only a run that
ends without a word is `UpstreamUnavailable`. Tokens that a tool reports are booked whatever became of its run.
Never: lets a tool's own words out, but for the head of one line, escaped, at DEBUG; that line is no echo of the prompt.

Decision 2026-11 -- a failed run that reported tokens is an error inside a 200, as only there usage is read. It then always moves
    on, since an error that is the caller's own would reach him with that 200: tokens are booked, at the price of a short cooldown.
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from http import HTTPStatus

import structlog

from quota_router.command.process import STDOUT_MAX_BYTES
from quota_router.command.requests import CommandAnswer, CommandRequest, unavailable
from quota_router.core.billing import BYTES_PER_TOKEN, count_what_passed
from quota_router.core.command_output import Format
from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.core.usage import Usage
from quota_router.dialects import Prompt, Spoken, UnreadableAnswer, dialect_of
from quota_router.dialects.commands import SHORT_ANSWER_CHARS, Output, judge, read_output, statements

ANSWER_MAX_BYTES = 1024 * 1024
"""Of text: as a stream, with every character escaped, it is still below the bounds of our own readers."""
LOGGED_CHARS = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is known of a run that has ended."""

    prompt: Prompt
    cause: str | None
    """why we ended it; `None`: it ended by itself"""
    exit_code: int
    """negative: the signal that ended it"""
    written: bytes
    stderr: str
    answer_id: str
    at: datetime
    zone: tzinfo
    """of the tool's environment"""


def tell(request: CommandRequest, ended: Ended) -> CommandAnswer:
    """
    Tell what a run came to.

    Raises:
        UpstreamUnavailable: nothing that anybody could read; dispatched.
    """
    if ended.cause is not None:
        raise unavailable(request, ended.cause, dispatched=True)
    if len(ended.written) > STDOUT_MAX_BYTES:
        raise unavailable(request, "output_too_long", dispatched=True)
    reads = request.spec.reads
    try:
        output = read_output(reads, ended.written)
    except UnreadableAnswer:
        output = Output()
    is_empty = output.text is None or (reads.format is Format.TEXT and not output.text.strip())
    if ended.exit_code != 0 or output.failed or is_empty:
        return _refuse(request, ended, output)
    return _say(request, ended, output, output.text or "")


def _say(request: CommandRequest, ended: Ended, output: Output, text: str) -> CommandAnswer:
    text_bytes = len(text.encode())
    if text_bytes > ANSWER_MAX_BYTES:
        raise unavailable(request, "output_too_long", dispatched=True)
    spoken = Spoken(
        id=ended.answer_id,
        created=int(ended.at.timestamp()),
        model=request.upstream_model,
        text=text,
        usage=output.usage or _count(ended.prompt, text_bytes),
        cost_nusd=output.cost_nusd,
    )
    dialect = dialect_of(request.provider.family)
    if request.is_stream:
        body, kind = dialect.render_stream(request.operation, spoken), "text/event-stream"
    else:
        body, kind = dialect.render_answer(request.operation, spoken), "application/json"
    return CommandAnswer(HTTPStatus.OK, {"Content-Type": kind}, body)


def _count(prompt: Prompt, text_bytes: int) -> Usage:
    """Estimate the usage of an answer whose tool reports none."""
    input_tokens = -(-len(prompt.whole.encode(errors="replace")) // BYTES_PER_TOKEN)
    return count_what_passed(None, input_tokens=input_tokens, output_bytes=text_bytes)


def _refuse(request: CommandRequest, ended: Ended, output: Output) -> CommandAnswer:
    failure, usage = _judge(request, ended, output), output.usage
    if failure is None and usage is None:
        raise unavailable(request, _ending(ended), dispatched=True)
    has_tokens = usage is not None and usage.total_tokens > 0
    if failure is None or (has_tokens and not failure.kind.moves_on):
        failure = Failure(kind=FailureKind.TRANSIENT, scope=Scope.ATTACHMENT)
    elif not has_tokens:
        usage = None
    refusal = dialect_of(request.provider.family).render_refusal(failure, usage, output.cost_nusd)
    return CommandAnswer(refusal.status, refusal.headers, refusal.body)


def _judge(request: CommandRequest, ended: Ended, output: Output) -> Failure | None:
    """Judge by the first of the tool's own statements that is known: in its answer, then on stderr."""
    told = (ended.prompt.whole,)
    lines = list(statements(ended.stderr, told))
    if lines:
        secret = request.secret.reveal() if request.secret is not None else ""
        head = lines[0].replace(secret, "<secret>")[:LOGGED_CHARS] if secret else lines[0][:LOGGED_CHARS]
        log.debug("a tool failed", action="command_failed", provider=request.provider.name, said=ascii(head))
    if request.spec.reads.format is Format.TEXT and len(output.text or "") <= SHORT_ANSWER_CHARS:
        lines = [*statements(output.text or "", told), *lines]
    classify = dialect_of(request.provider.family).classify
    failure = judge(output.message, output.status, classify=classify, now=ended.at, zone=ended.zone)
    for number, line in enumerate(lines):
        if failure is None:
            failure = judge(line, None, classify=classify, now=ended.at, zone=ended.zone, is_last_word=number == 0)
    return failure


def _ending(ended: Ended) -> str:
    if ended.exit_code == 0:
        return "no_answer"
    return f"exit_{ended.exit_code}" if ended.exit_code > 0 else f"signal_{-ended.exit_code}"

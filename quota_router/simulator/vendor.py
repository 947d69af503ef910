"""
What the simulated vendor says to a request.

Law: judged in this order: credential (401), body (400), model (404), quota (429, 402), then the script's next step; a
request refused before that uses no step and counts nowhere. A fault counts its tokens: the vendor has done the work.
Never: opens a port or suspends; imports `dialects`, whose witness it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from quota_router.simulator import anthropic, openai
from quota_router.simulator.answers import JSON, Answer, Call, Dialect
from quota_router.simulator.quotas import Meter
from quota_router.simulator.script import Account, Refusal, Reply, Script, Step

DEFAULT_MODELS = ("sim-large", "sim-small")
"""what the list of models names when the account may call any"""
DEFAULT_OUTPUT_TOKENS = 12
BYTES_PER_TOKEN = 4
_PLAIN = Reply()
_OPENAI: Dialect = openai
_ANTHROPIC: Dialect = anthropic
_MESSAGES = "/v1/messages"
_COUNT_TOKENS = "/v1/messages/count_tokens"
_CALLS: Mapping[str, Dialect] = {
    "/v1/chat/completions": _OPENAI,
    "/v1/completions": _OPENAI,
    "/v1/responses": _OPENAI,
    "/v1/embeddings": _OPENAI,
    _MESSAGES: _ANTHROPIC,
    _COUNT_TOKENS: _ANTHROPIC,
}


@dataclass(slots=True, kw_only=True)
class Seen:
    """A request as it arrived, and how it ended."""

    number: int
    """counts from 1; the ids of its answer are made of it"""
    at: datetime
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """case-insensitive"""
    key: str | None
    body: bytes
    model: str | None = None
    stream: bool = False
    answered: bool = False
    """a complete HTTP answer went out, whatever it said"""
    client_left: bool = False
    """the peer closed before that"""
    quota_refused: bool = False
    """answered with 429 or 402 because the account's quota or credit was used up"""
    input_tokens: int = 0
    """as the answer reports them; 0 when no step but a refusal was used"""
    output_tokens: int = 0

    def json(self) -> Any:  # noqa: ANN401 -- whatever was sent
        """The decoded body."""
        return msgspec.json.decode(self.body)


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Fields(msgspec.Struct):
    """The members that decide an answer; the rest of the body is skipped over."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    input: msgspec.Raw = msgspec.Raw(b'""')
    encoding_format: str | None = None


_read_fields = msgspec.json.Decoder(_Fields).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be sent."""

    step: Step
    answer: Answer | None
    """the right answer, which a `Reply` sends and a `Fault` spoils; `None` with a `Refusal`"""
    dialect: Dialect
    headers: Mapping[str, str]


class Vendor:
    """The accounts, what they have used, and the steps that wait for them."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.meters = {account.key: Meter(account) for account in accounts}
        self.anybody = Meter(Account(key="anybody"))
        """counts for everybody when there are no accounts"""
        self.script = Script()

    def reset(self) -> None:
        """Forget the steps, and what was used."""
        self.script.clear()
        for meter in (*self.meters.values(), self.anybody):
            meter.reset()

    def judge(self, seen: Seen) -> Verdict:
        """Decide what *seen* gets; notes in it what was understood."""
        calls = _CALLS.get(seen.path) if seen.method == "POST" else None
        dialect = calls or (_ANTHROPIC if "anthropic-version" in seen.headers else _OPENAI)
        headers = {dialect.REQUEST_ID_HEADER: f"req_sim{seen.number:08}"}
        meter = self.meters.get(seen.key or "") if self.meters else self.anybody
        if meter is None:
            return Verdict(step=Refusal(status=401), answer=None, dialect=dialect, headers=headers)
        step, answer = self._read(seen, meter, dialect) if calls is None else self._call(seen, meter, dialect, headers)
        return Verdict(step=step, answer=answer, dialect=dialect, headers=headers)

    def _read(self, seen: Seen, meter: Meter, dialect: Dialect) -> tuple[Step, Answer | None]:
        """The list of models and the usage endpoints: free, and met only by steps that name their path."""
        match seen.method, seen.path:
            case "GET", "/v1/models":
                body = dialect.model_list(meter.account.models or DEFAULT_MODELS)
            case "GET", "/api/v1/key":
                body = meter.key_usage()
            case "GET", "/api/oauth/usage":
                body = meter.subscription_usage(seen.at)
            case _:
                return Refusal(status=404, message=f"Unknown request: {seen.method} {seen.path}"), None
        step = self.script.next_step(seen.key, seen.path, calls_a_model=False) or _PLAIN
        return step, None if isinstance(step, Refusal) else Answer(content_type=JSON, chunks=(body,))

    def _call(self, seen: Seen, meter: Meter, dialect: Dialect, headers: dict[str, str]) -> tuple[Step, Answer | None]:
        """A call of a model; adds the rate-limit headers to *headers*."""
        try:
            asked = _read_fields(seen.body)
        except (ValueError, RecursionError) as exc:
            return Refusal(status=400, message=str(exc)), None
        seen.model, seen.stream = asked.model, bool(asked.stream)
        is_counted = seen.path != _COUNT_TOKENS
        refusal = _incomplete(seen, asked) or _not_served(asked.model, meter.account)
        if refusal is None and is_counted:
            refusal = meter.admit(seen.at)
            seen.quota_refused = refusal is not None
        step = refusal or self.script.next_step(seen.key, seen.path, calls_a_model=True) or _PLAIN
        if isinstance(step, Refusal):
            headers |= meter.headers(dialect, seen.at)
            return step, None
        reply = step if isinstance(step, Reply) else step.reply
        call = _understand(seen, asked, reply)
        seen.input_tokens, seen.output_tokens = call.input_tokens, call.output_tokens
        if is_counted:
            meter.book(call.input_tokens, reply.cost_usd)
        # As with the vendors, the headers know the input of their own call but not yet its output.
        headers |= meter.headers(dialect, seen.at)
        if is_counted:
            meter.book(call.output_tokens, None)
        return step, dialect.answer(call, reply)


def _incomplete(seen: Seen, asked: _Fields) -> Refusal | None:
    """What the Messages API insists on."""
    if seen.path in (_MESSAGES, _COUNT_TOKENS) and "anthropic-version" not in seen.headers:
        return Refusal(status=400, message="anthropic-version: header is required")
    if seen.path == _MESSAGES and asked.max_tokens is None:
        return Refusal(status=400, message="max_tokens: Field required")
    return None


def _not_served(model: str, account: Account) -> Refusal | None:
    return Refusal(status=404, message=f"model: {model}") if account.models and model not in account.models else None


def _understand(seen: Seen, asked: _Fields, reply: Reply) -> Call:
    """The call, with its figures settled."""
    caps = (asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens)
    output_tokens = min((DEFAULT_OUTPUT_TOKENS, *(cap for cap in caps if cap is not None)))
    writes_nothing = seen.path in ("/v1/embeddings", _COUNT_TOKENS)
    return Call(
        path=seen.path,
        number=seen.number,
        created=int(seen.at.timestamp()),
        model=asked.model,
        is_stream=seen.stream,
        include_usage=asked.stream_options is not None and asked.stream_options.include_usage,
        input_tokens=max(1, len(seen.body) // BYTES_PER_TOKEN) if reply.input_tokens is None else reply.input_tokens,
        output_tokens=0 if writes_nothing else output_tokens if reply.output_tokens is None else reply.output_tokens,
        inputs=_count_inputs(asked.input),
        wants_base64=asked.encoding_format == "base64",
    )


def _count_inputs(raw: msgspec.Raw) -> int:
    """One text or one list of token numbers is one input; a list of either is many."""
    inputs = msgspec.json.decode(raw)
    return len(inputs) if isinstance(inputs, list) and inputs and not isinstance(inputs[0], int) else 1

"""
What a test may order of the simulator: accounts, and the steps their next requests meet.

Law: a step is used by one request (`times` of them, or every one), in the order of the queue; figures stand on the wire
as they are given here, right or wrong.
Never: touches a socket.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import msgspec

DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    A customer of the simulated vendor.

    Its window begins with the first request and lasts `window_s`; the next one begins with the first request after that.
    """

    key: str
    """the credential that chooses it, as `Authorization: Bearer` or `x-api-key`"""
    requests: int | None = None
    """calls a window admits; `None`: no such quota, and no such headers"""
    tokens: int | None = None
    """input and output tokens (as reported) after which a window is closed; `None` likewise"""
    window_s: int = 60
    credit_usd: str | None = None
    """a decimal; once the scripted `cost_usd` add up to it, calls get 402. `None`: no such limit"""
    models: tuple[str, ...] = ()
    """what it may call, everything else is a 404; empty: any name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    An answer as it should be.

    `input_tokens` stands where the dialect's own input count stands: OpenAI's includes cached tokens, Anthropic's does not.
    `output_tokens` includes reasoning in both.
    """

    text: str = DEFAULT_TEXT
    input_tokens: int | None = None
    """`None`: a quarter of the body's bytes, at least 1"""
    cached_tokens: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output_tokens: int | None = None
    """`None`: 12, or the request's own cap when that is lower"""
    reasoning_tokens: int = 0
    cost_usd: str | None = None
    """a decimal, told in `usage.cost` as OpenRouter does (OpenAI dialect only), and counted against `credit_usd`"""
    usage: Mapping[str, Any] | None = None
    """replaces the whole usage object, to say absurd things"""
    no_usage: bool = False
    model: str | None = None
    """the model the answer claims to come from; `None`: the one asked for"""
    chunks: int = 3
    """content chunks of a stream, at most one per character"""
    first_byte_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    """a pause before each content chunk"""
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    """requests that use this step; `None`: every one from here on"""
    path: str | None = None
    """the path it waits for; `None`: any path that calls a model"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer with a status of its own, in the dialect's error form unless `body` says otherwise."""

    status: int
    code: str | None = None
    """`error.code` (OpenAI) or `error.details.error_code` (Anthropic); `None`: what the vendor sends with this status"""
    message: str | None = None
    retry_after: str | int | None = None
    """the header as it stands, sane or not; `None`: no header"""
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    path: str | None = None


class FaultKind(StrEnum):
    """What goes wrong. Kinds about streams do the nearest thing to an answer that does not stream."""

    CLOSE_BEFORE_ANSWER = "close_before_answer"
    """the connection is closed before a byte"""
    RESET = "reset"
    """RST: before a byte, or after `after_chunks`"""
    GARBAGE = "garbage"
    """200 with `body`, by default an HTML page"""
    ERROR_IN_200 = "error_in_200"
    """200 with the dialect's error object for `status` and `code`"""
    ERROR_IN_STREAM = "error_in_stream"
    """the dialect's error event, then a clean end"""
    CUT_STREAM = "cut_stream"
    """the connection is closed in mid-stream"""
    END_STREAM = "end_stream"
    """a clean HTTP end without a terminal event"""
    CUT_BODY = "cut_body"
    """half the body its Content-Length promised"""
    TRUNCATED_BODY = "truncated_body"
    """half the body, framed by `Connection: close`, so that HTTP sees no error"""
    STALL = "stall"
    """silence until the peer leaves: without a byte, or after `after_chunks`"""
    DRIP = "drip"
    """the right answer, one byte per write and `delay_s` between them"""
    HEARTBEATS = "heartbeats"
    """keep-alives every `delay_s` until the peer leaves"""
    GIANT_LINE = "giant_line"
    """one line of `size_bytes`"""
    GZIP_BOMB = "gzip_bomb"
    """a small gzip body that unfolds to `size_bytes`"""
    REDIRECT = "redirect"
    """307 to `location`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An answer that goes wrong."""

    kind: FaultKind
    after_chunks: int | None = None
    """content chunks that go out first, opening events before them; `None`: at once, not even an opening event"""
    reply: Reply = field(default_factory=Reply)
    """the answer that is spoilt"""
    status: int = 529
    """the status whose error `error_in_200` and `error_in_stream` tell"""
    code: str | None = None
    body: str | None = None
    delay_s: float = 0.01
    size_bytes: int = 1 << 20
    location: str = ""
    times: int | None = 1
    path: str | None = None


Step = Reply | Refusal | Fault

_STEPS: dict[str, type[Step]] = {"reply": Reply, "refusal": Refusal, "fault": Fault}


def step_to_json(step: Step) -> dict[str, Any]:
    """The form in which `POST /_sim/script` takes a step."""
    return {"step": type(step).__name__.lower(), **msgspec.to_builtins(step)}


def step_from_json(value: Mapping[str, Any]) -> Step:
    """
    Read what `step_to_json` writes; absent members have their defaults.

    Raises:
        ValueError: an unknown kind of step or member, or a value of the wrong type.
    """
    members = dict(value)
    kind = _STEPS.get(members.pop("step", ""))
    if kind is None:
        raise ValueError(f"a step is one of {', '.join(_STEPS)}")
    _check_names(kind, members)
    _check_names(Reply, members.get("reply", {}))
    return msgspec.convert(members, kind)


def _check_names(kind: type[Step], members: Mapping[str, Any]) -> None:
    unknown = set(members) - {member.name for member in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")


class Script:
    """The queues of steps, one per account and one for everybody."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[tuple[Step, int | None]]] = {}

    def add(self, key: str | None, steps: Iterable[Step]) -> None:
        """Queue *steps* for the account of *key*; `None`: for whoever comes, after the account's own steps."""
        self._queues.setdefault(key, deque()).extend((step, step.times) for step in steps)

    def next_step(self, key: str | None, path: str, *, calls_a_model: bool) -> Step | None:
        """Take the step for a request; `None` when nothing is queued for it."""
        for owner in (None,) if key is None else (key, None):
            queue = self._queues.get(owner, ())
            for position, (step, times) in enumerate(queue):
                if step.path == path or (step.path is None and calls_a_model):
                    if times == 1:
                        del self._queues[owner][position]
                    elif times is not None:
                        self._queues[owner][position] = (step, times - 1)
                    return step
        return None

    def clear(self) -> None:
        """Forget every step."""
        self._queues.clear()

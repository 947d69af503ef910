"""
Calls that are made inside this process: a body to send, or a question in plain text; and a sink that keeps the answer.

Law: they go the whole way of a call, like any that came over HTTP: laddered, held, booked. What is refused is raised.
Never: makes a call another way, or keeps an answer beyond whoever asked.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calls import Call
from quota_router.core.catalog import Catalog, Model
from quota_router.dialects import dialect_of
from quota_router.errors import UnknownModel, UpstreamRefused

OF_ROUTER = "asked-by:router"
"""The label of a call that a router made on its way to an answer."""


class Answered(Struct, frozen=True, kw_only=True):
    """An answer, whole. `headers`: as they would have gone over HTTP, names in lower case."""

    call_id: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def provider(self) -> str | None:
        """Who served it; `None`: nobody, what was asked for is refused."""
        return self.headers.get("x-quota-router-provider")

    @property
    def cost_usd(self) -> str | None:
        """A decimal; `None`: not known, or it streamed."""
        return self.headers.get("x-quota-router-cost-usd")


class Gathered:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._pieces: list[bytes] = []

    @property
    def is_started(self) -> bool:
        """Whether `start` was called."""
        return self.status != 0

    @property
    def is_gone(self) -> bool:
        """Whoever asks in this process waits; when he does not, his task is cancelled."""
        return False

    @property
    def body(self) -> bytes:
        """All that came."""
        return b"".join(self._pieces)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the answer."""
        self.status, self.headers = status, {name.lower(): value for name, value in headers.items()}

    async def write(self, data: bytes, within_s: float) -> None:  # noqa: ARG002 -- nobody is slow here
        """Keep a piece."""
        self._pieces.append(data)

    async def finish(self, data: bytes = b"") -> None:
        """Keep the last piece."""
        self._pieces.append(data)


Serve: TypeAlias = Callable[[Call, Gathered], Awaitable[None]]
"""The whole way of a call."""


async def send(serve: Serve, call: Call) -> Answered:
    """
    Make a call and keep its answer.

    Raises:
        QuotaRouterError: as the way of a call does.
    """
    sink = Gathered()
    await serve(call, sink)
    return Answered(call_id=call.id, status=sink.status, headers=sink.headers, body=sink.body)


def question(
    call: Call, catalog: Catalog, model: str, prompt: str, *, system: str | None = None, max_output_tokens: int | None = None
) -> Call:
    """
    Make *call* one that asks *model* for an answer in text.

    Args:
        call: whose caller, labels and options it has.
        catalog: to find the model, and the dialect it is asked in.
        model: its name or alias.
        prompt: what its user says.
        system: what stands before that.
        max_output_tokens: `None`: as many as the model writes; in Anthropic's dialect 1,024.

    Raises:
        UnknownModel: there is none of that name.
    """
    found = catalog.find_model(model)
    if found is None:
        raise UnknownModel
    dialect = dialect_of(found.family)
    body = dialect.render_question(
        model, prompt, system=system, max_output_tokens=max_output_tokens, vendors=_vendors(found, catalog)
    )
    parsed = dialect.read(dialect.QUESTION, body)
    return replace(call, family=found.family, operation=dialect.QUESTION, facts=parsed.facts, model=model, body=parsed)


def text_of(call: Call, answered: Answered) -> str:
    """
    The text of the answer to a question.

    Raises:
        UpstreamRefused: the upstream refused what was asked. UnreadableAnswer: there is no text.
    """
    if answered.status != HTTPStatus.OK:
        raise UpstreamRefused(f"The provider refused the question with status {answered.status}.")
    return dialect_of(call.family).text_of(answered.body)


def _vendors(model: Model, catalog: Catalog) -> frozenset[str]:
    return frozenset(catalog.providers[rung.provider].vendor for rung in model.attachments)

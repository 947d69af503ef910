"""
Calls, relayed: the paths that the OpenAI and Anthropic SDKs know.

Law: authenticated, then read, then admitted; what the caller asked for in headers of ours is checked before anything is held.
Never: names a destination from a request; a provider may be pinned, an address may not.
"""

import functools
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPMethod

from aiohttp import web

from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Catalog, Family
from quota_router.core.pricing import parse_usd_nusd
from quota_router.dialects import ModelCard, dialect_of
from quota_router.errors import InvalidRequest, ShuttingDown, UnknownModel
from quota_router.web.bodies import read_body
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Handler, Route, Scope
from quota_router.web.sink import HttpSink

LABELS_MAX = 32
LABEL_MAX_CHARS = 128
HEADER_MAX_CHARS = 256
TIMEOUT_MAX_S = 86_400

_PATHS = {
    "/v1/chat/completions": (Operation.CHAT, Family.OPENAI),
    "/v1/completions": (Operation.COMPLETIONS, Family.OPENAI),
    "/v1/responses": (Operation.RESPONSES, Family.OPENAI),
    "/v1/embeddings": (Operation.EMBEDDINGS, Family.OPENAI),
    "/v1/messages": (Operation.MESSAGES, Family.ANTHROPIC),
    "/v1/messages/count_tokens": (Operation.COUNT_TOKENS, Family.ANTHROPIC),
}


def routes() -> list[Route]:
    """List the paths that are relayed, and the model list."""
    relayed = [
        Route(method=HTTPMethod.POST, path=path, handler=_relayed(operation, family), scope=Scope.CALL, dialect=family)
        for path, (operation, family) in _PATHS.items()
    ]
    listed = [
        Route(method=HTTPMethod.GET, path=path, handler=handler, scope=Scope.CALL, dialect=Family.OPENAI)
        for path, handler in (("/v1/models", _list_models), ("/v1/models/{id:.+}", _show_model))
    ]
    return relayed + listed


def _relayed(operation: Operation, family: Family) -> Handler:
    dialect = dialect_of(family)

    async def handle(request: web.Request) -> web.StreamResponse:
        services = request.app[SERVICES]
        body = await read_body(request, services.max_body_bytes)
        if services.is_draining:  # asked last: a stop may come while the body does
            raise ShuttingDown
        parsed = dialect.read(operation, body)
        facts, headers, key = parsed.facts, request.headers, request.headers.get("Idempotency-Key")
        call = Call(
            id=request[CALL_ID],
            caller=request[CALLER],
            family=family,
            operation=operation,
            facts=facts,
            model=facts.model,
            body_for=functools.partial(dialect.outgoing_body, parsed),
            body_bytes=len(body),
            query=request.rel_url.raw_query_string,
            headers=headers,
            labels=_labels(headers, facts.labels),
            pinned_provider=_word(headers, "provider"),
            workflow=_word(headers, "workflow"),
            stage=_word(headers, "stage"),
            idempotency_key=_bounded("Idempotency-Key", key) if key else None,
            fingerprint=hashlib.sha256(request.path.encode() + b"\0" + body).hexdigest() if key else None,
            deadline=_deadline(headers, services.clock()),
            max_cost_nusd=_max_cost(headers),
        )
        sink = HttpSink(request, call.id)
        await services.router.serve(call, sink)
        return sink.response

    return handle


# --- what a caller may say in headers ---------------------------------------------------------------------------------------


def _bounded(name: str, value: str) -> str:
    if len(value) > HEADER_MAX_CHARS or not value.isprintable():
        raise InvalidRequest(f"`{name}` must be at most {HEADER_MAX_CHARS} printable characters.", param=name)
    return value


def _word(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(f"x-quota-router-{name}")
    return _bounded(f"x-quota-router-{name}", value) if value else None


def _labels(headers: Mapping[str, str], from_metadata: tuple[str, ...]) -> tuple[str, ...]:
    """Join the labels of the header and of OpenAI `metadata`, each once."""
    listed = headers.get("x-quota-router-labels")
    if listed is None:
        return from_metadata
    found = [label.strip() for label in listed.split(",")]
    labels = tuple(dict.fromkeys([*(label for label in found if label), *from_metadata]))
    if len(labels) > LABELS_MAX or any(len(label) > LABEL_MAX_CHARS or not label.isprintable() for label in labels):
        message = f"`x-quota-router-labels` takes at most {LABELS_MAX} labels of at most {LABEL_MAX_CHARS} printable characters."
        raise InvalidRequest(message, param="x-quota-router-labels")
    return labels


def _deadline(headers: Mapping[str, str], now: datetime) -> datetime | None:
    value = headers.get("x-quota-router-timeout")
    if value is None:
        return None
    try:
        timeout_s = float(value)
    except ValueError:
        timeout_s = -1
    if not 0 < timeout_s <= TIMEOUT_MAX_S:
        message = f"`x-quota-router-timeout` must be seconds, more than 0 and at most {TIMEOUT_MAX_S}."
        raise InvalidRequest(message, param="x-quota-router-timeout")
    return now + timedelta(seconds=timeout_s)


def _max_cost(headers: Mapping[str, str]) -> int | None:
    value = headers.get("x-quota-router-max-cost-usd")
    if value is None:
        return None
    try:
        max_cost_nusd = parse_usd_nusd(value)
    except ValueError:
        max_cost_nusd = -1
    if max_cost_nusd < 0:
        message = "`x-quota-router-max-cost-usd` must be a decimal number of US dollars, such as 0.25."
        raise InvalidRequest(message, param="x-quota-router-max-cost-usd")
    return max_cost_nusd


# --- the model list ---------------------------------------------------------------------------------------------------------

LISTED_SINCE = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
"""Model lists carry a creation time that no SDK uses; ours is one fixed day rather than an invented one per model."""


def _family_asked(request: web.Request) -> Family:
    """Anthropic's SDK sends its version header on every request; nothing else tells the two lists apart."""
    return Family.ANTHROPIC if "anthropic-version" in request.headers else Family.OPENAI


def _cards(catalog: Catalog) -> list[ModelCard]:
    visible = (catalog.find_model(name) for name in catalog.models)
    return [
        ModelCard(
            id=model.name,
            display_name=model.display_name or model.name,
            created_at=LISTED_SINCE,
            context_tokens=model.context_tokens,
            max_output_tokens=model.max_output_tokens,
        )
        for model in visible
        if model is not None
    ]


async def _list_models(request: web.Request) -> web.Response:
    cards = _cards(request.app[SERVICES].lane.catalog)
    return web.Response(body=dialect_of(_family_asked(request)).models_page(cards), content_type="application/json")


async def _show_model(request: web.Request) -> web.Response:
    catalog = request.app[SERVICES].lane.catalog
    model = catalog.find_model(request.match_info["id"])
    card = next((card for card in _cards(catalog) if model is not None and card.id == model.name), None)
    if card is None:
        raise UnknownModel
    return web.Response(body=dialect_of(_family_asked(request)).model_page(card), content_type="application/json")

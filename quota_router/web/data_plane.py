"""
Calls, relayed: the paths that the OpenAI and Anthropic SDKs know.

Law: authenticated, then read, then admitted; what the caller asked for in headers of ours is checked before anything is held.
Never: names a destination from a request; a provider may be pinned, an address may not.
"""

import hashlib
from datetime import datetime
from http import HTTPMethod

from aiohttp import web

from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Catalog, Family
from quota_router.dialects import ModelCard, dialect_of
from quota_router.errors import ShuttingDown, UnknownModel
from quota_router.web.asked import read_asked, read_word
from quota_router.web.bodies import read_body
from quota_router.web.decision_answers import explain
from quota_router.web.routes import CALL_ID, CALLER, SERVICES, Handler, Route, Scope
from quota_router.web.sink import HttpSink
from quota_router.web.strict import answer

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
        headers, key = request.headers, request.headers.get("Idempotency-Key")
        asked = read_asked(headers, services.clock())
        is_dry_run = asked.pop("dry_run", False)
        asked["labels"] = tuple(dict.fromkeys((*asked.get("labels", ()), *parsed.facts.labels)))
        call = Call(
            id=request[CALL_ID],
            caller=request[CALLER],
            family=family,
            operation=operation,
            facts=parsed.facts,
            model=parsed.facts.model,
            body=parsed,
            query=request.rel_url.raw_query_string,
            headers=headers,
            idempotency_key=read_word("Idempotency-Key", key) if key else None,
            fingerprint=hashlib.sha256(request.path.encode() + b"\0" + body).hexdigest() if key else None,
            **asked,
        )
        if is_dry_run:
            return answer(await explain(services, call))
        sink = HttpSink(request, call.id, is_stream=parsed.facts.stream)
        try:
            await services.router.serve(call, sink)
        finally:
            sink.close()
        return sink.response

    return handle


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

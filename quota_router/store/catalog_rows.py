"""
Between the catalog's rows and its values.

Law: reading what was written gives an equal value. Lists and prices are JSON text; aliases have no order, attachments that of
the ladder.
Never: runs a statement.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any, assert_never

import msgspec
from sqlalchemy import Row

from quota_router.core.catalog import (
    Attachment,
    Billing,
    Caller,
    Family,
    Model,
    Network,
    Poller,
    Provider,
    RoutingRule,
    Stage,
    Workflow,
)
from quota_router.core.commands import CommandSpec
from quota_router.core.limits import Enforcement, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable
from quota_router.core.references import Value
from quota_router.core.shares import from_ppm, show_decimal, to_ppm
from quota_router.core.words import ManagedBy, OnUnusable, Strategy

Reader = Callable[[Row[Any]], Value]


def in_stored_order(model: Model) -> Model:
    """The model as it would be read back: aliases sorted, attachments by priority, then position."""
    ladder = sorted(model.attachments, key=lambda attachment: (attachment.priority, attachment.position))
    return replace(model, aliases=tuple(sorted(model.aliases)), attachments=tuple(ladder))


def row_of(value: Value) -> dict[str, Any]:
    """The columns that say what *value* says; a model's aliases and attachments have rows of their own."""
    match value:
        case Provider():
            return _row_of_provider(value)
        case Model():
            return {
                "name": value.name,
                "family": value.family,
                "strategy": value.strategy,
                "display_name": value.display_name,
                "capabilities": None if value.capabilities is None else _to_json(value.capabilities),
                "tags": _to_json(value.tags),
                "context_tokens": value.context_tokens,
                "max_output_tokens": value.max_output_tokens,
                "fallbacks": _to_json(value.fallbacks),
                "price": _price_to_json(value.price),
                "enabled": int(value.enabled),
            }
        case Limit():
            return {
                "name": value.name,
                "kind": value.kind,
                "subject": value.subject,
                "unit": value.unit,
                "amount": value.limit,
                "window": value.window,
                "anchor": value.anchor,
                "timezone": value.timezone,
                "enforcement": value.enforcement,
                # A limit has no flag of its own: to be in the file is to be enabled.
                "enabled": 1,
            }
        case Caller():
            return {
                "name": value.name,
                "token_sha256": value.token_sha256,
                "scopes": _to_json(value.scopes),
                "enabled": int(value.enabled),
            }
        case RoutingRule():
            return {
                "name": value.name,
                "rank": value.rank,
                "condition": value.condition,
                "model": value.model,
                "provider": value.provider,
                "strategy": value.strategy,
                "share_ppm": None if value.share is None else to_ppm(value.share),
                "on_unusable": value.on_unusable,
                "reason": value.reason,
                "enabled": int(value.enabled),
            }
        case Workflow():
            return {
                "name": value.name,
                "stages": msgspec.json.encode(value.stages).decode(),
                "enabled": int(value.enabled),
            }
        case _:
            assert_never(value)


def _row_of_provider(value: Provider) -> dict[str, Any]:
    return {
        "name": value.name,
        "family": value.family,
        "vendor": value.vendor,
        "account": value.account,
        "base_url": value.base_url,
        "credential_ref": value.credential_ref,
        "network": value.network,
        "allow": _to_json(value.allow),
        "billing": value.billing,
        "enabled": int(value.enabled),
        "paused": int(value.paused),
        "paused_reason": value.paused_reason,
        "reserve_ppm": to_ppm(value.reserve),
        "pause_at_ppm": None if value.pause_at is None else to_ppm(value.pause_at),
        "pace": int(value.pace),
        "quota_sources": _to_json(value.quota_sources),
        "pollers": msgspec.json.encode([_show_poller(poller) for poller in value.pollers]).decode(),
        "command_template": _to_json(value.command_template),
        "env": msgspec.json.encode(dict(value.env)).decode(),
        "command_options": "{}" if value.command is None else _command_options_of(value.command),
        "default_upstream_model": value.default_upstream_model,
        "display_name": value.display_name,
        "description": value.description,
    }


def attachment_row_of(attachment: Attachment) -> dict[str, Any]:
    """All columns but the times."""
    return {
        "model": attachment.model,
        "provider": attachment.provider,
        "priority": attachment.priority,
        "position": attachment.position,
        "weight": attachment.weight,
        "upstream_model": attachment.upstream_model,
        "price": _price_to_json(attachment.price),
        "unmetered": int(attachment.unmetered),
        "enabled": int(attachment.enabled),
    }


def read_provider(row: Row[Any]) -> Provider:
    """A row of `providers`."""
    return Provider(
        name=row.name,
        family=Family(row.family),
        vendor=row.vendor,
        account=row.account,
        base_url=row.base_url,
        credential_ref=row.credential_ref,
        network=Network(row.network),
        allow=_from_json(row.allow),
        billing=Billing(row.billing),
        enabled=bool(row.enabled),
        paused=bool(row.paused),
        paused_reason=row.paused_reason,
        reserve=from_ppm(row.reserve_ppm),
        pause_at=None if row.pause_at_ppm is None else from_ppm(row.pause_at_ppm),
        pace=bool(row.pace),
        quota_sources=_from_json(row.quota_sources),
        pollers=tuple(_read_poller(poller) for poller in msgspec.json.decode(row.pollers, type=list[dict[str, Any]])),
        command=_read_command(row),
        default_upstream_model=row.default_upstream_model,
        display_name=row.display_name,
        description=row.description,
        managed_by=ManagedBy(row.managed_by),
        version=row.version,
    )


def model_reader(alias_rows: Iterable[Row[Any]], attachment_rows: Iterable[Row[Any]]) -> Callable[[Row[Any]], Model]:
    """How to read a row of `models`, given every row of `model_aliases` and `attachments`, in any order."""
    aliases: defaultdict[str, list[str]] = defaultdict(list)
    for row in alias_rows:
        aliases[row.model].append(row.alias)
    attachments: defaultdict[str, list[Attachment]] = defaultdict(list)
    for row in attachment_rows:
        attachments[row.model].append(_read_attachment(row))

    def read_model(row: Row[Any]) -> Model:
        return in_stored_order(
            Model(
                name=row.name,
                family=Family(row.family),
                attachments=tuple(attachments[row.name]),
                strategy=Strategy(row.strategy),
                display_name=row.display_name,
                aliases=tuple(aliases[row.name]),
                capabilities=None if row.capabilities is None else _from_json(row.capabilities),
                tags=_from_json(row.tags),
                context_tokens=row.context_tokens,
                max_output_tokens=row.max_output_tokens,
                fallbacks=_from_json(row.fallbacks),
                price=_price_from_json(row.price),
                enabled=bool(row.enabled),
                managed_by=ManagedBy(row.managed_by),
                version=row.version,
            )
        )

    return read_model


def _read_attachment(row: Row[Any]) -> Attachment:
    return Attachment(
        model=row.model,
        provider=row.provider,
        priority=row.priority,
        position=row.position,
        upstream_model=row.upstream_model,
        weight=row.weight,
        price=_price_from_json(row.price),
        unmetered=bool(row.unmetered),
        enabled=bool(row.enabled),
    )


def read_limit(row: Row[Any]) -> Limit:
    """A row of `limits`."""
    return Limit(
        name=row.name,
        kind=Kind(row.kind),
        subject=row.subject,
        unit=Unit(row.unit),
        limit=row.amount,
        window=row.window,
        anchor=row.anchor,
        timezone=row.timezone,
        enforcement=Enforcement(row.enforcement),
        managed_by=ManagedBy(row.managed_by),
        version=row.version,
    )


def read_caller(row: Row[Any]) -> Caller:
    """A row of `callers`."""
    return Caller(
        name=row.name,
        token_sha256=row.token_sha256,
        scopes=_from_json(row.scopes),
        enabled=bool(row.enabled),
        managed_by=ManagedBy(row.managed_by),
        version=row.version,
    )


def read_rule(row: Row[Any]) -> RoutingRule:
    """A row of `rules`."""
    return RoutingRule(
        name=row.name,
        condition=row.condition,
        model=row.model,
        provider=row.provider,
        strategy=None if row.strategy is None else Strategy(row.strategy),
        share=None if row.share_ppm is None else from_ppm(row.share_ppm),
        on_unusable=OnUnusable(row.on_unusable),
        reason=row.reason,
        rank=row.rank,
        enabled=bool(row.enabled),
        managed_by=ManagedBy(row.managed_by),
        version=row.version,
    )


def read_workflow(row: Row[Any]) -> Workflow:
    """A row of `workflows`."""
    return Workflow(
        name=row.name,
        stages=msgspec.json.decode(row.stages, type=tuple[Stage, ...]),
        enabled=bool(row.enabled),
        managed_by=ManagedBy(row.managed_by),
        version=row.version,
    )


def _command_options_of(command: CommandSpec) -> str:
    """All of a command that has no column of its own."""
    said = msgspec.to_builtins(command)
    return msgspec.json.encode({name: value for name, value in said.items() if name not in {"template", "env"}}).decode()


def _read_command(row: Row[Any]) -> CommandSpec | None:
    template, env, options = (msgspec.json.decode(text) for text in (row.command_template, row.env, row.command_options))
    if not template:
        return None
    try:
        return msgspec.convert({**options, "template": template, "env": env}, CommandSpec)
    except msgspec.ValidationError:  # an older program allowed it: with nothing to run, its rung is passed over
        return None


def _show_poller(poller: Poller) -> dict[str, Any]:
    """A poller without what it does not say. Its scale is a decimal, exactly."""
    said = {field.name: getattr(poller, field.name) for field in fields(poller)}
    return {name: value for name, value in said.items() if value is not None} | {"scale": show_decimal(poller.scale)}


def _read_poller(stored: dict[str, Any]) -> Poller:
    return Poller(**stored | {"scale": Fraction(stored["scale"])})


def _to_json(words: tuple[str, ...]) -> str:
    return msgspec.json.encode(words).decode()


def _from_json(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])


def _price_to_json(price: PriceTable | None) -> str | None:
    return None if price is None else msgspec.json.encode(price).decode()


def _price_from_json(text: str | None) -> PriceTable | None:
    return None if text is None else msgspec.json.decode(text, type=PriceTable)

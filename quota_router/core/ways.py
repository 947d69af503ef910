"""
Which ways a call may go, before anybody asks who can pay: the rules of the operator, then what the caller asked for.

Law: ways are tried in their order, the next one only when nobody is usable on those before. A call that names its provider goes its
own way: no rule sees it. The same call, rules and facts give the same ways, on every daemon.
Never: judges a rung, reads a balance or a clock.

A call of a workflow's stage asks for `workflow:NAME/STAGE`, or names both in headers and no model: it asks for that stage's model.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calls import Call
from quota_router.core.catalog import Catalog, Strategy
from quota_router.core.conditions import WEEKDAYS, Facts, ProviderStatus
from quota_router.core.rules import OnUnusable, Rule
from quota_router.errors import UnknownModel, did_you_mean

WORKFLOW = "workflow:"
AUTO = "auto"
"""The name under which a caller leaves the choice of the model to us; a model that has this name is served as any other."""


class Way(Struct, frozen=True, kw_only=True):
    """A model to be tried, and who says so."""

    model: str | None = None
    """`None`: the default decides"""
    provider: str | None = None
    """the only one to be used; `None`: any of the model's"""
    strategy: Strategy | None = None
    """how rungs of a tier are ordered; `None`: as the model says"""
    rule: Rule | None = None
    """that names this way; `None`: no rule does"""
    router: str | None = None
    """likewise"""
    reason: str | None = None
    """why, in the words of the rule or the router"""
    confidence: float | None = None
    """of the router, 0..1"""
    call: Call | None = None
    """with the body that the router made of it; `None`: as it came"""


ASKED = Way()
"""What the caller asked for, or the default."""


class Standing(Struct, frozen=True, kw_only=True):
    """How providers and limits stand at one moment, as far as rules ask."""

    provider_status: Mapping[str, ProviderStatus] = {}
    headroom: Mapping[str, Fraction | None] = {}
    budget_used: Mapping[str, Fraction | None] = {}


UNASKED = Standing()
_STANDINGS = ("provider_status", "headroom", "budget_used")


def asks_standing(catalog: Catalog) -> bool:
    """Whether some rule looks at what the ledger alone knows."""
    return any(name in catalog.rule_book.fields for name in _STANDINGS)


def at_stage(call: Call, catalog: Catalog) -> Call:
    """
    Ask for the model of a workflow's stage, where the call names one.

    Raises:
        UnknownModel: `workflow:NAME/STAGE` leads to none; the sentence says which are known.
    """
    asked = call.model
    if asked is not None and asked.startswith(WORKFLOW):
        name, _, stage = asked.removeprefix(WORKFLOW).rpartition("/")
        return replace(call, model=_stage_model(name, stage, catalog), workflow=name, stage=stage)
    if asked is None and call.workflow is not None and call.stage is not None:
        workflow = catalog.workflows.get(call.workflow)
        found = workflow.find_stage(call.stage) if workflow is not None and workflow.enabled else None
        return call if found is None else replace(call, model=found.model)
    return call


def _stage_model(name: str, stage: str, catalog: Catalog) -> str:
    workflow = catalog.workflows.get(name)
    if workflow is None or not workflow.enabled:
        known = [other.name for other in catalog.workflows.values() if other.enabled]
        raise UnknownModel(f"No workflow {name!r} is configured: {did_you_mean(name, known)}")
    found = workflow.find_stage(stage)
    if found is None:
        known = [other.name for other in workflow.stages]
        raise UnknownModel(f"The workflow {name!r} has no stage {stage!r}: {did_you_mean(stage, known)}")
    return found.model


def facts_of(call: Call, catalog: Catalog, standing: Standing, now: datetime) -> Facts:
    """What rules may ask of *call*. Its body is looked at only if one asks what it requires."""
    local = now.astimezone(ZoneInfo(catalog.timezone))
    requires = call.requires | call.body.needs() if "requires" in catalog.rule_book.fields else call.requires
    return Facts(
        priority=call.priority,
        labels=call.labels,
        retry_count=call.retry_count,
        hour=local.hour,
        weekday=WEEKDAYS[local.weekday()],
        task_id=call.task_id,
        provider_status=standing.provider_status,
        model=call.model,
        caller=call.caller.name,
        stream=call.facts.stream,
        input_tokens=call.facts.input_tokens,
        requires=tuple(sorted(requires)),
        headroom=standing.headroom,
        budget_used=standing.budget_used,
        workflow=call.workflow,
        stage=call.stage,
    )


def ways_by_rule(call: Call, catalog: Catalog, facts: Facts) -> Iterator[Way]:
    """The ways that rules name, in their order, then what was asked for; nothing behind a rule that says `refuse`."""
    for rule in catalog.rule_book.matches(facts, call_id=call.id):
        model = rule.model_for(call.model)
        yield Way(model=model, provider=rule.provider, strategy=rule.strategy, rule=rule, reason=rule.reason)
        if rule.on_unusable is OnUnusable.REFUSE:
            return
    yield ASKED

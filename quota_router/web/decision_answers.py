"""
Decisions as the API shows them (design 8).

Law: one shape for what was held, what was only explained, and what is told again from the rows.
Never: decides.
"""

from collections.abc import Mapping
from typing import Any

from quota_router.core.calls import Call
from quota_router.core.catalog import Catalog, Provider
from quota_router.core.decision import Chosen, NoneUsable
from quota_router.core.rules import Rule
from quota_router.core.verdict import say_none_usable, show_rung, show_way
from quota_router.web.routes import Services


async def explain(services: Services, call: Call) -> dict[str, Any]:
    """
    Decide as for a call, write nothing, and show it.

    Raises:
        NoUsableProvider: there is none, as for a call.
    """
    decision = await services.decisions.explain(call)
    if isinstance(decision, NoneUsable):
        raise say_none_usable(decision, services.clock())
    return show_chosen(decision, services.lane.catalog)


def show_chosen(
    decision: Chosen, catalog: Catalog, call_id: str | None = None, hold: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Show what was chosen. `hold`: as `show_hold` gives it; `None`: nothing is held."""
    attachment = decision.candidate.attachment
    place = (attachment.model, attachment.provider, attachment.upstream_model)
    told = {"rungs": [show_rung(rung) for rung in decision.rungs], **show_way(decision)}
    return show_decision(call_id, place, catalog, hold, told)


def show_rule(rule: Rule) -> dict[str, Any]:
    """Show the rule that a call follows."""
    return {"condition": rule.condition.text, "reason": rule.reason}


def show_decision(
    call_id: str | None,
    place: tuple[str, str, str],
    catalog: Catalog,
    hold: Mapping[str, Any] | None,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Show a decision. *told*: its rungs, and who led there. What the catalog says of a provider is null once that is gone."""
    model, provider_name, upstream_model = place
    provider = catalog.providers.get(provider_name)
    return {
        "call_id": call_id,
        "outcome": "chosen",
        "model": model,
        "provider": provider_name,
        "family": provider.family if provider else None,
        "upstream_model": upstream_model,
        "base_url": provider.base_url if provider else None,
        "credential_ref": provider.credential_ref if provider else None,
        **_show_command(provider, upstream_model),
        "router": told.get("router"),
        "rule": told.get("rule"),
        "reason": told.get("reason"),
        "confidence": told.get("confidence"),
        "hold": hold,
        "rungs": told["rungs"],
    }


def _show_command(provider: Provider | None, upstream_model: str) -> dict[str, Any]:
    """
    Show what to run, ready but for the names of the caller's own files; null where an address is asked, or nothing can be run.

    Its variables are not shown: they are the host's, and may hold what is secret.
    """
    command = provider.command if provider else None
    if command is None:
        return {"command": None, "prompt_on_stdin": None}
    try:
        return {"command": command.ready(upstream_model), "prompt_on_stdin": command.prompt_on_stdin}
    except ValueError:  # no program is given such a name
        return {"command": None, "prompt_on_stdin": None}


def show_hold(hold_id: str, expires_at: str, estimate_nusd: int | None) -> dict[str, Any]:
    """Show a hold. `expires_at`: as the API writes instants."""
    return {"id": hold_id, "expires_at": expires_at, "estimate_nusd": estimate_nusd}

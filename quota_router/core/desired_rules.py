"""
The routing rules and workflows a file asks for.

Law: a rule that could never do what it says is refused when it is read, by its number: an unknown model, provider or name in its
condition, a provider that does not serve its model.
Never: asks a rule; that is `core/rules`.
"""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from quota_router.core.catalog import Model, Provider, RoutingRule, Stage, Strategy, Workflow
from quota_router.core.conditions import ConditionError, compile_condition
from quota_router.core.desired_models import find_model_name
from quota_router.core.naming import check_name, fail, read_word
from quota_router.core.rules import RULES_MAX
from quota_router.core.shares import read_share
from quota_router.core.words import OnUnusable
from quota_router.errors import KeyPath, did_you_mean

RANKS_PER_RULE = 1_000
"""Between two rules of the file: room for more rules of the API than there may be."""
STAGES_MAX = 100

_SHOWN_CHARS = 60
"""Of a condition, in the name of its rule."""


def build_rules(
    routing: Mapping[str, Any], providers: Mapping[str, Provider], models: Mapping[str, Model], limits: Collection[str]
) -> tuple[RoutingRule, ...]:
    """
    Build `[[routing.rules]]`, in the order of the file.

    Raises:
        ConfigError: what is wrong, with its key path; of a condition also the column.
    """
    written = routing.get("rules", ())
    if len(written) > RULES_MAX:
        fail(("routing", "rules"), f"there are {len(written)} rules, and at most {RULES_MAX} are asked for each call: join some.")
    return tuple(
        build_rule(f"file-{place}", table, providers, models, limits, path=("routing", "rules", place - 1), title=f"rule {place}")
        for place, table in enumerate(written, start=1)
    )


def build_rule(
    name: str,
    table: Mapping[str, Any],
    providers: Mapping[str, Provider],
    models: Mapping[str, Model],
    limits: Collection[str],
    *,
    path: KeyPath,
    title: str,
    rank: int | None = None,
) -> RoutingRule:
    """
    Build one rule.

    Args:
        name: of its row.
        table: `[[routing.rules]]`, its shape already checked.
        providers: what it may name, as `models` and `limits`.
        models: likewise; a model may be named by an alias.
        limits: likewise.
        path: of its table.
        title: what it is called in errors.
        rank: `None`: as the number at the end of *name* says.

    Raises:
        ConfigError: what is wrong, with its key path; of a condition also the column.
    """
    condition = table["condition"]
    called = f"{title} ({_shorten(condition)})"
    try:
        compile_condition(condition, providers=providers, limits=limits)
    except ConditionError as exc:
        fail((*path, "condition"), f"{title}, {exc}")
    model, provider = table.get("model"), table.get("provider")
    found = None if model is None else find_model_name(model, models)
    if model is not None and found is None:
        aliases = [alias for known in models.values() for alias in known.aliases]
        fail((*path, "model"), f"{called} names model {model!r}, which is not known: {did_you_mean(model, (*models, *aliases))}")
    if provider is not None and provider not in providers:
        fail((*path, "provider"), f"{called} names provider {provider!r}, which is not known: {did_you_mean(provider, providers)}")
    if found is not None and provider is not None:
        serve = [rung.provider for rung in models[found].attachments]
        if provider not in serve:
            says = f"{called}: provider {provider!r} does not serve model {model!r}"
            fail((*path, "provider"), f"{says}: {did_you_mean(provider, serve)}")
    strategy = table.get("strategy")
    if model is None and provider is None and strategy is None:
        fail(path, f"{called} changes nothing when it matches: add model, provider or strategy.")
    on_unusable = table.get("on_unusable", OnUnusable.FALL_THROUGH.value)
    return RoutingRule(
        name=name,
        condition=condition,
        model=model,
        provider=provider,
        strategy=None if strategy is None else read_word("strategy", strategy, Strategy, (*path, "strategy")),
        share=_share(table, path),
        on_unusable=read_word("on_unusable", on_unusable, OnUnusable, (*path, "on_unusable")),
        reason=table.get("reason"),
        rank=int(name.rpartition("-")[2]) * RANKS_PER_RULE if rank is None else rank,
    )


def build_workflows(written: Mapping[str, Any], models: Mapping[str, Model]) -> dict[str, Workflow]:
    """
    Build `[workflows.NAME]`.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    return {name: build_workflow(name, table["stages"], models) for name, table in written.items()}


def build_workflow(name: str, stages: Sequence[Mapping[str, Any]], models: Mapping[str, Model]) -> Workflow:
    """
    Build one workflow.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    path: KeyPath = ("workflows", name)
    check_name("workflow", name, path)
    if not 0 < len(stages) <= STAGES_MAX:
        fail((*path, "stages"), f"workflow {name!r} has {len(stages)} stages: give it 1 to {STAGES_MAX}, each with name and model.")
    built: list[Stage] = []
    for place, table in enumerate(stages):
        at: KeyPath = (*path, "stages", place)
        check_name("stage", table["name"], (*at, "name"))
        if any(stage.name == table["name"] for stage in built):
            fail((*at, "name"), f"workflow {name!r} has a stage {table['name']!r} already: name this one differently.")
        if find_model_name(table["model"], models) is None:
            says = f"stage {table['name']!r} of workflow {name!r} names model {table['model']!r}, which is not known"
            fail((*at, "model"), f"{says}: {did_you_mean(table['model'], models)}")
        built.append(Stage(name=table["name"], model=table["model"]))
    return Workflow(name=name, stages=tuple(built))


def _share(table: Mapping[str, Any], path: KeyPath) -> Fraction | None:
    if "share" not in table:
        return None
    try:
        return read_share(table["share"])
    except ValueError as exc:
        fail((*path, "share"), str(exc))


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"

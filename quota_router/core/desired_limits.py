"""
The limits a file asks for: budgets of ours, and quotas that we count for a provider.

Law: a limit names a subject that exists and a window that can be read, and no two limits share a name.
Never: converts money through floats.
"""

from collections.abc import Collection, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from quota_router.core.catalog import Model, Provider
from quota_router.core.limits import EVERYONE, Enforcement, Kind, Limit, Unit, parse_window
from quota_router.core.naming import check_known, check_name, fail, read_word
from quota_router.core.pricing import parse_usd_nusd
from quota_router.errors import KeyPath

_LARGEST = 2**63 - 1
"""What a column holds: nine billion USD, or more tokens than there are."""
_LONGEST_WHOLE = 18
"""Digits of a whole number in quotes."""


def build_limits(
    desired: Mapping[str, Any],
    providers: Mapping[str, Provider],
    models: Mapping[str, Model],
    callers: Collection[str],
) -> tuple[Limit, ...]:
    """
    Build `[[budgets]]` and the quotas of each provider, in the order of the file.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    limits: dict[str, Limit] = {}
    known = known_subjects(providers, models, callers)
    for index, table in enumerate(desired.get("budgets", ())):
        path: KeyPath = ("budgets", index)
        _add(limits, build_budget(table["name"], table, known, path), (*path, "name"))
    for provider, owner in desired.get("providers", {}).items():
        account = providers[provider].account
        for index, table in enumerate(owner.get("quotas", ())):
            path = ("providers", provider, "quotas", index)
            _add(limits, build_quota(account, table, path), path)
    return tuple(limits.values())


def build_budget(name: str, table: Mapping[str, Any], known: Mapping[str, Collection[str]], path: KeyPath) -> Limit:
    """
    Build one budget.

    Args:
        name: of the budget.
        table: `[[budgets]]`, its shape already checked.
        known: of `known_subjects`.
        path: of the table.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    check_name("budget", name, (*path, "name"))
    _check_subject(table["subject"], known, (*path, "subject"))
    return _limit(table, path, name=name, kind=Kind.BUDGET, subject=table["subject"])


def build_quota(account: str, table: Mapping[str, Any], path: KeyPath) -> Limit:
    """
    Build one quota of an account; it is named by account, unit and window.

    Raises:
        ConfigError: what is wrong, with its key path.
    """
    return _limit(table, path, name="", kind=Kind.QUOTA, subject=f"account:{account}")


def _add(limits: dict[str, Limit], limit: Limit, path: KeyPath) -> None:
    if limit.name in limits:
        fail(
            path, f"there is a limit {limit.name!r} already: {'name it differently' if limit.kind is Kind.BUDGET else 'keep one'}."
        )
    limits[limit.name] = limit


def _limit(table: Mapping[str, Any], path: KeyPath, *, name: str, kind: Kind, subject: str) -> Limit:
    unit = read_word("unit", table["unit"], Unit, (*path, "unit"))
    window = _window(table, unit, path)
    anchor = _anchor(table.get("anchor"))
    timezone = table.get("timezone", "UTC")
    try:
        parse_window(window, anchor, timezone)
    except ValueError as exc:
        # Its sentence begins with the key that is wrong.
        fail((*path, str(exc).partition(" ")[0]), str(exc))
    enforcement = table.get("enforcement", Enforcement.BOUNDED.value)
    return Limit(
        name=name or f"{subject.partition(':')[2]}/{unit}/{window}",
        kind=kind,
        subject=subject,
        unit=unit,
        limit=_amount(unit, table["limit"], (*path, "limit")),
        window=window,
        anchor=anchor,
        timezone=timezone,
        enforcement=read_word("enforcement", enforcement, Enforcement, (*path, "enforcement")),
    )


def _window(table: Mapping[str, Any], unit: Unit, path: KeyPath) -> str:
    if "window" not in table and unit is not Unit.CONCURRENCY:
        fail(path, f"window is missing for a limit in {unit}: add one such as 'month' or '5h'.")
    # What is open now has no window.
    return str(table.get("window", "forever"))


def _anchor(written: str | int | date | None) -> str | None:
    """TOML has a type of its own for an instant, and a day of the month is naturally a number."""
    return written.isoformat() if isinstance(written, date) else None if written is None else str(written)


def _amount(unit: Unit, written: Decimal | int | str, path: KeyPath) -> int:
    try:
        amount = parse_usd_nusd(written) if unit is Unit.USD else _whole(unit, written)
    except ValueError as exc:
        fail(path, str(exc))
    if not 0 <= amount <= _LARGEST:
        fail(path, "a limit is not negative and has at most 18 digits: check it.")
    return amount


def _whole(unit: Unit, written: Decimal | int | str) -> int:
    is_whole = isinstance(written, int) or (isinstance(written, str) and written.isdecimal() and len(written) <= _LONGEST_WHOLE)
    if not is_whole:
        raise ValueError(f"a limit in {unit} is a whole number, not {written}.")
    return int(written)


def _check_subject(subject: str, known: Mapping[str, Collection[str]], path: KeyPath) -> None:
    if subject == EVERYONE:
        return
    kind, _, name = subject.partition(":")
    if kind not in (*known, "label"):
        words = (EVERYONE, *(f"{word}:NAME" for word in (*known, "label")))
        fail(path, f"subject {subject!r} is not known: write one of {', '.join(words)}, where an attachment is MODEL/PROVIDER.")
    if not name:
        fail(path, f"subject {subject!r} names nothing: write {kind}:NAME.")
    if kind != "label":
        check_known(kind, name, known[kind], path)


def known_subjects(
    providers: Mapping[str, Provider],
    models: Mapping[str, Model],
    callers: Collection[str],
) -> dict[str, Collection[str]]:
    """What a limit may be set on, by the word before the colon; labels are free."""
    return {
        "provider": providers,
        "account": {provider.account for provider in providers.values()},
        "model": models,
        "caller": callers,
        # A model's name may have slashes, a provider's may not: the last slash parts them.
        "attachment": {f"{rung.model}/{rung.provider}" for model in models.values() for rung in model.attachments},
    }

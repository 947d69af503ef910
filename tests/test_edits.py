"""Edits as they are: a snapshot in, another one out. What HTTP makes of them is in test_editing."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_router.core.catalog import ManagedBy
from quota_router.core.desired import build_catalog
from quota_router.core.edits import models, providers, rules
from quota_router.core.exported import export_catalog
from quota_router.errors import Conflict, InvalidRequest, RequestError
from quota_router.store.catalog_rows import in_stored_order

RULE = {"condition": "priority == 0", "strategy": "cheapest"}
OF_FILE = {"routing": {"rules": [RULE, RULE, RULE]}}


def order(catalog):
    return [rule.name for rule in sorted(catalog.rules, key=lambda rule: (rule.rank, rule.name))]


MOVES = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(MOVES, st.integers(0, 3))
def test_rules_stand_in_the_order_they_were_put_in_whatever_the_moves(moves, of_file):
    """The ranks that are stored give the list that was asked for; those of the file never move."""
    catalog = build_catalog({"routing": {"rules": [RULE] * of_file}})
    expected, kept = order(catalog), {rule.name: rule.rank for rule in catalog.rules}
    for number, (adds, which, where) in enumerate(moves):
        mine = [name for name in expected if not name.startswith("file-")]
        if adds or not mine:
            position = where % (len(expected) + 1) + 1
            catalog = rules.create_rule(catalog, f"r{number}", RULE, position)
            expected.insert(position - 1, f"r{number}")
        else:
            name = mine[which % len(mine)]
            expected.remove(name)
            position = where % (len(expected) + 1) + 1
            catalog = rules.change_rule(catalog, name, {}, None, position)
            expected.insert(position - 1, name)
        assert order(catalog) == expected == [rule.name for rule in catalog.rules]
        assert {rule.name: rule.rank for rule in catalog.rules if rule.managed_by is ManagedBy.FILE} == kept
        assert len({rule.rank for rule in catalog.rules}) == len(catalog.rules)


def test_there_is_room_for_as_many_rules_as_are_asked_anywhere():
    catalog = build_catalog(OF_FILE)
    for number in range(197):
        catalog = rules.create_rule(catalog, f"r{number:03}", RULE, 2)
    assert order(catalog) == ["file-1", *(f"r{number:03}" for number in reversed(range(197))), "file-2", "file-3"]
    with pytest.raises(Conflict, match="200 rules already"):
        rules.create_rule(catalog, "one-more", RULE)
    with pytest.raises(InvalidRequest, match="from 1 to"):
        rules.change_rule(catalog, "r000", {}, None, 0)


HOST = providers.Host()
TABLE = {"base_url": "https://u.example", "credential": "none"}
NAMES = ("a", "b", "c")
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(NAMES), st.sampled_from(["openai", "anthropic"])),
        st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
        st.tuples(st.just("family"), st.sampled_from(NAMES), st.sampled_from(["openai", "anthropic"])),
        st.tuples(st.just("model"), st.sampled_from("mn"), st.lists(st.sampled_from(NAMES), max_size=3)),
        st.tuples(st.just("ladder"), st.sampled_from("mn"), st.lists(st.sampled_from(NAMES), max_size=3)),
        st.tuples(st.just("tiers"), st.sampled_from("mn"), st.lists(st.sampled_from(NAMES), min_size=2, max_size=3)),
        st.tuples(st.just("unmodel"), st.sampled_from("mn"), st.none()),
    ),
    max_size=25,
)


DONE_BY = {
    "add": lambda of, name, family: providers.create_provider(of, name, {**TABLE, "family": family}, HOST),
    "delete": lambda of, name, _: providers.delete_provider(of, name, None).catalog,
    "family": lambda of, name, family: providers.change_provider(of, name, {"family": family}, None, HOST),
    "model": lambda of, name, ladder: models.create_model(of, name, {"attachments": ladder}),
    "ladder": lambda of, name, ladder: models.change_model(of, name, {"attachments": ladder}, None),
    "tiers": lambda of, name, ladder: models.change_model(of, name, {"attachments": [ladder[:-1], ladder[-1]]}, None),
    "unmodel": lambda of, name, _: models.delete_model(of, name, None).catalog,
}


@settings(max_examples=300, deadline=None)
@given(EDITS)
def test_row_2_5_whatever_the_edits_every_ladder_is_whole(edits):
    """
    A rung has a provider that is there and speaks the model's dialect, once; tiers are numbered without a gap, and no two rungs
    have one place; a model is enabled exactly when it has a rung. And a file can ask for it.
    """
    catalog = build_catalog({})
    for kind, name, value in edits:
        with suppress(RequestError):
            catalog = DONE_BY[kind](catalog, name, value)
        for model in catalog.models.values():
            assert in_stored_order(model) == model
            assert model.enabled is bool(model.attachments)
            places = [(rung.priority, rung.position) for rung in model.attachments]
            assert len(set(places)) == len(places)
            assert len({rung.provider for rung in model.attachments}) == len(places)
            assert {catalog.providers[rung.provider].family for rung in model.attachments} <= {model.family}
            tiers = sorted({priority for priority, _ in places})
            assert tiers == list(range(len(tiers)))
        assert export_catalog(catalog)[1] == []

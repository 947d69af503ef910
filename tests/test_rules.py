"""Rules: which match, in which order, for which share of tasks, and what is told of the others."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quota_router.core.catalog import Strategy
from quota_router.core.conditions import Facts, compile_condition
from quota_router.core.rules import RULES_MAX, OnUnusable, Rule, RuleBook, Standing

CALL = "0192f0c1-2b3c-7def-8123-456789abcdef"
TASKS = [f"T-{number}" for number in range(2_000)]
TENTH = Fraction(1, 10)


def condition(text: str):
    return compile_condition(text, providers=("claude-cli", "openai"), limits=("month",))


def rule(text: str = "true", **changes) -> Rule:
    return Rule(**{"condition": condition(text), "model": "m", **changes})


def matched(book: RuleBook, facts: Facts, call_id: str = CALL) -> list[Rule]:
    return list(book.matches(facts, call_id=call_id))


def takers(taken: Rule) -> set[str]:
    """The tasks that *taken* takes."""
    book = RuleBook((taken,))
    return {task for task in TASKS if matched(book, Facts(task_id=task))}


some_rules = st.lists(
    st.builds(
        rule,
        st.sampled_from(["true", "priority == 0", "stream", "not stream", "task.id ends_with '0'"]),
        model=st.sampled_from(["m", "n"]),
        share=st.none() | st.fractions(0, 1),
        on_unusable=st.sampled_from(OnUnusable),
    ),
    max_size=6,
).map(lambda rules: RuleBook(tuple(rules)))
some_facts = st.builds(
    Facts,
    priority=st.integers(0, 1) | st.none(),
    stream=st.booleans() | st.none(),
    task_id=st.none() | st.sampled_from(TASKS) | st.text(),
)


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_is_tried_first_and_the_next_ones_after_it():
    never, first, second = rule("priority == 1"), rule("priority == 0"), rule("stream")
    book = RuleBook((never, first, second))

    assert matched(book, Facts(priority=0, stream=True)) == [first, second]
    assert matched(book, Facts(stream=True)) == [second]
    assert matched(book, Facts()) == []


def test_no_rule_is_tried_behind_one_that_refuses():
    first, last, never = rule("priority == 0"), rule("stream", on_unusable=OnUnusable.REFUSE), rule("true")
    book = RuleBook((first, last, never))

    assert matched(book, Facts(priority=0, stream=True)) == [first, last]
    assert matched(book, Facts(priority=0)) == [first, never]


def test_a_rule_is_asked_only_when_it_is_reached():
    """Facts of a call that the first rule serves are looked at once."""

    class Asked(dict):
        def get(self, key):
            raise AssertionError(key)

    book = RuleBook((rule("true"), rule("provider_status['openai'] == 'down'")))

    assert next(book.matches(Facts(provider_status=Asked()), call_id=CALL)) is book.rules[0]


@given(some_rules, some_facts, st.text())
def test_a_trace_tells_what_matches_does(book, facts, call_id):
    """It has every rule in its place, exactly one comes first if any matches, and each says why."""
    trace = book.trace(facts, call_id=call_id)

    tried = [entry for entry in trace if entry.is_match]
    assert [entry.rule for entry in trace] == list(book.rules)
    assert [entry.position for entry in trace] == list(range(1, len(book.rules) + 1))
    assert [entry.rule for entry in tried] == matched(book, facts, call_id)
    assert [entry.standing for entry in tried] == [Standing.FIRST, *[Standing.LATER] * (len(tried) - 1)][: len(tried)]
    assert all(entry.because for entry in trace)


def test_a_trace_says_in_words_what_decided():
    book = RuleBook(
        (
            rule("hour >= 22 or hour <= 6"),
            rule("priority == 0", share=Fraction(0)),
            rule("priority == 0", share=Fraction(1)),
            rule("labels contains 'x'", on_unusable=OnUnusable.REFUSE),
            rule("true"),
            rule("provider_status['openai'] == 'down'"),
        )
    )

    trace = book.trace(Facts(hour=12, priority=0, labels=("x",), task_id="T-1"), call_id=CALL)

    assert [entry.standing for entry in trace] == [
        Standing.NO_MATCH,
        Standing.OUTSIDE_SHARE,
        Standing.FIRST,
        Standing.LATER,
        Standing.UNREACHED,
        Standing.NO_MATCH,
    ]
    assert trace[0].because == ("`hour >= 22` does not hold: hour is 12", "`hour <= 6` does not hold: hour is 12")
    assert trace[1].because[0] == "`priority == 0` holds: priority is 0"
    assert trace[1].because[1].startswith("the task drew about 0.")
    assert trace[1].because[1].endswith("and the share takes what is below 0")
    assert trace[5].because == ("`provider_status['openai'] == 'down'` does not hold: provider_status['openai'] is not known",)


def test_a_book_without_rules_matches_nothing():
    assert matched(RuleBook(), Facts()) == []
    assert RuleBook().trace(Facts(), call_id=CALL) == ()
    assert RuleBook().fields == {}


def test_a_book_tells_which_facts_its_rules_ask_for():
    """Statuses and headroom are computed for those alone."""
    book = RuleBook((rule("headroom['openai'] < 0.1"), rule("headroom['claude-cli'] < 0.1 and stream"), rule()))

    assert book.fields == {"headroom": {"openai", "claude-cli"}, "stream": frozenset()}


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "least", "most"), [("0", 0, 0), ("0.1", 150, 250), ("0.5", 900, 1_100), ("1", 2_000, 2_000)])
def test_a_share_takes_its_part_of_the_tasks(share, least, most):
    assert least <= len(takers(rule(share=Fraction(share)))) <= most


def test_a_task_in_a_share_stays_in_it_when_the_share_grows():
    growing = [takers(rule(share=Fraction(percent, 100))) for percent in range(0, 101, 10)]

    assert all(smaller < larger for smaller, larger in pairwise(growing))


def test_a_task_keeps_its_side_whatever_the_call_the_place_and_the_other_facts():
    experiment = rule(share=TENTH)
    moved = RuleBook((rule("false"), replace(experiment, reason="moved down", on_unusable=OnUnusable.REFUSE)))

    kept = {task for task in TASKS if matched(moved, Facts(task_id=task, retry_count=2), call_id="another")}

    assert kept == takers(experiment)


def test_the_same_tasks_are_in_a_share_in_every_release():
    """An upgrade must not move the tasks of a running experiment."""
    experiment = rule("stream or not stream", model="claude-opus-4", share=Fraction(1, 4))

    assert [task for task in TASKS[:20] if task in takers(experiment)] == ["T-0", "T-1", "T-7", "T-9", "T-11", "T-14"]


@pytest.mark.parametrize("other", [{"model": "n"}, {"provider": "openai"}, {"strategy": Strategy.PRIORITY}, {"text": "not false"}])
def test_two_shares_of_the_same_traffic_are_drawn_apart(other):
    """Else a second experiment of a tenth would find only tasks that the first one took already."""
    half = Fraction(1, 2)

    both = takers(rule(share=half)) & takers(rule(**{"share": half, **other}))

    assert 400 < len(both) < 600


def test_a_call_without_a_task_is_drawn_by_its_id():
    book = RuleBook((rule(share=Fraction(1, 2)),))
    calls = [f"call-{number}" for number in range(1_000)]

    taken = [call_id for call_id in calls if matched(book, Facts(), call_id)]

    assert 400 < len(taken) < 600
    assert taken == [call_id for call_id in calls if matched(book, Facts(task_id=""), call_id)]
    assert taken != [call_id for call_id in calls if matched(book, Facts(task_id=call_id), CALL)]


# --- what a rule says -------------------------------------------------------------------------------------------------


def test_a_rule_without_a_model_applies_to_the_one_asked_for():
    assert rule(model=None, provider="openai").model_for("claude-x") == "claude-x"
    assert rule(model=None, strategy=Strategy.PRIORITY).model_for(None) is None
    assert rule(model="m").model_for("claude-x") == "m"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"model": None}, "add model, provider or strategy"),
        ({"share": Fraction(10)}, "share 10 is no part of 1: write 0.1 for 10 %"),
        ({"share": Fraction(-1, 10)}, "share -0.1"),
        ({"share": Fraction(1) + Fraction(1, 10**40)}, "share about 1 "),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_the_remedy(changes, remedy):
    with pytest.raises(ValueError, match=remedy):
        rule(**changes)


def test_a_book_has_a_bound():
    most = (rule(),) * RULES_MAX

    assert len(matched(RuleBook(most), Facts())) == RULES_MAX
    with pytest.raises(ValueError, match="201 rules, and at most 200"):
        RuleBook((*most, rule()))

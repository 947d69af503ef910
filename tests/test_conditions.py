"""The language of rules: what it means, what it refuses, and that nothing else can happen."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields as fields_of

from quota_router.core.conditions import (
    CHARACTERS_MAX,
    DEPTH_MAX,
    FIELDS,
    NODES_MAX,
    WEEKDAYS,
    Condition,
    ConditionError,
    Facts,
    ProviderStatus,
    compile_condition,
)

PROVIDERS = ("claude-cli", "claude-work", "openai")
LIMITS = ("month", "team/a")
LINE_MAX = 500

SAMPLES = (
    "priority == 0",
    "labels contains 'documentation'",
    "hour >= 22 or hour <= 6",
    "provider_status['claude-cli'] == 'down'",
    "task.id ends_with '0'",
)

# Few values, so that the two sides of a comparison often meet.
shares = st.sampled_from([Fraction(part, 10) for part in range(4)]) | st.fractions(0, 2) | st.none()
words = st.sampled_from(["", "a", "b", "10", "claude-x", "documentation", "it's", 'say "x"', "\\", "\ud800"]) | st.text(max_size=5)
numbers = st.integers(-1, 3) | st.integers()
every_facts = st.builds(
    Facts,
    priority=numbers | st.none(),
    labels=st.lists(words, max_size=3).map(tuple),
    retry_count=numbers | st.none(),
    hour=st.integers(0, 23) | st.none(),
    weekday=st.sampled_from(WEEKDAYS) | st.none(),
    task_id=words | st.none(),
    provider_status=st.dictionaries(st.sampled_from(PROVIDERS), st.sampled_from(ProviderStatus)),
    model=words | st.none(),
    caller=words | st.none(),
    stream=st.booleans() | st.none(),
    input_tokens=numbers | st.none(),
    requires=st.lists(words, max_size=3).map(tuple),
    headroom=st.dictionaries(st.sampled_from(PROVIDERS), shares),
    budget_used=st.dictionaries(st.sampled_from(LIMITS), shares),
    workflow=words | st.none(),
    stage=words | st.none(),
)


def compiled(text: str) -> Condition:
    return compile_condition(text, providers=PROVIDERS, limits=LIMITS)


def holds(text: str, **known: object) -> bool:
    return compiled(text).holds(Facts(**known))


def refusal(text: str) -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        compiled(text)
    return caught.value


def attempt(text: str) -> Condition | ConditionError:
    try:
        return compiled(text)
    except ConditionError as error:
        return error


def quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- conditions that compile, beside what they mean -------------------------------------------------------------------
#
# Each is a list of tokens with a function of facts, written without any of the code under test.

COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "contains": lambda a, b: b in a,
    "starts_with": lambda a, b: a[: len(b)] == b,
    "ends_with": lambda a, b: b == "" or a[-len(b) :] == b,
}
printable = words.filter(str.isprintable)


def known(look, compare):
    """A comparison is false when nothing is known."""
    return lambda facts: look(facts) is not None and compare(look(facts))


@st.composite
def number_comparisons(draw):
    name, look = draw(
        st.sampled_from(
            [
                (["priority"], lambda facts: facts.priority),
                (["headroom", "[", "'openai'", "]"], lambda facts: facts.headroom.get("openai")),
                (["budget_used", "[", '"team/a"', "]"], lambda facts: facts.budget_used.get("team/a")),
            ]
        )
    )
    number = draw(st.integers(0, 3))
    sign = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    if name == ["priority"]:
        literal, value = str(number), number
    else:
        literal, value = f"0.{number}0", Fraction(number, 10)
    return [*name, sign, literal], known(look, lambda fact: COMPARE[sign](fact, value))


@st.composite
def text_comparisons(draw):
    name, look = draw(
        st.sampled_from(
            [(["model"], lambda facts: facts.model), (["task", ".", "id"], lambda facts: facts.task_id)],
        )
    )
    sign = draw(st.sampled_from(["==", "!=", "contains", "starts_with", "ends_with"]))
    word = draw(printable)
    return [*name, sign, quoted(word)], known(look, lambda fact: COMPARE[sign](fact, word))


@st.composite
def memberships(draw):
    elements = draw(st.lists(printable, min_size=1, max_size=2))
    listed = ["[", *[token for element in elements for token in (quoted(element), ",")], "]"]
    return draw(
        st.sampled_from(
            [
                (["caller", "in", *listed], known(lambda facts: facts.caller, lambda fact: fact in elements)),
                (["caller", "not", "in", *listed], known(lambda facts: facts.caller, lambda fact: fact not in elements)),
                (["labels", "contains", quoted(elements[0])], lambda facts: elements[0] in facts.labels),
                ([quoted(elements[0]), "in", "requires"], lambda facts: elements[0] in facts.requires),
                ([quoted(elements[0]), "not", "in", "labels"], lambda facts: elements[0] not in facts.labels),
            ]
        )
    )


simple = st.one_of(
    number_comparisons(),
    text_comparisons(),
    memberships(),
    st.sampled_from(
        [
            (["stream"], lambda facts: facts.stream is True),
            (["true"], lambda _: True),
            (["false"], lambda _: False),
            (
                ["provider_status", "[", "'claude-cli'", "]", "==", "'down'"],
                lambda facts: facts.provider_status.get("claude-cli") == "down",
            ),
        ]
    ),
)

OR, AND, NOT, ALONE = range(4)
"""How tightly something binds; a part in a tighter place needs parentheses."""


def fit(part, place):
    (tokens, binds), _ = part
    return tokens if binds >= place else ["(", *tokens, ")"]


def joined(word, place, every):
    def join(parts):
        tokens = [token for part in parts for token in (word, *fit(part, place + 1))][1:]
        tests = [test for _, test in parts]
        return (tokens, place), lambda facts: every(test(facts) for test in tests)

    return join


def negated(part):
    _, test = part
    return (["not", *fit(part, NOT)], NOT), lambda facts: not test(facts)


meant = st.recursive(
    simple.map(lambda found: ((found[0], ALONE), found[1])),
    lambda part: st.one_of(
        st.lists(part, min_size=2, max_size=3).map(joined("or", OR, any)),
        st.lists(part, min_size=2, max_size=3).map(joined("and", AND, all)),
        part.map(negated),
    ),
    max_leaves=6,
)
"""((tokens, how they bind), what they mean), with as few parentheses as the precedence allows."""
spaces = st.sampled_from([" ", "  ", "\t", "\n", " \r\n "])


def written(part) -> str:
    return " ".join(part[0][0])


@given(meant, every_facts)
def test_a_condition_means_what_its_words_say(part, facts):
    """Against a second reading of the language: precedence, every operator, and what is not known."""
    assert compiled(written(part)).holds(facts) is bool(part[1](facts))


@given(meant, every_facts, st.data())
def test_spaces_change_nothing(part, facts, data):
    """Any space, or none beside a sign, gives the same condition."""
    text = ""
    for token in part[0][0]:
        is_between_words = bool(text) and (text[-1].isalnum() or text[-1] == "_") and (token[0].isalnum() or token[0] == "_")
        text += data.draw(spaces if is_between_words else spaces | st.just("")) + token
    if len(text) <= CHARACTERS_MAX:
        assert compiled(text).holds(facts) is compiled(written(part)).holds(facts)


@given(meant, meant, every_facts)
def test_the_laws_of_de_morgan_hold(one, other, facts):
    """`not` is always the opposite, known or not, so they hold without exception."""
    a, b = f"({written(one)})", f"({written(other)})"

    assert compiled(f"not ({a} and {b})").holds(facts) is compiled(f"not {a} or not {b}").holds(facts)
    assert compiled(f"not ({a} or {b})").holds(facts) is compiled(f"not {a} and not {b}").holds(facts)
    assert compiled(f"not not {a}").holds(facts) is compiled(a).holds(facts)


@given(meant, every_facts)
def test_an_explanation_agrees_and_is_short(part, facts):
    condition = compiled(written(part))

    told = condition.explain(facts)

    assert told.holds is condition.holds(facts)
    assert told.because
    assert all(line.isprintable() and len(line) <= LINE_MAX for line in told.because)


@given(meant, every_facts)
def test_a_condition_looks_only_at_the_fields_that_it_names(part, facts):
    """Whoever computes no more than `fields` asks for gets the same answer."""
    condition = compiled(written(part))
    asked = {field.attribute: getattr(facts, field.attribute) for field in FIELDS if field.name in condition.fields}
    for field in FIELDS:
        if field.keys and field.name in condition.fields:
            asked[field.attribute] = {
                key: value for key, value in asked[field.attribute].items() if key in condition.fields[field.name]
            }

    assert condition.holds(Facts(**asked)) is condition.holds(facts)


# --- any text ---------------------------------------------------------------------------------------------------------

PIECES = (
    *("priority", "labels", "task", ".id", "stream", "hour", "weekday", "provider_status", "headroom", "budget_used", "model"),
    *("['openai']", "['month']", "['x']", "[", "]", "(", ")", ",", ".", "==", "!=", "<", ">=", "=", "&&", "!", "-", "%", "\\"),
    *(
        "and",
        "or",
        "not",
        "in",
        "contains",
        "ends_with",
        "is",
        "null",
        "true",
        "0",
        "22",
        "0.5",
        "1e9",
        "'a'",
        "'monday'",
        "'",
        '"',
    ),
    *("\u2018", "\u00a0", "\u200b", "\ud800", "\0", "\n", "\u0663", "\u00e9", "__class__", "{", "}", "9" * 400),
)
soups = st.lists(st.sampled_from(PIECES), max_size=40).flatmap(lambda pieces: st.sampled_from([" ".join(pieces), "".join(pieces)]))


@st.composite
def broken_samples(draw):
    """A sample in which one place is replaced."""
    text = draw(st.sampled_from(SAMPLES))
    start = draw(st.integers(0, len(text)))
    return text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[draw(st.integers(start, len(text))) :]


@given(st.text() | soups | broken_samples(), every_facts)
def test_any_text_compiles_or_is_refused_at_a_column_inside_it(text, facts):
    """One kind of error, one sentence on one line; and what compiles gives a bool for every call."""
    outcome = attempt(text)

    if isinstance(outcome, Condition):
        assert isinstance(outcome.holds(facts), bool)
        assert isinstance(outcome.holds(Facts()), bool)
    else:
        assert 1 <= outcome.column <= len(text) + 1
        assert str(outcome) == f"column {outcome.column}: {outcome.message}"
        assert outcome.message.isprintable()
        assert outcome.message[-1] in ".?"
        assert len(outcome.message) <= LINE_MAX


@given(st.text(min_size=CHARACTERS_MAX + 1, max_size=CHARACTERS_MAX + 5))
def test_a_text_too_long_is_not_even_read(text):
    error = refusal(text)

    assert error.column == CHARACTERS_MAX + 1
    assert "at most 1000 characters" in error.message


def test_the_longest_text_the_most_nodes_and_the_deepest_nesting_compile_and_one_more_does_not():
    most = " or ".join(["priority == 0"] * (NODES_MAX // 4))
    deepest = "(" * DEPTH_MAX + "stream" + ")" * DEPTH_MAX

    assert holds(most, priority=0)
    assert holds(deepest, stream=True)
    assert holds("not " * DEPTH_MAX + "stream", stream=True)
    assert holds(" and ".join(["(stream) and not not stream"] * (DEPTH_MAX // 2)), stream=True)
    assert holds("stream".rjust(CHARACTERS_MAX), stream=True)
    assert refusal(f"{most} or stream or stream").message.startswith("a condition has at most 100 values and operators")
    assert refusal(f"({deepest})").message.startswith("( ) and 'not' go at most 20 deep")
    assert refusal("not " * DEPTH_MAX + "not stream").column == DEPTH_MAX * 4 + 1


def test_a_list_counts_with_its_elements():
    assert holds(f"priority in [{', '.join(['7'] * (NODES_MAX - 3))}]", priority=7)
    assert "values and operators" in refusal(f"priority in [{', '.join(['7'] * (NODES_MAX - 2))}]").message


# --- fields -----------------------------------------------------------------------------------------------------------


def test_every_field_is_an_attribute_of_the_facts_and_no_other_is():
    assert [field.attribute for field in FIELDS] == [field.name for field in fields_of(Facts)]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_example_of_a_field_runs(field):
    """What an error tells people to write can be written."""
    condition = compiled(field.example.replace("NAME", {"provider": "openai", "limit": "month"}.get(field.keys, "")))

    assert list(condition.fields) == [field.name]
    assert condition.holds(Facts()) is False


def test_a_condition_tells_which_fields_and_keys_it_asks_for():
    text = "headroom['openai'] < 0.1 or headroom['claude-work'] < 0.1 and hour == 3 or budget_used['team/a'] >= 1"

    assert compiled(text).fields == {
        "headroom": {"openai", "claude-work"},
        "hour": frozenset(),
        "budget_used": {"team/a"},
    }


def test_two_conditions_of_one_text_are_equal():
    one, other = compiled("stream"), compile_condition("stream", providers=(), limits=())

    assert one == other
    assert hash(one) == hash(other)
    assert one != compiled("not stream")


@pytest.mark.parametrize("name", ["", "it's", 'say "x"', "back\\slash", "a/b", "\u00e9"])
def test_whatever_a_provider_is_called_it_can_be_asked_for(name):
    condition = compile_condition(f"headroom[{quoted(name)}] < 0.5", providers=[name], limits=())

    assert condition.fields == {"headroom": {name}}
    assert condition.holds(Facts(headroom={name: Fraction(1, 4)}))


# --- the samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        (SAMPLES[0], {"priority": 0}, {"priority": 1}),
        (SAMPLES[1], {"labels": ("x", "documentation")}, {"labels": ("docs", "documentation2")}),
        (SAMPLES[2], {"hour": 22}, {"hour": 21}),
        (SAMPLES[2], {"hour": 6}, {"hour": 7}),
        (
            SAMPLES[3],
            {"provider_status": {"claude-cli": ProviderStatus.DOWN}},
            {"provider_status": {"claude-cli": ProviderStatus.OK}},
        ),
        (SAMPLES[4], {"task_id": "T-10"}, {"task_id": "T-01"}),
    ],
)
def test_the_samples_run_as_they_are_written(text, matching, other):
    """Also: a sample over what is not known is false."""
    assert holds(text, **matching)
    assert not holds(text, **other)
    assert not holds(text)


# --- what is not known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *(f"priority {sign} 0" for sign in ("==", "!=", "<", "<=", ">", ">=")),
        "0 != priority",
        "model in ['a']",
        "model not in ['a']",
        "model contains ''",
        "model starts_with ''",
        "model ends_with ''",
        "'' in model",
        "'a' not in model",
        "stream",
        "stream != true",
        "priority == priority",
        "priority != retry_count",
        "headroom['openai'] <= 1",
        "headroom['openai'] > 0.5",
        "budget_used['month'] >= 0",
        "provider_status['openai'] != 'down'",
    ],
)
def test_a_comparison_with_what_is_not_known_is_false_and_its_negation_true(text):
    assert not holds(text)
    assert holds(f"not ({text})")


def test_a_share_that_is_known_to_be_unknown_is_neither_full_nor_empty():
    facts = Facts(headroom={"openai": None})

    assert not compiled("headroom['openai'] < 0.2").holds(facts)
    assert not compiled("headroom['openai'] >= 0.2").holds(facts)


def test_a_field_equals_itself_exactly_when_it_is_known():
    """The remedy that `== null` is refused with."""
    assert holds("task.id == task.id", task_id="")
    assert holds("not (task.id == task.id)")


def test_labels_that_were_not_sent_are_empty_not_unknown():
    assert holds("'x' not in labels")
    assert holds("not labels contains 'x'")


def test_a_provider_that_went_away_makes_a_comparison_false():
    """Names are checked when a rule is saved; a catalog changes later."""
    assert not holds("provider_status['openai'] == 'ok'", provider_status={"claude-work": ProviderStatus.OK})


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "word"),
    [("'it\\'s'", "it's"), ('"it\'s"', "it's"), ("'say \"x\"'", 'say "x"'), ('"\\""', '"'), ("'\\\\'", "\\"), ("'and'", "and")],
)
def test_quotes_are_written_with_the_other_kind_or_a_backslash(literal, word):
    assert holds(f"model == {literal}", model=word)


@pytest.mark.parametrize(
    ("literal", "number"),
    [("0", 0), ("007", 7), ("-3", -3), ("100_000", 100_000), ("2.0", 2), ("9" * 900, 10**900 - 1)],
)
def test_numbers_are_read_exactly(literal, number):
    assert holds(f"priority == {literal}", priority=number)
    assert not holds(f"priority == {literal}", priority=number + 1)


def test_shares_are_compared_exactly():
    """Where binary fractions say that a tenth and two tenths are more than three."""
    text = "headroom['openai'] == 0.3"

    assert holds(text, headroom={"openai": Fraction(1, 10) + Fraction(2, 10)})
    assert not holds(text, headroom={"openai": Fraction(3, 10) + Fraction(1, 10**30)})


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
def test_a_sign_compares_from_left_to_right(sign):
    for number in (-1, 0, 1):
        assert holds(f"priority {sign} 0", priority=number) is COMPARE[sign](number, 0)
        assert holds(f"0 {sign} priority", priority=number) is COMPARE[sign](0, number)
        assert holds(f"priority {sign} retry_count", priority=number, retry_count=0) is COMPARE[sign](number, 0)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("model == 'a'", {"model": "a"}, {"model": "A"}),
        ("model != 'a'", {"model": "b"}, {"model": "a"}),
        ("model contains 'pt'", {"model": "gpt-5"}, {"model": "p-t"}),
        ("model starts_with 'gpt'", {"model": "gpt-5"}, {"model": "my-gpt"}),
        ("model ends_with 'gpt'", {"model": "my-gpt"}, {"model": "gpt-5"}),
        ("labels contains ''", {"labels": ("",)}, {"labels": ("a",)}),
        ("'x' not in labels", {"labels": ("xy",)}, {"labels": ("x",)}),
        ("caller in ['a', 'b']", {"caller": "b"}, {"caller": "c"}),
        ("caller not in ['a', 'b']", {"caller": "c"}, {"caller": "b"}),
        ("weekday in ['saturday', 'sunday']", {"weekday": "sunday"}, {"weekday": "monday"}),
        ("hour >= 22 and hour < 24", {"hour": 23}, {"hour": 0}),
        ("hour in [22, 23, 0,]", {"hour": 0}, {"hour": 1}),
        ("22 <= hour", {"hour": 22}, {"hour": 21}),
        ("'gpt' in model", {"model": "gpt-5"}, {"model": "claude"}),
        ("['a', 'b'] contains caller", {"caller": "b"}, {"caller": "c"}),
        ("caller == stage", {"caller": "x", "stage": "x"}, {"caller": "x", "stage": "y"}),
        ("stream == false", {"stream": False}, {"stream": True}),
        ("(hour > 3) == stream", {"hour": 4, "stream": True}, {"hour": 3, "stream": True}),
        ("((priority)) == (0)", {"priority": 0}, {"priority": 1}),
        ("not stream or priority == 0", {"stream": True, "priority": 0}, {"stream": True}),
        ("not model == 'a' and stream", {"stream": True}, {"stream": True, "model": "a"}),
        ("true", {}, None),
    ],
)
def test_a_condition_holds_for_the_one_and_not_for_the_other(text, matching, other):
    assert holds(text, **matching)
    assert other is None or not holds(text, **other)


# --- explanations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "facts", "because"),
    [
        (SAMPLES[2], {"hour": 12}, ["`hour >= 22` does not hold: hour is 12", "`hour <= 6` does not hold: hour is 12"]),
        (SAMPLES[2], {"hour": 3}, ["`hour <= 6` holds: hour is 3"]),
        (SAMPLES[3], {}, [f"`{SAMPLES[3]}` does not hold: provider_status['claude-cli'] is not known"]),
        ("stream and priority == 0", {"priority": 0}, ["`stream` does not hold: stream is not known"]),
        ("not labels contains 'x'", {"labels": ("x", "y")}, ["`labels contains 'x'` holds: labels is ['x', 'y']"]),
        (
            "budget_used['month'] > 0.3",
            {"budget_used": {"month": Fraction(1, 3)}},
            ["`budget_used['month'] > 0.3` holds: budget_used['month'] is about 0.3333"],
        ),
        (
            "hour < priority",
            {"hour": 2, "priority": -(10**5000)},
            ["`hour < priority` does not hold: hour is 2, priority is a very large negative number"],
        ),
        ("true", {}, ["`true` holds"]),
    ],
)
def test_an_explanation_names_the_comparisons_that_decided_and_their_values(text, facts, because):
    assert list(compiled(text).explain(Facts(**facts)).because) == because


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "remedy"),
    [
        ("", 1, "is empty: write one such as priority == 0, or true for always"),
        (" \n", 1, "is empty"),
        # Signs of other languages.
        ("priority = 0", 10, "write '=='"),
        ("priority === 0", 10, "write '=='"),
        ("priority <> 0", 10, "write '!='"),
        ("priority =< 0", 10, "write '<='"),
        ("hour ≥ 22", 6, "write '>='"),
        ("stream && true", 8, "write 'and'"),
        ("stream || true", 8, "write 'or'"),
        ("!stream", 1, "write 'not'"),
        ("model ~ 'x'", 7, "'contains', 'starts_with' or 'ends_with'"),
        ("model == \u2018x\u2019", 10, "a straight quote"),
        ("model == `x`", 10, "a straight quote"),
        ("headroom['openai'] < 20%", 24, "write 0.2 for 20 %"),
        ("priority + 1 == 2", 10, "do not calculate"),
        ("priority -1 == 2", 10, "do not calculate"),
        ("{{ priority }} == 0", 1, "means nothing"),
        ("priority == 0; stream", 14, "means nothing"),
        ("model\u00a0== 'x'", 6, "U+00A0"),
        ("model == 'a\u200bb'", 12, "U+200B"),
        # Words of other languages.
        ("priority is 0", 10, "write '=='"),
        ("priority is not 0", 10, "write '!='"),
        ("model like 'x%'", 7, "'contains', 'starts_with' or 'ends_with'"),
        ("requires has 'vision'", 10, "write 'contains'"),
        ("labels contain 'x'", 8, "write 'contains'"),
        ("model startswith 'x'", 7, "write 'starts_with'"),
        ("model begins_with 'x'", 7, "write 'starts_with'"),
        ("hour between 9 and 17", 6, "hour >= 9 and hour < 17"),
        ("stream AND true", 8, "write 'and'"),
        ("NOT stream", 1, "write 'not'"),
        ("stream == True", 11, "write 'true'"),
        ("model.startswith('x')", 7, "write 'starts_with' behind model"),
        ("model.lower() == 'x'", 12, "no functions"),
        ("len(labels) > 2", 4, "no functions"),
        ("model not contains 'x'", 7, "write it before model"),
        ("0 < hour < 6", 10, "join two of them with 'and'"),
        ("model in ('a', 'b')", 10, "stands in [ ]"),
        ("labels contains 'a', 'b'", 20, "stands in [ ]"),
        # Something is missing or left over.
        ("priority ==", 12, "expected behind '==', not the end"),
        ("== 0", 1, "expected at the beginning, not '=='"),
        ("stream and", 11, "expected behind 'and'"),
        ("priority 0", 10, "an operator such as =="),
        ("(stream", 8, "the ( of column 1 is never closed"),
        ("stream)", 7, "closes nothing"),
        ("model in ['a'", 14, "the [ of column 10 is never closed"),
        ("model in ['a' 'b']", 15, "a ',' or the closing ]"),
        ("model == 'x", 10, "this quote is never closed: add '"),
        ("model == 'it's'", 15, "write \\' for one inside it"),
        ("model == 'a\nb'", 10, "never closed"),
        ("model == 'a\\n'", 12, "write \\\\ for one"),
        ("model == '\\", 11, "write \\\\ for one"),
        ("headroom['openai' < 1", 19, "add ]"),
        ("task. == 'x'", 7, "such as task.id"),
        ("input_tokens > 100k", 16, "'100k' is no number"),
        ("hour > 5.", 8, "'5.' is no number"),
        ("priority == 1e9", 13, "'1e9' is no number"),
        ("priority == \u0663", 13, "means nothing"),
        # Names.
        ("prioriti == 0", 1, "did you mean 'priority'?"),
        ("PRIORITY == 0", 1, "did you mean 'priority'?"),
        ("task_id == 'x'", 1, "did you mean 'task.id'?"),
        ("model == gpt", 10, "write it in quotes if it is a text"),
        ("weekday == monday", 12, "'monday' is a text: write it in quotes"),
        ("__class__ == 1", 1, "is not known"),
        ("priority.__class__ == 1", 10, "priority has no parts"),
        ("task == 'x'", 1, "write task.id"),
        ("task.label == 'x'", 6, "'task' has no part 'label'"),
        ("task['id'] == 'x'", 6, "write task.id"),
        ("task.id.x == 'x'", 9, "task.id has no parts"),
        ("labels[0] == 'x'", 7, "a name in quotes stands in [ ]"),
        ("labels['x']", 8, "lists are asked with labels contains"),
        ("provider_status == 'ok'", 1, "write provider_status['NAME']"),
        ("provider_status.openai == 'ok'", 17, "write provider_status['openai']"),
        ("provider_status[openai] == 'ok'", 16, "a name in quotes stands in [ ]"),
        ("provider_status['claude'] == 'ok'", 17, "provider 'claude' is not known: did you mean 'claude-cli'?"),
        ("headroom['month'] < 0.5", 10, "provider 'month' is not known"),
        ("budget_used['mont'] < 0.5", 13, "limit 'mont' is not known: did you mean 'month'?"),
        ("headroom['openai']['x'] < 1", 20, "has no parts"),
        # Types.
        ("priority == 'high'", 13, "priority is a number and 'high' is text"),
        ("'high' == priority", 1, "write such as priority == 0"),
        ("stream == 'true'", 11, "write such as stream == true"),
        ("weekday == 1", 12, "write such as weekday == 'monday'"),
        ("model < 'b'", 1, "only numbers have an order"),
        ("labels == ['a']", 1, "write such as labels contains"),
        ("labels starts_with 'x'", 1, "starts_with stands between texts"),
        ("labels in ['a']", 1, "ask for one at a time"),
        ("labels contains ['a']", 17, "ask for one at a time"),
        ("labels contains 1", 17, "labels is a list of texts, and 1 is a number"),
        ("priority contains 1", 1, "holds nothing"),
        ("model in 'abc'", 10, "write ['abc']"),
        ("hour in 22", 9, "write [22]"),
        ("stream in true", 11, "holds nothing"),
        ("model in ['a', 1]", 16, "texts or numbers, not both"),
        ("model in []", 10, "the list is empty"),
        ("model in [['a']]", 11, "a list holds no lists"),
        ("model in [caller]", 11, "write 'caller' in quotes"),
        ("stream in [true]", 12, "texts or numbers, not true"),
        ("priority", 1, "priority is a number and no condition: compare it, such as priority == 0"),
        ("stream and 'x'", 12, "'x' is no condition"),
        ("labels contains 'a' or 'b'", 24, "repeat the comparison, such as labels contains 'b'"),
        ("1 == 1", 1, "write true for a rule that always matches"),
        ("'model' == 'x'", 1, "write model for the field"),
        # Values out of reach.
        ("provider_status['openai'] == 'offline'", 30, "write one of 'disabled', 'down', 'limited', 'ok'"),
        ("provider_status['openai'] in ['down', 'limitd']", 30, "did you mean 'limited'?"),
        ("weekday == 'Monday'", 12, "did you mean 'monday'?"),
        ("hour == 24", 9, "from 0 to 23"),
        ("24 == hour", 1, "from 0 to 23"),
        ("hour in [23, 24]", 9, "from 0 to 23"),
        ("hour > 24.5", 8, "from 0 to 23"),
        ("hour == 6.5", 9, "from 0 to 23"),
        ("priority == 0.5", 13, "a whole number"),
        ("retry_count == -1", 16, "from 0 on"),
        ("headroom['openai'] < 20", 22, "write 0.2 for 20 %"),
        ("budget_used['month'] > 80", 24, "write 0.2 for 20 %"),
        # Nothing compares with null.
        ("priority == null", 13, "write priority == priority to ask whether it is known"),
        ("null != task.id", 1, "not (task.id == task.id) whether it is absent"),
        ("model == None", 10, "model == model"),
        ("labels == null", 11, "leave it out"),
        ("null", 1, "is no condition"),
    ],
)
def test_a_refusal_names_the_column_and_the_right_word(text, column, remedy):
    error = refusal(text)

    assert remedy in error.message
    assert error.column == column


def test_a_refusal_is_a_value_error_that_repeats_little_of_the_text():
    error = refusal(f"model == '{'x' * 500}' or {'y' * 400}")

    assert isinstance(error, ValueError)
    assert len(error.message) < LINE_MAX

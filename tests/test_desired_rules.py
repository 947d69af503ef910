"""Rules, workflows and routers of a file: what could never do what it says is refused when it is read."""

import pytest

from quota_router.config import parse_catalog
from quota_router.core.desired import build_catalog
from quota_router.core.rules import RULES_MAX
from quota_router.errors import ConfigError

CATALOG = """
[providers.a]
vendor = "anthropic"
[providers.b]
vendor = "anthropic"
[[models]]
name = "lab/m"
aliases = ["nick"]
attachments = ["a"]
[[models]]
name = "n"
attachments = ["a", "b"]
[[budgets]]
name = "month"
subject = "everyone"
unit = "usd"
limit = 1
window = "month"
"""


def build(text):
    return build_catalog(parse_catalog(CATALOG + text, "f.toml"))


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        build(text)
    return caught.value.key_path, caught.value.message


def rule(lines, condition="priority == 0"):
    return f'[[routing.rules]]\ncondition = "{condition}"\n{lines}\n'


def test_a_rule_may_name_a_model_by_its_alias_a_provider_a_strategy_and_a_share():
    found = build(rule('model = "nick"\nprovider = "a"') + rule('strategy = "cheapest"\nshare = 0.25')).rules
    assert [(r.model, r.provider, r.strategy, r.share and str(r.share)) for r in found] == [
        ("nick", "a", None, None),
        (None, None, "cheapest", "1/4"),
    ]
    assert [r.rank for r in found] == [1000, 2000]


@pytest.mark.parametrize(
    "condition",
    ["provider_status['b'] == 'down'", "headroom['a'] < 0.1", "budget_used['month'] > 0.8", "workflow == 'w' and stage == 's'"],
)
def test_a_condition_may_ask_of_what_there_is(condition):
    assert build(rule('model = "n"', condition)).rule_book.rules[0].condition.text == condition


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            rule('model = "n"') + rule('model = "n"', "prioritty == 0"),
            (1, "condition"),
            "rule 2, column 1: name 'prioritty' is not known: did you mean 'priority'?",
        ),
        (
            rule('model = "n"', "priority == 0 and provider_status['c'] == 'ok'"),
            (0, "condition"),
            "rule 1, column 35: provider 'c' is not known: write one of 'a', 'b'.",
        ),
        (
            rule('model = "lab/n"'),
            (0, "model"),
            "rule 1 (priority == 0) names model 'lab/n', which is not known: did you mean 'lab/m'?",
        ),
        (
            rule('provider = "c"'),
            (0, "provider"),
            "rule 1 (priority == 0) names provider 'c', which is not known: write one of 'a', 'b'.",
        ),
        (
            rule('model = "nick"\nprovider = "b"'),
            (0, "provider"),
            "rule 1 (priority == 0): provider 'b' does not serve model 'nick': write one of 'a'.",
        ),
        (rule(""), (0,), "rule 1 (priority == 0) changes nothing when it matches: add model, provider or strategy."),
        (rule('reason = "why"'), (0,), "rule 1 (priority == 0) changes nothing when it matches: add model, provider or strategy."),
        (rule('strategy = "cheapst"'), (0, "strategy"), "strategy 'cheapst' is not known: did you mean 'cheapest'?"),
        (
            rule('model = "n"\non_unusable = "stop"'),
            (0, "on_unusable"),
            "on_unusable 'stop' is not known: write one of 'fall_through', 'refuse'.",
        ),
        (rule('model = "n"\nshare = 10'), (0, "share"), "'10' is no share of 1: write 0.2 for 20 %."),
        (rule('model = "n"\nshare = 1e-999999'), (0, "share"), "'1E-999999' is no share of 1: write 0.2 for 20 %."),
    ],
)
def test_row_3_3_a_rule_that_cannot_be_is_refused_by_its_number(text, path, message):
    found, said = refusal(text)
    assert (found, said) == (("routing", "rules", *path), message)


def test_a_long_condition_is_cut_in_the_name_of_its_rule():
    _, message = refusal(rule('model = "x"', " or ".join(["priority == 0"] * 20)))
    assert "rule 1 (priority == 0 or priority == 0 or priority == 0 or priority…) names model 'x'" in message


def test_there_are_at_most_so_many_rules():
    build(rule('model = "n"') * RULES_MAX)
    assert refusal(rule('model = "n"') * (RULES_MAX + 1))[0] == ("routing", "rules")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[workflows.w]\nstages = []\n", ("w", "stages"), "workflow 'w' has 0 stages: give it 1 to 100, each with name and model."),
        (
            '[workflows.w]\nstages = [{ name = "s", model = "mm" }]\n',
            ("w", "stages", 0, "model"),
            "stage 's' of workflow 'w' names model 'mm', which is not known: write one of 'lab/m', 'n'.",
        ),
        (
            '[workflows.w]\nstages = [{ name = "s", model = "n" }, { name = "s", model = "nick" }]\n',
            ("w", "stages", 1, "name"),
            "workflow 'w' has a stage 's' already: name this one differently.",
        ),
        (
            '[workflows."a/b"]\nstages = [{ name = "s", model = "n" }]\n',
            ("a/b",),
            "workflow 'a/b' cannot be a name: leave out spaces, control characters and '/', ',', '='.",
        ),
    ],
)
def test_row_3_4_a_workflow_that_cannot_be_is_refused(text, path, message):
    assert refusal(text) == (("workflows", *path), message)


def test_row_3_8_a_stage_s_model_may_have_a_slash():
    found = build('[workflows.w]\nstages = [{ name = "s", model = "lab/m" }]\n').workflows["w"]
    assert found.find_stage("s").model == "lab/m"


def test_routers_are_objects_of_modules_in_their_order():
    assert build('[routing]\nrouters = ["team.routers:by_team", "mine:Router.route"]\n').routers == (
        "team.routers:by_team",
        "mine:Router.route",
    )


@pytest.mark.parametrize("router", ["mine", "mine:", ":route", "mine.py:route()", "os;rm:x", "a b:c", "mine:route:again"])
def test_a_router_that_names_no_object_is_refused(router):
    path, message = refusal(f'[routing]\nrouters = ["{router}"]\n')
    assert path == ("routing", "routers", 0)
    assert "write one such as 'my_routers:by_team'" in message


def test_a_router_is_asked_once():
    assert refusal('[routing]\nrouters = ["a:b", "a:b"]\n')[0] == ("routing", "routers", 1)

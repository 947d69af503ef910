"""What a call may use, said before it is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pricing import prices

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Billing, Family, Model
from quota_router.core.estimates import (
    ANSWERS_NEEDED,
    HISTOGRAM_BUCKETS,
    UNBOUNDED_OUTPUT_TOKENS,
    Bound,
    Estimate,
    Histogram,
    Learned,
    bound_of,
    estimate,
)
from quota_router.core.limits import Amounts
from quota_router.core.pricing import PriceTable, Rates, cost_nusd
from quota_router.core.usage import BUCKETS, Quality, Usage

PRICE = PriceTable(tiers=((0, Rates(input_pusd=1_000_000, output_pusd=2_000_000, cache_write_5m_pusd=1_250_000)),))
BARE = Model(name="m", family=Family.OPENAI, attachments=())
SIZED = Model(name="m", family=Family.OPENAI, attachments=(), context_tokens=128_000, max_output_tokens=8_000)


def histogram_of(seen):
    histogram = Histogram()
    for number in seen:
        histogram = histogram.add(number)
    return histogram


numbers = st.integers(0, 2_000_000)
maybe = st.none() | st.integers(1, 200_000)
models = st.builds(
    Model,
    name=st.just("m"),
    family=st.just(Family.OPENAI),
    attachments=st.just(()),
    context_tokens=maybe,
    max_output_tokens=maybe,
)
facts_of_calls = st.builds(
    CallFacts,
    max_output_tokens=maybe,
    choices=st.integers(1, 5),
    input_tokens=maybe,
    is_open_ended=st.sampled_from([False, False, True]),
)
histograms = st.lists(numbers, max_size=40).map(histogram_of)


def estimated(facts=None, operation=Operation.CHAT, model=BARE, billing=Billing.METERED, **more):
    given_more = {"price": PRICE, "learned": None, "body_bytes": 1_000} | more
    body_bytes = given_more.pop("body_bytes")
    return estimate(facts or CallFacts(), operation, model, billing, **given_more, body_bytes=body_bytes)


@given(
    facts_of_calls,
    st.sampled_from(Operation),
    models,
    st.sampled_from(Billing),
    st.none() | prices(),
    st.builds(Learned, input_per_kb=histograms, output=histograms),
    st.integers(0, 500_000),
)
def test_the_likely_amount_never_exceeds_the_upper_bound(facts, operation, model, billing, price, learned, body_bytes):
    found = estimate(facts, operation, model, billing, price, learned, body_bytes=body_bytes)

    assert Estimate.from_json(found.to_json()) == found
    assert (found.likely.requests, found.likely.cost_nusd >= 0) == (1, True)
    if found.upper is not None:
        assert found.likely.input_tokens <= found.upper.input_tokens
        assert found.likely.output_tokens <= found.upper.output_tokens
        assert found.likely.cost_nusd <= found.upper.cost_nusd


@given(facts_of_calls, models, prices(), st.data())
def test_no_answer_within_the_bounds_uses_more_than_the_upper_bound(facts, model, price, data):
    upper = estimate(facts, Operation.CHAT, model, Billing.METERED, price, None, body_bytes=0).upper
    if upper is None:
        return
    shares = {name: data.draw(st.integers(0, 100)) for name in BUCKETS}
    read = [name for name in BUCKETS if name not in ("output", "reasoning")]
    usage = Usage(
        **{name: upper.input_tokens * shares[name] // max(1, sum(shares[n] for n in read)) for name in read},
        output=upper.output_tokens * shares["output"] // max(1, shares["output"] + shares["reasoning"]),
        reasoning=upper.output_tokens * shares["reasoning"] // max(1, shares["output"] + shares["reasoning"]),
    )

    assert cost_nusd(usage, price) <= upper.cost_nusd


@pytest.mark.parametrize(
    ("facts", "operation", "model", "bound"),
    [
        (CallFacts(input_tokens=900, max_output_tokens=50), Operation.CHAT, SIZED, Bound(input_tokens=900, output_tokens=50)),
        (CallFacts(input_tokens=900), Operation.CHAT, SIZED, Bound(input_tokens=900, output_tokens=8_000)),
        (CallFacts(input_tokens=900, choices=3), Operation.CHAT, SIZED, Bound(input_tokens=900, output_tokens=24_000)),
        (CallFacts(), Operation.MESSAGES, SIZED, Bound(input_tokens=128_000, output_tokens=8_000)),
        (CallFacts(input_tokens=900), Operation.CHAT, BARE, Bound(input_tokens=900, output_tokens=None)),
        (CallFacts(max_output_tokens=5), Operation.ROUTE, BARE, Bound(input_tokens=None, output_tokens=5)),
        (CallFacts(input_tokens=900), Operation.EMBEDDINGS, BARE, Bound(input_tokens=900, output_tokens=0)),
        (CallFacts(input_tokens=900), Operation.COUNT_TOKENS, BARE, Bound(input_tokens=0, output_tokens=0)),
        (CallFacts(input_tokens=9, is_open_ended=True), Operation.CHAT, SIZED, Bound(input_tokens=None, output_tokens=None)),
    ],
)
def test_the_bound_is_what_the_call_states_or_the_model_has(facts, operation, model, bound):
    assert bound_of(facts, operation, model) == bound


def test_the_upper_bound_takes_every_token_at_its_dearest():
    found = estimated(CallFacts(input_tokens=1_000, max_output_tokens=100))

    assert found.upper == Amounts(cost_nusd=1_450_000, requests=1, input_tokens=1_000, output_tokens=100)
    assert found.likely == found.upper


def test_without_any_bound_the_body_and_a_fixed_output_are_likely():
    found = estimated(CallFacts(choices=2), body_bytes=700)

    assert found.upper is None
    assert (found.likely.input_tokens, found.likely.output_tokens) == (700, 2 * UNBOUNDED_OUTPUT_TOKENS)


def test_a_subscription_asks_for_no_money_and_counts_as_priced():
    found = estimated(CallFacts(input_tokens=10, max_output_tokens=10), billing=Billing.FLAT, price=None)

    assert (found.likely.cost_nusd, found.upper.cost_nusd, found.upper.output_tokens, found.is_priced) == (0, 0, 10, True)


def test_an_unknown_price_is_not_zero():
    assert not estimated(CallFacts(input_tokens=10, max_output_tokens=10), price=None).is_priced


def test_counting_tokens_is_free():
    found = estimated(CallFacts(), operation=Operation.COUNT_TOKENS, price=None)

    assert found.upper == found.likely == Amounts(cost_nusd=0, requests=1, input_tokens=0, output_tokens=0)
    assert found.is_priced


def test_what_was_learned_counts_from_the_twentieth_answer_on():
    """Before that the upper bound is held; then the quantile of what answers used, at most a quarter above it."""
    facts = CallFacts(input_tokens=1_000, max_output_tokens=4_000)
    learned = Learned()
    for _ in range(ANSWERS_NEEDED - 1):
        learned = learned.add(1_000, Usage(input=200, cache_read=50, output=300))
    before = estimated(facts, learned=learned)
    after = estimated(facts, learned=learned.add(1_000, Usage(input=200, cache_read=50, output=300)))

    assert before.likely == before.upper
    assert 250 <= after.likely.input_tokens <= 313
    assert 300 <= after.likely.output_tokens <= 375
    assert after.upper == before.upper


def test_a_call_whose_body_is_not_seen_learns_and_uses_nothing_of_its_input():
    learned = Learned()
    for _ in range(ANSWERS_NEEDED):
        learned = learned.add(0, Usage(input=5, output=7))
    found = estimated(CallFacts(input_tokens=900), operation=Operation.ROUTE, model=SIZED, learned=learned, body_bytes=40)

    assert learned.input_per_kb.answers == 0
    assert (found.likely.input_tokens, found.likely.output_tokens) == (900, 7)


@pytest.mark.parametrize("quality", [Quality.ESTIMATED, Quality.ASSUMED])
def test_only_reported_usage_teaches(quality):
    assert Learned().add(1_000, Usage(input=5, output=7, quality=quality)) == Learned()


def test_what_was_learned_reads_back_from_its_row():
    learned = Learned().add(1_000, Usage(input=5, output=7)).add(10, Usage(input=5, output=3_000_000))

    assert learned.to_row()["answers"] == 2
    assert Learned.from_row(learned.to_row()) == learned


@given(st.lists(numbers, min_size=1, max_size=60), st.integers(1, 1_000))
def test_a_quantile_is_never_below_the_exact_one_and_at_most_a_quarter_above(seen, q_permille):
    exact = sorted(seen)[-(-len(seen) * q_permille // 1_000) - 1]

    assert exact <= histogram_of(seen).quantile(q_permille) <= exact * 5 / 4 + 1


@given(st.lists(st.integers(-5, 10**12), max_size=60))
def test_a_histogram_stays_small_and_reads_back(seen):
    histogram = histogram_of(seen)

    assert histogram.answers == len(seen)
    assert len(histogram.counts) <= HISTOGRAM_BUCKETS
    assert Histogram.from_json(histogram.to_json()) == histogram


@pytest.mark.parametrize("text", ["", "{}", "[1.5]", "[-1]", str([0] * 65)])
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is the decoder's own
        Histogram.from_json(text)


def test_an_empty_histogram_knows_nothing():
    assert (Histogram().answers, Histogram().quantile(950)) == (0, 0)

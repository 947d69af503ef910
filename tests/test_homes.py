"""A call that continues an answer goes to the provider that keeps it."""

import json

import pytest
from between_kit import ASKED, open_between

from quota_router.core.affinity import HOMES_MAX, Homes
from quota_router.simulator import Refusal

PATH, BODY = ASKED["responses"]


@pytest.fixture
async def between(tmp_path):
    async with open_between(tmp_path) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_continued_where_it_was_made(between, stream):
    """
    The ladder's first rung is well again, but the answer is kept at the second.
    """
    between.script("chat-1", Refusal(status=503))
    first = await between.ask("responses", stream=stream)
    assert first.ours("provider") == "chat-2"
    made = next(line for line in first.body.decode().splitlines() if '"resp_' in line)
    answer_id = made[made.index('"resp_') + 1 :].split('"')[0]
    between.forget()
    again = await between.send(PATH, json.dumps({**BODY, "previous_response_id": answer_id}))
    assert (again.status, again.ours("provider"), again.ours("skipped")) == (200, "chat-2", "chat-1=pinned_elsewhere")
    other = await between.send(PATH, json.dumps({**BODY, "previous_response_id": "resp_nobody_knows"}))
    assert other.ours("provider") == "chat-1"


async def test_a_pinned_call_is_not_sent_elsewhere_when_its_provider_is_out(between):
    first = await between.ask("responses")
    between.script("chat-1", Refusal(status=429, retry_after="60"))
    refused = await between.send(PATH, json.dumps({**BODY, "previous_response_id": first.json["id"]}))
    assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
    assert between.seen("chat-2") == []


def test_homes_are_bounded_and_forget_the_oldest():
    homes = Homes()
    for number in range(HOMES_MAX + 1):
        homes.keep(f"resp_{number}", "one")
    assert (homes.find("resp_0"), homes.find("resp_1"), homes.find(None)) == (None, "one", None)

"""An error inside a 200 that is the caller's own reaches him, and no other rung is bothered."""

import pytest
from between_kit import open_between

from quota_router.simulator import Fault, FaultKind


@pytest.fixture
async def between(tmp_path):
    async with open_between(tmp_path) as found:
        yield found


@pytest.mark.parametrize(("kind", "stream"), [(FaultKind.ERROR_IN_200, False), (FaultKind.ERROR_IN_STREAM, True)])
async def test_a_prompt_that_a_vendor_refuses_inside_a_200_is_the_callers_own(between, kind, stream):
    between.script("chat-1", Fault(kind=kind, status=400, code="content_policy_violation"))
    told = await between.ask("chat", stream=stream)
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, "chat-1", "1")
    assert b"content_policy_violation" in told.body
    assert between.seen("chat-2") == []
    story = await between.story(told)
    assert [(attempt["outcome"], attempt["failure"]) for attempt in story["attempts"]] == [("failed", "content_policy")]
    assert story["entries"] == []
    again = await between.ask("chat", stream=stream)
    assert (again.ours("provider"), again.ours("skipped")) == ("chat-1", None)


async def test_a_response_that_fails_after_its_first_words_is_booked_as_failed(between):
    between.script("chat-1", Fault(kind=FaultKind.ERROR_IN_STREAM, after_chunks=2, status=500))
    told = await between.ask("responses", stream=True)
    assert told.ours("provider") == "chat-1"
    story = await between.story(told)
    assert [attempt["outcome"] for attempt in story["attempts"]] == ["failed"]
    assert story["cost_nusd"] > 0

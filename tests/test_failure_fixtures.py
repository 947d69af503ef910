"""
What vendors' errors mean, one recorded answer per file of `tests/wire/<family>/`.

Each file says where its bytes come from, what came (status, headers, body), and what follows: the kind, how far it reaches, what
becomes of the call, and who says how long the rung is left alone. A body that nobody recorded word for word says that it is
constructed.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Family
from quota_router.core.health import Action, CooldownSource, Failure, FailureKind, Scope, broken, cool
from quota_router.dialects import EventKind, UnreadableAnswer, dialect_of

WIRE = Path(__file__).parent / "wire"
FILES = sorted(WIRE.glob("*/*.json"))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AT_LEAST = 90
KEYS = {"origin", "vendor", "status", "headers", "body", "expect"}
OPTIONAL = {"note", "at", "operation"}
EXPECTED = {"kind", "scope", "action", "cooldown"}
OPTIONAL_EXPECTED = {"wait_s", "cause"}
FORWARD = "forward"
"""Content had begun: the caller keeps it and gets the error, nobody else is tried."""
ORIGIN = re.compile(r"(?:recorded in|constructed from) \S.*\bread 20\d\d-\d\d-\d\d")
HERE = re.compile(r"(?:^|[\s(])/(?:home|tmp|work|root|usr|var|Users)/")
NEVER_SENT = {FailureKind.CANCELLED}
"""No upstream sends it: it is the caller who left."""


@dataclass(frozen=True)
class Case:
    """One fixture, and what the dialect made of it."""

    family: Family
    said: dict[str, Any]

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat(self.said["at"]) if "at" in self.said else NOW

    def judged(self, headers) -> tuple[Failure, str]:
        """The failure, and what becomes of the call, as the relay goes about it."""
        dialect, vendor, body = dialect_of(self.family), self.said["vendor"], self.said["body"].encode()
        if self.said["status"] != 200:
            failure = dialect.classify(self.said["status"], headers, body, self.now, vendor=vendor)
            return failure, failure.kind.action
        operation = Operation(self.said.get("operation", "chat" if self.family is Family.OPENAI else "messages"))
        if "event-stream" not in headers["content-type"]:
            try:
                answer = dialect.read_answer(operation, body)
            except UnreadableAnswer as exc:
                return broken(exc.code), Action.NEXT_RUNG
            assert answer.failed, "the 200 was taken for an answer"
            failure = dialect.classify_event(body, self.now, vendor=vendor)
            return failure, failure.kind.action
        reader = dialect.reader(operation, CallFacts(model="m", stream=True))
        try:
            events = [*reader.feed(body), *reader.close()]
        except UnreadableAnswer as exc:
            return broken(exc.code), Action.NEXT_RUNG
        error = next((event.data for event in events if event.kind is EventKind.ERROR), None)
        assert error is not None or not reader.is_complete, "the stream was taken for whole"
        failure = broken("upstream_truncated") if error is None else dialect.classify_event(error, self.now, vendor=vendor)
        return failure, FORWARD if reader.saw_content else failure.kind.action


CASES = {f"{file.parent.name}/{file.stem}": Case(Family(file.parent.name), json.loads(file.read_text())) for file in FILES}


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_failure_means_what_its_file_says(name):
    case, expect = CASES[name], CASES[name].said["expect"]
    failure, action = case.judged(CIMultiDict(case.said["headers"]))
    assert (failure.kind, failure.scope, action) == (expect["kind"], expect["scope"], expect["action"])
    assert failure.cause == expect.get("cause")
    cooldown = cool(failure, provider="work", model="m", before=None, now=case.now)
    assert expect["cooldown"] == ("none" if cooldown is None else cooldown.source)
    wait_s = round((failure.until - case.now).total_seconds(), 3) if failure.until is not None else None
    assert wait_s == expect.get("wait_s")


@pytest.mark.parametrize("name", CASES)
def test_names_of_headers_may_be_written_as_anyone_likes(name):
    case = CASES[name]
    if case.said["status"] != 200:
        headers = case.said["headers"]
        assert case.judged(headers) == case.judged({key.upper(): value for key, value in headers.items()})


@pytest.mark.parametrize("name", CASES)
def test_what_passes_to_the_caller_touches_no_health(name):
    """It reaches no further than his call, and has no time to come back."""
    failure, action = CASES[name].judged(CIMultiDict(CASES[name].said["headers"]))
    if action in {Action.PASS, Action.LONGER_CONTEXT}:
        assert (failure.scope, failure.until) == (Scope.CALL, None)


# --- the files themselves ---------------------------------------------------------------------------------------------


def troubles(case):
    """What is wrong with a fixture; a list, so that a toy can show that each is seen."""
    said = case.said
    expect = said.get("expect") if isinstance(said.get("expect"), dict) else {}
    found = []
    if not KEYS <= set(said) <= KEYS | OPTIONAL:
        found.append("keys")
    if not EXPECTED <= set(expect) <= EXPECTED | OPTIONAL_EXPECTED:
        found.append("expectation")
    kinds, scopes, actions = set(FailureKind), set(Scope), {*Action, FORWARD}
    if expect and not (expect.get("kind") in kinds and expect.get("scope") in scopes and expect.get("action") in actions):
        found.append("words")
    if expect.get("cooldown") not in {*CooldownSource, "none"}:
        found.append("cooldown")
    if ("wait_s" in expect) != (expect.get("cooldown") == "said") and expect.get("scope") not in {"call", "attempt"}:
        found.append("wait")
    if not ORIGIN.match(str(said.get("origin"))) or HERE.search(str(said.get("origin"))):
        found.append("origin")
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_fixture_says_where_it_comes_from_and_what_it_expects(name):
    assert troubles(CASES[name]) == []
    assert FILES[list(CASES).index(name)].name.islower()


GOOD = {
    "origin": "recorded in https://example.com, read 2026-11-20",
    "vendor": "x",
    "status": 429,
    "headers": {},
    "body": "",
    "expect": {"kind": "auth", "scope": "provider", "action": "next_rung", "cooldown": "assumed"},
}


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({}, []),
        ({"expect": None}, ["expectation", "cooldown"]),
        ({"expect": {**GOOD["expect"], "colour": "red"}}, ["expectation"]),
        ({"expect": {**GOOD["expect"], "kind": "sad"}}, ["words"]),
        ({"expect": {**GOOD["expect"], "cooldown": "said"}}, ["wait"]),
        ({"expect": {**GOOD["expect"], "cooldown": "maybe"}}, ["cooldown"]),
        ({"mood": "x"}, ["keys"]),
        ({"origin": "somewhere"}, ["origin"]),
        ({"origin": "recorded in /home/me/dump.json, read 2026-11-20"}, ["origin"]),
    ],
)
def test_a_fixture_that_lacks_something_is_seen(change, trouble):
    assert troubles(Case(Family.OPENAI, {**GOOD, **change})) == trouble


def test_every_kind_has_its_fixtures_in_both_families():
    for family in Family:
        seen = {case.said["expect"]["kind"] for case in CASES.values() if case.family is family}
        assert seen >= set(FailureKind) - NEVER_SENT - {FailureKind.IN_FLIGHT_BUDGET, FailureKind.CONTENT_POLICY}
    assert {case.said["expect"]["kind"] for case in CASES.values()} == set(FailureKind) - NEVER_SENT


def test_there_are_enough_of_them_and_not_all_are_constructed():
    recorded = [name for name, case in CASES.items() if case.said["origin"].startswith("recorded")]
    assert len(CASES) >= AT_LEAST
    assert len(recorded) >= AT_LEAST // 2


def test_no_fixture_carries_a_key_or_a_person():
    """Ids are replaced: what is left of a credential or an address in a recorded body was somebody's."""
    found = {
        name
        for name, case in CASES.items()
        if re.search(r"sk-(?!proj-\*)[\w-]{8}|[\w.]+@[\w-]+\.\w{2,}|org-[a-zA-Z0-9]{12}", case.said["body"])
    }
    assert found <= {"anthropic/vertex-400-not-allowed"}  # a model's version: `claude-3-sonnet@…`

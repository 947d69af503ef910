"""Adjusting, heads and repair through a whole daemon, as an admin asks for them."""

import sqlite3
from contextlib import closing

import pytest
from ledger_kit import NOON, Clock, new_id
from plane_kit import ADMIN_TOKEN, TOKENS, open_plane

CATALOG = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
account = "shared"
[[models]]
name = "lab/m"
provider = "one"
context_tokens = 1000
max_output_tokens = 100
cost_per_million_input = "1"
cost_per_million_output = "2"
[[budgets]]
name = "month"
subject = "everyone"
unit = "usd"
limit = "0.5"
window = "month"
enforcement = "strict"
[[budgets]]
name = "docs"
subject = "label:docs"
unit = "usd"
limit = "0.5"
window = "day"
"""
REASON = "the invoice says so"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def plane(tmp_path, clock):
    async with open_plane(tmp_path, CATALOG, clock) as plane:
        yield plane


async def spend(plane):
    told = await plane.ask("POST", "/api/v1/route", {"model": "lab/m", "input_tokens": 100, "max_output_tokens": 10})
    hold_id = told.body["hold"]["id"]
    await plane.ask("POST", f"/api/v1/holds/{hold_id}/settle", {"usage": {"input_tokens": 50, "output_tokens": 5}})
    return told.body["call_id"], hold_id


async def adjust(plane, token=ADMIN_TOKEN, key=None, **asked):
    headers = {} if key is None else {"Idempotency_Key": key}
    return await plane.ask("POST", "/api/v1/entries", {"reason": REASON, **asked}, token=token, **headers)


async def read(plane, path):
    told = await plane.read(f"/api/v1/{path}")
    assert told.status == 200, told
    return told.body


async def posted(plane):
    return {item["name"]: item["posted"] for item in (await read(plane, "limits"))["items"]}


async def test_an_adjustment_is_answered_as_the_entry_that_it_became(plane, clock):
    call_id, hold_id = await spend(plane)
    clock.forward(hours=1)
    told = await adjust(plane, call_id=call_id, cost_usd="-0.00001")
    assert told.status == 201
    (_, entry) = (await read(plane, "entries"))["items"]
    assert told.body == {**entry, "limits": ["month"], "replayed": False}
    wanted = {
        "kind": "adjust",
        "seq": 2,
        "call_id": call_id,
        "provider": "one",
        "account": "shared",
        "model": "lab/m",
        "caller": "ci",
    }
    wanted |= {"cost_nusd": -10_000, "reason": REASON, "admin": "admin", "held_at": "2026-11-20T13:00:00.000000Z"}
    assert {name: entry[name] for name in wanted} == wanted
    assert (await adjust(plane, hold_id=hold_id, cost_nusd=1_000)).body["limits"] == ["month"]
    assert await posted(plane) == {"month": 51_000, "docs": 0}
    story = (await plane.ask("GET", f"/api/v1/calls/{call_id}")).body
    assert story["cost_nusd"] == (await read(plane, "usage"))["total"]["cost_nusd"] == 51_000


async def test_what_no_call_made_is_placed_by_names(plane, clock):
    clock.forward(days=1)
    asked = {"provider": "one", "model": "lab/m", "caller": "ci", "labels": ["docs", "docs"], "workflow": "w", "stage": "s"}
    told = await adjust(plane, cost_usd="0.25", held_at=f"{NOON:%Y-%m-%d}T23:00:00-01:00", **asked)
    assert told.status == 201
    wanted = {"account": "shared", "labels": ["docs"], "call_id": None, "held_at": "2026-11-21T00:00:00.000000Z"}
    assert {name: told.body[name] for name in wanted} == wanted
    assert told.body["limits"] == ["month", "docs"]
    told = await adjust(plane, cost_usd="1e-9", provider="one")
    assert (told.body["cost_nusd"], told.body["model"], told.body["caller"]) == (1, "", "")
    assert await posted(plane) == {"month": 250_000_001, "docs": 250_000_000}
    groups = (await read(plane, "usage?group_by=model,label"))["groups"]
    assert {(group["model"], group["label"]): group["cost_nusd"] for group in groups} == {
        ("", None): 1,
        ("lab/m", "docs"): 250_000_000,
    }


async def test_said_again_under_its_key_it_is_the_same_answer_and_anything_else_is_409(plane, clock):
    first = await adjust(plane, key="k", provider="one", cost_nusd=7)
    clock.forward(minutes=1)
    again = await adjust(plane, key="k", provider="one", cost_nusd=7)
    assert (again.status, again.body) == (201, {**first.body, "replayed": True})
    other = await adjust(plane, key="k", provider="one", cost_nusd=8)
    assert (other.status, other.body["code"]) == (409, "conflict")
    assert "already names entry 1 of journal main" in other.body["detail"]
    assert (await adjust(plane, provider="one", cost_nusd=7)).body["seq"] == 2
    assert await posted(plane) == {"month": 14, "docs": 0}


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"provider": "one", "cost_nusd": 1, "reason": ""}, 400, "`reason`"),
        ({"provider": "one", "cost_nusd": 1, "reason": " "}, 400, "`reason` is empty"),
        ({"provider": "one", "cost_nusd": 1, "reason": "a\u0000b"}, 400, "`reason`: must be printable"),
        ({"provider": "one", "cost_nusd": 1, "reason": None}, 400, "`reason`"),
        ({"provider": "one"}, 400, "exactly one of `cost_usd` and `cost_nusd`"),
        ({"provider": "one", "cost_nusd": 1, "cost_usd": "1"}, 400, "exactly one of `cost_usd` and `cost_nusd`"),
        ({"provider": "one", "cost_nusd": 0}, 400, "changes nothing"),
        ({"provider": "one", "cost_nusd": 1.5}, 400, "`cost_nusd`: must be a valid integer"),
        ({"provider": "one", "cost_nusd": "1"}, 400, "`cost_nusd`: must be a valid integer"),
        ({"provider": "one", "cost_nusd": 2**53}, 400, "`cost_nusd`"),
        ({"provider": "one", "cost_usd": 1.5}, 400, "`cost_usd`: must be a valid string"),
        ({"provider": "one", "cost_usd": "1e-10"}, 400, "at most nine decimals"),
        ({"provider": "one", "cost_usd": "9007200"}, 400, "more than one entry takes"),
        ({"provider": "one", "cost_usd": "NaN"}, 400, "not an amount"),
        ({"cost_nusd": 1}, 400, "exactly one of `call_id`, `hold_id` and `provider`"),
        ({"cost_nusd": 1, "provider": "one", "call_id": "x"}, 400, "exactly one of `call_id`, `hold_id` and `provider`"),
        ({"cost_nusd": 1, "call_id": "x", "model": "lab/m"}, 400, "`model` is the call's own"),
        ({"cost_nusd": 1, "call_id": "x"}, 404, "no call of that id"),
        ({"cost_nusd": 1, "hold_id": "x"}, 404, "no hold of that id"),
        ({"cost_nusd": 1, "provider": "noe"}, 400, "did you mean 'one'?"),
        ({"cost_nusd": 1, "provider": "one", "held_at": "2027-01-01"}, 400, "in the future"),
        ({"cost_nusd": 1, "provider": "one", "held_at": "2026-11-01T00:00:00"}, 400, "`held_at` must be a date"),
        ({"cost_nusd": 1, "provider": "one", "held_at": "1969-12-31"}, 400, "before 1970"),
        ({"cost_nusd": 1, "provider": "one", "kind": "adjust"}, 400, "`kind` is not known"),
        ({"cost_nusd": 1, "provider": "one", "labels": ["x"] * 33}, 400, "`labels`"),
    ],
)
async def test_what_is_not_understood_is_refused_with_its_field_and_books_nothing(plane, asked, status, says):
    told = await adjust(plane, **asked)
    assert (told.status, says in told.body["detail"]) == (status, True), told.body
    assert (await read(plane, "entries"))["items"] == []


async def test_only_an_admin_adjusts(plane):
    for token in (TOKENS["ci"], TOKENS["reader"]):
        assert (await adjust(plane, token=token, provider="one", cost_nusd=1)).status == 403


async def test_a_key_that_is_none_is_refused(plane):
    told = await adjust(plane, key="x" * 257, provider="one", cost_nusd=1)
    assert (told.status, told.body["detail"]) == (400, "`Idempotency-Key` must be 1 to 256 printable characters.")


async def test_journals_tell_where_each_chain_ends(plane):
    assert await read(plane, "journals") == {"items": [], "next": None}
    await spend(plane)
    (entry,) = (await read(plane, "entries"))["items"]
    assert await read(plane, "journals?limit=1") == {
        "items": [{"journal": "main", "seq": 1, "hash": entry["hash"], "at": entry["at"]}],
        "next": None,
    }
    assert (await plane.read("/api/v1/journals?since=x")).status == 400


async def test_a_balance_that_was_edited_is_worked_out_anew(plane, tmp_path):
    async def rebuild():
        return (await plane.ask("POST", "/api/v1/ledger/rebuild", token=ADMIN_TOKEN)).body["changes"]

    await spend(plane)
    assert await rebuild() == []
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as other:
        other.execute("UPDATE balances SET posted = 499999999, held = 3 WHERE limit_name = 'month'")
        other.commit()
    assert await rebuild() == [
        {
            "limit": "month",
            "unit": "usd",
            "bucket": "2026-11-01T00:00:00.000000Z",
            "posted_before": 499_999_999,
            "posted": 60_000,
            "held_before": 3,
            "held": 0,
        }
    ]
    assert await posted(plane) == {"month": 60_000, "docs": 0}
    told = await plane.ask("POST", "/api/v1/ledger/rebuild", token=TOKENS["reader"])
    assert told.status == 403


async def test_a_call_with_two_attempts_that_were_booked_is_not_guessed_at(plane, tmp_path):
    call_id, hold_id = await spend(plane)
    second = new_id()
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as other:
        columns = [row[1] for row in other.execute("PRAGMA table_info(holds)")]
        said = ", ".join({"id": f"'{second}'", "attempt": "2"}.get(name, name) for name in columns)
        other.execute(f"INSERT INTO holds SELECT {said} FROM holds WHERE id = ?", [hold_id])  # noqa: S608 -- the test's own words
        other.commit()
    told = await adjust(plane, call_id=call_id, cost_nusd=1)
    assert (told.status, f"{hold_id}, {second}" in told.body["detail"]) == (400, True)
    assert (await adjust(plane, hold_id=second, cost_nusd=1)).status == 201

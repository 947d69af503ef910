"""Verifying: whatever is not as it was written is found, by whatever hand it was changed."""

import ast
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from database_kit import is_postgres, url_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ledger_kit import NOON, Clock, admit, call, catalog, limit, new_id, open_ledger, post, void
from sqlalchemy import delete, event, select
from tamper_kit import judge, rehash, said, tampering

import quota_router.store
from quota_router.core.adjustments import Adjustment, Place, id_of_uuid
from quota_router.core.limits import Unit
from quota_router.errors import LedgerUnavailable
from quota_router.store import audit, streaming
from quota_router.store import verdict as verdict_room
from quota_router.store.adjusting import Adjust
from quota_router.store.holding import Sweep
from quota_router.store.ledger import Admission, Settle
from quota_router.store.open import reading_beside
from quota_router.store.rebuild import rebuild
from quota_router.store.tables import balances, entries
from quota_router.store.verdict import Kind

pytestmark = pytest.mark.usefixtures("database")
USD = {"unit": Unit.USD, "limit": 10**12}
LIMITS = (
    limit("month", **USD),
    limit("day", window="day", unit=Unit.REQUESTS, limit=10**6),
    limit("roll", window="5h", unit=Unit.TOKENS, limit=10**9),
    limit("five", window="5h", anchor="first_use", **USD),
    limit("docs", subject="label:docs", window="2h", anchor="2026-01-01T00:00:00Z", unit=Unit.OUTPUT_TOKENS, limit=10**9),
    limit("ever", subject="caller:ci", window="forever", unit=Unit.INPUT_TOKENS, limit=10**9),
    limit("at-once", unit=Unit.CONCURRENCY, window="forever", limit=100),
)
OF = catalog(*LIMITS)
PLACE = Place(provider="one", account="one", model="m", upstream_model="m-up", caller="ci", labels=("docs",))


def adjust(cost_nusd, **changes):
    return Adjust(said=Adjustment(id=id_of_uuid(new_id()), cost_nusd=cost_nusd, reason="r", admin="a", of=PLACE, **changes))


async def book(folder, clock):
    """A ledger of six lines of every kind, over several windows, with one hold still open."""
    async with open_ledger(folder, clock, OF) as lane:
        for tokens in (10, 20):
            hold = (await lane.run(admit(OF, call(labels=("docs",), workflow="w")))).hold
            clock.forward(hours=3)
            await lane.run(Settle(hold_id=hold.id, settlement=post(tokens, price_source="file", price_version="1")))
        expired = (await lane.run(admit(OF, ttl_s=60))).hold
        clock.forward(minutes=2)
        await lane.run(Sweep())
        await lane.run(Settle(hold_id=expired.id, settlement=post()))
        await lane.run(adjust(-7_000))
        await lane.run(adjust(9, held_at=NOON + timedelta(hours=1)))
        voided = (await lane.run(admit(OF))).hold
        await lane.run(Settle(hold_id=voided.id, settlement=void()))
        await lane.run(admit(OF, ttl_s=10**6))


@pytest.fixture
async def ledger(tmp_path):
    """A closed one, and its clock's time."""
    clock = Clock()
    await book(tmp_path, clock)
    return SimpleNamespace(folder=tmp_path, now=clock.now)


async def test_what_the_ledger_wrote_is_whole(ledger):
    verdict = judge(ledger.folder, ledger.now)
    assert (said(verdict), verdict.is_whole) == ([], True)
    (walk,) = verdict.walks
    assert (walk.journal, walk.entries, walk.seq, verdict.limits) == ("main", 6, 6, len(LIMITS))
    assert walk.cost_nusd == (10 + 20 + 50) * 1_000 + 3 * 10_000 - 7_000 + 9
    assert verdict.balances >= len(LIMITS)
    assert said(judge(ledger.folder, ledger.now + timedelta(days=400))) == []


async def test_an_empty_ledger_is_whole(tmp_path):
    async with open_ledger(tmp_path, Clock()):
        pass
    verdict = judge(tmp_path, NOON)
    assert (verdict.is_whole, [walk.entries for walk in verdict.walks], verdict.balances) == (True, [0], 0)


async def test_a_ledger_is_verified_beside_the_daemon_that_writes_it(tmp_path):
    clock = Clock()
    async with open_ledger(tmp_path, clock, OF) as lane:
        hold = (await lane.run(admit(OF))).hold
        assert judge(tmp_path, clock()).is_whole
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        verdict = judge(tmp_path, clock())
        assert (verdict.is_whole, verdict.walks[0].entries) == (True, 1)


# --- entries ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [column.name for column in entries.columns if column.name not in {"journal", "seq"}])
async def test_a_changed_value_in_any_column_is_found_where_it_stands(ledger, column):
    with tampering(ledger.folder) as run:
        ((value,),) = run(f"SELECT {column} FROM entries WHERE seq = 3")  # noqa: S608 -- a column of ours
        words = {"kind": "post", "quality": "estimated"}
        if column == "hash":
            changed = bytes([value[0] ^ 1]) + value[1:]
        elif value is None or isinstance(value, str):
            number = column.endswith("_nusd")
            changed = 1 if number else words.get(column, f"{value or ''}x")
        else:
            changed = value + 1
        run(f"UPDATE entries SET {column} = ? WHERE seq = 3", changed)  # noqa: S608 -- likewise
    chain = [finding for finding in judge(ledger.folder, ledger.now).findings if finding.kind is Kind.CHAIN]
    assert [finding.numbers for finding in chain] == [{"journal": "main", "seq": 3}]
    assert chain[0].text == "Entry 3 of journal main was altered: its hash does not follow from it and the entry before."


CHAIN_TAMPERINGS = {
    "first row removed": (["DELETE FROM entries WHERE seq = 1"], "Entry 1 of journal main is missing."),
    "rows removed": (
        ["DELETE FROM entries WHERE seq IN (3, 4)"],
        "Entry 3 of journal main is missing, and so is all up to 4.",
    ),
    "tail cut": (
        ["DELETE FROM entries WHERE seq > 4"],
        "Entry 5 of journal main is missing, and so is all up to 6: the journal's head says that it ends there.",
    ),
    "all removed": (
        ["DELETE FROM entries"],
        "Entry 1 of journal main is missing, and so is all up to 6: the journal's head says that it ends there.",
    ),
    "seq moved": (["UPDATE entries SET seq = 60 WHERE seq = 6"], "Entry 6 of journal main is missing, and so is all up to 59."),
    "before the first": (
        ["UPDATE entries SET seq = -1 WHERE seq = 1"],
        "Entry 1 of journal main does not follow: -1 stands there.",
    ),
    "head removed": (["DELETE FROM journals"], "Entry 7 of journal main may be missing: the journal has lost its head."),
    "head set back": (
        ["UPDATE journals SET seq = 5"],
        "Entry 6 of journal main was added behind the journal's head, which is 5.",
    ),
    "head's hash changed": (
        ["UPDATE journals SET hash = (SELECT hash FROM entries WHERE seq = 5)"],
        "Entry 6 of journal main has another hash than the journal's head.",
    ),
    "row moved to another journal": (
        ["UPDATE entries SET journal = 'other' WHERE seq = 6"],
        "Entry 6 of journal main is missing: the journal's head says that it ends there.",
    ),
    "two rows swapped": (
        [
            "UPDATE entries SET seq = 40 WHERE seq = 4",
            "UPDATE entries SET seq = 4 WHERE seq = 3",
            "UPDATE entries SET seq = 3 WHERE seq = 40",
        ],
        "Entry 3 of journal main was altered: its hash does not follow from it and the entry before.",
    ),
}


@pytest.mark.parametrize("name", CHAIN_TAMPERINGS)
async def test_a_removed_moved_or_added_row_is_found(ledger, name):
    statements, text = CHAIN_TAMPERINGS[name]
    with tampering(ledger.folder) as run:
        for statement in statements:
            run(statement)
    assert (Kind.CHAIN, text) in said(judge(ledger.folder, ledger.now))


async def test_every_altered_row_is_named_and_not_all_that_stand_behind_it(ledger):
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET reason = 'none' WHERE seq IN (2, 5)")
    assert [finding.numbers["seq"] for finding in judge(ledger.folder, ledger.now).findings] == [2, 5]


async def test_a_tail_that_was_cut_with_its_head_is_shown_by_a_head_kept_elsewhere(ledger):
    """
    Whoever can write the database can write the head in it too: only what lies elsewhere is out of his reach.
    """
    walk = judge(ledger.folder, ledger.now).walks[0]
    kept = {"main": {walk.seq: walk.digest}}
    assert judge(ledger.folder, ledger.now, kept).is_whole
    with tampering(ledger.folder) as run:
        ((digest,),) = run("SELECT hash FROM entries WHERE seq = 4")
        run("DELETE FROM entries WHERE seq > 4")
        run("UPDATE journals SET seq = 4, hash = ?", digest)
    assert {finding.kind for finding in judge(ledger.folder, ledger.now).findings} <= {Kind.BALANCE, Kind.HOLD}
    text = "Entry 6 of journal main is missing: its hash was kept elsewhere, and the journal ends at 4."
    assert (Kind.HEAD, text) in said(judge(ledger.folder, ledger.now, kept))


async def test_holds_tell_of_entries_that_were_cut_with_their_head(ledger):
    """
    Without a head kept elsewhere, too: whoever takes a line away has to think of its hold.
    """
    with tampering(ledger.folder) as run:
        ((hold_id, digest),) = run("SELECT b.hold_id, a.hash FROM entries a JOIN entries b ON a.seq = 2 AND b.seq = 3")
        run("DELETE FROM entries WHERE seq > 2")
        run("UPDATE journals SET seq = 2, hash = ?", digest)
    holds = [finding.text for finding in judge(ledger.folder, ledger.now).findings if finding.kind is Kind.HOLD]
    assert holds == [f"Hold {hold_id} is expired, and its entry is missing."]


async def test_a_chain_that_was_hashed_anew_is_shown_by_a_head_kept_elsewhere(ledger):
    walk = judge(ledger.folder, ledger.now).walks[0]
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET reason = 'another' WHERE seq = 5")
        run("UPDATE journals SET hash = ?", rehash(run))
    assert judge(ledger.folder, ledger.now).is_whole
    (found,) = judge(ledger.folder, ledger.now, {"main": {walk.seq: walk.digest}}).findings
    assert (found.kind, found.numbers) == (Kind.HEAD, {"journal": "main", "seq": 6})


async def test_a_head_of_a_journal_that_is_not_there_is_a_finding(ledger):
    assert said(judge(ledger.folder, ledger.now, {"main-2": {5: bytes(32)}})) == [
        ("head", "Entry 5 of journal main-2 is missing: its hash was kept elsewhere, and the journal ends at 0.")
    ]


# --- balances -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["posted", "held"])
@pytest.mark.parametrize("name", [cap.name for cap in LIMITS])
async def test_an_edited_balance_is_found_with_what_it_should_be(ledger, name, what):
    """
    Every row, of windows that are over too: at any time one may still be moved.
    """
    with tampering(ledger.folder) as run:
        before = run(f"SELECT bucket, {what} FROM balances WHERE limit_name = ? ORDER BY bucket", name)  # noqa: S608 -- ours
        run(f"UPDATE balances SET {what} = {what} + 7 WHERE limit_name = ?", name)  # noqa: S608 -- likewise
    found = judge(ledger.folder, ledger.now).findings
    assert {finding.kind for finding in found} == {Kind.BALANCE}
    assert [(f.numbers["limit"], f.numbers["what"], f.numbers["expected"], f.numbers["found"]) for f in found] == [
        (name, what, value, value + 7) for _, value in before
    ]


@pytest.mark.parametrize("name", ["month", "ever", "at-once"])
async def test_a_balance_that_was_removed_is_missed_while_its_window_counts(ledger, name):
    with tampering(ledger.folder) as run:
        before = run("SELECT posted, held FROM balances WHERE limit_name = ? AND (posted <> 0 OR held <> 0)", name)
        run("DELETE FROM balances WHERE limit_name = ?", name)
    found = judge(ledger.folder, ledger.now).findings
    missed = [(f.numbers["limit"], f.numbers["found"]) for f in found]
    assert missed == [(name, 0)] * len(missed)
    assert sum(f.numbers["expected"] for f in found) == sum(posted + held for posted, held in before)


async def test_a_balance_of_a_window_that_never_was_is_found(ledger):
    with tampering(ledger.folder) as run:
        run("INSERT INTO balances (limit_name, bucket, posted, held) VALUES ('month', 5, 1, 0)")
    assert said(judge(ledger.folder, ledger.now)) == [
        ("balance", "Limit 'month', bucket 1970-01-01T00:00:00.000005Z: 1 nano-USD are posted, it should be 0.")
    ]


async def test_rebuilding_sets_right_what_was_edited_and_says_what(ledger):
    with tampering(ledger.folder) as run:
        before = run("SELECT limit_name, bucket, posted, held FROM balances ORDER BY limit_name, bucket")
        run("UPDATE balances SET posted = posted + 5 WHERE limit_name = 'month'")
        run("UPDATE balances SET held = held + 2 WHERE limit_name = 'at-once'")
        run("DELETE FROM balances WHERE limit_name = 'ever'")
        run("INSERT INTO balances (limit_name, bucket, posted, held) VALUES ('day', 5, 1, 0)")
    clock = Clock(ledger.now)
    async with open_ledger(ledger.folder, clock) as lane:
        changed = await lane.edit(rebuild)
        assert {(one.limit, one.posted - one.posted_before, one.held - one.held_before) for one in changed} == {
            ("month", -5, 0),
            ("at-once", 0, -2),
            ("ever", 80 + 50 - 50, 100),
            ("day", -1, 0),
        }
        assert await lane.edit(rebuild) == []
        state = await lane.snapshot()
        assert state.gauge(next(cap for cap in lane.catalog.limits if cap.name == "at-once"), clock()).held == 1
    assert judge(ledger.folder, ledger.now).is_whole
    with tampering(ledger.folder) as run:
        assert run("SELECT limit_name, bucket, posted, held FROM balances ORDER BY limit_name, bucket") == before


# --- schema and file ----------------------------------------------------------------------------------------------------


async def test_a_missing_or_altered_trigger_is_found(ledger):
    with tampering(ledger.folder):
        assert {finding.kind for finding in judge(ledger.folder, ledger.now).findings} == {Kind.SCHEMA}
        first = said(judge(ledger.folder, ledger.now))[0][1]
    assert first.endswith("is missing or was altered.")
    assert judge(ledger.folder, ledger.now).is_whole


async def test_a_schema_that_is_not_ours_is_a_finding_and_nothing_else_is_read(ledger):
    with tampering(ledger.folder) as run:
        run("UPDATE alembic_version SET version_num = '0003'")
    (finding,) = judge(ledger.folder, ledger.now).findings
    assert (finding.kind, "run `quota-router db upgrade`" in finding.text) == (Kind.SCHEMA, True)


async def test_a_hold_or_a_catalog_that_cannot_be_read_is_a_finding_and_the_chain_is_walked(ledger):
    with tampering(ledger.folder) as run:
        run("UPDATE holds SET estimate = '[' WHERE state = 'held'")
    verdict = judge(ledger.folder, ledger.now)
    assert Kind.HOLD in {finding.kind for finding in verdict.findings}
    with tampering(ledger.folder) as run:
        run("UPDATE limits SET \"window\" = 'fortnight' WHERE name = 'day'")
    verdict = judge(ledger.folder, ledger.now)
    assert [finding.kind for finding in verdict.findings] == [Kind.SCHEMA]
    assert verdict.walks[0].entries == 6


@pytest.mark.parametrize("moment", [2**63 - 1, -(2**62)])
async def test_moments_that_no_calendar_has_are_told_about_and_are_no_crash(ledger, moment):
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET held_at = ?, at = ? WHERE seq = 2", moment, moment)
        run("UPDATE journals SET at = ?", moment)
        run("UPDATE balances SET bucket = ? WHERE limit_name = 'month'", moment)
        run("UPDATE holds SET held_at = ? WHERE state = 'held'", moment)
    verdict = judge(ledger.folder, ledger.now)
    assert {Kind.CHAIN, Kind.BALANCE, Kind.HOLD} == {finding.kind for finding in verdict.findings}
    with tampering(ledger.folder) as run:
        run('UPDATE windows SET "end" = ?', moment)
    assert Kind.SCHEMA in {finding.kind for finding in judge(ledger.folder, ledger.now).findings}


async def test_bytes_that_are_no_text_are_found_where_they_stand(ledger):
    if is_postgres():
        pytest.skip("a server takes no such bytes")
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET caller = CAST(x'63ff' AS TEXT) WHERE seq = 2")
    chain = [finding.numbers for finding in judge(ledger.folder, ledger.now).findings if finding.kind is Kind.CHAIN]
    assert chain == [{"journal": "main", "seq": 2}]


async def test_a_damaged_file_is_told_about_and_is_no_crash(ledger):
    if is_postgres():
        pytest.skip("the server's files are its own")
    path = ledger.folder / "state" / "ledger.db"
    with closing(sqlite3.connect(path)) as conn:
        ((root,),) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'")
        ((size,),) = conn.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)
    found = judge(ledger.folder, ledger.now).findings
    assert Kind.FILE in {finding.kind for finding in found}


# --- how it reads -------------------------------------------------------------------------------------------------------


async def test_more_balances_than_fit_are_compared_in_parts(ledger, monkeypatch):
    with tampering(ledger.folder) as run:
        run("UPDATE balances SET posted = posted + 1")
        run("DELETE FROM balances WHERE limit_name = 'ever'")
    at_once = judge(ledger.folder, ledger.now)
    monkeypatch.setattr(audit, "BALANCES_AT_ONCE", 2)
    in_parts = judge(ledger.folder, ledger.now)
    assert (said(in_parts), in_parts.balances) == (said(at_once), at_once.balances)
    assert at_once.balances > 4


async def test_entries_are_read_in_batches_and_never_all_at_once(ledger, monkeypatch):
    monkeypatch.setattr(streaming, "BATCH_ROWS", 4)
    with reading_beside(url_of(ledger.folder)) as conn:
        cursors = []
        event.listen(conn.engine, "after_cursor_execute", lambda _c, cursor, *_: cursors.append(type(cursor).__name__))
        assert [len(batch) for batch in streaming.stream_entries(conn)] == [4, 2]
    assert cursors[-1] == ("ServerCursor" if is_postgres() else "Cursor")


async def test_what_reads_beside_cannot_write(ledger):
    with pytest.raises(LedgerUnavailable, match=r"cannot be read: .*read.?only"), reading_beside(url_of(ledger.folder)) as conn:
        conn.execute(delete(balances))


async def test_who_waits_is_told_how_far_it_is(ledger):
    told = []
    with reading_beside(url_of(ledger.folder)) as conn:
        audit.verify(conn, ledger.now, None, lambda done, total: told.append((done, total)))
    assert told == [(6, 6)]


async def test_findings_beyond_a_bound_are_counted_only(ledger, monkeypatch):
    monkeypatch.setattr(verdict_room, "FINDINGS_KEPT", 2)
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET reason = 'none'")
    verdict = judge(ledger.folder, ledger.now)
    assert (len(verdict.findings), verdict.found) == (2, 6)


def test_the_check_shares_no_sum_with_what_it_checks():
    """
    Projection lets the database count; the audit counts by itself. One that called the other would agree with its mistakes.
    """
    folder = Path(quota_router.store.__file__).parent
    for room in ("audit", "tally", "chain", "streaming"):
        nodes = list(ast.walk(ast.parse((folder / f"{room}.py").read_text())))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert "quota_router.store.projection" not in imported
        assert "quota_router.store.rebuild" not in imported


# --- any history --------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "post", "post", "void", "sweep", "late", "adjust", "restart", "edit", "extend"]),
        st.integers(0, 100),
        st.sampled_from([0.001, 1, 600, 7_200, 90_000]),
    ),
    min_size=1,
    max_size=25,
)


class History:
    """Does what it is told to a ledger, step by step."""

    def __init__(self, folder, clock):
        self.folder, self.clock, self.of = folder, clock, OF
        self.open, self.gone = [], []

    async def run(self, steps):
        remaining = list(steps)
        while remaining:
            async with open_ledger(self.folder, self.clock, self.of) as lane:
                while remaining:
                    what, number, seconds = remaining.pop(0)
                    self.clock.forward(seconds=seconds)
                    if what == "restart":
                        break
                    await getattr(self, what)(lane, number)

    async def hold(self, lane, number):
        labels = ("docs",) if number % 2 else ()
        admitted = await lane.run(admit(self.of, call(labels=labels), ttl_s=60 if number % 3 else 10**6))
        if isinstance(admitted, Admission):
            self.open.append(admitted.hold)

    async def post(self, lane, number):
        if self.open:
            await self._settle(lane, self.open.pop(number % len(self.open)), post(number, number % 7))

    async def void(self, lane, number):
        if self.open:
            await self._settle(lane, self.open.pop(number % len(self.open)), void())

    async def late(self, lane, number):
        if self.gone:
            await self._settle(lane, self.gone.pop(number % len(self.gone)), post(number, 1) if number % 3 else void())

    async def _settle(self, lane, hold, settlement):
        await lane.run(Settle(hold_id=hold.id, settlement=settlement))

    async def sweep(self, lane, number):
        await lane.run(Sweep(orphans=number % 10 == 0))
        alive = (await lane.snapshot()).holds
        self.gone += [hold for hold in self.open if hold.id not in alive]
        self.open = [hold for hold in self.open if hold.id in alive]

    async def adjust(self, lane, number):
        at = max(NOON, self.clock() - timedelta(hours=number)) if number % 2 else None
        await lane.run(adjust(number * 1_000 - 30_500, held_at=at))

    async def extend(self, lane, number):
        await self.hold(lane, number)

    async def edit(self, lane, number):
        changed = LIMITS[number % len(LIMITS)]
        others = [cap for cap in LIMITS if cap.name != changed.name]
        window = ("hour", None) if number % 2 else ("3h", "first_use")
        again = limit(changed.name, subject=changed.subject, unit=changed.unit, limit=changed.limit + number)
        moved = limit(changed.name, unit=changed.unit, limit=changed.limit, window=window[0], anchor=window[1])
        kept = [] if number % 5 == 0 else [moved if number % 3 and changed.unit is not Unit.CONCURRENCY else again]
        self.of = catalog(*others, *kept)
        await lane.edit_catalog(self.of)


async def dump(lane):
    async with lane.reader.connect() as conn:
        return sorted(tuple(row) for row in await conn.execute(select(balances)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
@example(steps=[("hold", 1, 1), ("sweep", 1, 90_000), ("edit", 7, 1), ("late", 1, 1)])  # late, into a window that has no row
@example(steps=[("hold", 0, 1), ("hold", 0, 1), ("post", 0, 1), ("edit", 7, 90_000), ("post", 0, 1)])  # open, in one that is over
async def test_after_any_history_the_ledger_is_whole_and_rebuilding_changes_nothing(tmp_path_factory, steps):
    folder, clock = tmp_path_factory.mktemp("ledger"), Clock()
    history = History(folder, clock)
    await history.run(steps)
    assert said(judge(folder, clock())) == []
    async with open_ledger(folder, clock) as lane:
        before = await dump(lane)
        assert await lane.edit(rebuild) == []
        assert await dump(lane) == before
    assert said(judge(folder, clock())) == []

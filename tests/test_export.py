"""The entries as a file: every column, the same values back, and never all of them in memory."""

import hashlib
import io
import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from database_kit import url_of
from ledger_kit import Clock, admit, call, catalog, new_id, open_ledger, post
from tamper_kit import tampering

from quota_router.core.adjustments import Adjustment, Place, id_of_uuid
from quota_router.core.catalog import Caller
from quota_router.store import streaming
from quota_router.store.adjusting import Adjust
from quota_router.store.export import COLUMNS, Format, export
from quota_router.store.holding import Sweep
from quota_router.store.ledger import Settle
from quota_router.store.lines import STORED
from quota_router.store.open import reading_beside
from quota_router.store.rows import Entry
from quota_router.store.tables import entries, microseconds

pytestmark = pytest.mark.usefixtures("database")
AWKWARD = 'a "quoted", name\nover;\ttwo\x7flines\\ / — Ünïcode 🦊'
AUTUMN = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
"""Half an hour before Berlin's clock goes back."""


@pytest.fixture
async def ledger(tmp_path):
    clock, of = Clock(AUTUMN), catalog()
    async with open_ledger(tmp_path, clock, of) as lane:
        for number in range(5):
            caller = Caller(name=AWKWARD if number % 2 else "ci", token_sha256="0" * 64)
            asked = call(caller=caller, labels=(AWKWARD, "docs") if number else (), workflow="" if number == 2 else None, stage="s")
            hold = (await lane.run(admit(of, asked, ttl_s=60))).hold
            clock.forward(minutes=20)
            settlement = post(number, cost_nusd=None if number == 3 else number, price_version="", price_source="file")
            await lane.run(Sweep() if number == 4 else Settle(hold_id=hold.id, settlement=settlement))
        place = Place(provider="one", account="one", model="", upstream_model="", caller="")
        said = Adjustment(id=id_of_uuid(new_id()), cost_nusd=-5, reason=AWKWARD, admin="admin", of=place)
        await lane.run(Adjust(said=said))
    return SimpleNamespace(folder=tmp_path, now=clock.now)


def write(ledger, form, **options):
    out = io.BytesIO()
    with reading_beside(url_of(ledger.folder)) as conn:
        count = export(conn, out, form, **options)
    return count, out.getvalue().decode()


def stored(ledger):
    """The rows as they stand in the table."""
    with reading_beside(url_of(ledger.folder)) as conn:
        return [tuple(row) for row in conn.execute(entries.select().with_only_columns(*STORED).order_by(entries.c.seq))]


FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)')


def read_csv(text):
    """Read CSV as PostgreSQL's COPY does: what is quoted is text, what is empty is nothing, the rest are numbers."""
    rows, row = [], []
    for found in FIELD.finditer(text):
        quoted, bare, end = found.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else bare if not rows else int(bare) if bare else None)
        if end == "\n":
            rows.append(row)
            row = []
    assert sum(len(found[0]) for found in FIELD.finditer(text)) == len(text)
    head, *lines = rows
    return [dict(zip(head, line, strict=True)) for line in lines]


def read_jsonl(text):
    lines = [json.loads(line) for line in text.splitlines()]
    return [{**line, "labels": json.dumps(line["labels"], ensure_ascii=False, separators=(",", ":"))} for line in lines]


def back_again(line):
    """The values of a line as they are stored."""
    moments = {name: microseconds(datetime.fromisoformat(line[name])) for name in ("held_at", "at")}
    return tuple({**line, **moments, "hash": bytes.fromhex(line["hash"])}[name] for name in COLUMNS)


READERS = [(Format.CSV, read_csv), (Format.JSONL, read_jsonl)]


@pytest.mark.parametrize(("form", "read"), READERS)
async def test_the_same_values_come_back(ledger, form, read):
    """
    Nothing and an empty text, quotes and lines, a price that is unknown and one that is 0.
    """
    count, text = write(ledger, form)
    lines = read(text)
    assert [back_again(line) for line in lines] == stored(ledger)
    assert count == len(lines) == 6
    assert {line["workflow"] for line in lines} == {None, ""}
    assert {line["cost_nusd"] for line in lines} >= {None, 0, -5}


@pytest.mark.parametrize(("form", "read"), READERS)
async def test_whoever_has_the_file_can_work_the_hashes_out_anew(ledger, form, read):
    """
    By the words of the README alone, with nothing of ours.
    """
    digest = bytes(32)
    for line in read(write(ledger, form)[1]):
        *values, found = back_again(line)
        row = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.sha256(digest + b"1" + row.encode()).digest()
        assert found == digest


async def test_the_columns_are_those_of_the_table(ledger):
    head = write(ledger, Format.CSV)[1].partition("\n")[0]
    assert head.split(",") == [column.name for column in entries.columns] == [*Entry.__struct_fields__, "hash"]
    assert list(json.loads(write(ledger, Format.JSONL)[1].partition("\n")[0])) == head.split(",")


async def test_the_order_is_the_same_each_time(ledger):
    first = write(ledger, Format.CSV)
    assert first == write(ledger, Format.CSV)
    assert [line["seq"] for line in read_csv(first[1])] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("form", "read"), READERS)
async def test_a_zone_adds_its_own_times_and_takes_nothing_away(ledger, form, read):
    """
    The hour that Berlin's clock repeats is told apart by its offset.
    """
    lines = read(write(ledger, form, tz=ZoneInfo("Europe/Berlin"))[1])
    assert [line["held_at_local"][11:16] + line["held_at_local"][-6:] for line in lines[:4]] == [
        "02:30+02:00",
        "02:50+02:00",
        "02:10+01:00",
        "02:30+01:00",
    ]
    plain = read(write(ledger, form)[1])
    assert [{name: value for name, value in line.items() if not name.endswith("_local")} for line in lines] == plain


async def test_a_time_is_half_open_and_by_the_hold(ledger):
    since, until = AUTUMN + timedelta(minutes=20), AUTUMN + timedelta(minutes=60)
    count, text = write(ledger, Format.CSV, since=since, until=until)
    assert (count, [line["seq"] for line in read_csv(text)]) == (2, [2, 3])
    assert write(ledger, Format.CSV, since=ledger.now + timedelta(days=1))[0] == 0


async def test_it_writes_batch_by_batch_and_says_how_far_it_is(ledger, monkeypatch):
    """
    No more than one batch is ever between the database and the file.
    """
    monkeypatch.setattr(streaming, "BATCH_ROWS", 2)
    writes, told = [], []
    out = SimpleNamespace(write=lambda data: writes.append(data.count(b"\n")))
    with reading_beside(url_of(ledger.folder)) as conn:
        export(conn, out, Format.JSONL, progress=lambda written: told.append((written, len(writes))))
    assert writes == [2, 2, 2]
    assert told == [(2, 1), (4, 2), (6, 3)]


async def test_what_no_entry_can_hold_is_told_as_it_is(ledger):
    with tampering(ledger.folder) as run:
        run("UPDATE entries SET labels = 'none', held_at = ? WHERE seq = 1", 2**63 - 1)
    (line,) = [json.loads(line) for line in write(ledger, Format.JSONL, tz=ZoneInfo("UTC"))[1].splitlines() if '"seq":1,' in line]
    assert (line["labels"], line["held_at"], line["held_at_local"]) == ("none", str(2**63 - 1), None)

"""
The laws of a ledger, judged by what lies on disk and nothing else.

Law: each check works everything out a second time, in whole numbers, from rows that it reads over a connection of its own; the
first law that does not hold is named. Nothing of the product's arithmetic stands here: not its windows, its sums, its hashes.
Never: judges windows that are over, but for what open holds still take from them: nobody counts the rest.

Instants are microseconds since 1970. The numbers are those of the ledger's invariants: I1 posted and held are sums, I2 one end per
hold, I4 and I5 caps, I6 and I7 what was acknowledged is there, I10 late words, I13 order, I15 the chain, I17 keys, I19 windows,
I20 edits, I22 amounts, I23 unknown is not zero.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import database_kit
import psycopg
from psycopg.rows import dict_row
from sqlalchemy.engine import make_url

Row = Mapping[str, Any]
TABLES = {"entries": "journal, seq", "holds": "id", "balances": "limit_name, bucket", "windows": "limit_name, start"}
TABLES |= {"journals": "name", "limits": "name", "calls": "id", "totals": "account"}
SECOND = 10**6
SPANS = {"s": SECOND, "m": 60 * SECOND, "h": 3_600 * SECOND, "d": 86_400 * SECOND}
START = datetime(1970, 1, 1, tzinfo=UTC)
PIECES = 60
"""In which a rolling window is counted."""
LARGEST = 2**53
NO_BEFORE = bytes(32)


def us(at: datetime) -> int:
    """An instant in microseconds."""
    return (at - START) // timedelta(microseconds=1)


def instant(at_us: int) -> datetime:
    """The other way."""
    return START + timedelta(microseconds=at_us)


class LawBroken(AssertionError):
    """A law does not hold. `law` is its number."""

    def __init__(self, law: str, said: str) -> None:
        super().__init__(f"{law}: {said}")
        self.law = law


def hold_to(law: str, is_kept: bool, said: object) -> None:
    """Raise unless the law is kept."""
    if not is_kept:
        raise LawBroken(law, str(said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies on disk at one moment."""

    entries: list[Row]
    holds: list[Row]
    balances: list[Row]
    windows: list[Row]
    journals: list[Row]
    limits: list[Row]
    calls: list[Row]
    totals: list[Row]

    def opened(self, limit_name: str) -> list[tuple[int, int]]:
        """The first-use windows of a limit."""
        return [(row["start"], row["end"]) for row in self.windows if row["limit_name"] == limit_name]


class Disk:
    """Reads a ledger as another program would. *folder* is that of `database_kit.url_of`."""

    def __init__(self, folder: Path) -> None:
        if database_kit.is_postgres():
            self._conn: Any = psycopg.connect(database_kit.plain_url_of(folder), row_factory=dict_row)
            self._conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._conn.read_only = True
        else:
            path = make_url(database_kit.url_of(folder)).database
            self._conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            self._conn.row_factory = sqlite3.Row

    def read(self) -> Found:
        """Read everything, as of one moment."""
        if isinstance(self._conn, sqlite3.Connection):
            self._conn.execute("BEGIN")
        found = {
            table: [dict(row) for row in self._conn.execute(f"SELECT * FROM {table} ORDER BY {order}")]  # noqa: S608 -- constants
            for table, order in TABLES.items()
        }
        self._conn.rollback()
        return Found(**found)

    def close(self) -> None:
        """Let go of it."""
        self._conn.close()


def read_disk(folder: Path) -> Found:
    """Read a ledger once."""
    with closing(Disk(folder)) as disk:
        return disk.read()


# --- every law at once --------------------------------------------------------------------------------------------------


def check_laws(found: Found, now_us: int) -> None:
    """Check every law that can be seen on disk alone."""
    check_chain(found)
    check_ends(found)
    check_amounts(found)
    check_prices(found)
    check_windows(found)
    check_balances(found, now_us)
    check_totals(found)


def check_chain(found: Found) -> None:
    """I13, I15: entries are numbered without a gap, in time, each hashed onto the one before, and the head is the last."""
    ends: dict[str, tuple[int, bytes, int]] = {}
    for row in found.entries:
        *stored, digest = row.values()
        seq, before, at = ends.get(row["journal"], (0, NO_BEFORE, 0))
        hold_to("I13", row["seq"] == seq + 1, f"{row['journal']} goes from {seq} to {row['seq']}")
        hold_to("I13", row["at"] >= at, f"{row['journal']} {row['seq']} was booked before the entry before it")
        told = json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode()
        hold_to("I15", digest == hashlib.sha256(before + b"1" + told).digest(), f"{row['journal']} {row['seq']} does not follow")
        ends[row["journal"]] = (seq + 1, digest, row["at"])
    for journal in found.journals:
        seq, digest, _ = ends.pop(journal["name"], (0, NO_BEFORE, 0))
        hold_to("I15", (journal["seq"], journal["hash"]) == (seq, digest), f"the head of {journal['name']} is another")
    hold_to("I15", not ends, f"journals without a head: {list(ends)}")


def check_ends(found: Found) -> None:
    """I2: a hold has one end, and the lines of money that go with it."""
    booked: dict[str, list[str]] = {}
    for row in found.entries:
        if row["kind"] != "adjust":
            booked.setdefault(row["hold_id"], []).append(row["kind"])
    for hold in found.holds:
        kinds, state = sorted(booked.pop(hold["id"], [])), hold["state"]
        fitting = {"held": [[]], "voided": [[]], "posted": [["post"]], "expired": [["expire"], ["expire", "late"]]}[state]
        hold_to("I2", kinds in fitting, f"hold {hold['id']} is {state} and has {kinds}")
    hold_to("I2", not booked, f"lines of no hold: {booked}")


def check_amounts(found: Found) -> None:
    """I22: whole, in bounds, and nothing is negative that cannot be."""
    for row in found.entries:
        cost = row["cost_nusd"] or 0
        hold_to("I22", abs(cost) < LARGEST and (cost >= 0 or row["kind"] in {"late", "adjust"}), dict(row))
    for row in found.balances:
        hold_to("I22", row["held"] >= 0, dict(row))


def check_prices(found: Found) -> None:
    """I23: where the price was unknown when it was held, and is unknown still, the cost is unknown: it is not zero."""
    for row in found.entries:
        is_unknown = row["kind"] in {"post", "expire"} and row["estimate_nusd"] is None and row["price_source"] is None
        hold_to("I23", not is_unknown or row["cost_nusd"] is None, f"{row['kind']} of {row['hold_id']} costs {row['cost_nusd']}")


def check_windows(found: Found) -> None:
    """I19: an instant lies in one first-use window: the next is opened when the last is over."""
    for before, after in pairwise(found.windows):
        is_apart = before["limit_name"] != after["limit_name"] or before["end"] <= after["start"]
        hold_to("I19", is_apart, f"{after['limit_name']} was opened at {after['start']}, and is open until {before['end']}")


def check_balances(found: Found, now_us: int) -> None:
    """I1, I16: what is posted and what is held under each limit is the sum of entries, and of open holds."""
    for limit in (limit for limit in found.limits if limit["enabled"]):
        opened = found.opened(limit["name"])
        posted, held = sums(found, limit, opened)
        for name, summed in (("posted", posted), ("held", held)):
            kept: Counter[Any] = Counter()
            for row in found.balances:
                if row["limit_name"] == limit["name"]:
                    kept[key_of(limit, row["bucket"], opened)] += row[name]
            is_asked = counting(limit, now_us, opened) if name == "posted" else lambda _: True
            both = {key: (kept[key], summed[key]) for key in kept.keys() | summed.keys() if is_asked(key)}
            wrong = {key: pair for key, pair in both.items() if pair[0] != pair[1]}
            hold_to("I1", not wrong, f"{name} under {limit['name']}: window -> (kept, sum) {wrong}")


def check_totals(found: Found) -> None:
    """I1: what an account has posted and holds, at list price, is the sum of its entries and of its open holds' likely amounts."""
    summed: dict[str, Counter[str]] = {}
    for row in found.entries:
        list_nusd = (row["cost_nusd"] or 0) + (row["shadow_cost_nusd"] or 0)
        counts = {"nusd": list_nusd, "requests": posted_of("requests", row)}
        counts |= {unit: posted_of(unit, row) for unit in ("input_tokens", "output_tokens")}
        summed.setdefault(row["account"], Counter()).update({f"posted_{name}": count for name, count in counts.items()})
    for row in found.holds:
        if row["state"] == "held":
            likely = json.loads(row["estimate"])["likely"]
            likely["nusd"] = likely.pop("cost_nusd")
            summed.setdefault(row["account"], Counter()).update({f"held_{name}": count for name, count in likely.items()})
    for total in found.totals:
        sums = summed.pop(total["account"], Counter())
        wrong = {name: (kept, sums[name]) for name, kept in total.items() if name != "account" and kept != sums[name]}
        hold_to("I1", not wrong, f"totals of {total['account']}: (kept, sum) {wrong}")
    hold_to("I1", not any(any(counts.values()) for counts in summed.values()), f"accounts without totals: {list(summed)}")


def check_caps(found: Found, now_us: int) -> None:
    """I4, I5: what a strict limit counts is at most its cap, and what answers took beyond what was held for them."""
    for limit in (limit for limit in found.limits if limit["enabled"] and limit["enforcement"] == "strict"):
        taken, overrun = taken_of(found, limit, now_us)
        hold_to("I5", taken <= limit["amount"] + overrun, f"{limit['name']}: {taken} of {limit['amount']}, overruns {overrun}")


def check_acknowledged(found: Found, hold_ids: Iterable[str]) -> None:
    """I6, I7: whoever was told that his settlement is booked finds it there."""
    booked = {row["hold_id"] for row in found.entries if row["kind"] in {"post", "late"}}
    missing = [hold_id for hold_id in hold_ids if hold_id not in booked]
    hold_to("I6", not missing, f"acknowledged and not booked: {missing}")


# --- sums -----------------------------------------------------------------------------------------------------------------


def sums(found: Found, limit: Row, opened: list[tuple[int, int]]) -> tuple[Counter[Any], Counter[Any]]:
    """What entries post and open holds hold under a limit, by window."""
    posted: Counter[Any] = Counter()
    held: Counter[Any] = Counter()
    for row in found.entries:
        if is_counted(limit, row):
            posted[key_of(limit, row["held_at"], opened)] += posted_of(limit["unit"], row)
    for row in found.holds:
        if row["state"] == "held" and is_counted(limit, row):
            held[key_of(limit, row["held_at"], opened)] += held_of(limit, row)
    posted.pop(None, None)
    held.pop(None, None)
    return posted, held


def taken_of(found: Found, limit: Row, now_us: int) -> tuple[int, int]:
    """What a limit's window of this moment has taken, and how much of it went beyond what was held."""
    opened = found.opened(limit["name"])
    counts = counting(limit, now_us, opened)
    posted, held = sums(found, limit, opened)
    taken = sum(amount for summed in (posted, held) for key, amount in summed.items() if counts(key))
    holds = {row["id"]: row for row in found.holds}
    used: Counter[str] = Counter()
    for row in found.entries:
        if is_counted(limit, row) and counts(key_of(limit, row["held_at"], opened)):
            used[row["hold_id"]] += posted_of(limit["unit"], row)
    return taken, sum(max(0, amount - held_of(limit, holds[hold_id])) for hold_id, amount in used.items())


def posted_of(unit: str, row: Row) -> int:
    """What one line of money counts in a unit."""
    match unit:
        case "usd":
            return row["cost_nusd"] or 0
        case "requests":
            return int(row["kind"] in {"post", "expire"})
        case "concurrency":
            return 0
        case _:
            return _tokens(row, unit)


def held_of(limit: Row, hold: Row) -> int:
    """What one hold takes from a limit: the upper bound where the limit is strict and there is one, else the likely amount."""
    estimate = json.loads(hold["estimate"])
    is_strict = limit["enforcement"] == "strict" and estimate["upper"] is not None
    amounts = estimate["upper"] if is_strict else estimate["likely"]
    match limit["unit"]:
        case "usd":
            return amounts["cost_nusd"]
        case "tokens":
            return amounts["input_tokens"] + amounts["output_tokens"]
        case "input_tokens" | "output_tokens":
            return amounts[limit["unit"]]
        case _:
            return amounts["requests"]


def is_counted(limit: Row, row: Row) -> bool:
    """Whether a limit counts this hold, or this line of money."""
    kind, _, name = limit["subject"].partition(":")
    match kind:
        case "everyone":
            return True
        case "label":
            return name in json.loads(row["labels"])
        case "attachment":
            return f"{row['model']}/{row['provider']}" == name
        case _:
            return row[kind] == name


def _tokens(row: Row, which: str) -> int:
    read = row["input"] + row["cache_read"] + row["cache_write_5m"] + row["cache_write_1h"]
    written = row["output"] + row["reasoning"]
    return {"input_tokens": read, "output_tokens": written}.get(which, read + written)


# --- windows --------------------------------------------------------------------------------------------------------------


def key_of(limit: Row, at_us: int, opened: list[tuple[int, int]]) -> Any:
    """Name the window, or the piece of a rolling one, in which an instant counts; `None`: it counts in none."""
    window, anchor = limit["window"], limit["anchor"]
    if limit["unit"] == "concurrency" or window == "forever":
        return "forever"
    if window in {"hour", "day", "week", "month", "year"}:
        return _local_key(window, anchor, at_us, limit["timezone"])
    span = int(window[:-1]) * SPANS[window[-1]]
    if anchor in {None, "rolling"}:
        return at_us // -(-span // PIECES)
    if anchor == "first_use":
        return next((start for start, end in reversed(opened) if start <= at_us < end), None)
    return (at_us - us(datetime.fromisoformat(anchor))) // span


def counting(limit: Row, now_us: int, opened: list[tuple[int, int]]) -> Callable[[Any], bool]:
    """Which windows count now: one, or the pieces of a rolling one; a piece that lies partly in it counts whole."""
    current = key_of(limit, now_us, opened)
    is_rolling = isinstance(current, int) and limit["anchor"] in {None, "rolling"}
    if not is_rolling:
        return lambda key: key == current and current is not None
    span = int(limit["window"][:-1]) * SPANS[limit["window"][-1]]
    first = (now_us - span) // -(-span // PIECES)
    return lambda key: first <= key <= current


def _local_key(window: str, anchor: str | None, at_us: int, timezone: str) -> tuple[int, ...]:
    assert anchor is None, "weeks and billing days of their own have their own tests"
    local = instant(at_us).astimezone(ZoneInfo(timezone))
    if window == "week":
        return tuple(local.isocalendar())[:2]
    # An hour that the clock repeats is another hour.
    hour = (local.hour, int((local.utcoffset() or timedelta(0)).total_seconds()))
    return {
        "hour": (local.year, local.month, local.day, *hour),
        "day": (local.year, local.month, local.day),
        "month": (local.year, local.month),
        "year": (local.year,),
    }[window]

"""
A ledger of plain dicts and whole numbers: what any ledger must answer to any word.

Law: decisions, ends, windows and sums are worked out a second time, from the words alone; instants are microseconds since 1970.
Never: looks at what a ledger has written. `laws_kit` does, and `check_same` compares the two.

A new kind of word is one class more: it says which job it is and what the model makes of it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from laws_kit import SECOND, Found, counting, hold_to, instant, key_of, us
from ledger_kit import CALLER, attachment, call, provider
from msgspec.structs import replace

from quota_router.core.adjustments import Adjustment
from quota_router.core.calls import Plane
from quota_router.core.catalog import Caller, Catalog, Family, Model
from quota_router.core.decision import Candidate, NoneUsable, Question
from quota_router.core.estimates import Estimate
from quota_router.core.holds import Event, Hold, Outcome, Settlement
from quota_router.core.limits import Amounts, Enforcement, Kind, Limit, Unit, subjects_of
from quota_router.core.usage import Usage
from quota_router.errors import Conflict, HoldResolved, InvalidRequest, NoUsableProvider, QuotaRouterError, UnknownHold
from quota_router.store.adjusting import Adjust, Recorded
from quota_router.store.booking import Booked
from quota_router.store.holding import Extend, Renew, Sweep
from quota_router.store.lane import Lane
from quota_router.store.ledger import Admission, Admit, Settle
from quota_router.store.state import State
from quota_router.store.tenure import Job

RUNGS = ("one", "two")
CALLERS = {name: Caller(name=name, token_sha256=digit * 64) for name, digit in (("ci", "1"), ("other", "2"))}
INPUT_NUSD, OUTPUT_NUSD = 1_000, 2_000
"""Of one token, whatever the rung."""
NEED_A_BOUND = {"usd", "tokens", "input_tokens", "output_tokens"}
OUTCOMES = {"ok": "done", "cancelled": "failed", "unknown": "unknown", None: "running"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What an attempt on one rung will likely take, and can take at most; `more` `None`: it has no bound that is known."""

    input_tokens: int
    output_tokens: int
    more: int | None = 0
    is_priced: bool = True

    def amounts(self, more: int = 0) -> Amounts:
        """In every unit."""
        read, written = self.input_tokens + more, self.output_tokens + more
        cost_nusd = read * INPUT_NUSD + written * OUTPUT_NUSD if self.is_priced else 0
        return Amounts(cost_nusd=cost_nusd, requests=1, input_tokens=read, output_tokens=written)

    @property
    def estimate(self) -> Estimate:
        """As the product lays it out."""
        upper = None if self.more is None else self.amounts(self.more)
        return Estimate(likely=self.amounts(), upper=upper, is_priced=self.is_priced)


@dataclass(slots=True, kw_only=True)
class Held:
    """A hold, as the model keeps it."""

    id: str
    call_id: str
    journal: str
    provider: str
    caller: str
    labels: tuple[str, ...]
    plane: str
    estimate: Estimate
    held_at: int
    expires_at: int
    state: str = "held"
    outcome: str | None = None
    fingerprint: str = ""
    booked: dict[str, dict[str, Any]] = field(default_factory=dict)
    """lines of money, by kind"""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose limits count it."""
        labels = [f"label:{label}" for label in self.labels]
        rung = ["everyone", f"provider:{self.provider}", f"account:of-{self.provider}", f"attachment:m/{self.provider}", "model:m"]
        return (*rung, f"caller:{self.caller}", *labels)


@dataclass(slots=True, kw_only=True)
class Book:
    """The model. `now` is an argument of every word."""

    limits: dict[str, dict[str, Any]]
    holds: dict[str, Held] = field(default_factory=dict)
    adjusted: dict[str, Held] = field(default_factory=dict)
    """what admins booked beside it, each as if a hold of its place had asked for nothing"""
    entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """by journal"""
    opened: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)
    """(caller, key) -> call, its hold, what was asked"""
    outcomes: dict[str, str | None] = field(default_factory=dict)
    """of holds when the batch of the moment began: that is what a key that was used before is told of its call"""
    ceilings: dict[str, int] = field(default_factory=dict)
    """what a strict limit had taken when it was edited last, if that was more than its cap"""
    overruns: dict[tuple[str, Any], int] = field(default_factory=dict)
    """what was booked in a strict limit's window beyond what was held for it"""

    # --- what a limit counts ----------------------------------------------------------------------------------------------

    def limits_of(self, held: Held) -> list[dict[str, Any]]:
        """Every enabled limit that counts a hold."""
        return [limit for limit in self.limits.values() if limit["enabled"] and limit["subject"] in held.subjects]

    def key(self, limit: Mapping[str, Any], at: int) -> Any:
        """Which window an instant counts in."""
        return key_of(limit, at, self.opened.get(limit["name"], []))

    def counts(self, limit: Mapping[str, Any], held: Held, now: int) -> bool:
        """Whether a hold stands in the window of this moment."""
        return counting(limit, now, self.opened.get(limit["name"], []))(self.key(limit, held.held_at))

    def taken(self, limit: Mapping[str, Any], at: int) -> tuple[int, int]:
        """What is posted and held in the window of an instant."""
        counts = counting(limit, at, self.opened.get(limit["name"], []))
        posted = held = 0
        for hold in (*self.holds.values(), *self.adjusted.values()):
            if limit["subject"] not in hold.subjects or not counts(self.key(limit, hold.held_at)):
                continue
            posted += sum(posted_in(limit["unit"], kind, line) for kind, line in hold.booked.items())
            held += held_under(limit, hold.estimate) if hold.state == "held" else 0
        return posted, held

    def least(self, limit: Mapping[str, Any], now: int) -> int:
        """
        What a limit must count at the very least: of a rolling one all that was held in its duration, to the microsecond.

        What an admin took back counts in the whole piece in which it lies.
        """
        counted = [held for held in self.adjusted.values() if limit["subject"] in held.subjects and self.counts(limit, held, now)]
        back = sum(min(0, posted_in(limit["unit"], "adjust", held.booked["adjust"])) for held in counted)
        if limit["anchor"] not in {None, "rolling"} or not limit["window"][:-1].isdecimal() or limit["unit"] == "concurrency":
            return back
        since = now - span_us(limit["window"])
        added = sum(max(0, posted_in(limit["unit"], "adjust", held.booked["adjust"])) for held in counted if held.held_at > since)
        return (
            back
            + added
            + sum(
                sum(posted_in(limit["unit"], kind, line) for kind, line in hold.booked.items())
                + (held_under(limit, hold.estimate) if hold.state == "held" else 0)
                for hold in self.holds.values()
                if limit["subject"] in hold.subjects and hold.held_at > since
            )
        )

    def fits(self, limit: Mapping[str, Any], at: int, amount: int) -> bool:
        """Whether so much more goes into the window of an instant."""
        return amount == 0 or sum(self.taken(limit, at)) + amount <= limit["amount"]

    def is_usable(self, held: Held, now: int) -> bool:
        """Whether the rung of a hold that is asked for can pay."""
        binding = [limit for limit in self.limits_of(held) if limit["enforcement"] != "advisory"]
        if not all(self.fits(limit, now, held_under(limit, held.estimate)) for limit in binding):
            return False
        if not held.estimate.is_priced and any(limit["unit"] == "usd" for limit in binding):
            return False
        strict = [limit for limit in binding if limit["enforcement"] == "strict" and limit["unit"] in NEED_A_BOUND]
        return not (strict and held.estimate.upper is None)

    # --- what becomes of a hold -------------------------------------------------------------------------------------------

    def take(self, held: Held, now: int) -> None:
        """Hold it, and open the first-use windows that begin with it."""
        self.holds[held.id] = held
        for limit in self.limits_of(held):
            if limit["anchor"] == "first_use" and limit["unit"] != "concurrency" and self.key(limit, now) is None:
                self.opened.setdefault(limit["name"], []).append((now, now + span_us(limit["window"])))

    def assume(self, held: Held) -> dict[str, Any]:
        """What is booked when no word came: the upper bound where a strict limit counts it, else the likely amount."""
        counted = [limit for limit in self.limits_of(held) if self.key(limit, held.held_at) is not None]
        is_strict = any(limit["enforcement"] == "strict" for limit in counted)
        amounts = held.estimate.upper if is_strict and held.estimate.upper is not None else held.estimate.likely
        cost = amounts.cost_nusd if held.estimate.is_priced else None
        return {"cost_nusd": cost, "input": amounts.input_tokens, "output": amounts.output_tokens, "quality": "assumed"}

    def end(self, held: Held, now: int, journal: str, state: str, outcome: str, kind: str | None, line: dict[str, Any]) -> None:
        """Let a hold leave `held`."""
        held.state, held.outcome = state, outcome
        if kind is not None:
            self.append(held, now, journal, kind, line)

    def append(self, held: Held, now: int, journal: str, kind: str, line: dict[str, Any]) -> None:
        """One more line of money."""
        for limit in self.limits_of(held):
            before = sum(posted_in(limit["unit"], name, booked) for name, booked in held.booked.items())
            after = before + posted_in(limit["unit"], kind, line)
            bound = held_under(limit, held.estimate)
            self.overrun(limit, held, max(0, after - bound) - max(0, before - bound))
        held.booked[kind] = line
        self.entries.setdefault(journal, []).append(
            {"kind": kind, "hold_id": held.id, "held_at": held.held_at, "at": now, "journal": journal, **line}
        )

    def overrun(self, limit: Mapping[str, Any], held: Held, amount: int) -> None:
        """Note what went beyond what was let in."""
        place = (limit["name"], self.key(limit, held.held_at))
        self.overruns[place] = self.overruns.get(place, 0) + amount

    def edit(self, now: int, name: str, **changes: Any) -> None:
        """Change a limit, and remember what was taken of it beyond its cap: that stands, and nothing more is let in."""
        self.limits[name].update(changes)
        for limit in self.limits.values():
            self.ceilings[limit["name"]] = sum(self.taken(limit, now))
        self.overruns.clear()

    def is_within(self, limit: Mapping[str, Any], now: int) -> bool:
        """I5: S + R is at most the cap, what was beyond it when it was edited, and what answers took beyond their holds."""
        counts = counting(limit, now, self.opened.get(limit["name"], []))
        beyond = sum(amount for (name, key), amount in self.overruns.items() if name == limit["name"] and counts(key))
        return sum(self.taken(limit, now)) <= max(limit["amount"], self.ceilings.get(limit["name"], 0)) + beyond

    # --- the catalog ------------------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """What an operator's file says now."""
        limits = tuple(
            Limit(
                name=limit["name"],
                kind=Kind.BUDGET,
                subject=limit["subject"],
                unit=Unit(limit["unit"]),
                limit=limit["amount"],
                window=limit["window"],
                anchor=limit["anchor"],
                enforcement=Enforcement(limit["enforcement"]),
            )
            for limit in self.limits.values()
            if limit["enabled"]
        )
        model = Model(name="m", family=Family.OPENAI, attachments=tuple(attachment(name, n) for n, name in enumerate(RUNGS)))
        providers = {name: provider(name, account=f"of-{name}") for name in RUNGS}
        return Catalog(providers=providers, models={"m": model}, limits=limits, callers=CALLERS)


def posted_in(unit: str, kind: str, line: Mapping[str, Any]) -> int:
    """What one line of money counts in a unit."""
    match unit:
        case "usd":
            return line["cost_nusd"] or 0
        case "requests":
            return int(kind in {"post", "expire"})
        case "concurrency":
            return 0
        case _:
            return {"input_tokens": line["input"], "output_tokens": line["output"]}.get(unit, line["input"] + line["output"])


def held_under(limit: Mapping[str, Any], estimate: Estimate) -> int:
    """What an estimate takes from a limit."""
    is_strict = limit["enforcement"] == "strict" and estimate.upper is not None
    amounts = estimate.upper if is_strict and estimate.upper is not None else estimate.likely
    read, written = amounts.input_tokens, amounts.output_tokens
    own = {"usd": amounts.cost_nusd, "input_tokens": read, "output_tokens": written, "tokens": read + written}
    return own.get(limit["unit"], 1)


def span_us(window: str) -> int:
    """How long a duration is."""
    return int(window[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[window[-1]] * SECOND


# --- words ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When, and to whom, a word is said."""

    now: int
    journal: str
    """of the daemon that was told"""
    unheld: set[str]
    """journals of daemons that are gone"""


class Say(Protocol):
    """One word to the ledger."""

    def job(self) -> Job[Any]:
        """As the lane takes it."""

    def expect(self, book: Book, at: Moment) -> Any:
        """Tell the model, and return what the ledger must answer."""


@dataclass(slots=True, kw_only=True)
class Ask:
    """Decide and hold."""

    rungs: tuple[Asks, ...]
    labels: tuple[str, ...] = ()
    caller: str = "ci"
    plane: Plane = Plane.DATA
    ttl_s: int = 600
    key: str | None = None
    asked: str = "a"
    hold_id: str = ""
    call_id: str = ""
    """given when it is asked"""

    def job(self) -> Admit:
        candidates = tuple(
            Candidate(
                attachment=attachment(name, priority),
                provider=provider(name, account=f"of-{name}"),
                has_credential=True,
                estimate=asks.estimate,
                subjects=subjects_of(name, f"of-{name}", "m", self.caller, self.labels),
            )
            for priority, (name, asks) in enumerate(zip(RUNGS, self.rungs, strict=False))
        )
        asked = call(
            id=self.call_id,
            caller=CALLERS.get(self.caller, CALLER),
            labels=self.labels,
            plane=self.plane,
            idempotency_key=self.key,
            fingerprint=self.asked,
        )
        question = Question(family=Family.OPENAI)
        return Admit(call=asked, candidates=candidates, question=question, hold_id=self.hold_id, attempt=1, ttl_s=float(self.ttl_s))

    def expect(self, book: Book, at: Moment) -> Any:
        known = book.keys.get((self.caller, self.key)) if self.key is not None else None
        if known is not None:
            call_id, hold_id, _ = known
            return ("conflict", call_id, OUTCOMES[book.outcomes.get(hold_id)])
        for name, asks in zip(RUNGS, self.rungs, strict=False):
            held = Held(
                id=self.hold_id,
                call_id=self.call_id,
                journal=at.journal,
                provider=name,
                caller=self.caller,
                labels=self.labels,
                plane=self.plane.value,
                estimate=asks.estimate,
                held_at=at.now,
                expires_at=at.now + self.ttl_s * SECOND,
            )
            if book.is_usable(held, at.now):
                book.take(held, at.now)
                if self.key is not None:
                    book.keys[self.caller, self.key] = (self.call_id, self.hold_id, self.asked)
                return ("held", name, self.hold_id, at.now, held.expires_at)
        return ("none usable",)


@dataclass(slots=True, kw_only=True)
class End:
    """Post or void a hold; *usage* `None` voids it."""

    hold_id: str
    usage: tuple[int, int] | None
    is_priced: bool = True

    @property
    def cost_nusd(self) -> int | None:
        """Of a post; `None`: nobody knows the price."""
        if self.usage is None or not self.is_priced:
            return None
        return self.usage[0] * INPUT_NUSD + self.usage[1] * OUTPUT_NUSD

    def job(self) -> Settle:
        if self.usage is None:
            settlement = Settlement(event=Event.VOID, outcome=Outcome.CANCELLED, fingerprint="void")
        else:
            settlement = Settlement(
                event=Event.POST,
                outcome=Outcome.OK,
                usage=Usage(input=self.usage[0], output=self.usage[1]),
                cost_nusd=self.cost_nusd,
                price_source="file" if self.is_priced else None,
                fingerprint=f"{self.usage} {self.is_priced}",
            )
        return Settle(hold_id=self.hold_id, settlement=settlement)

    def expect(self, book: Book, at: Moment) -> Any:
        held = book.holds.get(self.hold_id)
        if held is None:
            return ("unknown hold",)
        said = "void" if self.usage is None else f"{self.usage} {self.is_priced}"
        known = self._known(held, said)
        if known is not None:
            return known
        held.fingerprint = said
        usage = self.usage or (0, 0)
        line = {"cost_nusd": self.cost_nusd, "input": usage[0], "output": usage[1], "quality": "reported"}
        if held.state == "expired":
            self._correct(held, line)
            book.append(held, at.now, at.journal, "late", line)
            return ("late", *self._told(held, "late"), False)
        state, outcome, kind = ("voided", "cancelled", None) if self.usage is None else ("posted", "ok", "post")
        book.end(held, at.now, at.journal, state, outcome, kind, line)
        return (state, *(self._told(held, kind) if kind else (0, 0)), False)

    def _known(self, held: Held, said: str) -> Any:
        """What is answered when the hold's end is known already: the same again, or that it is another."""
        if held.state == "voided" and self.usage is None:
            return ("voided", 0, 0, True)
        if held.state in {"posted", "expired"} and held.fingerprint == said:
            kind = next(kind for kind in ("late", "post", "expire") if kind in held.booked)
            return ("posted" if kind == "post" else kind, *self._told(held, kind), True)
        return ("resolved",) if held.state in {"posted", "voided"} or "late" in held.booked else None

    def _correct(self, held: Held, line: dict[str, Any]) -> None:
        """Of a hold that expired only the difference is booked; a void takes it all back."""
        assumed = held.booked["expire"]
        line["input"], line["output"] = line["input"] - assumed["input"], line["output"] - assumed["output"]
        cost_nusd = 0 if self.usage is None else line["cost_nusd"]
        line["cost_nusd"] = None if cost_nusd is None else cost_nusd - (assumed["cost_nusd"] or 0)

    @staticmethod
    def _told(held: Held, kind: str) -> tuple[int | None, int]:
        """Cost and overrun."""
        cost_nusd = held.booked[kind]["cost_nusd"]
        is_over = kind == "post" and cost_nusd is not None
        return cost_nusd, max(0, cost_nusd - held.estimate.likely.cost_nusd) if is_over else 0


@dataclass(slots=True, kw_only=True)
class Expire:
    """Book what is past its time as assumed; *orphans*: and what the last daemon of this journal left."""

    orphans: bool = False

    def job(self) -> Sweep:
        return Sweep(orphans=self.orphans)

    def expect(self, book: Book, at: Moment) -> Any:
        gone = at.unheld | ({at.journal} if self.orphans else set())
        due = [
            held
            for held in book.holds.values()
            if held.state == "held" and (held.expires_at <= at.now or (held.plane == "data" and held.journal in gone))
        ]
        for held in due:
            book.end(held, at.now, at.journal, "expired", "unknown", "expire", book.assume(held))
        return ("swept", len(due))


@dataclass(slots=True, kw_only=True)
class Correct:
    """What an admin books beside what was booked, on the place of a hold. *held_at*: the moment it counts in; `None`: now."""

    id: str
    hold_id: str
    cost_nusd: int
    held_at: int | None = None

    def job(self) -> Adjust:
        held_at = None if self.held_at is None else instant(self.held_at)
        said = Adjustment(
            id=self.id, cost_nusd=self.cost_nusd, reason="as invoiced", admin="admin", of=self.hold_id, held_at=held_at
        )
        return Adjust(said=said)

    def expect(self, book: Book, at: Moment) -> Any:
        held = book.holds.get(self.hold_id)
        if held is None:
            return ("unknown hold",)
        if self.id in book.adjusted:
            return ("adjusted", True)
        if self.held_at is not None and self.held_at > at.now:
            return ("refused",)
        nothing = Asks(input_tokens=0, output_tokens=0).estimate
        beside = Held(
            id=self.id,
            call_id=held.call_id,
            journal=at.journal,
            provider=held.provider,
            caller=held.caller,
            labels=held.labels,
            plane=held.plane,
            estimate=nothing,
            held_at=at.now if self.held_at is None else self.held_at,
            expires_at=0,
            state="adjusted",
        )
        book.adjusted[self.id] = beside
        line = {"cost_nusd": self.cost_nusd, "input": 0, "output": 0, "quality": "reported"}
        book.append(beside, at.now, at.journal, "adjust", line)
        return ("adjusted", False)


@dataclass(slots=True, kw_only=True)
class More:
    """More time for a hold, and another estimate; *asks* `None`: the estimate stays."""

    hold_id: str
    ttl_s: int
    asks: Asks | None = None

    def job(self) -> Extend:
        return Extend(hold_id=self.hold_id, ttl_s=float(self.ttl_s), estimate=self.asks.estimate if self.asks else None)

    def expect(self, book: Book, at: Moment) -> Any:
        held = book.holds.get(self.hold_id)
        if held is None or held.state != "held":
            return ("unknown hold",)
        estimate = self.asks.estimate if self.asks else held.estimate
        for limit in book.limits_of(held):
            more = max(0, held_under(limit, estimate) - held_under(limit, held.estimate))
            is_counted = book.key(limit, held.held_at) is not None
            place = at.now if book.counts(limit, held, at.now) else held.held_at
            if is_counted and limit["enforcement"] != "advisory" and not book.fits(limit, place, more):
                return ("no room",)
        held.estimate, held.expires_at = estimate, max(held.expires_at, at.now + self.ttl_s * SECOND)
        return ("longer", held.expires_at, estimate)


@dataclass(slots=True, kw_only=True)
class Grow:
    """A running call's own renewal: nobody is asked whether it fits. *estimate* `None`: what is held suffices."""

    hold_id: str
    ttl_s: int
    estimate: Estimate | None

    def job(self) -> Renew:
        return Renew(hold_id=self.hold_id, ttl_s=float(self.ttl_s), estimate=self.estimate)

    def expect(self, book: Book, at: Moment) -> Any:
        held = book.holds.get(self.hold_id)
        if held is None or held.state != "held":
            return ("resolved",)
        before, held.estimate = held.estimate, self.estimate or held.estimate
        held.expires_at = max(held.expires_at, at.now + self.ttl_s * SECOND)
        for limit in book.limits_of(held):
            book.overrun(limit, held, max(0, held_under(limit, held.estimate) - held_under(limit, before)))
        return ("longer", held.expires_at, held.estimate)


def grown(estimate: Estimate, output_tokens: int) -> Estimate:
    """The estimate of an answer that was seen to be so long; what it can use at most does not change."""
    likely = Asks(input_tokens=estimate.likely.input_tokens, output_tokens=output_tokens, is_priced=estimate.is_priced)
    return replace(estimate, likely=likely.amounts())


# --- how words reach a ledger -----------------------------------------------------------------------------------------------


class TellTime(Job[datetime]):
    """What a batch takes for now."""

    def run(self, state: State, now: datetime) -> datetime:  # noqa: ARG002 -- a job's shape
        return now


class Ledger:
    """How words reach a ledger: this one is sound. Those of `broken_ledgers` are not."""

    async def say(self, lane: Lane, jobs: list[Job[Any]]) -> list[Any]:
        """Say several words at once, in one batch; a refusal is returned."""
        answers = await asyncio.gather(*(lane.submit(job) for job in jobs), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, QuotaRouterError):
                raise answer
        return answers

    async def die(self) -> None:
        """The daemon is gone, and its memory with it."""


REFUSALS = {HoldResolved: "resolved", UnknownHold: "unknown hold", NoUsableProvider: "no room", InvalidRequest: "refused"}


def tell(answer: Any) -> Any:
    """What a ledger answered, in the words of the model."""
    match answer:
        case Admission(hold=hold):
            told: Any = ("held", hold.provider, hold.id, us(hold.held_at), us(hold.expires_at))
        case NoneUsable():
            told = ("none usable",)
        case Booked():
            told = (answer.state, answer.cost_nusd, answer.overrun_nusd, answer.replayed)
        case Hold():
            told = ("longer", us(answer.expires_at), answer.estimate)
        case int():
            told = ("swept", answer)
        case Recorded():
            told = ("adjusted", answer.replayed)
        case Conflict():
            told = ("conflict", answer.call_id, answer.state)
        case _:
            told = ("resolved" if answer is None else REFUSALS[type(answer)],)
    return told


def check_same(book: Book, found: Found) -> None:
    """What lies on disk is what the model has: every line of money, every hold, every window, every key."""
    lines = ("kind", "hold_id", "held_at", "at", "journal", "cost_nusd", "input", "output", "quality")
    kept = sorted(({name: row[name] for name in lines} for row in found.entries), key=_in_time)
    hold_to("I1", sum(row["cost_nusd"] or 0 for row in kept) == spent(book), "the sum of the lines is not what was spent")
    wanted = sorted((line for written in book.entries.values() for line in written), key=_in_time)
    hold_to("I10", kept == wanted, f"lines of money: {kept} instead of {wanted}")
    names = ("id", "journal", "provider", "state", "outcome", "held_at", "expires_at")
    there = [{name: row[name] for name in names} for row in found.holds]
    thought = sorted(({name: getattr(held, name) for name in names} for held in book.holds.values()), key=lambda held: held["id"])
    hold_to("I2", there == thought, f"holds: {there} instead of {thought}")
    opened = {name: list(found.opened(name)) for name in {row["limit_name"] for row in found.windows}}
    hold_to("I19", opened == book.opened, f"first-use windows: {opened} instead of {book.opened}")
    keys = {(row["caller"], row["idempotency_key"]): row["id"] for row in found.calls if row["idempotency_key"] is not None}
    named = {place: call_id for place, (call_id, _, _) in book.keys.items()}
    hold_to("I17", keys == named, f"keys: {keys} instead of {named}")


def _in_time(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """In which order lines are compared: those of one batch may stand in any."""
    return line["journal"], line["at"], line["hold_id"], line["kind"]


def spent(book: Book) -> int:
    """All that was spent, by the words that were said."""
    booked = (*book.holds.values(), *book.adjusted.values())
    return sum(line["cost_nusd"] or 0 for held in booked for line in held.booked.values())

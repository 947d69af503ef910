"""
What may be done to the ledger, as jobs for the lane.

Law: a job is a pure step `(state, now) -> answer`: it checks first, and changes the state only when nothing can refuse any more.
Said twice under the same id, it answers the same and books nothing.
Never: waits, draws an id, or reads a clock; whoever submits it brings the ids.
"""

from datetime import datetime, timedelta

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.calls import Call
from quota_router.core.decision import Candidate, Chosen, Decision, NoneUsable, Question, decide
from quota_router.core.holds import CallState, Charge, Event, Hold, HoldState, Outcome, Settlement, amount_held
from quota_router.core.limits import Gauge, Window
from quota_router.core.strategies import home_heeded
from quota_router.core.verdict import show_rung, show_way
from quota_router.errors import Conflict, UnknownHold
from quota_router.store.booking import Booked, resolve
from quota_router.store.learning import claim_probes
from quota_router.store.rows import NewCall, NewHold, OpenedWindow, Redecided
from quota_router.store.state import KnownCall, OpenHold, State, labels_text
from quota_router.store.tables import microseconds
from quota_router.store.tenure import Job

_encode = msgspec.json.Encoder().encode


class Admission(Struct, frozen=True, kw_only=True):
    """A hold that is durable, and the decision behind it. Only this opens the way upstream."""

    hold: Hold
    decision: Chosen


class Setback(Struct, frozen=True, kw_only=True):
    """The attempt before this one: settled in the same step in which the next rung is held."""

    hold_id: str
    settlement: Settlement


class Admit(Job["Admission | NoneUsable"], kw_only=True):
    """Decide for a call and hold the chosen rung, after settling the attempt before."""

    call: Call
    candidates: tuple[Candidate, ...]
    """without cooldowns and gauges: those are read here"""
    question: Question
    hold_id: str
    attempt: int
    ttl_s: float
    after: Setback | None = None
    is_last: bool = True
    """False: who is refused would rather wait, and asks again; the refusal is not recorded"""
    _answer: "Admission | NoneUsable | None" = None

    @property
    def idempotency(self) -> tuple[str, str] | None:
        """The caller's key, which the first attempt takes."""
        key = self.call.idempotency_key
        return (self.call.caller.name, key) if key is not None and self.attempt == 1 else None

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """The attempt before; and its own hold, when an unknown COMMIT made it try again."""
        own = (self.hold_id,) if self._answer is not None else ()
        return (self.after.hold_id, *own) if self.after else own

    @property
    def accounts(self) -> tuple[str, ...]:
        """Everybody who could pay."""
        return tuple({candidate.provider.account for candidate in self.candidates})

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everything that would count one of its rungs."""
        return _subjects_of(self.candidates)

    @property
    def settlements(self) -> tuple[tuple[str, Settlement], ...]:
        """The end of the attempt before."""
        return ((self.after.hold_id, self.after.settlement),) if self.after else ()

    @property
    def frees(self) -> bool:
        """With the attempt before it."""
        return self.after is not None

    @property
    def undo(self) -> "Settle | None":
        """The void of its hold: nothing was sent on it."""
        void = Settlement(event=Event.VOID, outcome=Outcome.CANCELLED)
        return Settle(hold_id=self.hold_id, settlement=void) if isinstance(self._answer, Admission) else None

    def run(self, state: State, now: datetime) -> "Admission | NoneUsable":
        """
        Decide and hold.

        Raises:
            Conflict: the caller's idempotency key already names a call.
        """
        if self.hold_id in state.holds and self._answer is not None:
            return self._answer  # an unknown COMMIT turned out to be one
        self._refuse_known_key(state)
        if self.after is not None:
            resolve(state, now, self.after.hold_id, self.after.settlement)
        decision = decide_now(state, now, self.candidates, self.question)
        if isinstance(decision, NoneUsable) and not self.is_last:
            return decision
        told = _encode({"rungs": [show_rung(rung) for rung in decision.rungs], **show_way(decision)}).decode()
        if self.attempt > 1:
            state.write(Redecided(of_call=self.call.id, decision=told))
        if isinstance(decision, NoneUsable):
            if self.attempt == 1:
                self._record_call(state, now, told, is_refused=True)
            self._answer = decision
            return decision
        # From here on it must succeed.
        if self.attempt == 1:
            self._record_call(state, now, told, is_refused=False)
            self._take_turn(state)
        hold = self._hold(decision, state.journal, now)
        charges = []
        for gauge in decision.candidate.gauges:
            if gauge.opens:
                _open_window(state, gauge, hold)
            charge = Charge(limit=gauge.limit, bucket=gauge.bucket, held=amount_held(gauge.limit, hold.estimate))
            state.charge(charge.limit, charge.bucket, held=charge.held)
            charges.append(charge)
        state.holds[hold.id] = OpenHold(hold=hold, charges=tuple(charges))
        state.write(_hold_row(hold))
        state.move_total(hold.account, held=hold.estimate.likely)
        claim_probes(state, now, hold)
        self._answer = Admission(hold=hold, decision=decision)
        return self._answer

    def _take_turn(self, state: State) -> None:
        """The next call begins one rung later, unless a session's home chose this one's."""
        first = self.candidates[0]
        if home_heeded(first.strategy, self.question) is None:
            state.turns[first.attachment.model] = state.turns.get(first.attachment.model, 0) + 1

    def _refuse_known_key(self, state: State) -> None:
        """Refuse a key that names a call already, whether it runs or has ended: bodies are never stored to be given again."""
        known = state.known_keys.get(self.idempotency) if self.idempotency else None
        if known is not None and known.id != self.call.id:
            said = "with another request" if known.fingerprint != self.call.fingerprint else f"and is {known.state}"
            message = f"This Idempotency-Key already names call {known.id} {said}. Use a new key for a new call."
            raise Conflict(message, call_id=known.id, state=known.state)

    def _record_call(self, state: State, now: datetime, told: str, *, is_refused: bool) -> None:
        """Keep the call. A refused one dispatched nothing and frees its key."""
        call = self.call
        if self.idempotency is not None and not is_refused:
            running = KnownCall(id=call.id, state=CallState.RUNNING, fingerprint=call.fingerprint)
            state.known_keys[self.idempotency] = running
        state.write(
            NewCall(
                id=call.id,
                caller=call.caller.name,
                idempotency_key=None if is_refused else call.idempotency_key,
                fingerprint=call.fingerprint,
                plane=call.plane.value,
                operation=call.operation.value,
                model=self.candidates[0].attachment.model,
                labels=labels_text(call.labels),
                workflow=call.workflow,
                stage=call.stage,
                decision=told,
                at=microseconds(now),
            )
        )

    def _hold(self, decision: Chosen, journal: str, now: datetime) -> Hold:
        call, candidate, way = self.call, decision.candidate, decision.candidate.way
        return Hold(
            id=self.hold_id,
            call_id=call.id,
            journal=journal,
            attempt=self.attempt,
            provider=candidate.provider.name,
            account=candidate.provider.account,
            model=candidate.attachment.model,
            upstream_model=candidate.attachment.upstream_model,
            caller=call.caller.name,
            labels=call.labels,
            workflow=call.workflow,
            stage=call.stage,
            rule=way.rule.condition.text if way.rule is not None else None,
            router=way.router,
            plane=call.plane,
            estimate=candidate.estimate,
            held_at=now,
            expires_at=now + timedelta(seconds=self.ttl_s),
        )


class Explain(Job[Decision], kw_only=True):
    """Decide, and write nothing."""

    candidates: tuple[Candidate, ...]
    question: Question

    @property
    def accounts(self) -> tuple[str, ...]:
        """Everybody who could pay."""
        return tuple({candidate.provider.account for candidate in self.candidates})

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everything that would count one of its rungs."""
        return _subjects_of(self.candidates)

    def run(self, state: State, now: datetime) -> Decision:
        """Answer as `Admit` would at this moment."""
        return decide_now(state, now, self.candidates, self.question)


class Settle(Job[Booked], kw_only=True):
    """Post or void a hold."""

    hold_id: str
    settlement: Settlement

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """Its one hold."""
        return (self.hold_id,)

    @property
    def frees(self) -> bool:
        """What was held, and the place."""
        return True

    @property
    def settlements(self) -> tuple[tuple[str, Settlement], ...]:
        """This is all it does."""
        return ((self.hold_id, self.settlement),)

    def run(self, state: State, now: datetime) -> Booked:
        """
        Resolve the hold, or answer what it was resolved to.

        Raises:
            UnknownHold: there is none of that id.
            HoldResolved: it was resolved otherwise before.
        """
        return resolve(state, now, self.hold_id, self.settlement)


class Peek(Job[Hold], kw_only=True):
    """Look a hold up, open or resolved."""

    hold_id: str

    @property
    def hold_ids(self) -> tuple[str, ...]:
        """Its one hold."""
        return (self.hold_id,)

    def run(self, state: State, now: datetime) -> Hold:  # noqa: ARG002 -- a job's shape
        """Return the hold. Raises `UnknownHold`."""
        open_hold, resolved = state.holds.get(self.hold_id), state.resolved.get(self.hold_id)
        if open_hold is not None:
            return open_hold.hold
        if resolved is not None:
            return resolved.hold
        raise UnknownHold


def decide_now(state: State, now: datetime, candidates: tuple[Candidate, ...], question: Question) -> Decision:
    """Give each candidate what the ledger knows of it at this moment, and decide."""
    informed = [_informed(state, now, candidate, question) for candidate in candidates]
    return decide(informed, question, now, state.turns)


def _informed(state: State, now: datetime, candidate: Candidate, question: Question) -> Candidate:
    attachment = candidate.attachment
    return replace(
        candidate,
        cooldowns=state.cooldowns_of(attachment.provider, attachment.model),
        gauges=tuple([state.gauge(limit, now) for limit in state.catalog.limits_of(candidate.subjects)]),
        windows=state.headrooms(candidate.provider.account, candidate.estimate.likely, now, question.stale_after_s),
        latency_ms=state.latencies.get((attachment.model, attachment.provider)),
        is_new=state.is_new(candidate.provider.account),
    )


def _subjects_of(candidates: tuple[Candidate, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subject for candidate in candidates for subject in candidate.subjects))


def _open_window(state: State, gauge: Gauge, hold: Hold) -> None:
    """Open a first-use window with the first hold that uses it; it stays open when that hold is voided."""
    name, start, end = gauge.limit.name, gauge.window_start, gauge.window_end
    assert end is not None, "a first-use window has an end"
    state.opened[name] = Window(start=start, end=end)
    state.charge(gauge.limit, start, posted=state.take_left(gauge.limit, start))
    state.write(OpenedWindow(limit_name=name, start=microseconds(start), end=microseconds(end), opened_by=hold.id))


def _hold_row(hold: Hold) -> NewHold:
    """Lay a new hold out as its row."""
    return NewHold(
        id=hold.id,
        call_id=hold.call_id,
        journal=hold.journal,
        attempt=hold.attempt,
        provider=hold.provider,
        account=hold.account,
        model=hold.model,
        upstream_model=hold.upstream_model,
        caller=hold.caller,
        labels=labels_text(hold.labels),
        workflow=hold.workflow,
        stage=hold.stage,
        rule=hold.rule,
        router=hold.router,
        plane=hold.plane.value,
        state=HoldState.HELD.value,
        estimate=hold.estimate.to_json(),
        held_at=microseconds(hold.held_at),
        expires_at=microseconds(hold.expires_at),
    )

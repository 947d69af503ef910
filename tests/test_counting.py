"""
What counts where: every subject in every unit, several windows at once, and first-use windows whoever looks at them.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, product

import pytest
from laws_kit import check_laws, read_disk, us
from ledger_kit import NOON, PRICE, Clock, admit, call, catalog, limit, new_id, open_ledger, post, provider, void
from sqlalchemy import select

from quota_router.core.calls import CallFacts, Plane
from quota_router.core.catalog import Attachment, Caller, Catalog, Family, Model
from quota_router.core.decision import Candidate, Chosen, NoneUsable, Question
from quota_router.core.estimates import Estimate
from quota_router.core.limits import Amounts, Enforcement, Kind, Unit, subjects_of
from quota_router.errors import NoUsableProvider
from quota_router.store.holding import Extend, Sweep
from quota_router.store.ledger import Admission, Admit, Explain, Settle
from quota_router.store.projection import project
from quota_router.store.tables import balances

PROVIDERS = {"one": "shared", "two": "shared", "three": "own"}
"""With their accounts."""
MODELS = ("m", "org/n")
CALLERS = ("ci", "other")
LABELS = ((), ("x",), ("x", "team:y"))
SUBJECTS = (
    "everyone",
    "provider:one",
    "account:shared",
    "attachment:org/n/one",
    "model:org/n",
    "caller:other",
    "label:team:y",
)
ENDS = ("open", "post", "void", "expire", "late")


@pytest.fixture
def clock():
    return Clock()


def open_to_all(of):
    """The same limits, none of which refuses."""
    models = {
        name: Model(
            name=name,
            family=Family.OPENAI,
            attachments=tuple(
                Attachment(model=name, provider=rung, priority=n, position=0, upstream_model=name, price=PRICE)
                for n, rung in enumerate(PROVIDERS)
            ),
        )
        for name in MODELS
    }
    providers = {name: provider(name, account=account) for name, account in PROVIDERS.items()}
    callers = {name: Caller(name=name, token_sha256=f"{n}" * 64) for n, name in enumerate(CALLERS)}
    return Catalog(providers=providers, models=models, callers=callers, limits=of)


def ask(rung, model, caller, labels, amounts, ttl_s):
    """Hold exactly *amounts* on one rung."""
    candidate = Candidate(
        attachment=Attachment(model=model, provider=rung, priority=0, position=0, upstream_model=model, price=PRICE),
        provider=provider(rung, account=PROVIDERS[rung]),
        has_credential=True,
        estimate=Estimate(likely=amounts, upper=amounts, is_priced=True),
        subjects=subjects_of(rung, PROVIDERS[rung], model, caller, labels),
    )
    asked = call(caller=Caller(name=caller, token_sha256="0" * 64), labels=labels, model=model, plane=Plane.DECISION)
    question = Question(family=None)
    return Admit(call=asked, candidates=(candidate,), question=question, hold_id=new_id(), attempt=1, ttl_s=ttl_s)


def counts(subject, rung, model, caller, labels):
    """Whether a limit on *subject* counts such an attempt, as the README's table says it."""
    kind, _, name = subject.partition(":")
    return {
        "everyone": True,
        "provider": name == rung,
        "account": name == PROVIDERS[rung],
        "attachment": name == f"{model}/{rung}",
        "model": name == model,
        "caller": name == caller,
        "label": name in labels,
    }[kind]


def in_unit(unit, tokens, kind):
    """What (input, output) tokens count in a unit, at 1,000 and 2,000 nano-USD each, when they are `held` or `posted`."""
    read, written = tokens
    return {
        Unit.USD: read * 1_000 + written * 2_000,
        Unit.REQUESTS: 1,
        Unit.TOKENS: read + written,
        Unit.INPUT_TOKENS: read,
        Unit.OUTPUT_TOKENS: written,
        Unit.CONCURRENCY: int(kind == "held"),
    }[unit]


async def test_every_subject_counts_every_unit_exactly(tmp_path, clock, database):
    """
    Attempts of every provider, model, caller and set of labels, each with numbers of its own, and every end a hold can have.
    """
    limits = [
        limit(f"{subject} {unit}", subject=subject, unit=unit, limit=10**12, enforcement=enforcement)
        for (subject, unit), enforcement in zip(product(SUBJECTS, Unit), cycle(Enforcement), strict=False)
    ]
    expected = {cap.name: [0, 0] for cap in limits}
    async with open_ledger(tmp_path, clock, open_to_all(tuple(limits))) as lane:
        words = []
        for n, (rung, model, caller, labels) in enumerate(product(PROVIDERS, MODELS, CALLERS, LABELS)):
            end, asked, used = ENDS[n % 5], (100 + n, 200 + 2 * n), (10 + n, 20 + 3 * n)
            held = Amounts(cost_nusd=in_unit(Unit.USD, asked, "held"), requests=1, input_tokens=asked[0], output_tokens=asked[1])
            hold = (await lane.run(ask(rung, model, caller, labels, held, 60 if end in {"expire", "late"} else 9_000))).hold
            counted, kind = {"open": (asked, "held"), "expire": (asked, "posted")}.get(end, (used, "posted"))
            for cap in limits:
                if counts(cap.subject, rung, model, caller, labels) and end != "void":
                    expected[cap.name][kind == "held"] += in_unit(cap.unit, counted, kind)
            word = {"post": post(*used), "late": post(*used), "void": void()}.get(end)
            if word is not None:
                words.append((end, Settle(hold_id=hold.id, settlement=word)))
        await asyncio.gather(*(lane.run(job) for end, job in words if end != "late"))
        clock.forward(seconds=61)
        assert await lane.run(Sweep()) == 14
        await asyncio.gather(*(lane.run(job) for end, job in words if end == "late"))
        state = await lane.snapshot()
        shown = {cap.name: [(gauge := state.gauge(cap, clock())).posted, gauge.held] for cap in limits}
        assert shown == expected
        assert sum(1 for both in expected.values() if any(both)) == len(limits)
    check_laws(read_disk(tmp_path), us(clock()))


# --- several windows at once --------------------------------------------------------------------------------------------

WINDOWS = {
    "minute": ("1m", None, "UTC"),
    "hour": ("hour", None, "Asia/Kathmandu"),
    "five": ("5h", "first_use", "UTC"),
    "fixed": ("7h", "2026-11-20T09:00:00Z", "UTC"),
    "day": ("day", None, "Europe/Berlin"),
    "week": ("7d", None, "UTC"),
    "ever": ("forever", None, "UTC"),
}


def windows_of(subject="everyone", cap=2, **more):
    return tuple(
        limit(name, subject=subject, window=window, anchor=anchor, timezone=zone, limit=cap, **more)
        for name, (window, anchor, zone) in WINDOWS.items()
    )


async def test_one_call_counts_in_every_window_of_its_subject_and_each_ends_by_itself(tmp_path, clock, database):
    """
    At noon; after two minutes; the next hour of Kathmandu; four in the afternoon; when five hours are over; midnight of Berlin.
    """
    of = catalog(*windows_of(cap=10))
    counted = [
        (0, set(WINDOWS)),
        (2, set(WINDOWS) - {"minute"}),
        (15, set(WINDOWS) - {"minute", "hour"}),
        (240, set(WINDOWS) - {"minute", "hour", "fixed"}),
        (300, {"day", "week", "ever"}),
        (660, {"week", "ever"}),
        (8 * 1_440, {"ever"}),
    ]
    async with open_ledger(tmp_path, clock, of) as lane:
        hold = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=hold.id, settlement=post()))
        for minutes, names in counted:
            clock.now = NOON + timedelta(minutes=minutes)
            state = await lane.snapshot()
            assert {cap.name for cap in of.limits if state.gauge(cap, clock()).posted} == names, minutes


async def test_of_many_windows_the_one_that_is_full_refuses_until_it_has_room(tmp_path, clock, database):
    of = catalog(*windows_of(cap=100, subject="model:m"), limit("two", window="10m", limit=2, subject="model:m"))
    async with open_ledger(tmp_path, clock, of) as lane:
        for _ in range(2):
            assert isinstance(await lane.run(admit(of)), Admission)
        refused = await lane.run(admit(of))
        assert isinstance(refused, NoneUsable)
        (rung,) = refused.rungs
        assert (rung.reason, rung.detail["limit"]) == ("over_budget", "two")
        clock.now = rung.usable_at - timedelta(microseconds=1)
        assert isinstance(await lane.run(admit(of)), NoneUsable)
        clock.now = rung.usable_at
        assert isinstance(await lane.run(admit(of)), Admission)
    check_laws(read_disk(tmp_path), us(clock()))


# --- across a boundary --------------------------------------------------------------------------------------------------

BERLIN_NIGHTS = {
    "winter": datetime(2026, 11, 20, 22, 59, 59, tzinfo=UTC),
    "spring forward": datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC),
    "fall back": datetime(2026, 10, 25, 22, 59, 59, tzinfo=UTC),
}


@pytest.mark.parametrize("night", BERLIN_NIGHTS)
async def test_a_call_across_midnight_counts_where_it_was_held_however_it_ends(tmp_path, database, night):
    """
    Also after a restart on the other side: the day of the hold is what counts, in each zone and unit.
    """
    clock = Clock(BERLIN_NIGHTS[night])
    booked = dict.fromkeys(["post", "late", "renewed"], (60_000, 55)) | dict.fromkeys(["void", "late void"], (0, 0))
    booked["expire"] = (120_000, 110)
    days = [limit(f"{end} usd", subject=f"label:{end}", window="day", unit=Unit.USD, limit=10**9) for end in booked]
    hours = [limit(f"{end} tokens", subject=f"label:{end}", window="hour", unit=Unit.TOKENS, limit=10**6) for end in booked]
    of = catalog(*(replace(cap, timezone="Europe/Berlin") for cap in [*days, *hours]))
    holds, expiring = {}, {"expire", "late", "late void"}
    async with open_ledger(tmp_path, clock, of) as lane:
        for end in booked:
            asked = admit(of, call(plane=Plane.DECISION, labels=(end,)), ttl_s=60 if end in expiring else 600)
            holds[end] = (await lane.run(asked)).hold.id
        clock.forward(seconds=2)
    async with open_ledger(tmp_path, clock, of) as lane:
        clock.forward(seconds=60)
        assert await lane.run(Sweep()) == len(expiring)
        await lane.run(Extend(hold_id=holds["renewed"], ttl_s=600))
        for end in booked.keys() - {"expire"}:
            await lane.run(Settle(hold_id=holds[end], settlement=void() if "void" in end else post()))
        state = await lane.snapshot()
        assert not any(gauge.posted or gauge.held for gauge in (state.gauge(cap, clock()) for cap in of.limits))
        kept = {row.limit_name: (row.bucket <= BERLIN_NIGHTS[night], row.posted, row.held) for row in await rows_of(lane)}
        assert kept == {f"{end} usd": (True, cost_nusd, 0) for end, (cost_nusd, _) in booked.items()} | {
            f"{end} tokens": (True, tokens, 0) for end, (_, tokens) in booked.items()
        }


@pytest.mark.parametrize("window", ["hour", "1m"])
@pytest.mark.parametrize("since", ["nothing", "a sweep", "an edit"])
async def test_a_hold_that_grows_after_its_window_is_judged_by_that_window(tmp_path, clock, database, window, since):
    """
    Of a rolling window only the hold's own piece was read, or kept in memory; of any that was over, an edit of its limit kept only
    what was held: seven hundred of a thousand were forgotten.
    """
    of = catalog(limit(unit=Unit.INPUT_TOKENS, limit=1_000, window=window))
    wanted = [Amounts(cost_nusd=0, requests=1, input_tokens=tokens, output_tokens=0) for tokens in (301, 300)]
    too_much, enough = [Estimate(likely=amounts, upper=amounts, is_priced=True) for amounts in wanted]
    async with open_ledger(tmp_path, clock, of) as lane:
        before = call(facts=CallFacts(model="m", max_output_tokens=10, input_tokens=700))
        used = (await lane.run(admit(of, before))).hold
        await lane.run(Settle(hold_id=used.id, settlement=post(700, 0)))
        clock.forward(seconds=20)
        hold = (await lane.run(admit(of, ttl_s=10**6))).hold
        clock.forward(hours=2)
        if since == "a sweep":
            await lane.run(Sweep())
        elif since == "an edit":
            await lane.edit_catalog(catalog(replace(of.limits[0], kind=Kind.QUOTA)))
        with pytest.raises(NoUsableProvider, match="201 more"):
            await lane.run(Extend(hold_id=hold.id, ttl_s=10, estimate=too_much))
        await lane.run(Extend(hold_id=hold.id, ttl_s=10, estimate=enough))


@pytest.mark.parametrize("anchor", ["first_use", None])
async def test_a_late_word_in_the_batch_of_a_sweep_leaves_what_its_window_counts(tmp_path, clock, database, anchor):
    """
    The sweep dropped the balance of a window that was over, and the late word wrote a new one: what else was held in it was
    forgotten, and its own settlement was refused by the database for ever.
    """
    of = catalog(limit(unit=Unit.INPUT_TOKENS, limit=1_000, window="5h", anchor=anchor))
    async with open_ledger(tmp_path, clock, of) as lane:
        late, longer = [(await lane.run(admit(of, call(plane=Plane.DECISION), ttl_s=ttl_s))).hold for ttl_s in (60, 10**6)]
        clock.forward(minutes=2)
        assert await lane.run(Sweep()) == 1
        clock.forward(hours=6)
        await asyncio.gather(lane.run(Sweep()), lane.run(Settle(hold_id=late.id, settlement=post(70, 0))))
        assert [(row.posted, row.held) for row in await rows_of(lane)] == [(70, 100)]
        check_laws(read_disk(tmp_path), us(clock()))
        await lane.run(Settle(hold_id=longer.id, settlement=post(30, 0)))
        assert [(row.posted, row.held) for row in await rows_of(lane)] == [(100, 0)]


# --- first use ----------------------------------------------------------------------------------------------------------

FIVE = (limit("calls", window="5h", anchor="first_use"), limit("usd", unit=Unit.USD, window="5h", anchor="first_use", limit=10**9))


async def rows_of(lane):
    async with lane.reader.connect() as conn:
        return (await conn.execute(select(balances).order_by(balances.c.limit_name, balances.c.bucket))).all()


def project_and_undo(lane, limits, now):
    """Work the balances of *limits* out from lines of money, in a transaction that leaves nothing behind."""
    conn = lane._writer._conn
    with conn.begin() as transaction:
        project(conn, limits, now)
        found = conn.execute(select(balances)).all()
        transaction.rollback()
    return counted(found, now)


def counted(found, now):
    """What balances say of windows of five hours that are open, and what holds still take from those that are over."""
    of_now = {(row.limit_name, row.bucket): row.posted for row in found if row.bucket > now - timedelta(hours=5) and row.posted}
    return of_now, {(row.limit_name, row.bucket): row.held for row in found if row.held}


async def test_first_use_windows_are_the_same_live_after_a_restart_and_projected(tmp_path, clock, database):
    """
    Opened by the first hold, kept though it was voided; the next begins with the first hold after the end, not with the end.
    """
    of, seen = catalog(*FIVE), []

    async def look(lane):
        state = await lane.snapshot()
        assert project_and_undo(lane, of.limits, clock()) == counted(await rows_of(lane), clock())
        gauges = [state.gauge(cap, clock()) for cap in of.limits]
        return [(g.posted, g.held, g.window_start, g.window_end, g.opens) for g in gauges]

    async with open_ledger(tmp_path, clock, of) as lane:
        opener = (await lane.run(admit(of))).hold
        await lane.run(Settle(hold_id=opener.id, settlement=void()))
        clock.forward(hours=1)
        await lane.run(Settle(hold_id=(await lane.run(admit(of))).hold.id, settlement=post()))
        still_open = (await lane.run(admit(of, call(plane=Plane.DECISION), ttl_s=10**6))).hold
        seen.append(await look(lane))
        assert [start for _, _, start, _, _ in seen[0]] == [NOON, NOON]
    async with open_ledger(tmp_path, clock, of) as lane:
        seen.append(await look(lane))
        clock.now = NOON + timedelta(hours=7)
        assert [opens for *_, opens in await look(lane)] == [True, True]
        await lane.run(admit(of, call(plane=Plane.DECISION), ttl_s=10**6))
        await lane.run(Settle(hold_id=still_open.id, settlement=post()))
        after = await look(lane)
        assert [(posted, start) for posted, _, start, _, _ in after] == [(0, clock()), (0, clock())]
    async with open_ledger(tmp_path, clock, of) as lane:
        assert await look(lane) == after
    assert seen[0] == seen[1]
    found = read_disk(tmp_path)
    check_laws(found, us(clock()))
    assert [(row["limit_name"], row["opened_by"] == opener.id) for row in found.windows] == [
        ("calls", True),
        ("calls", False),
        ("usd", True),
        ("usd", False),
    ]


async def test_two_daemons_that_open_a_window_at_once_open_one(tmp_path, clock, postgres):
    """
    Twenty holds at each, every one of which would be the first: one window, and as many in it as fit.
    """
    cap = limit("calls", window="5h", anchor="first_use", limit=13)
    of = catalog(cap)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(open_ledger(tmp_path, clock, of)) for _ in range(2)]
        for round_ in (1, 2):
            answers = await asyncio.gather(*(lane.run(admit(of)) for _ in range(20) for lane in (first, second)))
            assert sum(isinstance(answer, Admission) for answer in answers) == 13
            assert len(read_disk(tmp_path).windows) == round_
            gauges = [(await lane.snapshot()).gauge(cap, clock()) for lane in (first, second)]
            assert [(gauge.held, gauge.window_start) for gauge in gauges] == [(13, clock())] * 2
            check_laws(read_disk(tmp_path), us(clock()))
            clock.forward(hours=5)


async def test_what_is_only_explained_opens_no_window(tmp_path, clock, database):
    of = catalog(*FIVE)
    asked = admit(of)
    async with open_ledger(tmp_path, clock, of) as lane:
        assert isinstance(await lane.run(Explain(candidates=asked.candidates, question=asked.question)), Chosen)
    assert read_disk(tmp_path).windows == []

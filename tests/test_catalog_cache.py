"""
The catalog in memory: one snapshot after the other, none ever changed, none older than what was seen before.

A lane alone keeps it from its own edits; lanes that share a PostgreSQL ledger look at its epoch in every batch.
"""

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise

import aiohttp
import database_kit
import pytest
from daemon_kit import AUTH, Process, environ
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import Clock, open_ledger
from plane_kit import open_plane

from quota_router.core.desired import build_catalog
from quota_router.core.edits import models, providers
from quota_router.errors import RequestError, Stale
from quota_router.store.catalog import load_catalog
from quota_router.store.catalog_edits import Signature, edit_rows
from quota_router.store.holding import Sweep
from quota_router.store.trail import Trail

NAMES = ("a", "b", "c")
TABLE = {"family": "openai", "base_url": "https://u.example/v1", "credential": "none"}
ME = Signature(admin="me")


def furnished(catalog):
    for name in NAMES:
        catalog = providers.create_provider(catalog, name, TABLE, providers.Host())
    for name in ("m", "n"):
        catalog = models.create_model(catalog, name, {"attachments": list(NAMES)})
    return catalog


async def stored(lane):
    async with lane.reader.connect() as conn:
        return await conn.run_sync(load_catalog)


@pytest.fixture
def on_a_server():
    """Several lanes share a ledger only where there is a server."""
    database_kit.use(database_kit.POSTGRES)
    yield
    database_kit.use(database_kit.SQLITE)


# --- one lane -----------------------------------------------------------------------------------------------------------

LADDERS = st.permutations(NAMES).flatmap(lambda names: st.integers(1, 3).map(lambda count: list(names[:count])))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ladder"), st.sampled_from("mn"), LADDERS),
        st.tuples(st.just("title"), st.sampled_from(NAMES), st.integers(0, 3)),
        st.tuples(st.just("pause"), st.sampled_from(NAMES), st.none()),
        st.tuples(st.just("look"), st.none(), st.none()),
        st.tuples(st.just("work"), st.none(), st.none()),
    ),
    max_size=12,
)


def plan_of(kind, name, value, seen):
    if kind == "ladder":
        version = frozenset([seen.models[name].version])
        return partial(models.change_model, name=name, patch={"attachments": value}, expected=version)
    if kind == "title":
        version = frozenset([seen.providers[name].version])
        patch = {"display_name": f"title {value}"}
        return partial(providers.change_provider, name=name, patch=patch, expected=version, host=providers.Host())
    return partial(providers.pause_provider, name=name, reason="")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=2, max_size=4))
async def test_row_2_7_snapshots_are_immutable_and_none_is_older_than_the_last(tmp_path_factory, editors):
    """
    Editors and lookers at once: a snapshot that somebody holds stays as it was, whoever edits meanwhile; every edit was made on the
    version that its editor saw, or was refused; what the lane holds at the end is what is stored.
    """
    seen = []

    async with open_ledger(tmp_path_factory.mktemp("ledger"), Clock()) as lane:
        await lane.edit(edit_rows(furnished, ME))
        done = {"accepted": 0, "last": 0}

        async def edit(steps):
            for kind, name, value in steps:
                snapshot = lane.catalog
                assert snapshot.epoch >= done["last"]
                done["last"] = snapshot.epoch
                seen.append((snapshot, repr(snapshot)))
                if kind == "look":
                    await asyncio.sleep(0)
                elif kind == "work":
                    await lane.run(Sweep())
                else:
                    try:
                        edited = await lane.edit(edit_rows(plan_of(kind, name, value, snapshot), ME))
                    except Stale:
                        continue
                    done["accepted"] += bool(edited.changes)

        first = lane.catalog.epoch
        await asyncio.gather(*(edit(steps) for steps in editors))
        assert all(repr(snapshot) == as_it_was for snapshot, as_it_was in seen)
        assert lane.catalog.epoch == first + done["accepted"]
        assert lane.catalog == await stored(lane)


async def test_row_2_7_a_provider_that_changes_changes_for_every_model_that_uses_it(tmp_path):
    """No look-up keeps the old one: not the ladders that are laid out for calls either."""
    async with open_plane(tmp_path, "", Clock()) as plane:
        await plane.daemon.lane.edit(edit_rows(furnished, ME))

        async def where(model):
            told = await plane.ask("POST", "/api/v1/route", {"model": model, "dry_run": True})
            return told.body.get("base_url") or [rung["reason"] for rung in told.body["rungs"]]

        assert [await where(model) for model in ("m", "n")] == ["https://u.example/v1"] * 2
        told = await plane.admin("PATCH", "providers/a", {"base_url": "https://v.example/v1"}, If_Match="*")
        assert told.status == 200
        assert [await where(model) for model in ("m", "n")] == ["https://v.example/v1"] * 2
        await plane.admin("POST", "providers/a/pause")
        assert [await where(model) for model in ("m", "n")] == ["https://u.example/v1"] * 2
        for name in NAMES:
            await plane.admin("PATCH", f"providers/{name}", {"enabled": False}, If_Match="*")
        assert [await where(model) for model in ("m", "n")] == [["disabled"] * 3] * 2


async def test_an_edit_that_breaks_leaves_the_snapshot_and_the_rows_as_they_were(tmp_path, database):
    async with open_ledger(tmp_path, Clock()) as lane:
        await lane.edit(edit_rows(furnished, ME))
        before = lane.catalog

        def broken(catalog):
            changed = models.change_model(catalog, "m", {"attachments": ["c"]}, None)
            # Two rungs in one place: the database refuses it after the first rows were written.
            rung = changed.models["m"].attachments[0]
            twin = replace(rung, provider="a")
            return replace(changed, models={**changed.models, "m": replace(changed.models["m"], attachments=(rung, twin))})

        with pytest.raises(Exception, match="ledger's database"):
            await lane.edit(edit_rows(broken, ME))
        assert lane.catalog == before == await stored(lane)
        await lane.edit(edit_rows(partial(models.change_model, name="m", patch={"attachments": ["c"]}, expected=None), ME))
        assert [rung.provider for rung in lane.catalog.models["m"].attachments] == ["c"]


# --- several lanes --------------------------------------------------------------------------------------------------------


async def test_row_2_7_another_lane_sees_an_edit_at_its_next_batch(tmp_path, on_a_server):
    async with open_ledger(tmp_path, Clock()) as one, open_ledger(tmp_path, Clock()) as two:
        await one.edit(edit_rows(furnished, ME))
        assert two.catalog.models == {}
        await two.run(Sweep())
        assert two.catalog == one.catalog
        stale = two.catalog
        await one.edit(edit_rows(partial(providers.pause_provider, name="a", reason="x"), ME))
        assert two.catalog is stale
        await two.run(Sweep())
        assert two.catalog.providers["a"].paused
        assert not stale.providers["a"].paused


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=2, max_size=4))
async def test_row_2_7_a_stale_load_never_overwrites_a_newer_write(tmp_path_factory, on_a_server, editors):
    """
    Each editor works on what its own lane last saw. An edit on a version that is gone is refused, whichever lane it comes through,
    and none that was accepted is lost; each lane ends with what is stored.
    """
    folder = tmp_path_factory.mktemp("shared")
    async with open_ledger(folder, Clock()) as one, open_ledger(folder, Clock()) as two:
        lanes = (one, two)
        await one.edit(edit_rows(furnished, ME))
        await two.run(Sweep())
        first, accepted, pauses = one.catalog.epoch, [], [0]

        async def edit(lane, steps):
            for kind, name, value in steps:
                snapshot = lane.catalog
                if kind in ("look", "work"):
                    await lane.run(Sweep())
                    assert lane.catalog.epoch >= snapshot.epoch
                    continue
                try:
                    edited = await lane.edit(edit_rows(plan_of(kind, name, value, snapshot), ME))
                except RequestError:
                    continue
                if edited.changes:
                    accepted.append((kind, name, value))
                    pauses[0] += kind == "pause"
                    assert lane.catalog.epoch > snapshot.epoch

        await asyncio.gather(*(edit(lanes[number % 2], steps) for number, steps in enumerate(editors)))
        for lane in lanes:
            await lane.run(Sweep())
        final = await stored(one)
        assert one.catalog == two.catalog == final
        assert final.epoch == first + len(accepted)
        for name in ("m", "n"):
            edits = [value for kind, of, value in accepted if (kind, of) == ("ladder", name)]
            assert final.models[name].version == 1 + len(edits)
            lines = (await Trail(one.reader).page(limit=1_000, matching={"kind": "model", "name": name}))["items"]
            assert sorted(line["after"]["attachments"] for line in lines[:-1]) == sorted(edits)
            assert [rung.provider for rung in final.models[name].attachments] == lines[0]["after"]["attachments"]
        versions = sum(provider.version - 1 for provider in final.providers.values())
        assert versions == sum(kind != "ladder" for kind, *_ in accepted)


CATALOG = "".join(
    f'[providers.{name}]\nfamily = "openai"\nbase_url = "https://u.example/v1"\ncredential = "none"\n' for name in NAMES
)


async def test_row_2_7_of_two_processes_that_write_one_ladder_one_is_told_and_nothing_is_lost(tmp_path, on_a_server):
    """Two daemons on one ledger, each asked to replace the same list at the same version, again and again."""
    processes = []
    try:
        for number in range(2):
            folder = tmp_path / f"daemon-{number}"
            folder.mkdir()
            path = folder / "quota-router.toml"
            path.write_text(f'[server]\nlisten = "127.0.0.1:0"\ndatabase = "{database_kit.url_of(tmp_path)}"\n{CATALOG}')
            processes.append(await Process.start(path, environ(folder)))
        async with aiohttp.ClientSession(headers=AUTH) as http:
            urls = [f"{process.url}/api/v1/models" for process in processes]
            made = await http.post(urls[0], json={"name": "m", "attachments": ["a"]})
            assert made.status == 201, await made.text()
            won = ["a"]
            for version in range(1, 11):
                ladders = [["b", "a"], ["c", "a", "b"]] if version % 2 else [["a"], ["b", "c"]]
                answers = await asyncio.gather(
                    *(
                        http.put(f"{url}/m/attachments", json={"attachments": ladder}, headers={"If-Match": f'"{version}"'})
                        for url, ladder in zip(urls, ladders, strict=True)
                    )
                )
                assert sorted(answer.status for answer in answers) == [200, 412]
                winner = [answer.status for answer in answers].index(200)
                won = ladders[winner]
                assert answers[winner].headers["ETag"] == f'"{version + 1}"'
                told = await http.get(f"{urls[winner]}/m")
                assert [rung["provider"] for rung in (await told.json())["attachments"]] == won
            for url in urls:
                # A batch of its own is when a daemon looks whether others edited.
                async with http.get(f"{url}/m") as told:
                    assert [rung["provider"] for rung in (await told.json())["attachments"]] == won
                async with http.post(url.replace("models", "route"), json={"model": "m", "dry_run": True}) as told:
                    assert (await told.json())["provider"] == won[0]
            async with http.get(f"{urls[0].replace('models', 'audit')}?kind=model&limit=1000") as told:
                lines = (await told.json())["items"]
            assert [line["version"] for line in lines] == list(range(11, 0, -1))
            assert [line["after"] == after["before"] for after, line in pairwise(lines)] == [True] * 10
    finally:
        for process in processes:
            await process.stop()


def test_one_snapshot_has_one_rule_book():
    """Compiled once, whoever looks, and kept over what only changes a setting of the daemon's."""
    rule = {"condition": "priority == 0", "strategy": "cheapest"}
    catalog = build_catalog({"routing": {"rules": [rule]}})
    assert catalog.rule_book is catalog.rule_book
    again = catalog.with_settings_of(build_catalog({"routing": {"timezone": "Europe/Berlin"}}))
    assert (again.timezone, again.rule_book.rules[0].condition) == ("Europe/Berlin", catalog.rule_book.rules[0].condition)
    assert again.rule_book.rules[0].condition is catalog.rule_book.rules[0].condition

"""Which endpoints a catalog wants asked, once each, and with whose credential."""

from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from ledger_kit import NOON, provider

from quota_router.config import load
from quota_router.core.catalog import Catalog, Poller
from quota_router.core.commands import CommandSpec
from quota_router.core.desired import build_catalog
from quota_router.core.readings import ReadingUnit
from quota_router.dialects.vendors import ENDPOINTS, CredentialKind
from quota_router.polling import targets_of

VENDOR = "https://api.example.com"
OWN = {"base_url": f"{VENDOR}/v1", "credential_ref": "env:KEY"}


def pointed(name="plan", url=f"{VENDOR}/quota", **changes):
    values = {"share": "/used", "unit": "share", "window": "5h", "scale": Fraction(1, 100), "every_s": 60}
    return Poller(name=name, url=url, **{**values, **changes})


def targets(*providers):
    return list(targets_of(Catalog(providers={one.name: one for one in providers}), NOON).values())


def test_a_provider_that_names_no_endpoint_is_not_asked_about():
    assert targets(provider("a"), provider("b", quota_sources=("headers",))) == []


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_credential_of_the_calls_goes_to_endpoints_that_take_it_and_to_no_other(name):
    (target,) = targets(provider("a", **OWN, quota_sources=("headers", name)))
    takes_calls = ENDPOINTS[name].credential is CredentialKind.CALLS
    assert target.credential_ref == ("env:KEY" if takes_calls else None)
    assert target.poll(NOON).url.startswith(f"{VENDOR}/")
    assert target.interval_s >= ENDPOINTS[name].interval_min_s
    assert target.sources == (f"poller:{name}",)
    assert takes_calls or f"{name!r} takes" in target.lacking


@pytest.mark.parametrize(
    ("url", "changes", "ref"),
    [
        (f"{VENDOR}/quota", {}, "env:KEY"),
        ("https://API.example.com/quota?team=1", {}, "env:KEY"),
        ("https://api.example.com.evil.test/quota", {}, None),
        ("https://billing.example.com/quota", {}, None),
        ("http://api.example.com/quota", {}, None),
        ("https://api.example.com:8443/quota", {}, None),
        ("https://billing.example.com/quota", {"credential_ref": "env:OTHER"}, "env:OTHER"),
        ("https://billing.example.com/quota", {"credential_ref": "none"}, "none"),
    ],
)
def test_the_providers_own_credential_goes_to_its_own_origin_alone(url, changes, ref):
    (target,) = targets(provider("a", **OWN, pollers=(pointed(url=url, **changes),)))
    assert target.credential_ref == ref


def test_a_keyless_provider_is_asked_without_a_key_wherever():
    (target,) = targets(provider("a", pollers=(pointed(url="http://10.0.0.1/quota"),)))
    assert target.credential_ref == "none"


def test_an_endpoint_of_one_account_is_asked_once_however_many_name_it():
    shared = {**OWN, "account": "shared", "quota_sources": ("zai",), "pollers": (pointed(),)}
    found = targets(provider("a", **shared), provider("b", **shared), provider("c", **{**shared, "account": "own"}))
    assert [(target.provider.name, target.sources) for target in found] == [
        ("a", ("poller:plan",)),
        ("a", ("poller:zai",)),
        ("c", ("poller:plan",)),
        ("c", ("poller:zai",)),
    ]


def test_windows_at_one_address_are_read_from_one_answer_as_often_as_the_most_impatient_wants():
    (target,) = targets(provider("a", **OWN, pollers=(pointed(), pointed("week", share="/week", window="7d", every_s=20))))
    assert (target.sources, target.interval_s) == (("poller:plan", "poller:week"), 20)
    body = b'{"used": 12.5, "week": 40}'
    said = [said for poller in target.pollers for said in target.read(poller, body, NOON)]
    assert [(one.window, one.unit, one.share_ppm) for one in said] == [
        ("5h", ReadingUnit.SHARE, 125_000),
        ("7d", ReadingUnit.SHARE, 400_000),
    ]


def test_two_credentials_at_one_address_are_two_endpoints():
    pollers = (pointed(credential_ref="env:A"), pointed("other", credential_ref="env:B"))
    assert [target.credential_ref for target in targets(provider("a", **OWN, pollers=pollers))] == ["env:A", "env:B"]


def test_a_disabled_provider_is_not_asked_about_and_a_paused_one_is():
    named = {**OWN, "quota_sources": ("deepseek",)}
    assert targets(provider("a", **named, enabled=False)) == []
    assert len(targets(provider("a", **named, paused=True))) == 1


def test_a_preset_of_a_newer_version_is_not_asked():
    unknown = {**OWN, "quota_sources": ("headers", "tomorrow"), "pollers": (Poller(name="t", preset="tomorrow"), pointed())}
    assert [target.sources for target in targets(provider("a", **unknown))] == [("poller:plan",)]


def test_the_plan_of_a_command_is_asked_about_at_its_vendors_address():
    poller = Poller(name="plan", preset="anthropic-subscription", credential_ref="env:TOKEN")
    spec = CommandSpec(template=("claude",), prompt_on_stdin=True)
    command = provider("cli", vendor="anthropic", base_url="", command=spec, pollers=(poller,))
    (target,) = targets(command)
    assert target.poll(NOON).url == "https://api.anthropic.com/api/oauth/usage"


def test_the_example_of_the_readme_loads_and_asks_what_it_says(tmp_path):
    section = (Path(__file__).parent.parent / "README.md").read_text().partition("\n## Live quota\n")[2]
    file = tmp_path / "quota-router.toml"
    file.write_text(section.partition("```toml\n")[2].partition("```")[0])
    found = targets_of(build_catalog(load(file, {}).desired, pollers=ENDPOINTS), NOON).values()
    assert {target.poll(NOON).url.partition("?")[0]: target.credential_ref for target in found} == {
        "https://openrouter.ai/api/v1/key": "env:OPENROUTER_API_KEY",
        "https://api.anthropic.com/v1/organizations/cost_report": "env:ANTHROPIC_ADMIN_KEY",
        "https://gateway.example.com/v1/usage": "env:GATEWAY_KEY",
    }
    (gateway,) = [target for target in found if target.provider.name == "gateway"]
    body = b'{"data": {"five_hour": {"percent": 42, "resets_at": "2026-11-20T15:00:00Z"}}}'
    (said,) = gateway.read(gateway.pollers[0], body, NOON)
    assert (said.window, said.share_ppm, said.resets_at) == ("5h", 420_000, NOON + timedelta(hours=3))

"""Lists of prices: what they say, whether they are believed, and who uses them from when on."""

import asyncio
import json
import sqlite3
import ssl
import threading
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tls_kit import self_signed

import quota_router
from quota_router.cli import main
from quota_router.cli.common import Exit
from quota_router.core.catalog import Attachment, Family, Model, Provider
from quota_router.core.model_lists import MODELS_MIN, Known, nearest, objections, read_models_dev
from quota_router.core.pricing import PriceTable, Rates, cost_nusd
from quota_router.core.usage import Usage
from quota_router.store.genai_list import bundled
from quota_router.store.price_file import PriceFile, read_list
from quota_router.store.prices import PriceBook

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ANTHROPIC = "https://api.anthropic.com"
TAKEN_WITHIN_S = 30


def dev_entry(name="some-model", cost=None, **more):
    return {"id": name, "name": name, "cost": {"input": 1, "output": 4} if cost is None else cost, **more}


def dev_list(models=MODELS_MIN, cost=None, **anthropic):
    """A list of models.dev: so many models of a vendor that nobody knows, and those of one that everybody does."""
    filler = {f"model-{number}": dev_entry(f"model-{number}", cost) for number in range(models)}
    return {
        "filler": {"id": "filler", "api": "https://filler.example/v1/", "models": filler},
        "anthropic": {"id": "anthropic", "models": anthropic},
    }


def genai_list(models=MODELS_MIN, input_mtok=1):
    """A list of genai-prices."""
    filler = [
        {
            "id": f"model-{number}",
            "match": {"equals": f"model-{number}"},
            "context_window": 1_000,
            "prices": {"input_mtok": input_mtok, "output_mtok": 4},
        }
        for number in range(models)
    ]
    return [
        {"id": "filler", "name": "Filler", "api_pattern": r"https://filler\.example", "pricing_urls": [], "models": filler},
    ]


def read(document, at=NOW):
    return read_list(json.dumps(document).encode(), at)


def dev_price(cost):
    listed = read(dev_list(0, **{"some-model": dev_entry(cost=cost)}))
    return listed.find("anthropic", ANTHROPIC, "some-model")


# --- what models.dev says ------------------------------------------------------------------------------------------------


def test_a_price_of_models_dev_is_exact_and_says_where_it_is_from():
    price = dev_price({"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75})
    assert price.tiers == (
        (
            0,
            Rates(
                input_pusd=3_000_000,
                output_pusd=15_000_000,
                cache_read_pusd=300_000,
                cache_write_5m_pusd=3_750_000,
                cache_write_1h_pusd=6_000_000,
            ),
        ),
    )
    assert price.source == "models.dev"
    assert price.version.startswith("2026-11-25.")
    assert len(price.version) == len("2026-11-25.") + 12


@pytest.mark.parametrize(
    "above",
    [
        {"context_over_200k": {"input": 6, "output": 22.5}},
        {"tiers": [{"input": 6, "output": 22.5, "tier": {"type": "context", "size": 200_000}}], "context_over_200k": {"input": 9}},
    ],
)
def test_a_tier_begins_above_its_size(above):
    price = dev_price({"input": 3, "output": 15, **above})
    assert cost_nusd(Usage(input=200_000), price) == 200_000 * 3_000
    assert cost_nusd(Usage(input=200_001, output=1), price) == 200_001 * 6_000 + 22_500


@pytest.mark.parametrize(
    "cost",
    [
        {},
        {"input": 1},
        {"input": -1, "output": -1},
        {"input": "1", "output": 2},
        {"input": True, "output": 2},
        {"input": 1, "output": 2, "output_audio": 8},
        {"input": 1, "output": 2, "per_minute": 8},
        {"input": 1, "output": 2, "cache_read": "free"},
        {"input": 1, "output": 2, "tiers": [{"input": 2, "output": 3, "tier": {"type": "hour", "size": 3}}]},
        {"input": 1, "output": 2, "tiers": ["?"]},
        {"input": 10**13, "output": 2},
    ],
)
def test_a_cost_that_is_not_understood_is_unknown_and_not_free(cost):
    assert dev_price(cost) is None


@given(input_usd=st.decimals(0, 1_000, places=9), output_usd=st.decimals(0, 1_000, places=9))
def test_what_is_converted_is_never_below_the_list(input_usd, output_usd):
    text = f'{{"anthropic": {{"models": {{"m": {{"cost": {{"input": {input_usd:f}, "output": {output_usd:f}}}}}}}}}}}'
    rates = read_list(text.encode(), NOW).find("anthropic", ANTHROPIC, "m").tiers[0][1]
    assert 0 <= rates.input_pusd - input_usd * 10**6 < 1
    assert 0 <= rates.output_pusd - output_usd * 10**6 < 1


def test_capabilities_and_limits_are_in_our_words():
    entry = dev_entry(
        tool_call=True,
        structured_output=True,
        reasoning=False,
        modalities={"input": ["text", "image", "pdf"], "output": ["text"]},
        limit={"context": 200_000, "output": 64_000},
    )
    known = read_models_dev(dev_list(0, **{"some-model": entry}), "v").models["anthropic", "some-model"]
    assert known.capabilities == ("files", "json_schema", "tools", "vision")
    assert (known.context_tokens, known.max_output_tokens) == (200_000, 64_000)


def test_who_is_at_the_other_end_of_the_url_is_paid_else_the_vendor():
    listed = read(dev_list(1, model_0=dev_entry()))
    assert listed.find("openai", "https://filler.example/v1", "model-0").source == "models.dev"
    assert listed.find("anthropic", "https://filler.example", "model-0").source == "models.dev"
    assert listed.find("openai", "https://other.example/v1", "model-0") is None
    assert listed.find("gemini", "https://x.example", "m") is None
    google = read({"google": {"models": {"Gemini-X": dev_entry()}}})
    assert google.find("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-x") is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"3", "no list"),
        (b'{"a": {}}', "models.dev"),
        (b'{"a": {"models": {"m": 3}}}', "models.dev"),
        (b'[{"a": 1}]', "genai-prices"),
        (b"[3]", "genai-prices"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        read_list(text, NOW)


# --- whether it is believed ----------------------------------------------------------------------------------------------


def known(number, input_pusd=1_000_000, output_pusd=4_000_000, source="models.dev"):
    price = PriceTable(tiers=((0, Rates(input_pusd=input_pusd, output_pusd=output_pusd)),))
    return Known(provider="p", model=f"m{number}", price=price, source=source, version="v")


HUNDRED = [known(number) for number in range(MODELS_MIN)]


def test_the_same_list_again_is_believed():
    assert objections(HUNDRED, HUNDRED) == []
    listed = bundled().known(date(2026, 11, 25))
    assert objections(listed, listed) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([], HUNDRED[1:], ["99 models"]),
        ([known(number) for number in range(200)], [known(number) for number in range(159)], ["of 200: more than 20% are gone"]),
        ([known(number) for number in range(200)], [known(number) for number in range(160)], []),
        ([known(number, source="other") for number in range(200)], HUNDRED, []),
        (HUNDRED, [*HUNDRED[1:], known(0, input_pusd=10_000_001)], ["is asked for p/m0"]),
        (HUNDRED, [*HUNDRED[1:], known(0, input_pusd=10_000_000)], []),
        (HUNDRED, [*HUNDRED[1:], known(0, output_pusd=399_999)], ["is asked for p/m0"]),
        (HUNDRED, [*HUNDRED[1:], known(0, input_pusd=0)], ["is asked for p/m0"]),
        ([*HUNDRED[1:], known(0, input_pusd=0)], HUNDRED, []),
        ([known(number, 100, source="other") for number in range(20)], HUNDRED, ["is asked for p/m0"]),
        ([known(number, 100 if number < 20 else 10**6, source="other") for number in range(100)], HUNDRED, []),
        ([known(number, 100 if number < 21 else 10**6, source="other") for number in range(100)], HUNDRED, ["m4 and 16 more"]),
        (HUNDRED, [*HUNDRED, known(-1, output_pusd=10_001 * 10**6)], ["10,000 USD per million tokens are asked for p/m-1"]),
        (HUNDRED, [known(number, input_pusd=1) for number in range(MODELS_MIN)], ["p/m4 and 95 more"]),
    ],
)
def test_a_list_that_has_shrunk_or_whose_prices_have_jumped_is_objected_to(before, after, said):
    found = objections(before, after)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


# --- layers --------------------------------------------------------------------------------------------------------------


def test_row_4_7_what_is_stated_here_goes_before_a_fetched_list_and_that_before_the_bundled_one():
    """
    Attachment, model, fetched list, bundled list: the first that knows a price gives it.
    """
    own = PriceTable(tiers=((0, Rates(input_pusd=1, output_pusd=1)),), version="own")
    models = PriceTable(tiers=((0, Rates(input_pusd=2, output_pusd=2)),), version="model's")
    provider = Provider(
        name="p", family=Family.ANTHROPIC, vendor="anthropic", account="p", base_url=ANTHROPIC, credential_ref="env:K"
    )

    def priced(book, attachment_price, model_price, name="claude-sonnet-4-5"):
        rung = Attachment(model="m", provider="p", priority=0, position=0, upstream_model=name, price=attachment_price)
        model = Model(name="m", family=Family.ANTHROPIC, attachments=(rung,), price=model_price)
        return book.price_of(rung, model, provider, NOW)

    book = PriceBook(read(dev_list(0, **{"claude-sonnet-4-5": dev_entry(), "claude-haiku-4-5": dev_entry(cost={})})))
    assert priced(book, own, models) is own
    assert priced(book, None, models) is models
    assert priced(book, None, None).source == "models.dev"
    assert priced(book, None, None, "claude-haiku-4-5").source == "genai-prices"  # the fetched list knows no price of it
    assert priced(book, None, None, "claude-nobody") is None
    book.take(None)
    assert priced(book, None, None).source == "genai-prices"


def test_a_file_of_genai_prices_is_read_like_the_bundled_list():
    listed = read(genai_list())
    price = listed.find("", "https://filler.example", "model-3", NOW.date())
    assert price.tiers[0][1].input_pusd == 1_000_000
    assert (price.source, price.version) == ("genai-prices", listed.version)
    assert listed.known(NOW.date())[3].context_tokens == 1_000


@pytest.mark.parametrize("usd", [-1, 10**12])
def test_what_nobody_can_ask_is_no_price_in_either_list(usd):
    assert read(genai_list(1, usd)).find("", "https://filler.example", "model-0", NOW.date()) is None
    assert dev_price({"input": usd, "output": 1}) is None


def test_a_pattern_that_would_break_a_call_is_refused_with_its_list():
    document = genai_list()
    document[0]["api_pattern"] = "("
    with pytest.raises(ValueError, match="genai-prices"):
        read(document)


# --- the file ------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_again_by_its_owner_alone(tmp_path):
    file = PriceFile(folder=tmp_path / "state")
    assert not file.has_changed()
    assert file.load() is None
    text = json.dumps(dev_list()).encode()
    file.keep(text, "here", NOW)
    assert file.has_changed()
    assert not file.has_changed()
    assert file.load() == read_list(text, NOW)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.folder.iterdir()] == ["prices.json"]
    assert file.forget()
    assert file.has_changed()
    assert not file.forget()


@pytest.mark.parametrize("text", ["", "3", "{}", '{"format": 2}', '{"format": 1, "read_at": "?", "list": "{}"}', "\x00"])
def test_a_file_that_is_broken_says_so(tmp_path, text):
    file = PriceFile(folder=tmp_path)
    file.path.write_text(text)
    with pytest.raises(ValueError, match=r"\w"):
        file.load()


# --- the commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys, home):
    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, stdout=said.out, stderr=said.err)

    return command


FIRST = {dev_list: (), genai_list: ("--force",)}
"""So short a list of genai-prices is none beside the bundled one."""


def write(folder, document, name="list.json"):
    path = folder / name
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize("make", [dev_list, genai_list])
def test_row_4_7_a_list_is_fetched_from_a_file_and_kept(command, home, make):
    said = command("catalog", "refresh", write(home, make()), "--json", *FIRST[make])
    assert said.code == Exit.OK, said.stderr
    told = json.loads(said.stdout)
    assert (told["models"], told["priced"], told["new"]) == (MODELS_MIN, MODELS_MIN, MODELS_MIN)
    again = command("catalog", "refresh", write(home, make(MODELS_MIN + 2)))
    assert f"{MODELS_MIN + 2} models of {told['source']}" in again.stdout
    assert "2 new, 0 gone, 0 with another price" in again.stdout
    assert "bundled list again" in command("catalog", "refresh", "--bundled").stdout
    assert "bundled list already" in command("catalog", "refresh", "--bundled").stdout


@pytest.mark.parametrize("make", [dev_list, genai_list])
def test_row_4_7_a_list_that_cannot_be_believed_changes_nothing_unless_forced(command, home, make):
    command("catalog", "refresh", write(home, make(2 * MODELS_MIN)), *FIRST[make])
    kept = PriceFile(folder=home / "state" / "quota-router").path.read_bytes()
    shrunk = write(home, make(MODELS_MIN))
    said = command("catalog", "refresh", shrunk)
    assert said.code == Exit.FAILURE
    assert "was not kept" in said.stderr
    assert "--force" in said.stderr
    assert said.stderr.count("\n") == 1
    assert PriceFile(folder=home / "state" / "quota-router").path.read_bytes() == kept
    forced = command("catalog", "refresh", shrunk, "--force")
    assert forced.code == Exit.OK
    assert "Kept all the same: It has prices of 100 models, and the one in force of 200" in forced.stdout


def test_a_price_that_is_a_slip_of_its_unit_is_refused(command, home):
    """
    Per thousand tokens instead of per million: a budget would be overspent a thousandfold before anybody saw it.
    """
    command("catalog", "refresh", write(home, dev_list()))
    said = command("catalog", "refresh", write(home, dev_list(cost={"input": 0.001, "output": 0.004})))
    assert said.code == Exit.FAILURE
    assert "filler/model-0" in said.stderr


@pytest.mark.parametrize(
    ("source", "said", "code"),
    [
        ("nowhere.json", "cannot be read", Exit.FAILURE),
        ("http://models.dev/api.json", "no https URL", Exit.USAGE),
        ("https://user@models.dev/api.json", "no https URL", Exit.USAGE),
        ("https://models.dev:port/", "no https URL", Exit.USAGE),
        ("file:///etc/passwd", "no https URL", Exit.USAGE),
    ],
)
def test_a_source_that_is_none_is_said(command, source, said, code):
    found = command("catalog", "refresh", source)
    assert (said in found.stderr, found.code) == (True, code)


@contextmanager
def published(folder, answers):
    """An https server that vouches for itself: path -> status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[self.path]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/api.json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        def handle_error(self, *_):
            """Whoever does not trust us hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        # The handshake is the handler's, which closes what it was given, however it ends.
        server.socket = self_signed(folder).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# Whoever does not trust the server hangs up while it accepts him: Python may then complain of that socket of its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_row_4_7_a_list_is_fetched_over_https_and_over_nothing_less(command, home, monkeypatch):
    """
    Neither a redirect nor a certificate that nobody vouches for leads to a price.
    """
    answers = {"/api.json?x=1": (200, json.dumps(dev_list()).encode()), "/moved": (302, b""), "/gone": (404, b"no")}
    with published(home, answers) as url:
        assert "cannot be fetched" in command("catalog", "refresh", f"{url}/api.json?x=1").stderr
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(home / "self-signed.pem"))
        assert "status 302, and no redirect is followed" in command("catalog", "refresh", f"{url}/moved").stderr
        assert "status 404" in command("catalog", "refresh", f"{url}/gone").stderr
        said = command("catalog", "refresh", f"{url}/api.json?x=1")
    assert said.code == Exit.OK, said.stderr
    assert "100 models of models.dev" in said.stdout


def test_row_4_7_a_model_is_suggested_by_a_name_that_is_about_right(command, home):
    limit = {"context": 200_000, "output": 64_000}
    described = dev_entry("claude-sonnet-4-5", {"input": 3, "output": 15}, tool_call=True, limit=limit)
    command("catalog", "refresh", write(home, dev_list(**{"claude-sonnet-4-5": described})))
    said = command("models", "suggest", "claude sonet 4.5", "--limit", "3", "--json")
    first, *others = json.loads(said.stdout)["items"]
    version = first.pop("version")
    assert first == {
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "cost_per_million_input": "3",
        "cost_per_million_output": "15",
        "context_tokens": 200_000,
        "max_output_tokens": 64_000,
        "capabilities": ["tools"],
        "source": "models.dev",
    }
    assert version.startswith("20")
    assert len(others) == 2
    table = command("models", "suggest", "anthropic/claude-sonnet-4-5").stdout
    assert "200,000" in table
    assert "models.dev" in table
    nobody = command("models", "suggest", "%%%%")
    assert (nobody.code, "No list knows" in nobody.stderr) == (Exit.NOT_FOUND, True)


@given(name=st.text(max_size=40), names=st.lists(st.text(min_size=1, max_size=12), max_size=5))
def test_a_suggestion_never_breaks_and_the_very_name_stands_first(name, names):
    models = [Known(provider="p", model=one, source="s", version="v") for one in names]
    assert len(nearest(name, models)) <= len(models)
    for one in models:
        if any(letter.isalnum() for letter in one.model):
            letters = "".join(letter for letter in one.model.lower() if letter.isalnum() or letter == "/")
            first = nearest(one.model, models)[0].model
            assert letters in "".join(letter for letter in first.lower() if letter.isalnum() or letter == "/")


# --- who uses it ---------------------------------------------------------------------------------------------------------

CATALOG = """
[providers.near]
vendor = "anthropic"
credential = "env:KEY"
[[models]]
name = "listed"
attachments = [{ provider = "near", upstream_model = "claude-sonnet-4-5" }]
[[models]]
name = "stated"
provider = "near"
cost_per_million_input = "7"
cost_per_million_output = "7"
"""


async def booked(router, model):
    """Book a million tokens; what the entry says of its price."""
    held = await router.route(model, input_tokens=1_000_000, max_output_tokens=1)
    await held.settle(input_tokens=1_000_000)
    (entry,) = (await router.story(held.call_id))["entries"]
    return entry["cost_nusd"] // 10**9, entry["price_source"]


async def test_row_4_7_a_running_router_takes_another_list_without_a_restart(home):
    """
    The entry says which list priced it; what the file states of a model stays; a list that breaks changes no price.
    """
    (home / "quota-router.toml").write_text(CATALOG)
    file = PriceFile(folder=home / "state" / "quota-router")
    listed = json.dumps(dev_list(0, **{"claude-sonnet-4-5": dev_entry(cost={"input": 5, "output": 5})})).encode()
    environ = {"KEY": "unused", "XDG_STATE_HOME": str(home / "state")}
    async with quota_router.open_router(home / "quota-router.toml", environ=environ) as router:
        prices = router._daemon.router.ladders.prices

        async def taken(edition):
            async with asyncio.timeout(TAKEN_WITHIN_S):
                while prices.edition < edition:  # noqa: ASYNC110 -- nobody signals it
                    await asyncio.sleep(0.05)

        assert await booked(router, "listed") == (6, "genai-prices")
        file.keep(listed, "here", NOW)
        await taken(1)
        assert await booked(router, "listed") == (5, "models.dev")
        with closing(sqlite3.connect(home / "state" / "quota-router" / "ledger.db")) as ledger:
            versions = dict(ledger.execute("SELECT price_source, price_version FROM entries"))
        assert versions["genai-prices"] == bundled().version
        assert versions["models.dev"] == read_list(listed, NOW).version
        assert await booked(router, "stated") == (7, "file")
        file.path.write_text("broken")
        assert await booked(router, "listed") == (5, "models.dev")
        file.forget()
        await taken(2)
        assert await booked(router, "listed") == (6, "genai-prices")


async def test_a_list_that_was_kept_is_in_force_from_the_start(home):
    (home / "quota-router.toml").write_text(CATALOG)
    listed = json.dumps(dev_list(0, **{"claude-sonnet-4-5": dev_entry(cost={"input": 5, "output": 5})})).encode()
    PriceFile(folder=home / "state" / "quota-router").keep(listed, "here", NOW)
    environ = {"KEY": "unused", "XDG_STATE_HOME": str(home / "state")}
    async with quota_router.open_router(home / "quota-router.toml", environ=environ) as router:
        assert await booked(router, "listed") == (5, "models.dev")

"""Where a vendor is asked and as whom: no key goes where it does not belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom.config.load import load_settings, normalise_base_url
from loom.config.places import Place, find_place, place_beside
from loom.config.settings import Settings
from loom.config.vendors import MISTRAL, OPENAI, Vendor, find_vendor
from loom.core.errors import ConfigInvalid, InvalidAPIKey
from loom.core.route import Route, named_model
from loom.core.secret import Secret
from loom.providers.key import Key
from loom.providers.scripted import ScriptedProvider

CANARY = "loom-canary-key-0123456789"
OTHER = "loom-canary-key-9876543210"
LOCAL = "http://localhost:11434/v1"
GROQ = "https://api.groq.example/openai/v1"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a key of each vendor in the environment, and no settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MISTRAL_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)


def key_of(place: Place) -> str | None:
    return None if place.key is None else place.key.secret.reveal()


def test_each_vendor_finds_its_own_key() -> None:
    """By its own name, for its own address."""
    mistral, openai = find_place(MISTRAL, Settings()), find_place(OPENAI, Settings())
    assert ("https://api.mistral.ai/v1", CANARY, True) == (
        mistral.address, key_of(mistral), mistral.own,
    )  # fmt: skip
    assert ("https://api.openai.com/v1", OTHER, True) == (
        openai.address, key_of(openai), openai.own,
    )  # fmt: skip


def test_our_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOOM_LLM_OPENAI_API_KEY` comes before `OPENAI_API_KEY`."""
    monkeypatch.setenv("LOOM_LLM_OPENAI_API_KEY", CANARY)
    assert CANARY == key_of(find_place(OPENAI, Settings()))


@pytest.mark.parametrize(
    ("vendor", "variable", "console"),
    [
        (MISTRAL, "MISTRAL_API_KEY", "console.mistral.ai"),
        (OPENAI, "OPENAI_API_KEY", "platform.openai.com"),
    ],
    ids=["mistral", "openai"],
)
def test_no_key_names_the_vendors_own_ways(
    vendor: Vendor, variable: str, console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variable, and where a key is made."""
    monkeypatch.delenv(variable)
    with pytest.raises(InvalidAPIKey, match=f"environment variable {variable}") as caught:
        find_place(vendor, Settings(secrets_order=("environment",)))
    assert console in caught.value.hint


@pytest.mark.parametrize("address", [LOCAL, "http://127.0.0.1:8000", "https://localhost/v1"])
def test_a_server_on_this_machine_is_sent_no_key(address: str) -> None:
    """Unless the caller gives one: the one in the environment is OpenAI's."""
    place = find_place(OPENAI, Settings(), base_url=address)
    assert (None, False) == (place.key, place.own)
    assert CANARY == key_of(find_place(OPENAI, Settings(), base_url=address, api_key=CANARY))


def test_another_server_needs_a_key_of_its_own() -> None:
    """A key that was found goes to OpenAI alone."""
    with pytest.raises(
        InvalidAPIKey, match=r"for https://api.groq.example: pass api_key="
    ) as caught:
        find_place(OPENAI, Settings(), base_url=GROQ)
    assert OTHER not in str(caught.value)
    place = find_place(OPENAI, Settings(), base_url=GROQ, api_key=CANARY)
    assert (GROQ, CANARY, False) == (place.address, key_of(place), place.own)


def test_settings_may_send_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the user's own."""
    monkeypatch.setenv("LOOM_OPENAI_BASE_URL", "https://relay.example.org/v1")
    place = find_place(OPENAI, load_settings())
    assert ("https://relay.example.org/v1", OTHER) == (place.address, key_of(place))


def test_the_address_of_one_vendor_is_not_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOOM_BASE_URL` is Mistral's."""
    monkeypatch.setenv("LOOM_BASE_URL", "https://relay.example.org")
    assert "https://api.openai.com/v1" == find_place(OPENAI, load_settings()).address


def test_a_project_does_not_choose_where_a_key_goes() -> None:
    """Neither vendor's."""
    Path("looms.toml").write_text('openai_base_url = "https://elsewhere.example"', encoding="utf-8")
    with pytest.raises(ConfigInvalid, match="'openai_base_url' is not taken from a project's file"):
        load_settings()


def test_a_route_takes_no_key_to_another_address() -> None:
    """A Mistral route of an OpenAI client is as strict as its own."""
    with pytest.raises(InvalidAPIKey, match=r"for https://relay\.example\.org"):
        find_place(MISTRAL, Settings(), base_url="https://relay.example.org/v1", strict=True)


@pytest.mark.parametrize(
    ("route", "address", "key"),
    [
        (Route(), "https://api.openai.com/v1", CANARY),
        (Route(base_url="https://api.openai.com/v1"), "https://api.openai.com/v1", CANARY),
        (Route(base_url=LOCAL), LOCAL, None),
        (Route(base_url=GROQ, api_key=OTHER), GROQ, OTHER),
        (Route(api_key=OTHER), "https://api.openai.com/v1", OTHER),
    ],
    ids=str,
)
def test_routes_of_the_same_vendor(route: Route, address: str, key: str | None) -> None:
    """What a route does not name is the client's, its key on its own address alone."""
    home = Place(address="https://api.openai.com/v1", key=Key(Secret(CANARY)))
    place = place_beside(OPENAI, home, route)
    assert (address, key) == (place.address, key_of(place))


def test_a_route_of_the_same_vendor_needs_a_key_elsewhere() -> None:
    """The client's key does not leave."""
    home = Place(address="https://api.openai.com/v1", key=Key(Secret(CANARY)))
    with pytest.raises(ConfigInvalid, match="needs an api_key of its own"):
        place_beside(OPENAI, home, Route(base_url=GROQ))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://localhost:11434", LOCAL),
        ("http://localhost:11434/v1/", LOCAL),
        ("https://x.example/v1beta/openai/", "https://x.example/v1beta/openai"),
        ("https://x.example", "https://x.example/v1"),
    ],
)
def test_a_path_stays_where_others_serve_it(given: str, expected: str) -> None:
    """Servers that speak as OpenAI does have paths of their own."""
    assert expected == normalise_base_url(given, exact=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-4.1", (None, "gpt-4.1")),
        ("openai:gpt-4.1", ("openai", "gpt-4.1")),
        ("openai:llama3.1:8b", ("openai", "llama3.1:8b")),
        ("llama3.1:8b", (None, "llama3.1:8b")),
        ("gpt-oss:20b", (None, "gpt-oss:20b")),
        ("ft:gpt-4o-mini:me::1", (None, "ft:gpt-4o-mini:me::1")),
        ("openai:ft:gpt-4o-mini:me::1", ("openai", "ft:gpt-4o-mini:me::1")),
        ("openai:", ("openai", "")),
        ("openai: x", ("openai", "")),
    ],
)
def test_a_name_is_parted_at_its_first_colon(text: str, expected: tuple[str | None, str]) -> None:
    """Models may have colons of their own."""
    assert expected == named_model(text)


class TestRegistered:
    """Vendors of other packages, found by entry points."""

    @pytest.fixture
    def register(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Install a package with two vendors and a mistake."""
        info = tmp_path / "acme-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: acme\nVersion: 1\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(
            "[loom.providers]\nacme = acme_loom:ACME\nplain = acme_loom:make\nwrong = acme_loom:x",
            encoding="utf-8",
        )
        (tmp_path / "acme_loom.py").write_text(
            "from loom.config.vendors import Vendor\n"
            "from loom.providers.scripted import ScriptedProvider\n"
            "ACME = Vendor(name='acme', title='ACME', base_url='https://acme.example/v1',"
            " key_name='acme_api_key')\n"
            "def make(model): return ScriptedProvider(name='plain', model=model)\n"
            "x = 3\n",
            encoding="utf-8",
        )
        monkeypatch.syspath_prepend(tmp_path)

    @pytest.mark.usefixtures("register")
    def test_a_vendor_is_found_with_its_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten lines of another package are a vendor."""
        monkeypatch.setenv("ACME_API_KEY", CANARY)
        place = find_place(find_vendor("acme"), Settings())
        assert ("https://acme.example/v1", CANARY) == (place.address, key_of(place))

    @pytest.mark.usefixtures("register")
    def test_a_function_makes_what_answers(self) -> None:
        """It needs neither address nor key."""
        vendor = find_vendor("plain")
        assert vendor.provider is not None
        assert isinstance(vendor.provider("big-1"), ScriptedProvider)
        assert find_place(vendor, Settings()).key is None

    @pytest.mark.usefixtures("register")
    def test_what_is_neither_is_named(self) -> None:
        """With its type."""
        with pytest.raises(ConfigInvalid, match=r"must be a Vendor.*, not int"):
            find_vendor("wrong")

    @pytest.mark.usefixtures("register")
    def test_the_nearest_name_is_told(self) -> None:
        """Of all that are registered."""
        with pytest.raises(ConfigInvalid, match="did you mean 'acme'"):
            find_vendor("amce")


def test_an_unknown_vendor_lists_those_that_are_known() -> None:
    """If none is near."""
    with pytest.raises(ConfigInvalid, match="unknown provider 'xyz'; known: 'mistral', 'openai'"):
        find_vendor("xyz")

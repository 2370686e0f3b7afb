"""`-m openai:gpt-4.1`: another vendor on the command line."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING

import pytest

from loom.cli.whose import async_client_of, client_of, whose
from loom.client.aio import AsyncClient
from loom.client.blocking import Client, Mistral, OpenAI
from loom.config.vendors import VENDORS, Vendor
from loom.core.errors import ConfigInvalid
from loom.providers.scripted import ScriptedProvider

if TYPE_CHECKING:
    from tests.cli.conftest import Run

KEY = {"api_key": "loom-canary-key-0123456789"}
TODAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai:gpt-4.1", ("openai", "gpt-4.1")),
        ("gpt-4.1", ("openai", "gpt-4.1")),
        ("gpt-4o-2024-08-06", ("openai", "gpt-4o-2024-08-06")),
        ("mistral-small-latest", ("mistral", "mistral-small-latest")),
        ("mistral:gpt-4.1", ("mistral", "gpt-4.1")),
        ("nobody-knows-it", ("mistral", "nobody-knows-it")),
        ("mistral-large-latest+15-reset:3", ("mistral", "mistral-large-latest+15-reset:3")),
        ("openai:llama3.1:8b", ("openai", "llama3.1:8b")),
    ],
)
def test_who_serves_a_model(name: str, expected: tuple[str, str]) -> None:
    """The vendor before it, or the one whose catalogue knows the id; else Mistral."""
    assert expected == whose(name, TODAY)


def test_a_vendor_without_a_model_is_told() -> None:
    """As `openai:`."""
    with pytest.raises(ConfigInvalid, match="'openai:' names no model"):
        whose("openai:", TODAY)


@pytest.mark.parametrize(
    ("model", "kind"),
    [(None, Mistral), ("mistral:ministral-3b-2512", Mistral), ("gpt-4.1", OpenAI)],
)
def test_each_vendor_has_its_client(model: str | None, kind: type[Client]) -> None:
    """For blocking code and for asyncio alike."""
    named = {} if model is None else {"model": model}
    client = client_of({**KEY, **named})
    assert type(client) is kind
    assert type(async_client_of({**KEY, **named})).__name__ == f"Async{kind.__name__}"


def test_a_registered_vendor_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its own name."""
    plain = Vendor(name="plain", title="Plain", provider=lambda _model: ScriptedProvider())
    monkeypatch.setitem(VENDORS, "plain", plain)
    assert "big-1" == client_of({"model": "plain:big-1"}).model
    assert isinstance(async_client_of({"model": "plain:big-1"}), AsyncClient)


def test_chat_asks_the_other_vendor(looms: Run) -> None:
    """Answer, vendor and cost are its own."""
    code, out, err = looms("chat", "--sim", "-m", "openai:gpt-4.1", "--json", "Hi")
    value = json.loads(out)
    assert (0, "") == (code, err)
    assert ("gpt-4.1", "openai") == (value["model"], value["metadata"]["provider"])
    assert value["usage"]["cost_usd"]


def test_a_bare_id_is_enough(looms: Run) -> None:
    """In chat, count, quote and ping."""
    assert "gpt-4o-mini" in looms("chat", "--sim", "-m", "gpt-4o-mini", "Hi").err
    assert 0 == looms("ping", "--sim", "-m", "gpt-4o-mini").code
    assert looms("count", "-m", "gpt-4o-mini", "Hello there").out.strip().isdecimal()
    assert looms("quote", "-m", "gpt-4o-mini", "Hello there").out.startswith("gpt-4o-mini · about")


def test_a_fallback_may_be_the_other_vendors(looms: Run) -> None:
    """Its id alone is enough there too."""
    words = ("-m", "mistral-large-latest+503", "--fallback", "gpt-4o-mini", "--attempts", "1")
    code, out, _ = looms("chat", "--sim", *words, "--json", "Hi")
    assert 0 == code
    assert "openai" == json.loads(out)["metadata"]["provider"]


def test_an_unknown_vendor_is_named(looms: Run) -> None:
    """With the nearest."""
    code, _, err = looms("chat", "-m", "opnai:gpt-4.1", "Hi")
    assert 2 == code
    assert "unknown provider 'opnai'; did you mean 'openai'?" in err


def test_a_missing_key_names_its_own_variable(looms: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Mistral's."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("LOOM_SIM", raising=False)
    code, _, err = looms("chat", "-m", "gpt-4.1", "Hi")
    assert 3 == code
    assert "no key found: run with --sim, or export OPENAI_API_KEY=..." in err

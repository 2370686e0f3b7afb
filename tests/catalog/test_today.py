"""Today's rows: the vendor's list as documented and as recorded in August 2026."""

import json
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loom.catalog.lookup import TASKS, Catalog
from loom.core.model import ModelCard

TODAY = date(2026, 11, 23)
RECORDED = date(2026, 8, 21)

DOCUMENTED = [
    ("mistral-medium-3-5", 262_144, "1.5", "7.5"),
    ("mistral-large-2512", 262_144, "0.5", "1.5"),
    ("mistral-small-2603", 262_144, "0.15", "0.6"),
    ("ministral-14b-2512", 262_144, "0.2", "0.2"),
    ("ministral-8b-2512", 262_144, "0.15", "0.15"),
    ("ministral-3b-2512", 131_072, "0.1", "0.1"),
    ("codestral-2508", 256_000, "0.3", "0.9"),
    ("devstral-2512", 262_144, "0.4", "2.0"),
    ("mistral-medium-2508", 131_072, "0.4", "2.0"),
    ("mistral-medium-2505", 131_072, "0.4", "2.0"),
    ("zai-glm-5-2", 1_048_576, "1.4", "4.4"),
]
ALIASES = {
    "mistral-medium-3-5": [
        "mistral-medium-latest",
        "mistral-medium-3",
        "mistral-medium",
        "mistral-medium-2604",
        "vibe-cli-latest",
    ],
    "mistral-large-2512": ["mistral-large-latest"],
    "mistral-small-2603": [
        "mistral-small-latest",
        "magistral-small-latest",
        "mistral-vibe-cli-fast",
    ],
    "ministral-14b-2512": ["ministral-14b-latest"],
    "ministral-8b-2512": ["ministral-8b-latest"],
    "ministral-3b-2512": ["ministral-3b-latest"],
    "codestral-2508": ["codestral-latest"],
    "devstral-2512": ["devstral-latest", "devstral-medium-latest"],
    "zai-glm-5-2": ["glm-5-2"],
    "mistral-embed-2312": ["mistral-embed"],
    "codestral-embed-2505": ["codestral-embed"],
    "mistral-ocr-4-1": ["mistral-ocr-latest"],
}
OTHERS = [
    ("voxtral-small-2507", 32_768),
    ("mistral-embed", 8_192),
    ("codestral-embed", 8_192),
    ("mistral-moderation-2603", 131_072),
    ("mistral-ocr-4-1", 16_384),
    ("voxtral-mini-2602", 16_384),
    ("voxtral-mini-tts-2603", 4_096),
    ("labs-leanstral-1-5", 262_144),
]
RETIRED = {
    "magistral-medium-2509": date(2026, 7, 31),
    "mistral-small-2506": date(2026, 7, 31),
    "open-mistral-nemo": date(2026, 7, 31),
    "mistral-large-2411": date(2026, 5, 31),
    "pixtral-large-2411": date(2026, 5, 31),
    "devstral-medium-2507": date(2026, 5, 31),
    "pixtral-12b-2409": date(2025, 12, 31),
    "ministral-8b-2410": date(2025, 12, 31),
    "ministral-3b-2410": date(2025, 12, 31),
    "mistral-medium-2508": date(2026, 8, 31),
    "mistral-medium-2505": date(2026, 8, 31),
    "devstral-2512": date(2026, 8, 31),
}


def card(model: str, on: date = TODAY) -> ModelCard:
    found = Catalog.builtin().find(model, on)
    assert found is not None, model
    return found


@pytest.mark.parametrize(("model", "window", "paid_in", "paid_out"), DOCUMENTED)
def test_documented_rows(model: str, window: int, paid_in: str, paid_out: str) -> None:
    """Window and prices are the documented ones; cached input is a tenth of input."""
    found = card(model)
    assert (model, window) == (found.id, found.context_window)
    assert found.price is not None
    assert Decimal(paid_in) == found.price.input_usd_per_mtok
    assert Decimal(paid_out) == found.price.output_usd_per_mtok
    assert Decimal(paid_in) / 10 == found.price.cached_input_usd_per_mtok


@pytest.mark.parametrize(("model", "window"), OTHERS)
def test_windows_of_the_others(model: str, window: int) -> None:
    """Models for other things than chat have their documented windows."""
    assert window == card(model).context_window


def test_embedding_prices() -> None:
    """Embeddings cost $0.10, those of code $0.15 per million tokens."""
    prices = [card(name).price for name in ("mistral-embed", "codestral-embed")]
    assert [Decimal("0.1"), Decimal("0.15")] == [
        price and price.input_usd_per_mtok for price in prices
    ]


@pytest.mark.parametrize("model", sorted(ALIASES))
def test_aliases(model: str) -> None:
    """Every documented alias means its model today."""
    names = [name if name != "vibe-cli-latest" else f"mistral-{name}" for name in ALIASES[model]]
    assert {model} == {card(name).id for name in names}


@pytest.mark.parametrize("model", sorted(RETIRED))
def test_retired_models_are_still_known(model: str) -> None:
    """A retired model is found with its last day and a successor, and listed only on demand."""
    found = card(model)
    assert ("retired", RETIRED[model]) == (found.state, found.retires_on)
    assert "deprecated" == card(model, RETIRED[model]).state
    assert found.replacement is not None
    assert card(found.replacement).id
    assert found not in Catalog.builtin().cards(TODAY)
    assert found in Catalog.builtin().cards(TODAY, retired=True)


def test_launch_price_ends() -> None:
    """Mistral Large 4 cost half for its first two weeks."""
    first, last, after = (date(2026, 10, day) for day in (6, 19, 20))
    prices = [card("mistral-large-4", day).price for day in (first, last, after)]
    assert [Decimal("0.68"), Decimal("0.68"), Decimal("1.36")] == [
        price and price.input_usd_per_mtok for price in prices
    ]


def test_explicit_zero_is_zero() -> None:
    """A free model has a price, and it is 0, not unknown."""
    price = card("mistral-moderation-2603").price
    assert price is not None
    assert 0 == price.input_usd_per_mtok


def test_announcements_are_unknown_before_they_are_made() -> None:
    """The card of a day does not tell of a retirement that was announced later."""
    before = card("mistral-medium-2505", date(2026, 5, 21))
    assert ("ga", None, None) == (before.state, before.retires_on, before.replacement)
    after = card("mistral-medium-2505", date(2026, 5, 22))
    assert ("deprecated", date(2026, 8, 31)) == (after.state, after.retires_on)


def test_price_row_keeps_its_day_when_only_the_alias_moved() -> None:
    """A price is named by the day it began, not by the day of an unrelated change."""
    price = card("mistral-small-latest").price
    assert price is not None
    assert "mistral-small-2603@2026-03-16" == price.id


def every_change() -> list[date]:
    days = {
        day
        for period in Catalog.builtin()._periods
        for day in (period.valid_from, period.deprecated_on, period.card.retires_on)
        if day is not None
    }
    return sorted(days | {date.fromordinal(day.toordinal() + 1) for day in days})


def test_rows_are_sourced_and_dated() -> None:
    """Each row says where it comes from, when that was true, and from which day it holds."""
    for written, origin in Catalog.builtin()._sheet.entries:
        assert "" == origin
        assert written["source"], written["id"]
        assert isinstance(written["checked_on"], date)
        assert isinstance(written["valid_from"], date)
    for advice in Catalog.builtin()._sheet.advice:
        assert advice.source
        assert advice.reason


def test_one_model_claims_an_alias_at_a_time() -> None:
    """On no day do two models that are served claim one id."""
    for day in every_change():
        owners: dict[str, str] = {}
        for found in Catalog.builtin().cards(day):
            for name in (found.id, *found.aliases):
                assert found.id == owners.setdefault(name, found.id), (name, day)


def test_ids_never_vanish() -> None:
    """An id that meant a model on a day means one on every later day."""
    catalog = Catalog.builtin()
    for day, later in pairwise(every_change()):
        for found in catalog.cards(day, retired=True):
            for name in (found.id, *found.aliases):
                assert catalog.find(name, later) is not None, (name, later)


def test_replacements_are_known_models() -> None:
    """A named replacement can be looked up on the day on which it is named."""
    for day in every_change():
        for found in Catalog.builtin().cards(day):
            if found.replacement is not None:
                assert Catalog.builtin().find(found.replacement, day) is not None, found.id


def test_advice_names_models_in_service() -> None:
    """From November 2024 to today, every task has a model that is served and priced."""
    for day in (*every_change(), TODAY):
        if date(2024, 11, 1) <= day <= TODAY:
            for task in TASKS:
                found = Catalog.builtin().recommend(task, day)
                assert "retired" != found.state, (task, day)


def test_todays_advice_is_what_its_reasons_say() -> None:
    """The facts that today's reasons give are true of the catalogue."""
    catalog = Catalog.builtin()
    chat = [c for c in catalog.cards(TODAY) if "chat" in c.abilities and c.price is not None]
    own = [c for c in chat if c.state == "ga" and c.licence != "third party"]
    outputs = {c.id: c.price.output_usd_per_mtok for c in chat if c.price is not None}
    advised = {a.task: catalog.recommend(a.task, TODAY) for a in catalog.advice(TODAY)}
    assert list(TASKS) == list(advised)
    assert outputs[advised["development"].id] == min(p for p in outputs.values() if p is not None)
    assert outputs["ministral-8b-2512"] == (outputs["mistral-small-2603"] or 0) / 4
    assert advised["high_volume"].context_window == advised["cost_sensitive"].context_window
    assert "reasoning" in advised["complex_reasoning"].abilities
    assert advised["long_context"].context_window == max(c.context_window or 0 for c in own)


WIRE_WORDS = {
    "completion_chat": "chat",
    "function_calling": "tools",
    "completion_fim": "fim",
    "audio_transcription": "transcription",
    "audio_transcription_realtime": "transcription_realtime",
    "audio_speech": "speech",
}


def recorded_models() -> list[dict[str, Any]]:
    file = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "models-001.json"
    if not file.exists():
        pytest.skip("shared/fixtures is not beside this checkout")
    body = json.loads(file.read_text(encoding="utf-8"))["response"]["body"]
    rows: list[dict[str, Any]] = (json.loads(body) if isinstance(body, str) else body)["data"]
    return rows


def test_recorded_list_of_models() -> None:
    """Window, aliases, retirement, temperature and abilities are those that the vendor sent."""
    for row in recorded_models():
        found = card(row["id"], RECORDED)
        assert row["max_context_length"] == found.context_window, row["id"]
        assert {row["id"], *row["aliases"]} == {found.id, *found.aliases}
        assert row["default_model_temperature"] == found.default_temperature
        retires = row["deprecation"] and datetime.fromisoformat(row["deprecation"]).date()
        if retires is not None:
            assert (retires, "deprecated") == (found.retires_on, found.state)
            assert row["deprecation_replacement_model"] == found.replacement
        else:
            assert found.state in {"ga", "preview"}
        sent = {WIRE_WORDS.get(word, word) for word, on in row["capabilities"].items() if on}
        # The list says nothing of embeddings and documents, and we nothing of its own platform.
        assert sent - {"unified_resources"} == found.abilities - {"embeddings", "documents"}


def test_nothing_in_service_is_missing_from_the_recorded_list() -> None:
    """What the catalogue calls served on that day, the vendor listed."""
    listed = {row["id"] for row in recorded_models()}
    assert [] == [c.id for c in Catalog.builtin().cards(RECORDED) if c.id not in listed]

"""A user's own rows: they correct, they add, and their mistakes are named."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from loom.catalog.lookup import Catalog
from loom.core.errors import ConfigInvalid
from loom.core.model import Price

TODAY = date(2026, 11, 23)


def laid_over(folder: Path, text: str) -> Catalog:
    file = folder / "prices.toml"
    file.write_text(text, encoding="utf-8")
    return Catalog.builtin().with_overlay(file)


def price(catalog: Catalog, model: str, on: date = TODAY) -> Price:
    card = catalog.find(model, on)
    assert card is not None
    assert card.price is not None
    return card.price


def test_the_same_text_is_parsed_once(tmp_path: Path) -> None:
    """Reading an unchanged file again gives the same catalogue."""
    text = '[[model]]\nid = "house"\n'
    assert laid_over(tmp_path, text) is laid_over(tmp_path, text)
    assert laid_over(tmp_path, text) is not laid_over(tmp_path, text + "input = 1\n")


def test_a_row_without_a_day_corrects_every_day(tmp_path: Path) -> None:
    """A negotiated price holds always; the cached rate follows, the window stays."""
    catalog = laid_over(tmp_path, '[[model]]\nid = "mistral-large-2512"\ninput = 0.4\n')
    found = price(catalog, "mistral-large-latest")
    assert Decimal("0.4") == found.input_usd_per_mtok
    assert Decimal("0.04") == found.cached_input_usd_per_mtok
    assert Decimal("1.50") == found.output_usd_per_mtok
    card = catalog.find("mistral-large-2512", TODAY)
    assert card is not None
    assert 262_144 == card.context_window
    assert Decimal("0.5") == price(Catalog.builtin(), "mistral-large-2512").input_usd_per_mtok


def test_a_corrected_row_says_whose_it_is(tmp_path: Path) -> None:
    """A price of the user's does not pass for the vendor's, nor for one that was checked."""
    catalog = laid_over(tmp_path, '[[model]]\nid = "mistral-large-2512"\ninput = 0.4\n')
    found = price(catalog, "mistral-large-2512")
    assert "mistral-large-2512@2025-12-02 (prices.toml)" == found.id
    assert ("prices.toml", None) == (found.source, found.checked_on)
    assert "mistral-large-2512" not in [c.id for c in catalog.stale(date(2030, 1, 1))]


def test_a_row_with_the_day_of_a_row_corrects_that_one(tmp_path: Path) -> None:
    """Only the period that the day names is changed."""
    catalog = laid_over(
        tmp_path,
        '[[model]]\nid = "mistral-large-4-0"\nvalid_from = 2026-10-20\noutput = 4.00\n'
        'source = "my invoice"\nchecked_on = 2026-11-01\n',
    )
    found = price(catalog, "mistral-large-4")
    assert (Decimal("1.36"), Decimal("4.00")) == (
        found.input_usd_per_mtok,
        found.output_usd_per_mtok,
    )
    assert ("my invoice", date(2026, 11, 1)) == (found.source, found.checked_on)
    before = price(catalog, "mistral-large-4", date(2026, 10, 10))
    assert Decimal("2.09") == before.output_usd_per_mtok


def test_a_row_with_a_new_day_begins_a_period(tmp_path: Path) -> None:
    """A price change is a row that says only what changed; the day before keeps the old price."""
    catalog = laid_over(
        tmp_path,
        '[[model]]\nid = "codestral-2508"\nvalid_from = 2026-11-20\noutput = 1.0\n',
    )
    assert Decimal("1.0") == price(catalog, "codestral-latest").output_usd_per_mtok
    assert Decimal("0.30") == price(catalog, "codestral-latest").input_usd_per_mtok
    eve = price(catalog, "codestral-latest", date(2026, 11, 19))
    assert Decimal("0.90") == eve.output_usd_per_mtok
    assert date(2026, 11, 20) == price(catalog, "codestral-latest").valid_from


def test_a_new_model(tmp_path: Path) -> None:
    """A model that is not known here is added, for any provider, on all days."""
    catalog = laid_over(
        tmp_path,
        '[[model]]\nid = "house"\nprovider = "ours"\ninput = 0\noutput = "0.5"\n'
        "per_audio_minute = 0.06\ncontext_window = 1000\n",
    )
    card = catalog.find("house", date(2020, 1, 1), provider="ours")
    assert card is not None
    assert ("house", 1000, "ga") == (card.title, card.context_window, card.state)
    assert card.price is not None
    assert "house@always (prices.toml)" == card.price.id
    assert (Decimal(0), Decimal("0.5")) == (
        card.price.input_usd_per_mtok,
        card.price.output_usd_per_mtok,
    )
    assert Decimal("0.001") == card.price.usd_per_audio_second
    assert (card,) == catalog.cards(TODAY, provider="ours")
    assert catalog.find("house", TODAY) is None


def test_an_undated_row_can_be_corrected_too(tmp_path: Path) -> None:
    """Overlays stack: a later one corrects what an earlier one added."""
    catalog = laid_over(tmp_path, '[[model]]\nid = "house"\ninput = 1\noutput = 2\n')
    more = tmp_path / "more.toml"
    more.write_text('[[model]]\nid = "house"\noutput = 3\n', encoding="utf-8")
    found = price(catalog.with_overlay(more), "house")
    assert (Decimal(1), Decimal(3)) == (found.input_usd_per_mtok, found.output_usd_per_mtok)
    assert "house@always (more.toml)" == found.id


def test_a_row_can_end(tmp_path: Path) -> None:
    """After its last day a model is unknown."""
    catalog = laid_over(
        tmp_path, '[[model]]\nid = "trial"\nvalid_from = 2026-01-01\nvalid_until = 2026-01-31\n'
    )
    known = [catalog.find("trial", date(2026, month, 31)) is not None for month in (1, 3)]
    assert [True, False] == known


def test_advice_of_ones_own(tmp_path: Path) -> None:
    """An overlay may change a branch of the decision tree."""
    catalog = laid_over(
        tmp_path,
        '[[recommend]]\ntask = "development"\nvalid_from = 2026-10-01\nmodel = "zai-glm-5-3"\n',
    )
    assert "zai-glm-5-3" == catalog.recommend("development", TODAY).id
    assert "ministral-3b-2512" == catalog.recommend("development", date(2026, 9, 30)).id


def test_advice_for_an_unknown_model_is_none(tmp_path: Path) -> None:
    """Advice that names no known model is not followed."""
    catalog = laid_over(
        tmp_path,
        '[[recommend]]\ntask = "development"\nvalid_from = 2026-10-01\nmodel = "nobody"\n',
    )
    with pytest.raises(Exception, match="no model is recommended for 'development'"):
        catalog.recommend("development", TODAY)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[[model]\n", ["prices.toml", "not TOML"]),
        ("[[modell]]\nid = 'x'\n", ["prices.toml", "'modell'", "[[model]]"]),
        ("[model]\nid = 'x'\n", ["prices.toml", "[[model]]"]),
        ("model = ['x']\n", ["prices.toml", "row 1"]),
        ("[[model]]\ninput = 1\n", ["prices.toml", "row 1", "`id`"]),
        ("[[model]]\nid = ' '\n", ["prices.toml", "row 1", "'id'"]),
        (
            "[[model]]\nid = 'a'\n[[model]]\nid = 'b'\ninput = 'one'\n",
            ["prices.toml", "row 2", "'b'", "'input'"],
        ),
        ("[[model]]\nid = 'a'\nimput = 1\n", ["row 1", "'a'", "`imput`"]),
        ("[[model]]\nid = 'a'\noutput = -1\n", ["row 1", "'output'", "-1"]),
        ("[[model]]\nid = 'a'\noutput = nan\n", ["row 1", "'output'", "NaN"]),
        ("[[model]]\nid = 'a'\noutput = inf\n", ["row 1", "'output'"]),
        ("[[model]]\nid = 'a'\ncontext_window = 0\n", ["row 1", "'context_window'"]),
        ("[[model]]\nid = 'a'\nvalid_from = 2026-01-01T00:00:00Z\n", ["row 1", "'valid_from'"]),
        ("[[model]]\nid = 'a'\nstate = 'old'\n", ["row 1", "'state'"]),
        ("[[recommend]]\ntask = 'development'\n", ["recommend row 1", "'development'", "`model`"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, names: list[str]) -> None:
    """A wrong overlay is refused with the file, the row and the field."""
    with pytest.raises(ConfigInvalid) as caught:
        laid_over(tmp_path, text)
    for name in names:
        assert name in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are refused by name."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.toml", tmp_path, binary):
        with pytest.raises(ConfigInvalid, match="cannot be read") as caught:
            Catalog.builtin().with_overlay(str(path))
        assert path.name in caught.value.message


def test_dates_may_be_words(tmp_path: Path) -> None:
    """A day in quotation marks is a day too."""
    catalog = laid_over(
        tmp_path,
        "[[model]]\nid = 'a'\nvalid_from = '2026-01-01'\ninput = 1\n"
        "[[model]]\nid = 'a'\nvalid_from = 2026-06-01\nvalid_until = '2026-06-30'\ninput = 2\n",
    )
    assert Decimal(1) == price(catalog, "a", date(2026, 5, 31)).input_usd_per_mtok
    assert Decimal(2) == price(catalog, "a", date(2026, 6, 30)).input_usd_per_mtok
    assert catalog.find("a", date(2026, 7, 1)) is None

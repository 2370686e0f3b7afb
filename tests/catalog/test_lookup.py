"""Finding models: ids, slips, advice, age."""

import decimal
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.catalog.lookup import STALE_AFTER_DAYS, TASKS, Catalog
from loom.catalog.names import distance
from loom.catalog.rows import read_sheet
from loom.core.errors import InvalidRequest

TODAY = date(2026, 11, 23)
CATALOG = Catalog.builtin()
IDS = sorted({name for c in CATALOG.cards(TODAY) for name in (c.id, *c.aliases)})


def test_builtin_is_read_once() -> None:
    """The built-in rows are one object."""
    assert Catalog.builtin() is CATALOG


def test_rows_are_exact_whatever_the_callers_precision() -> None:
    """Rows that are read while a caller rounds to two digits are not rounded."""
    text = '[[model]]\nid = "a"\ninput = 1.2345\ncached_factor = 0.1\nper_audio_minute = 0.06\n'
    with decimal.localcontext(prec=2):
        card = Catalog(read_sheet(text, "a.toml")).find("a", TODAY)
    assert card is not None
    assert card.price is not None
    assert Decimal("0.12345") == card.price.cached_input_usd_per_mtok
    assert Decimal("0.001") == card.price.usd_per_audio_second


def test_unknown_model() -> None:
    """An unknown id is None, and so is a known one of another provider."""
    assert CATALOG.find("no-such-model", TODAY) is None
    assert CATALOG.find("mistral-large-latest", TODAY, provider="openai") is None
    assert () == CATALOG.cards(TODAY, provider="nobody")


def test_cards_by_provider() -> None:
    """Mistral's are meant unless another provider is named; None means all of them."""
    assert CATALOG.cards(TODAY) == CATALOG.cards(TODAY, provider="mistral")
    assert {"openai"} == {card.provider for card in CATALOG.cards(TODAY, provider="openai")}
    assert CATALOG.cards(TODAY, None) == (
        *CATALOG.cards(TODAY, "mistral"),
        *CATALOG.cards(TODAY, "openai"),
    )
    assert ("mistral", "openai") == CATALOG.providers()


def test_many_days_are_forgotten_not_kept() -> None:
    """Asking for a thousand days does not keep a thousand days."""
    for ordinal in range(1000):
        CATALOG.find("mistral-large-latest", date.fromordinal(739_300 + ordinal))
        CATALOG.misspelt(f"mistral-larg{ordinal}", TODAY)
    assert 100 >= len(CATALOG._days)
    assert 100 >= len(CATALOG._slips)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mistral-large-lates", "mistral-large-latest"),
        ("mistral-lagre-latest", "mistral-large-latest"),
        ("mistral-smal-latest", "mistral-small-latest"),
        ("mistrallarge-latest", "mistral-large-latest"),
        ("codstral-latest", "codestral-latest"),
        ("ministral-8b-lastest", "ministral-8b-latest"),
        ("Mistral-Large-Latest", "mistral-large-latest"),
    ],
)
def test_slips_are_seen_and_the_id_named(written: str, meant: str) -> None:
    """A slip of the finger is called one, and the id that was meant comes first."""
    assert CATALOG.misspelt(written, TODAY)
    assert CATALOG.misspelt(written, TODAY)  # remembered
    assert meant == CATALOG.nearest(written, TODAY)[0]


@pytest.mark.parametrize(
    "written",
    [
        "mistral-large-latest",
        "mistral-large-2612",
        "mistral-large-5-0",
        "mistral-large",
        "mistral-medium-4",
        "ministral-4b-2512",
        "codestral-2601",
        "open-mistral-7b",
        "ft:mistral-large-lates:me:1",
        "ft:open-mistral-7b:daf5e488:20240430:c1bed559",
        "gpt-4.1",
        "my-own-model",
    ],
)
def test_new_and_foreign_ids_are_no_slips(written: str) -> None:
    """Known ids, new versions, fine-tuned models and other vendors' ids pass."""
    assert not CATALOG.misspelt(written, TODAY)


def test_nearest_count_and_no_retired() -> None:
    """So many ids as asked for, and none that would only fail again."""
    assert 5 == len(CATALOG.nearest("mistral", TODAY, 5))
    assert "open-mistral-7b" not in CATALOG.nearest("open-mistral-7", TODAY)
    assert "open-mistral-7b" == CATALOG.nearest("open-mistral-7", date(2024, 11, 30))[0]


@given(name=st.sampled_from(IDS), place=st.integers(0, 40), letter=st.sampled_from("abxyz"))
def test_one_letter_more_is_always_a_slip(name: str, place: int, letter: str) -> None:
    """A letter that slipped into a known id never passes for a new model."""
    written = name[:place] + letter + name[place:]
    known = CATALOG.find(written, TODAY) is not None
    assert known or CATALOG.misspelt(written, TODAY)


words = st.text("abc", max_size=8)


@given(a=words, b=words, c=words)
def test_distance_is_a_distance(a: str, b: str, c: str) -> None:
    """It is 0 for equal words only, the same both ways, and no detour is shorter."""
    assert (distance(a, b, 99) == 0) == (a == b)
    assert distance(a, b, 99) == distance(b, a, 99)
    assert distance(a, c, 99) <= distance(a, b, 99) + distance(b, c, 99)


@given(a=words, b=words, limit=st.integers(0, 8))
def test_distance_stops_at_the_limit(a: str, b: str, limit: int) -> None:
    """Above the limit the answer is one more than the limit."""
    assert min(distance(a, b, 99), limit + 1) == distance(a, b, limit)


def test_unknown_task() -> None:
    """A task that is none is refused, and the five are named."""
    with pytest.raises(InvalidRequest, match="'poetry'") as caught:
        CATALOG.recommend("poetry", TODAY)
    for task in TASKS:
        assert task in caught.value.message


def test_no_advice_before_the_catalogue_begins() -> None:
    """There is no advice for days of which nothing is known."""
    assert () == CATALOG.advice(date(2024, 10, 31))
    with pytest.raises(InvalidRequest, match="2024-10-31"):
        CATALOG.recommend("development", date(2024, 10, 31))


def test_stale_rows() -> None:
    """A row is stale on the ninety-first day after its check, and fresh on the ninetieth."""
    card = CATALOG.find("mistral-large-2512", TODAY)
    assert card is not None
    assert card.checked_on is not None
    last = date.fromordinal(card.checked_on.toordinal() + STALE_AFTER_DAYS)
    assert card not in CATALOG.stale(last)
    next_day = date.fromordinal(last.toordinal() + 1)
    assert card in CATALOG.stale(next_day)

"""Every number of the reference page's tables, through November 2024."""

from datetime import date
from decimal import Decimal

import pytest

from loom.catalog.dates import parse_as_of
from loom.catalog.lookup import Catalog
from loom.client import facts
from loom.core.model import ModelCard

NOVEMBER = parse_as_of("2024-11")

OPEN = [
    ("Mistral 7B", "open-mistral-7b", "0.25", "0.25", "7B", 32_768),
    ("Mixtral 8x7B", "open-mixtral-8x7b", "0.70", "0.70", "46.7B", 32_768),
    ("Mixtral 8x22B", "open-mixtral-8x22b", "2.00", "6.00", "141B", 65_536),
]
COMMERCIAL = [
    ("Mistral Small", "mistral-small-latest", "1.00", "3.00", "Simple tasks, high volume"),
    ("Mistral Medium", "mistral-medium-latest", "2.70", "8.10", "Balanced (deprecated)"),
    ("Mistral Large", "mistral-large-latest", "4.00", "12.00", "Complex reasoning, production"),
]
LEGACY = [
    ("mistral-tiny-2312", "open-mistral-7b", "0.25", "0.25"),
    ("mistral-small-2312", "open-mixtral-8x7b", "0.70", "0.70"),
    ("mistral-small-2402", "mistral-small-latest", "1.00", "3.00"),
    ("mistral-large-2402", "mistral-large-latest", "4.00", "12.00"),
    ("mistral-large-2407", "mistral-large-latest", "4.00", "12.00"),
]
COSTS = [
    ("mistral-large-latest", 100, 200, "0.002800"),
    ("mistral-large-latest", 1_000, 2_000, "0.028000"),
    ("mistral-large-latest", 10_000, 20_000, "0.280000"),
    ("mistral-large-latest", 35, 245, "0.003080"),
    ("mistral-small-latest", 100, 200, "0.000700"),
    ("mistral-small-latest", 1_000, 2_000, "0.007000"),
    ("mistral-small-latest", 10_000, 20_000, "0.070000"),
    ("open-mixtral-8x7b", 100, 200, "0.000210"),
    ("open-mixtral-8x7b", 1_000, 2_000, "0.002100"),
    ("open-mixtral-8x7b", 10_000, 20_000, "0.021000"),
    ("open-mistral-7b", 100, 200, "0.000075"),
    ("open-mistral-7b", 1_000, 2_000, "0.000750"),
    ("open-mistral-7b", 10_000, 20_000, "0.007500"),
    # The page prints 0.046080 and 0.005660 for these two; its own formula gives:
    ("mistral-large-latest", 1_250, 3_420, "0.046040"),
    ("mistral-large-latest", 145, 423, "0.005656"),
]
USE_CASES = {
    "open-mistral-7b": (
        "Development and testing environments",
        "High-volume, simple tasks",
        "Cost-sensitive production workloads",
        "Educational purposes",
    ),
    "open-mixtral-8x7b": (
        "Production workloads requiring good quality",
        "Multi-lingual applications",
        "Code generation and analysis",
        "Reasoning tasks",
    ),
    "open-mixtral-8x22b": (
        "Complex reasoning and analysis",
        "Long-context tasks (up to 64K)",
        "High-quality code generation",
        "Research and evaluation",
    ),
}


def card(model: str) -> ModelCard:
    found = Catalog.builtin().find(model, NOVEMBER)
    assert found is not None
    return found


def rates(found: ModelCard) -> tuple[Decimal | None, Decimal | None]:
    assert found.price is not None
    return found.price.input_usd_per_mtok, found.price.output_usd_per_mtok


@pytest.mark.parametrize("row", OPEN)
def test_open_models(row: tuple[str, str, str, str, str, int]) -> None:
    """The table of open models: name, prices, parameters, window, licence."""
    title, model, paid_in, paid_out, parameters, window = row
    found = card(model)
    assert (title, model) == (found.title, found.id)
    assert (Decimal(paid_in), Decimal(paid_out)) == rates(found)
    assert (parameters, window) == (found.parameters, found.context_window)
    assert ("Apache 2.0", True) == (found.licence, found.open_weights)


@pytest.mark.parametrize(("title", "model", "paid_in", "paid_out", "best_for"), COMMERCIAL)
def test_commercial_models(
    title: str, model: str, paid_in: str, paid_out: str, best_for: str
) -> None:
    """The table of commercial models: name, prices, window of 32K, what it is best for."""
    found = card(model)
    assert (title, model) == (found.title, found.id)
    assert (Decimal(paid_in), Decimal(paid_out)) == rates(found)
    assert (32_768, best_for) == (found.context_window, found.best_for)
    assert ("commercial", False) == (found.licence, found.open_weights)


def test_exactly_the_six_models_of_the_page() -> None:
    """November 2024 is the page's world: six models in its order, nothing else."""
    page = [row[1] for row in OPEN] + [row[1] for row in COMMERCIAL]
    assert page == [found.id for found in Catalog.builtin().cards(NOVEMBER)]


@pytest.mark.parametrize(("legacy", "model", "paid_in", "paid_out"), LEGACY)
def test_legacy_ids(legacy: str, model: str, paid_in: str, paid_out: str) -> None:
    """A legacy id is the model that the page maps it to, at that model's price."""
    found = card(legacy)
    assert model == found.id
    assert (Decimal(paid_in), Decimal(paid_out)) == rates(found)
    assert legacy in found.legacy_ids


def test_exactly_the_five_legacy_ids_of_the_page() -> None:
    """The cards' legacy ids are the page's five and no more."""
    cards = Catalog.builtin().cards(NOVEMBER)
    assert {(one, found.id) for found in cards for one in found.legacy_ids} == {
        (legacy, model) for legacy, model, *_ in LEGACY
    }


@pytest.mark.parametrize(("model", "paid_in", "paid_out", "dollars"), COSTS)
def test_costs(model: str, paid_in: int, paid_out: int, dollars: str) -> None:
    """Every cost on the page comes out, printed with six decimals."""
    cost = facts.cost(model, paid_in, paid_out, as_of="2024-11")
    assert cost == Decimal(dollars)
    assert dollars == f"{cost:.6f}"


def test_architecture_and_active_parameters() -> None:
    """The architectures and the parameters used for a token are the page's."""
    assert ("Dense", None) == (
        card("open-mistral-7b").architecture,
        card("open-mistral-7b").active_parameters,
    )
    assert ("MoE (8x7B)", "12.9B") == (
        card("open-mixtral-8x7b").architecture,
        card("open-mixtral-8x7b").active_parameters,
    )
    assert ("MoE (8x22B)", "39B") == (
        card("open-mixtral-8x22b").architecture,
        card("open-mixtral-8x22b").active_parameters,
    )


@pytest.mark.parametrize("model", sorted(USE_CASES))
def test_use_cases(model: str) -> None:
    """The example use cases are the page's."""
    assert USE_CASES[model] == card(model).use_cases


def test_words() -> None:
    """What the open models are best for, the fastest of them, and the deprecated model."""
    assert "Development, testing, cost-sensitive" == card("open-mistral-7b").best_for
    assert "Balanced performance" == card("open-mixtral-8x7b").best_for
    assert "High performance at lower cost" == card("open-mixtral-8x22b").best_for
    assert "Fastest Mistral model" == card("open-mistral-7b").speed
    deprecated = [c.id for c in Catalog.builtin().cards(NOVEMBER) if c.state == "deprecated"]
    assert ["mistral-medium-latest"] == deprecated


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("development", "open-mistral-7b"),
        ("cost_sensitive", "open-mixtral-8x7b"),
        ("high_volume", "mistral-small-latest"),
        ("complex_reasoning", "mistral-large-latest"),
        ("long_context", "open-mixtral-8x22b"),
    ],
)
def test_decision_tree(task: str, model: str) -> None:
    """The five branches of the page's decision tree."""
    assert model == facts.recommend(task, as_of="2024-11").id


def test_the_world_lasts_through_november() -> None:
    """The page's rows hold from the first day of the month to its last, and not a day longer."""
    catalog = Catalog.builtin()
    for day in (date(2024, 11, 1), date(2024, 11, 30)):
        found = catalog.find("mistral-large-latest", day)
        assert found is not None
        assert (Decimal(4), Decimal(12)) == rates(found)
    earlier = catalog.find("mistral-large-latest", date(2024, 10, 31))
    assert earlier is not None
    assert earlier.price is None
    later = catalog.find("mistral-large-latest", date(2024, 12, 1))
    assert later is not None
    assert "mistral-large-2411" == later.id

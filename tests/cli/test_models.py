"""`looms models`: the tables of the reference page, and today's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run

# Reference page, "Open Source Models", "Commercial Models", "Legacy Model IDs", "Decision Tree".
OPEN = """\
Mistral 7B | open-mistral-7b | $0.25/1M | $0.25/1M | 7B | Dense | 32K | Apache 2.0 | \
Development, testing, cost-sensitive
Mixtral 8x7B | open-mixtral-8x7b | $0.70/1M | $0.70/1M | 46.7B (12.9B active) | MoE (8x7B) | \
32K | Apache 2.0 | Balanced performance
Mixtral 8x22B | open-mixtral-8x22b | $2.00/1M | $6.00/1M | 141B (39B active) | MoE (8x22B) | \
64K | Apache 2.0 | High performance at lower cost
""".splitlines()
COMMERCIAL = """\
Mistral Small | mistral-small-latest | $1.00/1M | $3.00/1M | 32K | Simple tasks, high volume
Mistral Medium | mistral-medium-latest | $2.70/1M | $8.10/1M | 32K | deprecated | \
Balanced (deprecated)
Mistral Large | mistral-large-latest | $4.00/1M | $12.00/1M | 32K | Complex reasoning, production
""".splitlines()
LEGACY = """\
mistral-tiny-2312 | open-mistral-7b | $0.25/$0.25
mistral-small-2312 | open-mixtral-8x7b | $0.70/$0.70
mistral-small-2402 | mistral-small-latest | $1.00/$3.00
mistral-large-2402 | mistral-large-latest | $4.00/$12.00
mistral-large-2407 | mistral-large-latest | $4.00/$12.00
""".splitlines()
DECISION = {
    "development": "open-mistral-7b",
    "cost_sensitive": "open-mixtral-8x7b",
    "high_volume": "mistral-small-latest",
    "complex_reasoning": "mistral-large-latest",
    "long_context": "open-mixtral-8x22b",
}


def rows(out: str) -> list[str]:
    """Give the lines of a table, its cells parted by bars."""
    return [re.sub(r"\s{2,}", " | ", line.strip()) for line in out.splitlines()]


def test_november_2024_is_the_reference_page(looms: Run) -> None:
    """All of the page's model tables come out, in its order."""
    code, out, err = looms("models", "--as-of", "2024-11")
    table = rows(out)
    wanted = [row for row in table if row in {*OPEN, *COMMERCIAL, *LEGACY}]
    assert 0 == code
    assert [*OPEN, *COMMERCIAL, *LEGACY] == wanted
    for task, model in DECISION.items():
        assert any(row.startswith(f"{task} | {model} | ") for row in table)
    assert "as of 2024-11-30" in err


@pytest.mark.parametrize(("task", "model"), DECISION.items())
def test_for_names_one_model(task: str, model: str, looms: Run) -> None:
    """The answer is the id alone, so that `$(looms models --for ...)` works."""
    code, out, err = looms("models", "--as-of", "2024-11", "--for", task)
    assert (0, f"{model}\n") == (code, out)
    assert "/1M in" in err


def test_json_is_one_object(looms: Run) -> None:
    """Cards with exact prices, the day, and the decision tree; nothing on standard error."""
    code, out, err = looms("models", "--as-of", "2024-11", "--json")
    value = json.loads(out)
    cards = {card["id"]: card for card in value["models"]}
    assert (0, "") == (code, err)
    assert "2024-11-30" == value["as_of"]
    assert DECISION == value["recommended"]
    assert "4" == cards["mistral-large-latest"]["price"]["input_usd_per_mtok"].rstrip(".0")
    assert 65536 == cards["open-mixtral-8x22b"]["context_window"]


def test_for_as_json(looms: Run) -> None:
    """The recommended card comes with its reason."""
    _, out, _ = looms("models", "--as-of", "2024-11", "--for", "development", "--json")
    value = json.loads(out)
    assert ("open-mistral-7b", "fastest, cheapest") == (value["id"], value["reason"])


def test_today_has_todays_models(looms: Run) -> None:
    """Without a day the models of November 2024 are gone, unless retired ones are asked for."""
    _, today, _ = looms("models")
    _, everything, _ = looms("models", "--retired")
    assert "open-mixtral-8x22b" not in today
    assert "open-mixtral-8x22b" in everything
    assert "/page" in today


def test_the_settings_day_holds(looms: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOOM_AS_OF is used when no flag names a day; the flag wins."""
    monkeypatch.setenv("LOOM_AS_OF", "2024-11")
    _, out, _ = looms("models", "--for", "development")
    _, later, _ = looms("models", "--for", "development", "--as-of", "2026-10")
    assert "open-mistral-7b\n" == out
    assert out != later


def test_quiet_leaves_the_answer_only(looms: Run) -> None:
    """-q empties standard error."""
    _, out, err = looms("models", "-q")
    assert "" == err
    assert out


def test_another_vendors_models(looms: Run) -> None:
    """Their prices, cached input among them, window and longest answer; no decision tree."""
    _, out, _ = looms("models", "--provider", "openai", "--as-of", "2024-11")
    table = rows(out)
    assert "Models of OpenAI" in table
    assert any(
        row.startswith("GPT-4o mini | gpt-4o-mini | $0.15/1M | $0.075/1M | $0.60/1M | 128,000")
        for row in table
    )
    assert not any("mistral" in row or "Which one" in row for row in table)


def test_all_vendors_models(looms: Run) -> None:
    """`all` lists every vendor's, Mistral's first; the default is Mistral's alone."""
    _, out, _ = looms("models", "--provider", "all", "--json")
    providers = [card["provider"] for card in json.loads(out)["models"]]
    assert ["mistral", "openai"] == list(dict.fromkeys(providers))
    _, out, _ = looms("models", "--json")
    assert {"mistral"} == {card["provider"] for card in json.loads(out)["models"]}


def test_an_unknown_vendor_is_named(looms: Run) -> None:
    """With those that are known."""
    code, _, err = looms("models", "--provider", "nobody")
    assert 2 == code
    assert "no models of 'nobody' are known: use one of mistral, openai, or all" in err


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_a_narrow_window_keeps_ids_and_prices_whole(
    columns: int, looms: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are left out, and named, before an id or a price is cut."""
    monkeypatch.setattr("loom.cli.terminal._PIPE_WIDTH", columns)
    _, out, err = looms("models", "--as-of", "2024-11")
    assert max(map(len, out.splitlines())) <= columns
    for row in [*OPEN, *COMMERCIAL]:
        _, model, price, *_ = row.split(" | ")
        assert any(model in line and price in line for line in out.splitlines())
    assert ("Left out for room: " in err) == ("Architecture" not in out)

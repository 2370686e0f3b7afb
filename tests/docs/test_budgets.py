"""The pages of budget and ledger say what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

from loom.ledger.budgets import Budget
from loom.ledger.entry import State
from loom.ledger.sqlite.desk import Terms

DOCS = Path(__file__).resolve().parents[2] / "docs"
BUDGETS = (DOCS / "budgets.md").read_text(encoding="utf-8")
LEDGER = (DOCS / "ledger.md").read_text(encoding="utf-8")


def test_the_page_names_each_argument_with_its_default() -> None:
    """A row for each, in the order of the code."""
    arguments = inspect.signature(Budget).parameters.values()
    said = {inspect.Parameter.empty: "", None: "none"}
    expected = [(each.name, said.get(each.default, f'`"{each.default}"`')) for each in arguments]

    rows = re.findall(r"(?m)^\| `(\w+)` \| ?([^|]*?) ?\|", BUDGETS)

    assert expected == rows


def test_the_page_explains_each_state() -> None:
    """A row for each, in the order of the code."""
    states = re.findall(r"(?m)^\| `(\w+)` \|", LEDGER)

    assert list(get_args(State)) == states


def test_the_page_has_the_numbers_of_the_code() -> None:
    """How long calls wait for a lock, and how many."""
    defaults = dict(zip(Terms.__struct_fields__[-len(Terms.__struct_defaults__) :],
                        Terms.__struct_defaults__, strict=True))  # fmt: skip

    assert f"waits, for {defaults['patience_s']:.0f} seconds in all" in LEDGER
    assert f"{defaults['most_queued']:,} calls wait" in LEDGER
    assert 1.0 == defaults["probe_s"]
    assert "tried again every second" in LEDGER

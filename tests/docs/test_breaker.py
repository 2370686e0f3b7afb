"""The breaker's picture and tables in the documents are those of the code."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from loom.layers.breaker import Breaker
from loom.layers.breaker_state import TRANSITIONS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "breaker.md").read_text(encoding="utf-8")
PICTURE = (REPOSITORY / "docs" / "breaker.svg").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def diagram() -> dict[str, Any]:
    """Give the names of `scripts/diagram.py`."""
    return runpy.run_path(str(REPOSITORY / "scripts" / "diagram.py"))


def test_the_picture_is_fresh(diagram: dict[str, Any]) -> None:
    """It is what `scripts/diagram.py` draws now; `just generated` remakes it."""
    assert diagram["picture"]() == PICTURE


def test_the_table_of_transitions_is_fresh(diagram: dict[str, Any]) -> None:
    """It is what the script writes now."""
    begin, end = diagram["MARKS"]
    assert diagram["table"]() == PAGE.partition(begin)[2].partition(end)[0]


def test_each_transition_is_an_arrow() -> None:
    """The picture has one for each row, and one into the first state."""
    assert len(TRANSITIONS) + 1 == PICTURE.count("marker-end=")


def test_the_page_names_each_argument_with_its_default() -> None:
    """A row for each, in the order of the code."""
    arguments = inspect.signature(Breaker).parameters.values()
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([^|]+) \|", PAGE)
    assert [(each.name, f"{each.default:g}") for each in arguments] == rows

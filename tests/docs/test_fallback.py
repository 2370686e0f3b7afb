"""The tables of docs/fallback.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from loom.core.error_table import ERROR_TABLE
from loom.server.simulator import Scenario

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "fallback.md").read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """Give the cells of a table, without its head."""
    text = PAGE.partition(f"<!-- {name}: ")[2].partition(f"<!-- /{name} -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_says_of_each_error_whether_it_leaves_a_route() -> None:
    """Each code stands in one row, with what the table of errors says of it."""
    found = [
        (code, word) for codes, word, _ in rows("routes") for code in re.findall(r"\w+", codes)
    ]
    expected = {code: "yes" if row.fallback else "no" for code, row in ERROR_TABLE.items()}
    assert expected == dict(found)
    assert len(expected) == len(found)


def test_the_page_names_the_sixteen_scenarios() -> None:
    """Each with the title of its script; `tests/client/test_failover.py` proves what is done."""
    names = [f"FB{number:02}" for number in range(1, 17)]
    expected = [[f"`{name}`", Scenario.load(name).title] for name in names]
    assert expected == [row[:2] for row in rows("scenarios")]

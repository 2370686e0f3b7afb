"""The page of backends says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from loom.agent.backend_sqlite import SQLiteBackend
from loom.agent.backend_text import result_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "backends.md").read_text(encoding="utf-8")


def test_the_page_names_each_argument_with_its_default() -> None:
    """A row for each, in the order of the code."""
    arguments = inspect.signature(SQLiteBackend).parameters.values()
    said = {None: "none"}
    expected = [
        (each.name, "")
        if each.default is inspect.Parameter.empty
        else (each.name, said.get(each.default, f"`{each.default}`"))
        for each in arguments
    ]

    rows = re.findall(r"(?m)^\| `(\w+)` \| ?([^|]*?) ?\|", PAGE.partition("## Files")[0])

    assert expected == rows


def test_the_page_has_the_numbers_of_the_code() -> None:
    """How much goes to the model at once."""
    most = inspect.signature(result_text).parameters["max_bytes"].default

    assert f"At most {most:,} bytes go to the model at once" in PAGE

"""The page of what happens when is made from the fault matrix."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_tables_of_the_page_are_those_of_the_matrix(repository: Path) -> None:
    """Each row as the data file has it; `just generated` remakes them."""
    script = runpy.run_path(str(repository / "scripts" / "what_happens.py"))
    page = script["PAGE"].read_text(encoding="utf-8")
    first, last = script["MARKS"]

    assert script["tables"]() + "\n" == page.partition(first)[2].partition(last)[0]

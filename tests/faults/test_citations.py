"""Code that handles a row of the fault matrix cites it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from loom.core.faults import fault_matrix

_ROW = r"(?:\d+[a-e]?|to|and|,|\s)+"
_CITED = re.compile(rf"[Ff]ault\s+(?:#\s+)?matrix,\s+(?:#\s+)?rows?\s+({_ROW})")
IDS = [row.id for row in fault_matrix()]


def cited(text: str) -> Iterator[str]:
    """Give each row that a file cites, ranges and all."""
    for found in _CITED.finditer(text):
        words = re.findall(r"\d+[a-e]?|to", found[1])
        for place, word in enumerate(words):
            if word == "to":
                first, last = IDS.index(words[place - 1]), IDS.index(words[place + 1])
                yield from IDS[first + 1 : last]
            else:
                yield word


def test_what_is_cited_is_a_row(repository: Path) -> None:
    """No file cites a row that there is not."""
    for folder in ("src", "tests"):
        for path in sorted((repository / folder).rglob("*.py")):
            unknown = set(cited(path.read_text(encoding="utf-8"))) - set(IDS)
            assert set() == unknown, f"{path} cites {unknown}"


def test_the_client_cites_what_it_handles(repository: Path) -> None:
    """Each row that does not hold by itself is cited where it is handled."""
    rooms = (
        "core", "transport", "wire", "providers", "layers", "shuttle", "agent", "client", "catalog",
    )  # fmt: skip
    texts = (
        path.read_text(encoding="utf-8")
        for room in rooms
        for path in sorted((repository / "src" / "loom" / room).rglob("*.py"))
    )
    found = {row for text in texts for row in cited(text)}
    waiting = {row.id for row in fault_matrix() if row.needs}

    assert [] == [row for row in IDS if row not in found | waiting]


def test_lists_and_ranges_are_read() -> None:
    """`rows 8, 10 to 12 and 33b` are five rows."""
    assert ["8", "10", "11", "12", "33b"] == sorted(
        cited("# Fault matrix, rows 8, 10 to 12 and 33b: ..."), key=IDS.index
    )

"""docs/models.md says what the catalogue says."""

import re
from datetime import date
from pathlib import Path
from typing import get_args

import msgspec

from loom.catalog.lookup import STALE_AFTER_DAYS, TASKS, Catalog
from loom.catalog.rows import Advice, Default, Row
from loom.core.model import Ability, ModelState

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def table(first_header: str) -> list[list[str]]:
    lines = TEXT[TEXT.index(f"| {first_header} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_decision_tree() -> None:
    """Both columns of the table name the models that the catalogue recommends."""
    rows = table("task")
    assert list(TASKS) == [row[0].strip("`") for row in rows]
    for task, then, now, _ in rows:
        for named, day in ((then, date(2024, 11, 30)), (now, date(2026, 11, 23))):
            assert named == Catalog.builtin().recommend(task.strip("`"), day).id


def test_every_key_of_a_row() -> None:
    """Each key that a row may have is explained, and no other."""
    keys = [key for row in table("key") for key in re.findall(r"`(\w+)`", row[0])]
    assert sorted(Row.__struct_fields__) == sorted(keys)
    listed = TEXT[TEXT.index("`[[recommend]]` rows hold") :].split("\n\n")[0]
    assert set(Advice.__struct_fields__) == set(re.findall(r"`(\w+)`", listed))
    listed = TEXT[TEXT.index("`[[default]]` rows name") :].split("\n\n")[0]
    assert set(Default.__struct_fields__) == set(re.findall(r"`(\w+)`", listed))


def test_words_that_a_key_takes() -> None:
    """The abilities and states in the table are those that the code accepts."""
    meaning = {row[0].strip("`"): row[1] for row in table("key")}
    kinds = {"abilities": Ability, "state": ModelState}
    for key, kind in kinds.items():
        for word in meaning[key].split(", "):
            msgspec.convert(word, kind)
        assert len(get_args(kind)) == len(meaning[key].split(", "))


def test_the_age_of_a_stale_row() -> None:
    """The number of days is the code's."""
    assert f"After {STALE_AFTER_DAYS} days without a check" in TEXT

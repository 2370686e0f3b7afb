"""docs/settings.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from loom.cli.root import EXIT_CODES
from loom.config.settings import Settings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_setting_is_explained() -> None:
    """The first table has each field, and no other name."""
    table, _, _ = TEXT.partition("## Where")
    assert set(Settings.__struct_fields__) == set(
        re.findall(r"(?m)^\| `(\w+)` \| (?:`LOOM_|\|)", table)
    )


def test_exit_codes_are_those_of_the_program() -> None:
    """The table of exit codes is the one that `--help` prints."""
    rows = re.findall(r"(?m)^\| (\d+) \| (.+) \|$", TEXT)
    assert EXIT_CODES == {int(code): meaning for code, meaning in rows}

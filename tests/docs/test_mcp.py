"""The page of MCP says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from loom.shuttle import mcp_door
from loom.shuttle.mcp import mcp

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")


def test_the_page_names_each_argument_with_its_default() -> None:
    """A row for each, in the order of the code."""
    arguments = inspect.signature(mcp).parameters.values()
    said = {inspect.Parameter.empty: "", None: "none"}
    expected = [(each.name, said.get(each.default, f"`{each.default}`")) for each in arguments]

    assert expected == re.findall(r"(?m)^\| `(\w+)` \| ?([^|]*?) ?\|", PAGE)


def test_the_page_has_the_numbers_of_the_code() -> None:
    """The longest answer, and the logger's name."""
    assert f"at most {mcp_door.MOST_BYTES // 1024**2} MiB" in PAGE
    assert f"`{mcp_door.__name__}`" in PAGE

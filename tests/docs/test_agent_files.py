"""The page of agent files shows what can be loaded, and names every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from loom.config.agent_file import agent_file_schema, load_agent_file, parse_agent_file
from loom.config.yaml_tree import MOST_CHARACTERS
from loom.core.errors import ConfigInvalid

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agent-files.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)


def keys(schema: dict[str, Any], path: str = "") -> list[str]:
    """Each key that the format knows, in its order."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        found += [path + name, *keys(inner, f"{path}{name}.")]
    return found


def test_the_example_is_an_agent_file(tmp_path: Path) -> None:
    """It loads, with all that it says."""
    path = tmp_path / "shop.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")

    file = load_agent_file(path)

    assert ("shop", 10, 2) == (file.name, file.limits.max_turns, len(file.tools))


def test_the_table_names_every_key() -> None:
    """A row for each, in the order of the format."""
    assert keys(agent_file_schema()) == re.findall(r"(?m)^\| `([\w.]+)` \|", PAGE)


def test_the_error_of_the_page_is_real() -> None:
    """The slip that the page shows is told so."""
    (shown,) = re.findall(r"(?m)^shop\.yaml:.*$", PAGE)

    with pytest.raises(ConfigInvalid) as caught:
        parse_agent_file(EXAMPLE.replace("max_turns", "max_turn"), Path("shop.yaml"))

    assert shown == str(caught.value)


def test_the_page_has_the_numbers_of_the_code() -> None:
    """The longest file."""
    assert f"{MOST_CHARACTERS:,} characters" in PAGE

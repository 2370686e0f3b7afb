"""What an import costs: nothing heavy, no socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Each costs tens of milliseconds, and none is needed before the first call.
HEAVY = {
    "aiohttp", "click", "griffe", "hvac", "importlib.metadata", "keyring", "pydantic", "rich",
    "opentelemetry", "rich_click", "sqlite3", "ssl", "starlette", "tomlkit", "uvicorn",
}  # fmt: skip

PROBE = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
{statement}
print(json.dumps([sorted(set(sys.modules)), opened]))
"""


@pytest.mark.parametrize("statement", ["import loom", "from loom import Mistral, AsyncMistral"])
def test_an_import_is_light(statement: str) -> None:
    """Importing the client loads no heavy module and touches no socket."""
    # Coverage, which measures subprocesses too, imports sqlite3.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    probe = subprocess.run(
        [sys.executable, "-I", "-c", PROBE.format(statement=statement)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    modules, opened = json.loads(probe.stdout)

    assert set() == HEAVY & set(modules)
    assert [] == opened

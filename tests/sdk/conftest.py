"""`looms sim` as its own process, for clients that others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest


class Served(msgspec.Struct, frozen=True):
    """What the command prints when it is ready."""

    base_url: str
    api_key: str

    @property
    def root(self) -> str:
        """The address without `/v1`, as some clients want it."""
        return self.base_url.removesuffix("/v1")


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    # The day is fixed, so that a retirement fails no test.
    command = [sys.executable, "-m", "loom.cli", "sim", "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--as-of", "2026-08"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert process.stdout is not None
    try:
        yield Served(**json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=20)
    assert (0, "") == (process.returncode, rest)

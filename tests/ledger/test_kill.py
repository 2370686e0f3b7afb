"""A killed process loses no row that was acknowledged, and passes no budget."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_fifty_kills_lose_nothing(repository: Path) -> None:
    """After SIGKILL under load every row is there, sums hold, the file is whole."""
    script = repository / "benchmarks" / "ledger.py"

    done = subprocess.run(
        [sys.executable, str(script), "--kills", "50"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    found = re.match(r"50 kills: ([\d,]+) rows .* (\d+) calls uncertain, 0 lost", done.stdout)
    assert found, done.stdout
    assert int(found[1].replace(",", "")) > 1000
    assert int(found[2]) > 50


def test_the_benchmark_measures_the_ledger(repository: Path) -> None:
    """One short round gives a row for each number of writers; how fast, no test asks."""
    script = repository / "benchmarks" / "ledger.py"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--scale", "0.02"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    for row in ("| SQLite alone", "| ledger, 1 at", "| ledger, 32 at", "| ledger, 256 at"):
        assert row in done.stdout
    assert "In memory, reserve and settle take" in done.stdout

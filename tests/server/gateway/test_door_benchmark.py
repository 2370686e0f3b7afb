"""The benchmark of the door runs; how fast anything is, it says and no test asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_benchmark_measures_the_door(repository: Path) -> None:
    """One short round gives a row for each figure, and every answer is right."""
    script = repository / "benchmarks" / "door.py"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--seconds", "0.3", "--slow", "20",
         "--readers", "5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    for figure in ("us CPU that it adds", "p99 ms beside 20 slow callers", "MB for 5 slow readers"):
        assert figure in done.stdout

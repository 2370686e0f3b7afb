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

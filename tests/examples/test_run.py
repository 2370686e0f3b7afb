"""Every example runs as its first lines say, against the simulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


def run(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(path), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_offline(path: Path) -> None:
    """With --sim it needs no key, prints something, and warns of nothing of Python's."""
    done = run(path, "--sim")
    assert 0 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_obeys_loom_sim(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOOM_SIM=1 does the same without a flag."""
    monkeypatch.setenv("LOOM_SIM", "1")
    done = run(path)
    assert 0 == done.returncode, done.stderr


def test_the_connection_test_says_what_to_do_without_a_key(tmp_path: Path) -> None:
    """No key is exit 3, with the two ways to give one."""
    done = run(EXAMPLES[0].with_name("connection_test.py"))
    assert 3 == done.returncode
    assert "API key is required" in done.stderr
    assert "MISTRAL_API_KEY" in done.stderr

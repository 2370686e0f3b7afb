"""What the documents show is run: every Python block, every `looms` command."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Commands that have commands of their own.
GROUPS = ("agent", "cost", "keys")
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

# A block is left out only by a comment above it that gives the reason.
BLOCK = re.compile(r"(?m)^(<!-- skip:(?P<reason>.*)-->\n)?```python\n(?P<code>.*?)^```", re.DOTALL)


def blocks() -> list[object]:
    """Give each runnable block, named by its file and line."""
    return [
        pytest.param(
            found["code"],
            id=f"{path.relative_to(REPOSITORY)}:{text[: found.start('code')].count(chr(10)) + 1}",
        )
        for path in DOCUMENTS
        for text in [path.read_text(encoding="utf-8")]
        for found in BLOCK.finditer(text)
        if not (found["reason"] or "").strip()
    ]


def commands() -> list[object]:
    """Give each `looms ...` line of README's shell blocks, without what follows a pipe."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shells = re.findall(r"(?ms)^```(?:console|bash|shell|sh)\n(.*?)^```", text)
    inline = re.findall(r"`((?:uv run )?looms [^`]+)`", text)
    lines = [line for shell in shells for line in shell.splitlines()] + inline
    found = {match[1].strip() for line in lines if (match := re.search(r"looms ([^#|&>]+)", line))}
    return [pytest.param(command, id=command) for command in sorted(found)]


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", blocks())
def test_a_block_of_python_runs(code: str, tmp_path: Path) -> None:
    """A block of Python runs on its own, without a key, a network or a warning."""
    done = run(sys.executable, "-W", "error", "-c", code, folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    # What is raised where nobody can catch it (a finalizer, a thread) is only printed.
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_exists(command: str, tmp_path: Path) -> None:
    """A command that README names exists, and so does each option beside it."""
    words = command.split()
    depth = 2 if words[0] in GROUPS else 1
    name = list(takewhile(lambda word: word[0] not in "-\"'", words[:depth]))
    looms = str(Path(sys.executable).with_name("looms"))

    done = run(looms, *name, "--help", folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    for option in re.findall(r"(?:^|\s)(--[a-z][a-z-]*)", command):
        assert option in done.stdout

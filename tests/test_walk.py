"""The walk through one call in `docs/architecture.md` is the walk that the code takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_walk_in_the_document_is_fresh(repository: Path) -> None:
    """The table is what `scripts/walk.py` makes now; `just generated` remakes it."""
    document = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    written = document.partition("<!-- walk -->")[2].partition("<!-- /walk -->")[0].strip()

    made = subprocess.run(
        [sys.executable, str(repository / "scripts" / "walk.py"), "--print"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert made.stdout.strip() == written

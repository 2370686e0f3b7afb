"""Every backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.agent.shop import ENDLESS, make_shop

from loom.agent.backend_files import FilesBackend
from loom.agent.backend_sqlite import SQLiteBackend
from loom.testing.backends import BACKEND_LAWS, BackendCase, BackendLaw, backend_contract

pytestmark = pytest.mark.anyio


def sqlite_case(folder: Path) -> BackendCase:
    path = make_shop(folder)
    return BackendCase(
        make=lambda: SQLiteBackend(path),
        query="SELECT * FROM customers ORDER BY id",
        wrong="SELECT nothing FROM nowhere",
        resource="orders",
        changes=(
            "DELETE FROM customers",
            "DROP TABLE customers",
            "INSERT INTO customers VALUES (3, 'Cy', 'Lyon')",
            "CREATE TABLE more(id)",
        ),
        endless=ENDLESS,
        secret=str(folder),
    )


def files_case(folder: Path) -> BackendCase:
    root = folder / "notes"
    (root / "deep").mkdir(parents=True)
    (root / "a.md").write_text("Ann lives in Oslo.\nBob does not.\n", encoding="utf-8")
    (root / "deep" / "b.md").write_text("More.\n", encoding="utf-8")
    return BackendCase(
        make=lambda: FilesBackend(root),
        query="a.md",
        wrong="no/such/file",
        resource="a.md",
        secret=str(folder),
    )


CASES = {"sqlite": sqlite_case, "files": files_case}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("law", BACKEND_LAWS)
async def test_a_backend_keeps_the_law(law: BackendLaw, kind: str, tmp_path: Path) -> None:
    """Each law holds for each backend."""
    await law(CASES[kind](tmp_path))


@pytest.mark.parametrize("kind", CASES)
async def test_a_backend_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    """All laws hold together."""
    await backend_contract(CASES[kind](tmp_path))


class Forgetful(SQLiteBackend):
    """Forgets that it was closed."""

    async def close(self) -> None:
        pass


async def test_a_broken_law_is_found(tmp_path: Path) -> None:
    """A backend that answers after its end does not pass."""
    case = BackendCase(
        make=lambda: Forgetful(make_shop(tmp_path, name="other.db")),
        query="SELECT 1",
        wrong="SELEC",
        resource="orders",
    )

    with pytest.raises(AssertionError, match="a closed backend answered"):
        await BACKEND_LAWS[-1](case)

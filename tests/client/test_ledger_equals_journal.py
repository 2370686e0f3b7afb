"""After many calls that fail, are cancelled or left, the ledger says what the journal says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.client.ledger_journal import Books, Told, differences, keep_books

from loom.core.request import Kind

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("calls", "share", "seed"), [(600, 0.05, 0), (300, 0.5, 1)], ids=["5 %", "50 %"]
)
async def test_the_ledger_equals_the_journal(
    tmp_path: Path, calls: int, share: float, seed: int
) -> None:
    """One row a call; tokens, costs and sums to the last digit; in doubt is what may be billed."""
    books = await keep_books(calls, share, tmp_path, seed=seed)

    print(books.table())  # noqa: T201 - who runs it with -s wants to see it
    assert [] == list(differences(books))
    assert calls == len(books.told)
    states = {row.state for rows in books.rows.values() for row in rows}
    assert {"settled", "estimated", "uncertain", "released"} == states


@pytest.mark.parametrize("kind", ["fim", "embeddings"])
async def test_the_ledger_equals_the_journal_of_other_kinds(tmp_path: Path, kind: Kind) -> None:
    """What is no chat has its rows as chats do, each with its kind."""
    books = await keep_books(300, 0.3, tmp_path, seed=3, kind=kind)

    assert [] == list(differences(books))
    rows = [row for rows in books.rows.values() for row in rows]
    assert {kind} == {row.kind for row in rows}
    assert {"settled", "uncertain", "released"} <= {row.state for row in rows}


async def test_what_differs_is_told(tmp_path: Path) -> None:
    """A row too many, a row too few, a wrong digit, a wrong state: each is found."""
    books = await keep_books(40, 0.0, tmp_path, seed=2)
    assert [] == list(differences(books))
    name, rows = next(
        (name, rows) for name, rows in books.rows.items() if books.told[name].response is not None
    )

    def changed(**fields: object) -> Books:
        other = [msgspec.structs.replace(rows[0], **fields)]
        return books._replace(rows={**books.rows, name: other})

    digit = (rows[0].cost_usd or 0) + Decimal("0.00000001")
    for wrong, finding in (
        (books._replace(rows={**books.rows, name: []}), "has 0 rows"),
        (books._replace(rows={**books.rows, name: rows * 2}), "has 2 rows"),
        (changed(state="open"), "is still open"),
        (changed(cost_usd=digit), "the vendor counted"),
        (changed(output_tokens=rows[0].output_tokens + 1), "the vendor counted"),
        (changed(request_id="another"), "was answered by another"),
        (books._replace(told={**books.told, name: Told("timeout")}), "its row is settled"),
        (books._replace(ledger_usd=books.ledger_usd + 1), "the ledger's sum is"),
        (books._replace(damage=("page 3 is torn",)), "page 3 is torn"),
    ):
        assert any(finding in line for line in differences(wrong)), finding

"""`looms fault-matrix`: rows as a table and as JSON, and the exit code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from loom.testing import matrix
from loom.testing.matrix import FaultResult

if TYPE_CHECKING:
    from tests.cli.conftest import Run

ROWS = ("--row", "39", "--row", "44")


def test_rows_as_json(looms: Run) -> None:
    """One object a row, in order; a row that waits is neither right nor wrong."""
    code, out, err = looms("fault-matrix", "--json", *ROWS)
    right, waiting = map(json.loads, out.splitlines())

    assert 0 == code
    assert ["id", "fault", "expected", "seen", "ok", "needs"] == list(right)
    assert ("39", True, "") == (right["id"], right["ok"], right["needs"])
    assert "permission_denied, 1 request, released" == right["expected"] == right["seen"]
    assert ("44", None, "agent") == (waiting["id"], waiting["ok"], waiting["needs"])
    assert err.startswith("1 row holds, 0 do not, 1 waits · ")


def test_rows_as_a_table(looms: Run) -> None:
    """What should happen beside what did."""
    code, out, err = looms("fault-matrix", *ROWS)
    rows = [line.split() for line in out.splitlines()]

    assert 0 == code
    assert ["the", "same", "yes"] == next(row for row in rows if row[:1] == ["39"])[-3:]
    assert ["waits"] == next(row for row in rows if row[:1] == ["44"])[-1:]
    assert 1 == err.count("\n")


def test_a_row_that_does_not_hold_is_1(looms: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen stands in the table, and the row's number on standard error."""

    async def planted(*_: Any) -> AsyncIterator[FaultResult]:
        yield FaultResult(
            id="39",
            fault="403",
            expected="permission_denied, 1 request",
            seen="permission_denied, 3 requests",
            ok=False,
        )

    monkeypatch.setattr(matrix, "run_matrix", planted)
    code, out, err = looms("fault-matrix")

    assert 1 == code
    assert "permission_denied, 3 requests" in out
    assert "0 rows hold, 1 does not, 0 wait" in err
    assert "failed: 39" in err


def test_a_row_that_there_is_not(looms: Run) -> None:
    """The message names those there are."""
    code, out, err = looms("fault-matrix", "--row", "66")
    assert (2, "") == (code, out)
    assert "there is no row '66'; there are 1, 2, 3, 3b" in err

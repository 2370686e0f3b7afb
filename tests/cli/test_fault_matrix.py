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
    """One object a row, in order; none waits any more."""
    code, out, err = looms("fault-matrix", "--json", *ROWS)
    right, tool = map(json.loads, out.splitlines())

    assert 0 == code
    assert ["id", "fault", "expected", "seen", "ok", "needs"] == list(right)
    assert ("39", True, "") == (right["id"], right["ok"], right["needs"])
    assert "permission_denied, 1 request, released" == right["expected"] == right["seen"]
    assert ("44", True, "") == (tool["id"], tool["ok"], tool["needs"])
    assert "an answer, 2 requests, settled" == tool["expected"] == tool["seen"]
    assert err.startswith("2 rows hold, 0 do not, 0 wait · ")


def test_rows_as_a_table(looms: Run) -> None:
    """What should happen beside what did."""
    code, out, err = looms("fault-matrix", *ROWS)
    rows = [line.split() for line in out.splitlines()]

    assert 0 == code
    assert ["the", "same", "yes"] == next(row for row in rows if row[:1] == ["39"])[-3:]
    assert ["the", "same", "yes"] == next(row for row in rows if row[:1] == ["44"])[-3:]
    assert 1 == err.count("\n")


def test_a_row_that_waits_is_neither_right_nor_wrong(
    looms: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table says what it waits for, and the command ends well."""

    async def planted(*_: Any) -> AsyncIterator[FaultResult]:
        yield FaultResult(id="39", fault="403", expected="", seen="", ok=None, needs="ledger")

    monkeypatch.setattr(matrix, "run_matrix", planted)
    code, out, err = looms("fault-matrix")

    assert 0 == code
    assert "needs the ledger" in out
    assert "0 rows hold, 0 do not, 1 waits" in err


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

"""The fault matrix as data: whole, and found again from an error."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.error_table import ERROR_TABLE
from loom.core.errors import (
    CircuitOpen,
    InvalidRequest,
    LoomError,
    MalformedReply,
    RateLimited,
    ServiceUnavailable,
    StreamStalled,
    StreamTruncated,
    TimedOut,
    ToolDenied,
    Unreachable,
)
from loom.core.faults import fault_matrix
from loom.core.response import Partial, Usage
from loom.core.timeline import Attempt, Timeline

ROWS = fault_matrix()
CHARGES = {"released", "settled", "estimated", "unknown"}
OUTCOMES = {"", "cancelled", "left", *ERROR_TABLE}


def test_there_is_one_row_for_each_fault() -> None:
    """1 to 65, with those that have kinds of their own, in this order."""
    kinds = {3: ["3b"], 33: ["33b", "33c", "33d", "33e"], 36: ["36b"]}
    ids = [name for n in range(1, 66) for name in (str(n), *kinds.get(n, []))]
    assert ids == [row.id for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_whole(row: Any) -> None:
    """It says what happens and what to do, in words that the code knows, and how it is caused."""
    assert row.fault[:1].isupper() or row.fault[:1].isdigit()
    assert row.fault[-1:] != "."
    assert row.says.endswith(".")
    assert not row.hint or row.hint.endswith(".")
    assert bool(row.hint) or row.expected not in ERROR_TABLE
    assert bool(row.cases) is not bool(row.needs)
    assert row.breaker in (0, 1)
    for case in (row, *row.cases):
        assert case.expected is None or case.expected in OUTCOMES
        assert case.charge is None or {*case.charge.split("+")} <= CHARGES
    assert all(bool(case.fault) is not bool(case.scene) for case in row.cases)
    assert {signs.code for signs in row.when} <= {*ERROR_TABLE}


def came(status: int | None) -> Timeline:
    attempt = Attempt(provider="mistral", model="m", sent_s=0, ended_s=1, status=status)
    return Timeline(began_s=0, attempts=(attempt,))


SOME = Partial(text="some")


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (Unreachable("refused", phase="connect"), "1"),
        (Unreachable("no name", phase="dns"), "2"),
        (Unreachable("reset", phase="reset"), "9"),
        (Unreachable("reset", phase="reset", timeline=came(200)), "10"),
        (TimedOut("late", phase="first_byte"), "8"),
        (TimedOut("408", timeline=came(408)), "35"),
        (TimedOut("late", phase="total"), "56"),
        (StreamStalled("late", partial=SOME), "14"),
        (StreamTruncated("cut", phase="reset"), "15"),
        (StreamTruncated("over"), "16"),
        (MalformedReply("not JSON", timeline=came(200)), "12"),
        (MalformedReply("not JSON", timeline=came(200), partial=Partial(usage=Usage())), "12"),
        (MalformedReply("not JSON", timeline=came(200), partial=SOME), "23"),
        (MalformedReply("SSH-2.0"), "27"),
        (MalformedReply("204", timeline=came(204)), "41"),
        (ServiceUnavailable("503", timeline=came(503)), "40"),
        (ServiceUnavailable("in the stream", timeline=came(200), partial=SOME), "32"),
        (RateLimited("429", retry_after_s=2.0), "33"),
        (RateLimited("429"), "33d"),
        (InvalidRequest("422", timeline=came(422)), "36"),
        (CircuitOpen("open", attempts=0), "63"),
    ],
)
def test_an_error_names_its_row(error: LoomError, row: str) -> None:
    """`explain()` tells what happens then, and what the row says is to be done."""
    (found,) = (one for one in ROWS if one.id == row)
    told = error.explain()
    assert f"Fault matrix row {row} ({found.fault}): {found.says}" in told
    assert told.endswith(f"What to do: {found.hint}")


def test_an_error_of_no_row_keeps_its_hint() -> None:
    """What never left this machine is in no row; a hint of the call goes before that of a row."""
    here = InvalidRequest("temperature must be a number", attempts=0)
    denied = ToolDenied("no")
    told = RateLimited("429", hint="Choose another plan.")
    assert "Fault matrix" not in here.explain()
    assert here.explain().endswith(here.hint)
    assert "Fault matrix" not in denied.explain()
    assert told.explain().endswith("What to do: Choose another plan.")

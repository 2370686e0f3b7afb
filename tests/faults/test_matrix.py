"""Each row of the fault matrix holds: a real client over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from loom.client.aio import AsyncMistral
from loom.client.blocking import Mistral
from loom.core.errors import ConfigInvalid
from loom.core.faults import FaultCase, FaultRow, fault_matrix
from loom.ledger.closing import closed
from loom.ledger.entry import Entry
from loom.server.simulator.faults import fault_table, parse_fault
from loom.testing.matrix import SCENES, check_row, matrix_bench, run_matrix
from loom.testing.matrix_bench import Bench

pytestmark = pytest.mark.anyio

ROWS = fault_matrix()


@pytest.fixture(scope="module")
async def bench() -> AsyncIterator[Bench]:
    async with matrix_bench(AsyncMistral, Mistral) as running:
        yield running


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_a_row_holds(bench: Bench, row: FaultRow) -> None:
    """What the caller gets, what came over the wire, what is held afterwards."""
    result = await check_row(bench, row)
    if result.ok is False:
        # Its limits are tenths of a second of real time, and a machine may stand still as long: a
        # row that is broken is so twice.
        result = await check_row(bench, row)

    assert (None if row.needs else True) == result.ok, (
        f"row {row.id}, {row.fault}:\nexpected {result.expected}\nseen     {result.seen}"
    )
    assert row.needs == result.needs


def causes() -> list[FaultCase]:
    return [case for row in ROWS for case in row.cases]


def test_every_fault_of_the_simulator_is_in_the_matrix() -> None:
    """Each causes the row that it is named for; only Toxiproxy's kinds are in none."""
    caused = {
        (parse_fault(case.fault).row.id, row.id) for row in ROWS for case in row.cases if case.fault
    }

    assert {(fault.id, fault.row) for fault in fault_table().rows if fault.row != "toxic"} == caused


def test_every_scene_is_played() -> None:
    """The matrix names each, and no other."""
    assert set(SCENES) == {case.scene for case in causes() if case.scene}


async def test_a_row_that_does_not_hold_says_so(bench: Bench) -> None:
    """It is told what was seen, of which case, and what was not as it must be."""
    row = FaultRow(
        id="0",
        fault="A planted mistake",
        says="It is found.",
        expected="timeout",
        wire=1,
        charge="released",
        breaker=1,
        cases=(FaultCase(fault="33-retry-after:2", mode="plain", waits=(0.0, 1.0)),),
    )
    result = await check_row(bench, row)

    assert (False, "timeout, 1 request, released") == (result.ok, result.expected)
    assert result.seen == (
        "33-retry-after:2 plain: rate_limit_exceeded, 5 requests, released, BUT it waited"
        " 2.10, 2.10, 2.10, 2.10 s, BUT the breaker counted 0"
    )


async def test_a_row_that_breaks_does_not_hide_the_others(bench: Bench) -> None:
    """An exception that nobody expects is what was seen."""
    row = FaultRow(
        id="0",
        fault="A fault that there is not",
        says="It is found.",
        expected="",
        wire=1,
        charge="settled",
        breaker=0,
        cases=(FaultCase(fault="no-such-fault", mode="plain"),),
    )
    result = await check_row(bench, row)

    assert result.ok is False
    assert "invalid_request" in result.seen


async def test_a_ledger_that_says_something_else_is_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a row of the ledger says is compared with what the caller was told."""

    def forgetful(opened: Entry, _state: str, **given: object) -> Entry:
        return closed(opened, "released", **given)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr("loom.layers.account.closed", forgetful)
    row = next(row for row in ROWS if row.id == "9")
    result = await check_row(bench, row)

    assert result.ok is False
    assert "BUT the ledger says unknown, and released as a whole" in result.seen


async def test_only_the_rows_that_are_asked_for() -> None:
    """In the matrix's order; a row that there is not is an error that names those there are."""
    results = [result async for result in run_matrix(AsyncMistral, Mistral, ["39", "33d"])]
    assert [("33d", True), ("39", True)] == [(result.id, result.ok) for result in results]
    with pytest.raises(ConfigInvalid, match="there is no row '66'; there are 1, 2, 3, 3b"):
        async for _ in run_matrix(AsyncMistral, Mistral, ["66"]):
            pass

"""
Measure the ledger: durable rows a second, the wait for an acknowledgement, what a kill leaves.

    uv run --group bench python benchmarks/ledger.py               rows a second
    uv run --group bench python benchmarks/ledger.py --kills 200   SIGKILL under load, 200 times

A call is two rows: it is written when it begins and again when it is over, and each is on the disk
before it is acknowledged. The bare disk stands beside: commits of one row by SQLite alone.
It prints and writes `benchmarks/results/ledger.json`; only a lost row makes it fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import sqlite3
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from statistics import median

from kills import kill_often

from loom.core.response import Usage
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger
from loom.ledger.entry import Opening
from loom.ledger.memory import MemoryLedger
from loom.ledger.sqlite.store import SqliteLedger

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results" / "ledger.json"
WRITERS = (1, 32, 256)
CALLS = {1: 300, 32: 4_000, 256: 12_000}
IN_MEMORY = 20_000
BARE = 200

BUDGETS = (
    Budget(limit_usd="1000000", period="day"),
    Budget(limit_usd="1000000", per="session"),
)
CALL = Opening(
    provider="mistral",
    asked_model="model-1",
    key="12345678",
    session="s",
    worst_usd=Decimal("0.01"),
)
USAGE = Usage(input_tokens=1250, output_tokens=3420, cost_usd=Decimal("0.0230200"))


async def _calls(ledger: Ledger, calls: int, writers: int) -> tuple[float, list[float]]:
    """Make calls, so many at a time; give seconds in all, and of each acknowledgement."""
    waits: list[float] = []
    left = iter(range(calls))

    async def writer() -> None:
        for _ in left:
            began = time.perf_counter()
            ticket = await ledger.reserve(CALL, BUDGETS)
            opened = time.perf_counter()
            await ledger.settle(ticket, closed(ticket.entry, "settled", usage=USAGE))
            waits.extend((opened - began, time.perf_counter() - opened))

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(writers)))
    return time.perf_counter() - began, sorted(waits)


async def _durable(folder: Path, writers: int, scale: float) -> dict[str, float]:
    ledger = SqliteLedger(folder / f"{writers}-{time.monotonic_ns()}.db")
    calls = max(writers, int(CALLS[writers] * scale))
    await _calls(ledger, writers, writers)
    seconds, waits = await _calls(ledger, calls, writers)
    await ledger.aclose()
    return {
        "rows_s": 2 * calls / seconds,
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1e3,
    }


async def _in_memory(scale: float) -> dict[str, float]:
    calls = max(100, int(IN_MEMORY * scale))
    began = time.process_time()
    await _calls(MemoryLedger(), calls, 1)
    return {"us_call": (time.process_time() - began) / calls * 1e6}


def _bare(folder: Path, scale: float) -> dict[str, float]:
    connection = sqlite3.connect(folder / f"bare-{time.monotonic_ns()}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (text TEXT)")
    waits = []
    for _ in range(max(10, int(BARE * scale))):
        began = time.perf_counter()
        connection.execute("INSERT INTO rows VALUES (?)", ("x" * 400,))
        waits.append(time.perf_counter() - began)
    connection.close()
    waits.sort()
    return {
        "rows_s": len(waits) / sum(waits),
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1e3,
    }


def _measure(rounds: int, scale: float, folder: Path) -> dict[str, list[dict[str, float]]]:
    figures: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        figures.setdefault("SQLite alone, one row a commit", []).append(_bare(folder, scale))
        for writers in WRITERS:
            row = asyncio.run(_durable(folder, writers, scale))
            figures.setdefault(f"ledger, {writers} at a time", []).append(row)
        figures.setdefault("in memory", []).append(asyncio.run(_in_memory(scale)))
    return figures


def _print(figures: dict[str, list[dict[str, float]]]) -> None:
    print("| | durable rows/s | acknowledged in ms, p50 | p99 |")
    print("|---|---|---|---|")
    for name, rows in figures.items():
        middle = {key: median(row[key] for row in rows) for key in rows[0]}
        if "us_call" in middle:
            print(f"\nIn memory, reserve and settle take {middle['us_call']:.1f} us CPU.")
        else:
            print(
                f"| {name} | {middle['rows_s']:,.0f} | {middle['p50_ms']:.1f} |"
                f" {middle['p99_ms']:.1f} |"
            )


def _kill(runs: int) -> int:
    # Each ledger tells of its uncertain calls, and here they are what is looked for.
    logging.getLogger("loom.ledger").setLevel(logging.ERROR)
    outcomes = kill_often(runs)
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    for line in wrong:
        print(line, file=sys.stderr)
    print(
        f"{runs} kills: {sum(one.acknowledged for one in outcomes):,} rows acknowledged,"
        f" {sum(one.uncertain for one in outcomes)} calls uncertain, {len(wrong)} lost or wrong"
    )
    return 1 if wrong else 0


def main() -> None:
    """Measure, or kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the calls, for a test")
    parser.add_argument("--kills", type=int, default=0, help="kill so many writing processes")
    options = parser.parse_args()
    if options.kills:
        sys.exit(_kill(options.kills))
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(options.rounds, options.scale, Path(folder))
    _print(figures)
    if options.scale == 1.0:
        facts = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**facts, "figures": figures}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

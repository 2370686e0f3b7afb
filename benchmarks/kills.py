"""
Kill a process that writes a ledger, at random moments under load, and see what is left.

Each run starts a child with 32 calls at a time and a budget, kills it with SIGKILL after a random
number of acknowledgements, opens its ledger and compares: every acknowledged row is there with its
cost, no sum is above the budget, the file is whole, and what was open is uncertain.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from loom.core.errors import BudgetExceeded
from loom.core.response import Usage
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Query, all_entries
from loom.ledger.entry import Entry, Opening
from loom.ledger.money import total
from loom.ledger.sqlite.store import SqliteLedger

__all__ = ["Outcome", "kill_often", "kill_once"]

_WORKERS = 32
_WORST = Decimal("0.03")
_AT_A_TIME = 2


class Outcome(NamedTuple):
    """What a killed process left behind."""

    acknowledged: int
    uncertain: int
    spent_usd: Decimal
    wrong: list[str]


def kill_often(runs: int, seed: int = 1) -> list[Outcome]:
    """
    Kill so many processes, two at a time.

    Args:
        runs: How many.
        seed: Draws budgets and moments.

    Returns:
        What each left.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(kill_once, range(seed * 100_000, seed * 100_000 + runs)))


def kill_once(seed: int) -> Outcome:
    """
    Start a process, kill it, look.

    Args:
        seed: Draws its budget and the moment.

    Returns:
        What it left.
    """
    draw = random.Random(seed)
    limit = Decimal(draw.randint(1, 12))
    after = draw.randint(1, 600)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.db"
        said = _run_and_kill(path, limit, after)
        return asyncio.run(_judge(path, limit, said))


def _run_and_kill(path: Path, limit: Decimal, after: int) -> list[str]:
    child = subprocess.Popen(
        [sys.executable, __file__, str(path), str(limit)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if child.stdout is None or child.stdin is None:
        raise RuntimeError("the child has no pipes")
    said: list[str] = []
    with child:
        for line in child.stdout:
            said.append(line)
            if len(said) == after or line == "full\n":
                child.kill()
        child.stdin.close()
    # A line that the kill cut off acknowledged nothing.
    return [line for line in said if line.endswith("\n")]


async def _judge(path: Path, limit: Decimal, said: list[str]) -> Outcome:
    opened = {line.split()[1] for line in said if line.startswith("open")}
    paid = {line.split()[1]: line.split()[2] for line in said if line.startswith("paid")}
    budget = Budget(limit_usd=limit)
    ledger = SqliteLedger(path)
    # Before its first call the ledger only reads: rows are as the kill left them.
    spent = total([row.counted_usd async for row in all_entries(ledger)])
    (standing,) = await ledger.standings(_call(), [budget])
    rows = {row.id: row async for row in all_entries(ledger, Query(limit=500))}
    wrong = [*await ledger.check()]
    wrong += [
        f"{one} was acknowledged and is lost" for one in opened | set(paid) if one not in rows
    ]
    wrong += [
        f"{one} cost {cost} and says {rows[one]}"
        for one, cost in paid.items()
        if one in rows and not _paid(rows[one], cost)
    ]
    wrong += [f"{row.id} is still open" for row in rows.values() if row.state == "open"]
    if spent > limit or standing.spent_usd > limit:
        wrong.append(f"{spent} and {standing.spent_usd} are above the budget of {limit}")
    if standing.spent_usd != total(row.counted_usd for row in rows.values()):
        wrong.append(f"the budget counts {standing.spent_usd}, its rows say otherwise")
    await ledger.aclose()
    uncertain = sum(row.state == "uncertain" for row in rows.values())
    return Outcome(len(said), uncertain, standing.spent_usd, wrong)


def _paid(row: Entry, cost: str) -> bool:
    return row.state == "settled" and row.cost_usd == Decimal(cost)


def _call() -> Opening:
    return Opening(provider="mistral", asked_model="model-1", session="s", worst_usd=_WORST)


async def _load(path: Path, limit: str) -> None:
    """Be the child: reserve and settle as fast as it goes, and say what was acknowledged."""
    ledger = SqliteLedger(path)
    budget = Budget(limit_usd=limit)

    async def worker(number: int) -> None:
        draw = random.Random(number)
        while True:
            try:
                ticket = await ledger.reserve(_call(), [budget])
            except BudgetExceeded:
                return
            _say(f"open {ticket.entry.id}")
            cost = Decimal(draw.randint(1, 30)) / 1000
            final = closed(ticket.entry, "settled", usage=Usage(input_tokens=9, cost_usd=cost))
            await ledger.settle(ticket, final)
            _say(f"paid {ticket.entry.id} {cost}")

    await asyncio.gather(*(worker(number) for number in range(_WORKERS)))
    _say("full")
    sys.stdin.read()


def _say(line: str) -> None:
    # At once and whole: the next thing that happens may be the kill.
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(_load(Path(sys.argv[1]), sys.argv[2]))

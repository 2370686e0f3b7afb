"""Both stores keep every law of a ledger."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from loom.core.ambient import Clock
from loom.ledger.contract import Ledger
from loom.ledger.memory import MemoryLedger
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing.ledger import LEDGER_LAWS, LedgerLaw, LedgerMaker, ledger_contract

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerMaker:
    """Give a maker of empty ledgers."""
    names = itertools.count()

    def new(clock: Clock) -> Ledger:
        if request.param == "memory":
            return MemoryLedger(clock=clock)
        return SqliteLedger(tmp_path / f"{next(names)}.db", clock=clock)

    return new


@pytest.mark.parametrize("law", LEDGER_LAWS, ids=lambda law: law.__name__)
async def test_a_store_keeps_the_law(law: LedgerLaw, make: LedgerMaker) -> None:
    """A store keeps each law alone."""
    await law(make)


async def test_the_contract_is_all_laws() -> None:
    """A store is put to all of them by one call."""
    await ledger_contract(lambda clock: MemoryLedger(clock=clock))

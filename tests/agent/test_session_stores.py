"""Both stores keep every law of a store of sessions."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from loom.agent.session import SessionStore
from loom.agent.session_memory import MemorySessions
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.ambient import Clock
from loom.testing import (
    SESSION_STORE_LAWS,
    SessionStoreLaw,
    SessionStoreMaker,
    session_store_contract,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> SessionStoreMaker:
    """Give a maker of empty stores."""
    names = itertools.count()

    def new(clock: Clock) -> SessionStore:
        if request.param == "memory":
            return MemorySessions(clock)
        return SQLiteSessions(tmp_path / f"{next(names)}.db", clock)

    return new


@pytest.mark.parametrize("law", SESSION_STORE_LAWS, ids=lambda law: law.__name__)
async def test_a_store_keeps_the_law(law: SessionStoreLaw, make: SessionStoreMaker) -> None:
    """A store keeps each law alone."""
    await law(make)


async def test_the_contract_is_all_laws() -> None:
    """A store is put to all of them by one call."""
    await session_store_contract(MemorySessions)

"""A ledger for the commands that read one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from loom.core.response import Usage
from loom.ledger.entry import Entry, Opening, State
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing.clock import FakeClock

# What small and large cost per million tokens, of the catalogue in November 2026.
SMALL, LARGE = "mistral-small-2603", "mistral-large-2512"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call to write down: when, what, and its cost as text."""

    at: str
    model: str = SMALL
    asked: str = "mistral-small-latest"
    used: tuple[int, int] = (1000, 100)
    cost: str | None = "0.00021"
    state: State = "settled"
    code: str = ""
    session: str | None = None
    key: str = "a1b2c3d4"
    tags: dict[str, str] = {}
    price_id: str = "some-price"
    worst: str | None = "0.01"
    latency_s: float = 1.5


def write(path: Path, calls: Iterable[Call]) -> None:
    """Write calls into the ledger of a file, in the order of their times."""
    asyncio.run(_write(path, calls))


async def _write(path: Path, calls: Iterable[Call]) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock)
    for call in calls:
        at = datetime.fromisoformat(call.at).replace(tzinfo=UTC)
        clock.advance((at - clock.now()).total_seconds())
        opening = Opening(
            provider="mistral",
            asked_model=call.asked,
            session=call.session,
            key=call.key,
            client="looms",
            tags=call.tags,
            worst_usd=None if call.worst is None else Decimal(call.worst),
        )
        ticket = await ledger.reserve(opening)
        await ledger.settle(ticket, _final(ticket.entry, call))
    await ledger.aclose()


def _final(entry: Entry, call: Call) -> Entry:
    usage = Usage(input_tokens=call.used[0], output_tokens=call.used[1])
    return msgspec.structs.replace(
        entry,
        state=call.state,
        model=call.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        price_id=call.price_id,
        cost_usd=None if call.cost is None else Decimal(call.cost),
        code=call.code,
        latency_s=call.latency_s,
    )


SOME = (
    Call(at="2026-11-20T09:00:00", session="ann", tags={"project": "shop"}),
    Call(
        at="2026-11-20T10:00:00",
        model=LARGE,
        asked="mistral-large-latest",
        used=(2000, 500),
        cost="0.00175",
        session="bob",
    ),
    Call(at="2026-11-22T11:00:00", session="ann", tags={"project": "web"}),
    Call(
        at="2026-11-22T12:00:00",
        model="",
        used=(0, 0),
        cost=None,
        state="uncertain",
        code="timeout",
    ),
    Call(
        at="2026-11-22T13:00:00",
        model="unheard-of",
        asked="unheard-of",
        cost=None,
        worst=None,
        price_id="",
    ),
)
"""Five calls on three days, of two models; one is uncertain, one has no price."""

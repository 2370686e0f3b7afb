"""Whatever callers and vendors do in whatever order: one row each, and all money given back."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.gateway.kit import MODEL, Keys, Served, request
from tests.server.gateway.test_app import key
from tests.server.gateway.test_leaving import endless, headed, reset
from tests.server.gateway.vendor import (
    USAGE,
    Act,
    RawVendor,
    breaks,
    chunk,
    cut,
    event,
    plain,
    says,
    stream,
)

from loom.ledger.budgets import Budget
from loom.ledger.entry import Entry, Opening
from loom.server.gateway import relay

JSON = "application/json"
ERROR = {"object": "error", "message": "no", "type": "x", "code": "1"}
CALLS = [
    chunk({"tool_calls": [{"id": "abcdefgh1", "function": {"name": "look", "arguments": "{}"}}]}),
    chunk("", finish="tool_calls", usage=USAGE),
]
# What a vendor does, and which states a row may be in if the caller stays.
ACTS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "streams": (says(*stream()), ("settled",)),
    "answers": (says(plain(), kind=JSON), ("settled",)),
    "calls": (says(*map(event, CALLS), event(b"[DONE]")), ("settled",)),
    "tells no usage": (says(*stream(usage=False)), ("estimated",)),
    "is busy": (says(b"{}", status="429 X", kind=JSON), ("released",)),
    "is broken": (says(b"{}", status="500 X", kind=JSON), ("released", "uncertain")),
    "refuses": (says(b"{}", status="422 X", kind=JSON), ("released",)),
    "errs": (says(*stream()[:2], event(ERROR)), ("estimated", "uncertain")),
    "is cut": (cut(*stream()[:2]), ("estimated", "uncertain")),
    "resets": (breaks(cut(*stream()[:2])), ("estimated", "uncertain")),
    "hangs up": (lambda _: None, ("uncertain", "released")),
    "stops": (endless, ()),
    "says nothing": (headed, ()),
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
BUDGET = Budget(limit_usd="1000", period="month")
GOOD = key(budget=BUDGET, concurrency=50, rpm=1_000_000)


class Step(NamedTuple):
    """One request, and what becomes of it."""

    speaks: str
    streamed: bool
    tools: bool
    act: str
    leaves: str


STEPS = st.builds(
    Step,
    st.sampled_from(["openai", "mistral"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(ACTS)),
    st.sampled_from(["stays", "closes", "resets", "half-closes"]),
)


class World(NamedTuple):
    served: Served
    vendor: RawVendor


def chosen(body: bytes) -> Act:
    found = re.search(rb"act: ([a-z ]+)\.", body)
    assert found is not None
    return ACTS[found[1].decode()][0]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    patch = pytest.MonkeyPatch()
    patch.setattr(relay, "DRAIN_S", 0.02)
    with RawVendor(choose=chosen) as vendor:
        client = {"base_url": vendor.base_url, "api_key": "vendor-key"}
        with Served(ring=Keys(good=GOOD), client=client) as served:
            yield World(served, vendor)
    patch.undo()


def take(step: Step, world: World) -> None:
    """Send a request, and stay or leave once the vendor has it."""
    asked = len(world.vendor.asked)
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"act: {step.act}."}],
        "stream": step.streamed,
        **({"tools": [TOOL]} if step.tools else {}),
    }
    data = request(body, authorization="Bearer good", x_loom_dialect=step.speaks)
    with socket.create_connection(("127.0.0.1", world.served.port), 20) as connection:
        connection.sendall(data)
        world.served.wait(lambda: len(world.vendor.asked) > asked)
        match step.leaves:
            case "stays" if ACTS[step.act][1]:
                while connection.recv(65536):
                    pass
            case "half-closes":
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            case "resets":
                reset(connection)
            case _:
                pass


async def standing(world: World) -> Any:
    opening = Opening(provider="mistral", asked_model=MODEL, tenant=GOOD.id)
    budgets = world.served.gateway.counters.counter(GOOD).budgets
    (found,) = await world.served.ledger.standings(opening, budgets)
    return found


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(steps=st.lists(STEPS, min_size=1, max_size=6))
def test_any_sequence_leaves_one_row_each(world: World, steps: list[Step]) -> None:
    """As many rows as requests, none open, nothing kept free, and the sum is what was spent."""
    served = world.served
    before = len(served.rows())
    for step in steps:
        take(step, world)
    served.wait(lambda: all(row.state != "open" for row in served.rows()))
    rows = served.rows()
    assert len(steps) == len(rows) - before
    for step, row in zip(steps, rows[before:], strict=True):
        judge(step, row)
    now = asyncio.run(standing(world))
    assert 0 == now.reserved_usd
    assert sum(row.cost_usd or Decimal(0) for row in rows) == now.spent_usd
    limiter = served.gateway.counters.counter(GOOD).limiter
    assert limiter is not None
    served.wait(lambda: limiter.held == 0)
    served.wait(lambda: served.gateway.relay.streams == served.gateway.relay.draining == 0)


def judge(step: Step, row: Entry) -> None:
    """See that a row says what can be known."""
    assert step.streamed is row.stream
    assert GOOD.id == row.tenant
    states = ACTS[step.act][1]
    if step.leaves == "stays" and states:
        assert row.state in states, step
    # Whoever leaves may leave too late; nobody is ever billed for nothing, or not at all.
    assert row.state in ("settled", "estimated", "uncertain", "released")

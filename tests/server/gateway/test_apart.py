"""Caller and vendor are kept apart: nothing of a head, no host and no trouble of ours goes over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from tests.server.gateway.kit import MODEL, Keys, Served, chat
from tests.server.gateway.test_app import key

from loom.core.errors import LedgerUnavailable
from loom.ledger.budgets import Budget
from loom.ledger.contract import Receipt, Ticket
from loom.ledger.entry import Entry, Opening
from loom.ledger.memory import MemoryLedger

SPEAKS = pytest.mark.parametrize("speaks", ["openai", "mistral"])
STREAM = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
# What the gateway itself sends (S5: an allow-list).
SENT = {
    "accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
    "user-agent",
}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


@SPEAKS
@STREAM
def test_no_header_of_a_caller_goes_to_the_vendor(
    served: Served, speaks: str, *, streamed: bool
) -> None:
    """S5: neither cookies nor keys, hops or organisations; the vendor sees the gateway alone."""
    answer = served.ask(
        chat(stream=streamed),
        x_loom_dialect=speaks,
        authorization="Bearer callers-own",
        cookie="a=callers-own",
        openai_organization="callers-own",
        x_api_key="callers-own",
        x_forwarded_for="10.0.0.1",
        x_loom_fault="500",
        te="trailers",
        user_agent="callers-own",
        accept_encoding="callers-own",
        x_request_id="callers-own",
    )
    assert 200 == answer.status
    entry = served.sim.journal.entries()[-1]
    assert SENT >= entry.headers.keys()
    assert "callers-own" not in str(entry.headers)
    assert served.sim.api_key not in str(answer.headers)


@SPEAKS
@pytest.mark.parametrize(
    "more",
    [
        {"base_url": "http://evil.example"},
        {"api_base": "http://evil.example"},
        {"extra_body": {"api_base": "http://evil.example"}},
        {"metadata": {"a": {"base_url": "http://evil.example"}}},
        {"stream_options": {"base_url": "http://evil.example"}, "stream": True},
        {"extra_headers": {"authorization": "x"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_no_body_names_a_host(served: Served, speaks: str, more: dict[str, Any]) -> None:
    """R-46: at any depth; nothing is sent."""
    before = len(served.sim.journal.entries())
    answer = served.ask(chat(**more), x_loom_dialect=speaks)
    assert answer.status in (400, 422)
    assert before == len(served.sim.journal.entries())


@SPEAKS
@pytest.mark.parametrize(
    "text",
    [
        '{"model": "%s", "model": "%s", "messages": []}',
        '{"model": "%s", "messages": [{"role": "user", "content": "a", "content": "%s"}]}',
        '{"model": "%s", "mod\\u0065l": "%s", "messages": []}',
    ],
    ids=["plainly", "deep", "escaped"],
)
def test_a_field_that_stands_twice_is_refused(served: Served, speaks: str, text: str) -> None:
    """G5: what is relayed as it came must mean one thing to every reader."""
    before = len(served.sim.journal.entries())
    answer = served.ask((text % (MODEL, MODEL)).encode(), x_loom_dialect=speaks)
    assert answer.status in (400, 422)
    assert before == len(served.sim.journal.entries())


@SPEAKS
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"\\ud800"', '"\\u0000x\\r\\n"'])
def test_odd_values_are_refused_or_harmless(served: Served, speaks: str, value: str) -> None:
    """G5, G25: never a 5xx, and no line of its own in a head."""
    for field in ("temperature", "model", "user" if speaks == "openai" else "prompt_cache_key"):
        body = json.dumps(chat(**{field: "HERE"})).replace('"HERE"', value)
        answer = served.ask(body.encode(), x_loom_dialect=speaks)
        assert answer.status in (400, 422), (field, answer.body)


class Ill(MemoryLedger):
    """A ledger that fails where it is told to."""

    fails = ""

    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        if self.fails == "reserve":
            raise LedgerUnavailable("the disk is full")
        return await super().reserve(opening, budgets)

    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        receipt = await super().settle(ticket, entry)
        return msgspec.structs.replace(receipt, standings=()) if self.fails == "sums" else receipt


@pytest.fixture
def ill() -> Iterator[Served]:
    served = Served(ring=Keys(good=key(budget=Budget(limit_usd="1"))))
    served.ledger = Ill()
    with served as running:
        yield running


@SPEAKS
@STREAM
def test_a_ledger_that_fails_refuses_before_the_vendor(
    ill: Served, speaks: str, *, streamed: bool
) -> None:
    """G17, G18: 503 before anything is sent; when it is well again, calls go on."""
    ill.ledger.fails = "reserve"  # type: ignore[attr-defined]  # an Ill
    answer = ill.ask(chat(stream=streamed), authorization="Bearer good", x_loom_dialect=speaks)
    assert 503 == answer.status
    assert not ill.sim.journal.entries()
    ill.ledger.fails = ""  # type: ignore[attr-defined]  # the same
    answer = ill.ask(chat(stream=streamed), authorization="Bearer good", x_loom_dialect=speaks)
    assert 200 == answer.status


@SPEAKS
@STREAM
def test_an_answer_that_was_paid_is_given(ill: Served, speaks: str, *, streamed: bool) -> None:
    """G17: a sum that is not at hand is left out of the head, and keeps no answer back."""
    ill.ledger.fails = "sums"  # type: ignore[attr-defined]  # an Ill
    answer = ill.ask(chat(stream=streamed), authorization="Bearer good", x_loom_dialect=speaks)
    assert 200 == answer.status
    told = answer.note if streamed else answer.headers
    assert "x-loom-cost-usd" in told
    assert "x-loom-budget-remaining-usd" not in told
    assert "error" not in answer.body.decode()

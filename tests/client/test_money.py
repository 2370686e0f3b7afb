"""Limits, budgets and a ledger, as a client has them: against the simulator, over sockets."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loom import (
    AsyncMistral,
    Budget,
    BudgetExceeded,
    ConfigInvalid,
    InvalidRequest,
    Limiter,
    LimitExceeded,
    Mistral,
    RateLimit,
    ServiceUnavailable,
    Throttled,
)
from loom.core.ambient import SystemClock
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger
from loom.ledger.open import open_ledger
from loom.server.simulator import Simulator
from loom.testing import FakeClock

pytestmark = pytest.mark.anyio

SMALL = "mistral-small-latest"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def client(sim: Simulator, **options: Any) -> AsyncMistral:
    options.setdefault("clock", FakeClock(auto=True))
    return AsyncMistral(sim.api_key, base_url=sim.base_url, model=SMALL, **options)


async def rows(path: Path) -> list[Entry]:
    ledger = open_ledger(path)
    try:
        return list(await ledger.entries())
    finally:
        await ledger.aclose()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


class TestArguments:
    """What is wrong is named when the client is made."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"rate_limit": 60}, "'rate_limit' must be a RateLimit, a Limiter or None, not int"),
            ({"budget": 0.5}, "budget's limit_usd is 0.5"),
            ({"budget": "much"}, "budget's limit_usd is 'much'"),
            ({"ledger": 3}, "'ledger' must be 'sqlite:///FILE', a path or a ledger, not int"),
            ({"ledger": "postgresql://x/y"}, "a ledger is 'sqlite:///FILE'"),
            ({"client_name": 3}, "'client_name' must be a string"),
        ],
        ids=str,
    )
    def test_wrong_ones_are_named(self, arguments: dict[str, Any], words: str) -> None:
        """The argument, what it was, and what it may be."""
        for kind in (AsyncMistral, Mistral):
            with pytest.raises(ConfigInvalid, match=words):
                kind("a-key", **arguments)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"session": 3}, "'session' takes printable text"),
            ({"tenant": "two\nlines"}, "'tenant' takes printable text"),
            ({"priority": "urgent"}, "'priority' must be one of 'interactive', 'normal', 'batch'"),
            ({"tags": ["a"]}, "'tags' must be a dict"),
            ({"tags": {"a": 1}}, "'tags' takes printable text"),
            ({"tags": {"a": "x" * 257}}, "at most 256 characters"),
        ],
        ids=str,
    )
    async def test_whose_call_it_is_is_checked(
        self, sim: Simulator, options: dict[str, Any], words: str
    ) -> None:
        """By the client, by `with_options` and by the call."""
        with pytest.raises(InvalidRequest, match=words):
            client(sim, **options)
        async with client(sim) as m:
            with pytest.raises(InvalidRequest, match=words):
                m.with_options(**options)
            with pytest.raises(InvalidRequest, match=words):
                await m.chat("Hi", **options)
        assert 0 == len(sim.journal)


class TestLedger:
    """Each call has a row."""

    async def test_rows_tell_who_what_and_how_much(self, sim: Simulator, tmp_path: Path) -> None:
        """What the client and the call say of themselves; the answer's tokens and cost."""
        path = tmp_path / "calls.db"
        async with client(sim, ledger=f"sqlite:///{path}", tags={"project": "loom"}) as m:
            told = await m.chat("Hi", session="s1", tags={"step": "1"}, tenant="t")
            streamed = await m.with_options(session="s2").stream("Hello").final()
        first, second = await rows(path)
        assert [told.usage.cost_usd, streamed.usage.cost_usd] == [first.cost_usd, second.cost_usd]
        assert ("s1", "t", {"project": "loom", "step": "1"}) == (
            first.session, first.tenant, dict(first.tags)
        )  # fmt: skip
        assert [("s1", False), ("s2", True)] == [(r.session, r.stream) for r in (first, second)]
        assert {"settled"} == {first.state, second.state}
        assert 0o600 == mode_of(path)

    async def test_no_key_and_no_word_is_in_the_file(self, sim: Simulator, tmp_path: Path) -> None:
        """Not even in a page that was deleted (S8)."""
        path = tmp_path / "calls.db"
        async with client(sim, ledger=path) as m:
            answer = await m.chat("A prompt that nobody may read", session="s")
            with pytest.raises(ServiceUnavailable):
                await m.chat("A prompt that nobody may read", model=f"{SMALL}+503")
        kept = contents(tmp_path)
        for text in (sim.api_key, "nobody may read", answer.content[:40]):
            assert text.encode() not in kept

    async def test_a_failed_call_has_a_row_too(self, sim: Simulator, tmp_path: Path) -> None:
        """With its attempts, and no charge."""
        path = tmp_path / "calls.db"
        async with client(sim, ledger=path) as m:
            with pytest.raises(ServiceUnavailable):
                await m.chat("Hi", model=f"{SMALL}+503")
        (row,) = await rows(path)
        assert ("released", "service_unavailable", Decimal(0), 3) == (
            row.state, row.code, row.cost_usd, len(row.attempts)
        )  # fmt: skip

    async def test_one_row_whoever_answers(self, sim: Simulator, tmp_path: Path) -> None:
        """The answering model is charged; the failed attempts are fields (FB16, R-39)."""
        path = tmp_path / "calls.db"
        large = "mistral-large-latest+503"
        async with client(sim, ledger=path, fallback=SMALL, retry=None) as m:
            told = await m.chat("Hi", model=large)
        (row,) = await rows(path)
        assert (large, SMALL, told.usage.cost_usd) == (row.asked_model, row.model, row.cost_usd)
        assert [503, 200] == [attempt.status for attempt in row.attempts]

    async def test_a_cancelled_call_has_a_row(self, sim: Simulator, tmp_path: Path) -> None:
        """Left in the middle of its stream: what came is estimated."""
        path = tmp_path / "calls.db"
        stalling = {"x-loom-fault": "14-stall:8"}
        async with (
            client(sim, ledger=path, headers=stalling) as m,
            m.stream("Explain looms") as events,
        ):
            async for text in events.text_stream:
                if text:
                    break
        (row,) = await rows(path)
        assert ("estimated", "cancelled") == (row.state, row.code)
        assert row.cost_usd
        assert row.input_tokens

    async def test_a_ledger_of_the_callers_stays_open(self, sim: Simulator) -> None:
        """It may serve many clients."""
        ledger = MemoryLedger(clock=FakeClock())
        for _ in range(2):
            async with client(sim, ledger=ledger) as m:
                await m.chat("Hi")
        assert 2 == len(await ledger.entries())

    def test_the_blocking_client_has_one_too(self, sim: Simulator, tmp_path: Path) -> None:
        """The same arguments, the same rows."""
        path = tmp_path / "calls.db"
        free = Budget(limit_usd=1, on_unknown_price="allow")
        common: dict[str, Any] = {"base_url": sim.base_url, "model": SMALL, "ledger": path}
        with Mistral(sim.api_key, budget=free, **common) as m:
            told = m.chat("Hi", session="s", tags={"a": "b"})
            # The pump reads ahead: only a stall keeps the answer from its end.
            with m.stream("Explain looms", model=f"{SMALL}+14-stall:3") as events:
                next(events)
        first, second = asyncio.run(rows(path))
        assert (told.usage.cost_usd, "s") == (first.cost_usd, first.session)
        assert second.state in ("uncertain", "estimated")

    async def test_what_cannot_be_accounted_for_is_not_sent(
        self, sim: Simulator, tmp_path: Path
    ) -> None:
        """A file that is no ledger stops calls, with a word on what to do (G19)."""
        path = tmp_path / "calls.db"
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
        async with client(sim, ledger=path) as m:
            with pytest.raises(Exception, match=r"calls\.db") as raised:
                await m.chat("Hi")
        assert "ledger" in str(raised.value)
        assert 0 == len(sim.journal)


class TestBudget:
    """No call passes a budget."""

    async def test_a_call_that_does_not_fit_is_not_sent(self, sim: Simulator) -> None:
        """An amount alone is a budget for all calls of the client."""
        async with client(sim, budget="0.0002") as m:
            with pytest.raises(BudgetExceeded, match="does not fit"):
                await m.chat("Hi")
            assert (await m.chat("Hi", max_tokens=10)).usage.cost_usd
        assert 1 == len(sim.journal)

    async def test_two_hundred_at_once(self, sim: Simulator, tmp_path: Path) -> None:
        """Overshoot 0 on a file, and the ledger says the same as the journal (R-33, R-36)."""
        path = tmp_path / "calls.db"
        budget = Budget(limit_usd="0.0005")
        today = SystemClock()  # the journal has today's prices
        async with client(sim, ledger=path, budget=budget, max_tokens=50, clock=today) as m:
            results = await asyncio.gather(
                *(m.chat(f"Say {n}") for n in range(200)), return_exceptions=True
            )
        assert {BudgetExceeded} == {type(r) for r in results if isinstance(r, BaseException)}
        kept = await rows(path)
        assert len(kept) == len(sim.journal) < 200
        costs = [entry.cost_usd for entry in sim.journal]
        assert sum(row.cost_usd or 0 for row in kept) == sum(cost or 0 for cost in costs)
        assert sum(row.cost_usd or 0 for row in kept) <= Decimal("0.0005")

    async def test_a_budget_outlives_the_process(self, sim: Simulator, tmp_path: Path) -> None:
        """What an earlier client of that name spent counts; another's does not."""
        path = tmp_path / "calls.db"
        common: dict[str, Any] = {"ledger": path, "max_tokens": 20}
        async with client(sim, client_name="a", **common) as m:
            spent = (await m.chat("Hi")).usage.cost_usd
        assert spent is not None
        tight = Budget(limit_usd=spent)
        async with client(sim, client_name="a", budget=tight, **common) as m:
            with pytest.raises(BudgetExceeded):
                await m.chat("Hi", max_tokens=1)
        async with client(sim, client_name="b", budget="1", **common) as m:
            await m.chat("Hi")

    async def test_an_answer_says_what_is_left(self, sim: Simulator) -> None:
        """What the tightest budget has left after this call, plain and streamed; else None."""
        tight, wide = Budget(limit_usd="0.5", per="session"), Budget(limit_usd=5)
        async with client(sim, budget=[wide, tight], session="s", max_tokens=20) as m:
            first = await m.chat("Hi")
            async with m.stream("Hi") as stream:
                second = await stream.final()
            other = await m.chat("Hi", session="t")
            spent = [one.usage.cost_usd or 0 for one in (first, second, other)]
        assert Decimal("0.5") - spent[0] == first.budget_remaining_usd
        assert Decimal("0.5") - spent[0] - spent[1] == second.budget_remaining_usd
        assert Decimal("0.5") - spent[2] == other.budget_remaining_usd
        async with client(sim, ledger=MemoryLedger(clock=FakeClock())) as m:
            assert None is (await m.chat("Hi")).budget_remaining_usd

    async def test_the_warning_comes_once(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`Session cost exceeds threshold`, with `total_cost`."""
        budget = Budget(limit_usd=5, warn_usd="0.000001", per="session")
        async with client(sim, budget=budget, session="s") as m:
            for _ in range(3):
                await m.chat("Hi")
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert ["Session cost exceeds threshold"] == [record.message for record in warnings]

    async def test_with_options_shares_the_sums(self, sim: Simulator) -> None:
        """A twin is no way around a budget."""
        async with client(sim, budget="0.0001", max_tokens=10) as m:
            with pytest.raises(BudgetExceeded):
                for _ in range(1000):
                    await m.with_options(temperature=0.0).chat("Hi")

    async def test_no_budget_is_no_check(self, sim: Simulator) -> None:
        """A model without a price passes where nothing is limited (R-34)."""
        ledger = MemoryLedger(clock=FakeClock())
        async with client(sim, ledger=ledger) as m:
            told = await m.chat("Hi", model=f"{SMALL}+21-comments")
        (row,) = await ledger.entries()
        assert told.content
        assert None is row.reserved_usd


class TestRateLimit:
    """Calls wait for their turn."""

    async def test_calls_queue_and_none_is_refused(self) -> None:
        """Where the server would answer 429, the client waits, and says so."""
        clock = FakeClock(auto=True)
        with Simulator(tier="free", clock=clock) as sim:
            async with client(sim, rate_limit=RateLimit.free(), retry=None, clock=clock) as m:
                waits = []
                for _ in range(8):
                    async for event in m.stream("Hi", max_tokens=5):
                        if isinstance(event, Throttled):
                            waits.append(event.wait_s)  # noqa: PERF401  the loop is the test
            statuses = [entry.status for entry in sim.journal]
        assert [200] * 8 == statuses
        assert waits

    async def test_what_cannot_wait_so_long_is_refused_at_once(self, sim: Simulator) -> None:
        """With the wait, and nothing is sent."""
        limit = RateLimit(requests_per_minute=1)
        async with client(sim, rate_limit=limit, deadline_s=5) as m:
            await m.chat("Hi")
            with pytest.raises(LimitExceeded) as raised:
                await m.chat("Hi")
        assert raised.value.retry_after_s
        assert 5 < raised.value.retry_after_s <= 62
        assert 1 == len(sim.journal)

    async def test_a_limiter_may_serve_many_clients(self, sim: Simulator) -> None:
        """One key's quota is one, however many clients use it."""
        limiter = Limiter(RateLimit(requests_per_minute=1))
        async with client(sim, rate_limit=limiter, deadline_s=5) as first:
            await first.chat("Hi")
        async with client(sim, rate_limit=limiter, deadline_s=5) as second:
            with pytest.raises(LimitExceeded):
                await second.chat("Hi")
        assert 0 == limiter.held


async def test_all_layers_at_once(sim: Simulator, tmp_path: Path) -> None:
    """The issue's line: limits, a budget, a ledger; and what a row has of it."""
    path = tmp_path / "calls.db"
    async with client(
        sim,
        rate_limit=RateLimit.starter(),
        budget=Budget(limit_usd="5", warn_usd="0.10"),
        ledger=f"sqlite:///{path}",
        fallback=[SMALL],
    ) as m:
        answers = await asyncio.gather(*(m.chat(f"Say {n}") for n in range(20)))
    kept = await rows(path)
    assert 20 == len(kept)
    assert sum(answer.usage.cost_usd or 0 for answer in answers) == sum(
        row.cost_usd or 0 for row in kept
    )

"""Thousands of worlds, each drawn from a seed: the books balance, and a planted bug is found."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

import loom.agent.turn as turns
from loom.agent import history
from loom.agent.log import Log
from loom.agent.runtime import AgentRuntime
from loom.agent.session import Begun, Entry
from loom.agent.tally import Tally
from loom.client.aio import AsyncMistral
from loom.core.errors import LoomError, StreamTruncated, TimedOut
from loom.core.events import Completed, StreamEvent
from loom.core.messages import Message
from loom.core.provider import Layer, LayerFactory
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage
from loom.layers.account import _Tab
from loom.layers.breaker import Breaker
from loom.layers.limit import _Call
from loom.layers.limit_line import Line
from loom.layers.limit_store import MemoryStore
from loom.layers.retry_policy import RetryPolicy
from loom.ledger.book import Book
from loom.ledger.closing import closed
from loom.ledger.memory import MemoryLedger
from loom.providers.wired import WiredProvider
from loom.shuttle import batch, job
from loom.shuttle.batch import Batch
from loom.testing import run_plan, run_seed, run_seeds, turn
from loom.testing.seeded_agent import HOWS
from loom.testing.seeded_faults import FAULTS
from loom.testing.seeded_plan import CallPlan, Plan, draw_plan
from loom.testing.seeded_vendor import Mood
from loom.testing.seeds import main
from loom.transport.exchange import Exchange
from loom.transport.slots import Slots

BLOCK = 100
# So many for a bug that shows rarely.
MOST_SEEDS = 4000

# A seed that failed once stays here, with what it had found.
REGRESSIONS = (
    70,  # a cancellation was lost in the race between two addresses
    125,  # a refusal after a resend reported one request, and two were sent
    163,  # an answer in plain JSON gave no text to who reads texts
    200,  # closing during a name look-up looked like a cancellation
    674,  # closing did not break off who was connecting
    2054,  # as 70, with a limit that came instead
    2488,  # a redirect after a resend reported one request
    7265,  # closing broke off the same call twice, and it ended cancelled
    813,  # a request that found no free socket was taken for one that used a permit
    19207,  # a budget that refused to begin anew reported one request, and two were sent
    22625,  # the same with a kept socket that was closed
)

# The same of worlds with an agent.
AGENT_REGRESSIONS = (
    36,  # max_turns=1 was two requests
    444,  # a tool ran once more for its twin when a broken turn was taken up
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep what the worlds log out of the report of a test that fails."""
    caplog.set_level(logging.CRITICAL, "loom")


@pytest.mark.parametrize("first", range(0, 1000, BLOCK))
def test_the_books_balance(first: int) -> None:
    """Whatever the seed: calls end once and rightly, and nothing is left."""
    for seed in range(first, first + BLOCK):
        report = run_seed(seed, check=False)

        assert () == tuple(report.broken), report.text()


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_failed_once_does_not_again(seed: int) -> None:
    """What a seed found stays found, in the world that it had before there were agents."""
    run_plan(draw_plan(seed, agents=False))


@pytest.mark.parametrize("seed", AGENT_REGRESSIONS)
def test_a_turn_that_failed_once_does_not_again(seed: int) -> None:
    """What a seed found of agents stays found."""
    assert draw_plan(seed).agent is not None
    run_seed(seed)


def test_every_fault_and_every_end_occurs() -> None:
    """The worlds are wide: each fault of the table, and each way to end, is met."""
    seen: Counter[str] = Counter()
    for seed in range(5000, 5600):
        seen += run_seed(seed, check=False).counts

    met = {kind for kind, count in seen.items() if count}
    assert set() == {f"fault: {name}" for name in FAULTS} - met
    before_a_request = ("refused", "connect hangs", "deaf", "down", "restless", "good")
    assert set() == {f"fault: {name}" for name in before_a_request} - met
    ways = (
        "answer", "cancelled", "left", "limit", "closed", "circuit_open", "timeout (total)",
        "limit_exceeded", "budget_exceeded",
    )  # fmt: skip
    assert set() == {f"ends: {name}" for name in ways} - met
    on_the_way = (
        "retried", "began anew", "kept socket was closed", "wall clock jumped", "queued",
        "refused by the budget",
    )  # fmt: skip
    assert set() == {f"seen: {name}" for name in on_the_way} - met
    states = ("settled", "estimated", "released", "uncertain")
    assert set() == {f"row: {name}" for name in states} - met
    agents = ("turn of an agent", "taken up again", "a tool not run again", "gone on anew")
    assert set() == {f"seen: {name}" for name in agents} - met
    assert set() == {f"tool: {name}" for name in HOWS[:-1]} - met


def test_worlds_without_an_agent_are_as_they_were() -> None:
    """An agent is drawn apart: the seeds that have none are the same with and without."""
    plans = [(draw_plan(seed), draw_plan(seed, agents=False)) for seed in range(300)]

    assert all(plan == plain for plan, plain in plans if plan.agent is None)
    agents = [plan.agent for plan, _ in plans if plan.agent is not None]
    assert 40 < len(agents) < 100
    assert set(HOWS[:-1]) <= {how for agent in agents for how in agent.hows}


def test_many_seeds_are_counted_together() -> None:
    """What several seeds met is one count."""
    assert run_seed(1).counts + run_seed(2).counts == +run_seeds([1, 2])


def test_a_seed_repeats() -> None:
    """The same seed twice is the same to the turn and to the last digit."""
    for seed in range(60):
        first, second = run_seed(seed, check=False), run_seed(seed, check=False)

        assert first.trace == second.trace
        assert first.turns == second.turns


def test_a_seed_repeats_in_another_process() -> None:
    """Neither the order of sets nor what ran before in a process changes anything."""
    code = "from loom.testing import run_seed; print([run_seed(n).trace for n in (%s)])"

    def told(seeds: str, hash_seed: str) -> str:
        environment = {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code % seeds],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        return done.stdout

    # The last has an agent, whose tools end in no order of their own.
    assert told("3, 14, 15, 734", "1") == told("3, 14, 15, 734", "2")
    assert told("15,", "3")[1:-2] in told("3, 14, 15", "1")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone(name: str) -> None:
    """A vendor that does one thing wrong, and nothing else, does not upset the books."""
    counts = run_plan(only(name)).counts

    assert counts[f"fault: {name}"] > 0


def only(fault: str) -> Plan:
    """Give a world without chance but for one fault: three streams and three plain calls."""
    plan = draw_plan(1)
    calls = tuple(
        CallPlan(name=f"call {n}", way="events" if n % 2 else "chat", at_s=n / 2) for n in range(6)
    )
    return msgspec.structs.replace(
        plan,
        mood=Mood(faults={"": 1.0}, kinds=(fault,)),
        other_mood=Mood(),
        no_name=0.0,
        calls=calls,
        jumps=(),
        close_at_s=None,
        settings=msgspec.structs.replace(
            plan.settings,
            breaker=None,
            fallback=(),
            rescue=False,
            retry=RetryPolicy(),
            limits=None,
            budget_usd="",
        ),
    )


def test_a_failing_seed_tells_how_to_replay_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the seed, what is broken, what happened when, and the command."""
    with pytest.raises(AssertionError) as raised:
        for seed in range(100):
            run_seed(seed, alter=around(Swallowing))

    text = str(raised.value)
    failed = text.partition("seed ")[2].partition(":")[0]
    assert f"python -m loom.testing.seeds {failed}" in text
    assert "was to be cancelled and ended as" in text
    assert "request 1 of call" in text


def test_the_command_replays_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """With a seed it prints what happens; with a count it says how many, and what occurred."""
    assert 0 == main(["12"])
    shown = capsys.readouterr().out
    assert shown.startswith("seed 12:\n  the books balance\n")
    assert shown == "\n".join([run_seed(12).text(), ""])

    assert 0 == main(["--count", "20", "--start", "40"])
    shown = capsys.readouterr().out
    assert "  ends: answer\n" in shown
    assert "20 seeds in " in shown.splitlines()[-1]
    assert shown.endswith(" s: books balanced\n")


def test_the_command_fails_with_the_books(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken books are printed by seed, and the exit code says so."""
    monkeypatch.setattr(Slots, "give_back", lambda _self: None)

    assert 1 == main(["--count", "3"])
    shown = capsys.readouterr().out
    assert "seed 0: " in shown
    assert shown.endswith(" with broken books\n")
    assert 1 == main(["2"])
    assert "permits of the transport held" in capsys.readouterr().out


# What follows are bugs that people make. Each is planted, and must be found.


def around(layer: LayerFactory) -> Callable[[AsyncMistral], None]:
    """Put a layer around a client's provider."""

    def alter(client: AsyncMistral) -> None:
        provider = layer(client._assembled.provider)
        client._assembled = msgspec.structs.replace(client._assembled, provider=provider)

    return alter


class Leaving(Layer):
    """Leaves the inner stream half read: without `aclosing`, the collector closes it."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async for event in self.inner.stream(request):
            yield event
            if type(event) is Completed:
                return


class Trusting(Layer):
    """Takes a cut answer for a whole one."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        cut: LoomError | None = None
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    yield event
        except StreamTruncated as error:
            cut = error
        if cut is not None and cut.partial is not None:
            message = Message(role="assistant", content=cut.partial.text)
            yield Completed(
                LLMResponse(
                    choices=(Choice(message=message),),
                    usage=Usage(),
                    model=request.model,
                    attempts=cut.attempts,
                )
            )


class Mixing(Layer):
    """Gives every call the first answer that it saw."""

    first: Completed | None = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                if type(event) is Completed:
                    self.first = self.first or event
                    yield self.first
                else:
                    yield event


class Insisting(Layer):
    """Asks again whatever failed, even in the middle of the answer."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        for last in (False, True):
            try:
                async with aclosing(self.inner.stream(request)) as events:
                    async for event in events:
                        yield event
            except LoomError:
                if last:
                    raise
            else:
                return


class Swallowing(Layer):
    """Takes a cancellation for a time limit."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    yield event
        except asyncio.CancelledError:
            raise TimedOut("it took too long", phase="total") from None


class Forgetting(Layer):
    """Reports one request, however many were sent."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    yield Completed(msgspec.structs.replace(event.response, attempts=1))
                else:
                    yield event


@pytest.mark.parametrize(
    ("layer", "finding"),
    [
        (Leaving, "async generator left half-read"),
        (Trusting, "never sent to it as a whole answer"),
        (Mixing, "never sent to it as a whole answer"),
        (Insisting, "again after"),
        (Swallowing, "was to be cancelled and ended as error"),
        (Forgetting, "reports 1 requests; 2 were sent"),
    ],
)
def test_a_planted_layer_is_found(layer: LayerFactory, finding: str) -> None:
    """A layer with a bug breaks the books of some seed."""
    assert found(finding, around(layer))


def only_failures(end: Callable[..., None]) -> Callable[..., None]:
    """Forget the calls that were cancelled, and those that told nothing."""
    return lambda *given, **named: None if "ignored" in given else end(*given, **named)


def in_line(end: Callable[..., None]) -> Callable[..., None]:
    """Forget to take out of line who does not wait any more."""
    return lambda self, ticket, tokens: end(self, ticket, tokens) if ticket.granted else None


MONEY: list[tuple[type, str, object, str]] = [
    # A reservation that leaks, a settlement too many, a permit that is lost on cancelling.
    (MemoryLedger, "book", lambda *_: None, "the row of call \\d+ is still open"),
    (_Tab, "_taken", lambda self: self._ticket, "was settled twice"),
    (_Call, "end", lambda _: None, "permits of the limiter held"),
    (Line, "end", in_line(Line.end), "calls are in line, and nobody waits"),
    (Book, "_judge", lambda *_: None, "the budget let pass what does not fit"),
    (MemoryStore, "take", lambda *_: 0.0, "requests for .* (at once|in \\d+.0 s), .* may be"),
    (_Tab, "left", lambda _: None, "is still open"),
    (_Tab, "_failure", lambda _, t, e: closed(t.entry, "released", error=e), "its row is released"),
]

PATCHES: list[tuple[type, str, object, str]] = [
    *MONEY,
    (RetryPolicy, "wait_s", lambda *_: 0.0, "s were asked for"),
    (RetryPolicy, "_retries", lambda *_: True, "again after a 4"),
    (Breaker, "end", only_failures(Breaker.end), "probes of the breaker held"),
    (Slots, "give_back", lambda _: None, "permits of the transport held"),
    (Exchange, "_drop", lambda _: None, "is still being answered, and nobody waits for it"),
    (ChatRequest, "begun", lambda self, _: self, "after its deadline"),
]


# One of the bugs leaves connections to the collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("kind", "name", "bug", "finding"), PATCHES)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, bug: object, finding: str
) -> None:
    """Code that forgets one thing breaks the books of some seed."""
    monkeypatch.setattr(kind, name, bug)

    assert found(finding)


def leave_them(_self: Batch) -> Coroutine[Any, Any, None]:
    """Leave the tools that run to themselves."""
    return turn(0)


async def forget_begun(self: Log, *entries: Entry) -> None:
    """Keep everything but that a tool begins."""
    await ADD(self, *(entry for entry in entries if not isinstance(entry, Begun)))


@asynccontextmanager
async def pass_by(_self: AgentRuntime, _session: str | None) -> AsyncGenerator[None, None]:
    """Let every turn begin at once."""
    yield


ADD = Log.add
AGENTS: list[tuple[object, str, object, str]] = [
    # A tool that runs on, one that runs twice, one that nobody knows of after a crash.
    (Batch, "close", leave_them, "ran on .* after the end of|tools held"),
    (turns, "_left", lambda log, _: log.open_calls, "ran 2 times"),
    (Log, "add", forget_begun, "were written down before"),
    # A call without a result, turns that mix, results that mix.
    (history._Turn, "open", lambda _: iter(()), "is illegal"),
    (AgentRuntime, "_place", pass_by, "met another turn of its conversation"),
    (batch, "call_key", lambda call: call.name, "got 'done"),
    # Limits and sums.
    (Tally, "tools_left", property(lambda _: 1000), "tools, . it may"),
    (Tally, "ends_s", property(lambda self: self.began_s + 1e6), "took .* s, .* s it may"),
    (Tally, "usage", property(lambda self: self.responses[-1].usage), "used .* by its own account"),
    (job, "as_content", lambda value, _: (str(value), False), "characters, 300 it may"),
]


@pytest.mark.parametrize(("place", "name", "bug", "finding"), AGENTS)
def test_a_planted_fault_of_agents_is_found(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, bug: object, finding: str
) -> None:
    """An agent that forgets one thing breaks the books of some seed."""
    monkeypatch.setattr(place, name, bug)
    plans = (draw_plan(seed) for seed in range(MOST_SEEDS))

    assert any(
        re.search(finding, "\n".join(run_plan(plan, check=False).broken))
        for plan in plans
        if plan.agent is not None
    )


def test_a_call_that_spins_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that turns and turns is stopped, and told with who turns it."""

    async def spin(self: WiredProvider, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        await turn(10**9)
        yield Completed(LLMResponse(choices=(), usage=Usage(), model=""))

    monkeypatch.setattr(WiredProvider, "stream", spin)

    assert found(r"no end after 30000 turns: .*call \d+ at _Turn", seeds=3)


def test_a_call_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a call waits for ever, the seed says which, and where."""

    async def wait(self: WiredProvider, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        await asyncio.get_running_loop().create_future()
        yield Completed(LLMResponse(choices=(), usage=Usage(), model=""))

    monkeypatch.setattr(WiredProvider, "stream", wait)

    assert found(r"nothing will ever happen: .*call 1 at .*wait")


def found(
    finding: str, alter: Callable[[AsyncMistral], None] | None = None, *, seeds: int = 300
) -> bool:
    """Look whether a bug shows in any of some hundred seeds."""
    return any(
        re.search(finding, "\n".join(run_seed(seed, alter=alter, check=False).broken))
        for seed in range(seeds)
    )

"""
A call through every layer, cancelled at every suspension: nothing is held.

The call fails once on each route, is cut in the middle on the first one, and begins anew on the
second: it waits in the queue, for headers, for a body, in two retries' sleeps and in the fallback.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.client.loopback import answer, chunks
from tests.transport.hostile import STREAM_HEAD, Peer, serve_in_thread

from loom import AsyncMistral, LLMResponse, Restarted, RetryPolicy, TextDelta, Unreachable
from loom.core.provider import LLMProvider
from loom.layers.breaker import Breaker
from loom.layers.breaker_state import BreakerState
from loom.layers.retry import Retrying
from loom.layers.retry_policy import RetryQuota
from loom.providers.fallback import Branch
from loom.testing import FakeClock, FakeDice, FakeReply, FakeTransport, cancel_everywhere
from loom.transport.contract import HttpRequest, Transport
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

KEY = "test-key-for-loopback"
PRIMARY, FALLBACK = "mistral-large-latest", "mistral-small-latest"
TEXT = "Hello there"
# So far from its end that none comes back by itself.
RESERVE = 1000.0
REFUSED = b'{"object":"error","message":"No.","type":"x","code":"1"}'


class RestingClock(FakeClock):
    """Counts the waits that came to their end: each of them is followed by a retry."""

    rested = 0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.rested += 1


class Caller:
    """A client with every layer on, and the books of what it holds."""

    def __init__(self, transport: Transport, base_url: str = "http://127.0.0.1:9") -> None:
        self.clock = RestingClock(auto=True)
        self.breaker = Breaker(min_calls=10_000)
        self.calls = 0
        self.answered = False
        quota = RetryQuota(reserve=RESERVE, per_call=0, per_success=0)
        self.client = AsyncMistral(
            KEY,
            model=PRIMARY,
            base_url=base_url,
            transport=transport,
            clock=self.clock,
            dice=FakeDice(),
            retry=RetryPolicy(quota=quota),
            breaker=self.breaker,
            fallback=[FALLBACK],
            rescue=True,
        )
        self._retryings = list(retryings(self.client._assembled.provider))

    def begin(self) -> str:
        """The books of a new call, and its prompt: the vendor knows it by that."""
        self.calls += 1
        self.answered = False
        self.clock.rested = 0
        for each in self._retryings:
            each.tokens._left = RESERVE
        return f"call {self.calls}"

    async def chat(self) -> None:
        self.check(await self.client.chat(self.begin()))

    async def final(self) -> None:
        self.check(await self.client.stream(self.begin()).final())

    async def events(self) -> None:
        async with self.client.stream(self.begin()) as stream:
            events = [event async for event in stream]
        self.check(events[-1].response)  # type: ignore[union-attr]  # a stream ends so

    async def part(self) -> None:
        """Leave at the first piece of the second route's answer."""
        async with self.client.stream(self.begin()) as stream:
            anew = False
            async for event in stream:
                anew = anew or isinstance(event, Restarted)
                if anew and isinstance(event, TextDelta):
                    break

    def check(self, response: LLMResponse) -> None:
        assert (TEXT, FALLBACK) == (response.content, response.model)
        self.answered = True

    def quota(self) -> None:
        """A token is spent by a retry that is made, and comes back if that answers."""
        spent = sum(RESERVE - each.tokens.left for each in self._retryings)
        assert self.clock.rested - self.answered * self.repaid == spent

    repaid = 1


def retryings(layer: object) -> list[Retrying]:
    found = [layer] if isinstance(layer, Retrying) else []
    for value in vars(layer).values():
        if isinstance(value, LLMProvider):
            found += retryings(value)
        elif isinstance(value, tuple):
            for branch in value:
                found += retryings(branch.provider) if isinstance(branch, Branch) else []
    return found


class Vendor:
    """Refuses each route's first request, cuts the first route's second one, then answers."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()

    def replies(self, body: bytes) -> tuple[str, list[bytes]]:
        """What happens, and the pieces of the answer."""
        asked: dict[str, Any] = json.loads(body)
        model, prompt = asked["model"], asked["messages"][0]["content"]
        self._seen[model, prompt] += 1
        if self._seen[model, prompt] == 1:
            return "refuse", [REFUSED]
        if model == PRIMARY:
            return "cut", chunks()[:2]
        return ("stream", chunks()) if asked.get("stream") else ("plain", [answer()])

    def fake(self, request: HttpRequest) -> FakeReply:
        """For the transport in memory."""
        what, pieces = self.replies(request.body)
        if what == "refuse":
            return FakeReply(status=503, chunks=pieces)
        if what == "cut":
            return FakeReply.sse(*pieces, Unreachable("it broke", phase="reset"))
        return FakeReply.sse(*pieces) if what == "stream" else FakeReply(chunks=pieces)

    async def serve(self, peer: Peer) -> None:
        """For a socket."""
        while True:
            what, pieces = self.replies((await peer.request()).partition(b"\r\n\r\n")[2])
            if what == "refuse":
                await peer.answer(*pieces, status=b"503 No")
            elif what == "plain":
                await peer.answer(*pieces, b"content-type: application/json")
            else:
                await peer.send(STREAM_HEAD)
                for piece in pieces:
                    await peer.chunk(piece)
                if what == "cut":
                    return
                await peer.send(b"0\r\n\r\n")


HOW = pytest.mark.parametrize("how", [Caller.chat, Caller.final, Caller.events, Caller.part])
TWICE = pytest.mark.parametrize("twice", [False, True])
LATE = pytest.mark.parametrize("late", [False, True])


@HOW
@TWICE
@LATE
async def test_in_memory(how: Callable[[Caller], Any], twice: bool, late: bool) -> None:  # noqa: FBT001 - cases
    """No socket, task, probe, token or generator is held, whichever suspension it was."""
    transport = FakeTransport(answer=Vendor().fake)
    caller = Caller(transport)

    survey = await cancel_everywhere(
        lambda: how(caller),
        caller.quota,
        probes={
            "sockets": lambda: transport.in_use,
            "probes": lambda: caller.breaker.probes_held,
        },
        twice=[twice],
        late=[late],
    )

    assert survey.suspensions > 10
    await caller.client.aclose()


@HOW
@TWICE
@LATE
async def test_over_sockets(how: Callable[[Caller], Any], twice: bool, late: bool) -> None:  # noqa: FBT001 - cases
    """The same with one connection at most: whoever kept it would be missed at once."""
    transport = HttpTransport(max_connections=1)
    with serve_in_thread(Vendor().serve) as server:
        caller = Caller(transport, f"http://{server.where}")
        # The loop's own generator and the library's import are there before the first round.
        await how(caller)

        survey = await cancel_everywhere(
            lambda: how(caller),
            caller.quota,
            probes={
                "permits": lambda: transport.permits_in_use,
                "more than one socket": lambda: max(0, transport.open_sockets - 1),
                "probes": lambda: caller.breaker.probes_held,
            },
            twice=[twice],
            late=[late],
        )

        assert survey.suspensions
        await caller.client.aclose()
        assert 0 == transport.open_sockets
        server.wait_closed()


@HOW
@TWICE
@LATE
async def test_as_the_probes_of_a_breaker(
    how: Callable[[Caller], Any],
    twice: bool,  # noqa: FBT001 - a case
    late: bool,  # noqa: FBT001 - a case
) -> None:
    """Half open on both routes: a probe that was cancelled lets the next one through."""
    transport = FakeTransport(answer=Vendor().fake)
    caller = Caller(transport)
    await how(caller)
    keys = list(caller.breaker.states())

    async def probe() -> None:
        for key in keys:
            caller.breaker._states[key] = BreakerState(state="half_open", epoch=2, open_for_s=0.1)
        await how(caller)

    def look() -> None:
        states = caller.breaker.states().values()
        assert all(not state.probing for state in states)
        caller.quota()

    survey = await cancel_everywhere(
        probe, look, probes={"sockets": lambda: transport.in_use}, twice=[twice], late=[late]
    )

    assert survey.suspensions > 10
    await caller.client.aclose()

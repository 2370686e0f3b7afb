"""One failover scenario, played: two providers, a client, and what everybody saw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from loom import AsyncMistral, Completed, LLMResponse, LoomError, Route, Timeouts
from loom.core.ambient import Clock
from loom.core.events import StreamEvent
from loom.core.route import Fallback
from loom.layers.breaker import Breaker
from loom.server.simulator import Simulator
from loom.server.simulator.journal import Entry
from loom.testing import FakeClock, FakeDice, simulator, turn
from loom.transport.http import HttpTransport

__all__ = [
    "DRAWS",
    "FALLBACK",
    "KINDS",
    "MODES",
    "PRIMARY",
    "PROMPT",
    "Got",
    "Kind",
    "Mode",
    "Played",
    "options_for",
    "play",
    "providers",
]

Mode: TypeAlias = Literal["rescue", "default", "alone"]
"""A fallback and `rescue=True`; a fallback; no fallback."""

Kind: TypeAlias = Literal["chat", "stream"]

MODES: tuple[Mode, ...] = ("rescue", "default", "alone")
KINDS: tuple[Kind, ...] = ("chat", "stream")

PRIMARY, FALLBACK = "mistral-large-latest", "mistral-small-latest"
PROMPT = "Tell me about looms"
# So that the waits of a call are not equal even where their limits are.
DRAWS = (0.3, 0.9, 0.6, 0.8, 0.7)

# What the providers do for ever, or for 20 s and more, is met by these limits of real time.
_SHORT_S = 0.2
_SHORT: dict[str, dict[str, float]] = {
    "FB06": {"first_byte_s": _SHORT_S},
    "FB09": {"idle_s": _SHORT_S},
}
_FIRST_TOKEN_S = {"FB06": _SHORT_S, "FB07": _SHORT_S}
# Nothing here takes longer on a busy machine, unless it hangs.
_HANGS_S = 20.0


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one call came to.

    Attributes:
        response: The answer; None if there was none.
        error: Or why not; None with neither: it hung.
        events: What a stream gave.
        took_s: Seconds of real time.
        began_at: When it began, by the clock of all three.
        primary: What the primary saw meanwhile.
        fallback: What the fallback saw.
        permits: Connections that were held when it was over.
    """

    response: LLMResponse | None = None
    error: Exception | None = None
    events: tuple[StreamEvent, ...] = ()
    took_s: float
    began_at: datetime
    primary: tuple[Entry, ...]
    fallback: tuple[Entry, ...]
    permits: int


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """
    A scenario that was played.

    Attributes:
        scenario: Its name.
        mode: How the client was made.
        kind: How it was asked.
        calls: The call, and one after it; the twenty of FB15.
        sockets: Connections that are open at the end.
        unended: Requests that a provider still answers at the end.
    """

    scenario: str
    mode: Mode
    kind: Kind
    calls: tuple[Got, ...]
    sockets: int
    unended: int


async def play(
    scenario: str,
    mode: Mode,
    kind: Kind,
    *,
    breaker: Breaker | None = None,
    pauses: Sequence[float] | None = None,
    skip_bad_events: bool = False,
) -> Played:
    """
    Play a scenario: a call, and one more to see whether all is well afterwards.

    Args:
        scenario: For example "FB03".
        mode: Whether there is a fallback, and whether it rescues.
        kind: Whether the answer is streamed.
        breaker: Of the client.
        pauses: Seconds after each call; one call for each. None: as the scenario asks.
        skip_bad_events: Of the client.

    Returns:
        What everybody saw.
    """
    if pauses is None:
        pauses = [5.0] * 20 if scenario == "FB15" else [1.0] * 2
    clock = FakeClock(auto=True)
    line = HttpTransport()
    with providers(scenario, clock) as (primary, fallback):
        options = options_for(scenario, mode, primary, fallback)
        options |= {"breaker": breaker, "skip_bad_events": skip_bad_events}
        table = _Table(primary, fallback, clock, line)
        async with AsyncMistral(**options, clock=clock, transport=line) as client:
            calls = [await table.call(client, kind, pause_s) for pause_s in pauses]
        return Played(
            scenario=scenario,
            mode=mode,
            kind=kind,
            calls=tuple(calls),
            sockets=line.open_sockets,
            unended=await table.unended(),
        )


@contextmanager
def providers(scenario: str, clock: FakeClock) -> Iterator[tuple[Simulator, Simulator]]:
    """Start the primary and the fallback of a scenario, both at a client's time."""
    time = _TimeOf(clock)
    with (
        simulator(scenario=scenario, clock=time) as primary,
        simulator(scenario=f"{scenario}:fallback", clock=time) as fallback,
    ):
        yield primary, fallback


def options_for(
    scenario: str, mode: Mode, primary: Simulator, fallback: Simulator
) -> dict[str, Any]:
    """Give the options of a client, blocking or not."""
    return {
        "api_key": primary.api_key,
        "base_url": primary.base_url,
        "model": PRIMARY,
        "dice": FakeDice(DRAWS),
        "fallback": None if mode == "alone" else _fallback(fallback, scenario),
        "rescue": mode == "rescue",
        "timeouts": Timeouts(**_SHORT.get(scenario, {})),
    }


def _fallback(other: Simulator, scenario: str) -> Fallback:
    route = Route(base_url=other.base_url, api_key=other.api_key, model=FALLBACK)
    return Fallback([route], first_token_s=_FIRST_TOKEN_S.get(scenario, 12.0))


class _TimeOf(Clock):
    """
    The client's time, for a provider: who waits here waits until the provider's own is moved.

    So the journals tell how long the client waited between two requests, to the millisecond.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.get_running_loop().create_future()
        await turn()


class _Table:
    """Two providers and the clock of all, while calls are made."""

    def __init__(
        self, primary: Simulator, fallback: Simulator, clock: FakeClock, line: HttpTransport
    ) -> None:
        self._primary = primary
        self._fallback = fallback
        self._clock = clock
        self._line = line

    async def call(self, client: AsyncMistral, kind: Kind, pause_s: float) -> Got:
        seen = len(self._primary.journal), len(self._fallback.journal)
        loop = asyncio.get_running_loop()
        began_at, began_s = self._clock.now(), loop.time()
        events: list[StreamEvent] = []
        response: LLMResponse | None = None
        error: Exception | None = None
        try:
            async with asyncio.timeout(_HANGS_S):
                response = await self._ask(client, kind, events)
        except LoomError as failure:
            error = failure
        except TimeoutError:  # it hangs: there is neither
            pass
        except Exception as bug:  # noqa: BLE001 - the judge finds it
            error = bug
        got = Got(
            response=response,
            error=error,
            events=tuple(events),
            took_s=loop.time() - began_s,
            began_at=began_at,
            primary=self._primary.journal.entries(seen[0]),
            fallback=self._fallback.journal.entries(seen[1]),
            permits=self._line.permits_in_use,
        )
        self._clock.advance(pause_s)
        return got

    async def _ask(
        self, client: AsyncMistral, kind: Kind, events: list[StreamEvent]
    ) -> LLMResponse | None:
        asking = asyncio.ensure_future(_ask(client, kind, events))
        try:
            while not (await asyncio.wait([asking], timeout=_SHORT_S * 2))[0]:
                # Longer than any limit of the client: it waits for what the provider holds back.
                self._primary.clock.advance(20.0)
            return await asking
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def unended(self) -> int:
        """Requests that are still answered, once the providers saw their caller hang up."""
        for _ in range(100_000):
            if not self._unended():
                break
            await turn()
        return self._unended()

    def _unended(self) -> int:
        entries = [*self._primary.journal, *self._fallback.journal]
        return sum(entry.duration_s is None for entry in entries)


async def _ask(client: AsyncMistral, kind: Kind, events: list[StreamEvent]) -> LLMResponse | None:
    if kind == "chat":
        return await client.chat(PROMPT)
    async with client.stream(PROMPT) as stream:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error is kept
    last = events[-1]
    return last.response if type(last) is Completed else None

"""
Where a row of the fault matrix is put to the test: a client, a vendor, and what is left of a call.

A call is judged by what its caller got, by what came over the wire, and by what is held when it
is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from loom.core.ambient import SystemClock
from loom.core.errors import BudgetExceeded, LoomError
from loom.core.response import LLMResponse, Partial
from loom.core.timeline import Timeline
from loom.layers.breaker import Breaker
from loom.ledger.contract import Query
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger
from loom.server.hostile import HOSTILE_TASK, HostileServer, Script
from loom.testing.clock import FakeDice
from loom.testing.matrix_sight import HastyClock, Sight, limits

if TYPE_CHECKING:
    from loom.transport.http import HttpTransport

__all__ = ["CANARY", "MODEL", "PROMPT", "Bench", "Line", "Scene"]

CANARY = "canary-key-that-must-not-be-shown"
"""The key of every call: whoever finds it anywhere but on the socket has found a leak."""

MODEL = "mistral-small-latest"
PROMPT = "Explain looms in thirty words"

_MARK = "x-loom-matrix"
# After these nothing may be kept: the socket is in an unknown state, or was left.
_DROPPED = frozenset(
    {
        "cancelled",
        "left",
        "reply_too_large",
        "stream_stalled",
        "stream_truncated",
        "timeout",
        "unreachable",
    }
)


class Line:
    """
    A client with its transport, clock and breaker.

    Attributes:
        client: The client.
        transport: Its door.
        clock: Its clock.
        breaker: Its breaker; it opens only if the case brings its own.
        ledger: Its ledger.
        mark: Stands in a header of every request.
    """

    def __init__(
        self,
        client: Any,
        transport: HttpTransport,
        *,
        clock: HastyClock,
        breaker: Breaker,
        ledger: MemoryLedger,
        mark: str,
    ) -> None:
        self.client = client
        self.transport = transport
        self.clock = clock
        self.breaker = breaker
        self.ledger = ledger
        self.mark = mark
        self._tasks = asyncio.all_tasks()
        self._open = 0

    async def ask(self, *, stream: bool, prompt: str = PROMPT, **options: Any) -> LLMResponse:
        """
        Make a call and read its answer to the end.

        Args:
            stream: Whether it streams.
            prompt: What is asked.
            options: Of the call.

        Returns:
            The answer.
        """
        if not stream:
            response: LLMResponse = await self.client.chat(prompt, **options)
            return response
        async with self.client.stream(prompt, **options) as events:
            async for _ in events:
                pass
            streamed: LLMResponse = await events.final()
        return streamed

    async def rows(self) -> tuple[Entry, ...]:
        """The ledger's rows, the newest first."""
        return await self.ledger.entries(Query(newest_first=True))

    async def written(self) -> str:
        """
        What the ledger says of the last call that is over.

        Returns:
            The charges of its attempts, in turn; and what its row says else, if that is not so.
        """
        row = next(row for row in await self.rows() if row.state != "open")
        charges = "+".join(_in_turn([attempt.charge for attempt in row.attempts])) or "released"
        return charges if row.state in _states(row) else f"{charges}, and {row.state} as a whole"

    async def left_over(self, code: str, *, kept: int | None = None) -> tuple[str, ...]:
        """
        What is held after a call.

        Args:
            code: How it ended.
            kept: Sockets that may be kept for reuse; None: as the code says.

        Returns:
            A sentence for each thing that should not be.
        """
        most = kept if kept is not None else int(code not in _DROPPED)
        for _ in range(200):
            self._open = len(await self.ledger.entries(Query(states=("open",))))
            if self.transport.open_sockets <= most and not self._strays() and not self._open:
                break
            await SystemClock().sleep(0.005)
        held = {
            f"{self.transport.open_sockets} sockets are open": self.transport.open_sockets > most,
            f"{self.transport.permits_in_use} slots are taken": self.transport.permits_in_use > 0,
            f"{len(self._strays())} tasks run on": bool(self._strays()),
            f"{self.breaker.probes_held} probes are held": self.breaker.probes_held > 0,
            f"{self._open} rows are open": self._open > 0,
        }
        return tuple(text for text, wrong in held.items() if wrong)

    def failures(self) -> int:
        """How many failures the breaker counted."""
        states = self.breaker.states().values()
        return sum(bucket.failures for state in states for bucket in state.buckets)

    def _strays(self) -> set[asyncio.Task[Any]]:
        return {
            task
            for task in asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
            if not task.done() and task.get_name() != HOSTILE_TASK
        }


class Scene(NamedTuple):
    """
    One way to cause a row.

    Attributes:
        play: Causes it and looks; takes the bench and, by name, whether the call shall stream.
        both: Whether it is played both ways.
    """

    play: Callable[..., Awaitable[Sight]]
    both: bool = True


class Bench:
    """
    The simulator, and the makers of clients.

    Args:
        connect: Makes an `AsyncMistral`.
        connect_blocking: Makes a `Mistral`.
    """

    def __init__(self, connect: Callable[..., Any], connect_blocking: Callable[..., Any]) -> None:
        self.connect = connect
        self.connect_blocking = connect_blocking
        from loom.server.simulator import Simulator  # noqa: PLC0415 - brings a server

        self.simulator = Simulator(any_key=True)
        self._count = 0
        self._whole: LLMResponse | None = None

    @asynccontextmanager
    async def line(
        self,
        *,
        fault: str = "",
        base_url: str | None = None,
        short: str = "",
        proxy: str | None = None,
        max_connections: int = 1000,
        **options: Any,
    ) -> AsyncIterator[Line]:
        """
        Give a client, closed at the end.

        Args:
            fault: What the simulator does to its requests.
            base_url: Whom it asks; None: the simulator.
            short: The phase whose limit is short.
            proxy: Its proxy.
            max_connections: Its slots.
            options: Others of `AsyncMistral`.

        Yields:
            It, with what belongs to it.
        """
        from loom.transport.http import HttpTransport  # noqa: PLC0415 - heavy

        self._count += 1
        mark = str(self._count)
        clock: HastyClock = options.pop("clock", None) or HastyClock()
        breaker: Breaker = options.setdefault("breaker", Breaker(min_calls=1000))
        ledger: MemoryLedger = options.setdefault("ledger", MemoryLedger(clock=clock))
        transport = HttpTransport(
            max_connections=max_connections, proxy=proxy, provider_name="mistral"
        )
        headers = {_MARK: mark, **({"x-loom-fault": fault} if fault else {})}
        given = {
            "api_key": CANARY,
            "model": MODEL,
            "timeouts": limits(short),
            "dice": FakeDice(0.5),
            "headers": headers,
            **options,
        }
        client = self.connect(
            base_url=base_url or self.simulator.base_url,
            transport=transport,
            clock=clock,
            **given,
        )
        try:
            yield Line(client, transport, clock=clock, breaker=breaker, ledger=ledger, mark=mark)
        finally:
            await client.aclose()

    @asynccontextmanager
    async def against(
        self,
        script: Script,
        *,
        tls: Any = None,
        secure: bool = False,
        **options: Any,
    ) -> AsyncIterator[tuple[HostileServer, Line]]:
        """
        Give a hostile server and a client that asks it.

        Args:
            script: What happens to each connection.
            tls: The server's side of TLS.
            secure: Whether the client speaks TLS in any case.
            options: As those of `line`.

        Yields:
            Both.
        """
        async with HostileServer(script, tls=tls) as server:
            address = server.base_url
            if secure:
                address = address.replace("http:", "https:")
            async with self.line(base_url=address, **options) as line:
                yield server, line

    def wire(self, line: Line) -> int:
        """How many requests of a client reached the simulator."""
        return sum(entry.headers.get(_MARK) == line.mark for entry in self.simulator.journal)

    async def whole(self) -> LLMResponse:
        """The answer that comes without a fault."""
        if self._whole is None:
            async with self.line() as line:
                self._whole = await line.ask(stream=False)
        return self._whole

    async def sight(
        self,
        line: Line,
        *,
        stream: bool,
        wire: Callable[[], int] | None = None,
        kept: int | None = None,
        **options: Any,
    ) -> Sight:
        """
        Make a call and look at it from all sides.

        Args:
            line: The client.
            stream: Whether it streams.
            wire: Counts the requests that a vendor other than the simulator read.
            kept: Sockets that may be kept; None: as the outcome says.
            options: Of the call.

        Returns:
            What was seen.
        """
        loop = asyncio.get_running_loop()
        began_s, failures = loop.time(), line.failures()
        rows = len(await line.rows())
        try:
            response = await line.ask(stream=stream, **options)
        except LoomError as error:
            took_s = loop.time() - began_s
            seen = self._failed(error)
        else:
            took_s = loop.time() - began_s
            seen = Sight(
                code="",
                attempts=response.attempts,
                charge=_charges(response.timeline),
                response=response,
            )
        count = self.wire(line) if wire is None else wire()
        seen = msgspec.structs.replace(seen, wire=count, took_s=took_s)
        if line.failures() >= failures:  # it forgets them when it opens
            seen = msgspec.structs.replace(seen, failures=line.failures() - failures)
        if kept is None and seen.error is not None and _answered(seen.error):
            kept = 1  # a whole reply, if a bad one
        new = len(await line.rows()) - rows
        written = await line.written() if new else "released"
        # Who is refused by a budget was never accepted, and has no row.
        refused = isinstance(seen.error, BudgetExceeded)
        return seen.but(
            new != int(not refused) and f"the ledger has {new} rows of it",
            seen.charge not in (None, written) and f"the ledger says {written}",
            *await line.left_over(seen.code, kept=kept),
        )

    def _failed(self, error: LoomError) -> Sight:
        seen = Sight(
            code=error.code,
            phase=error.phase or "",
            attempts=error.attempts,
            charge=_charges(error.timeline),
            error=error,
        )
        told = f"{error!r} {error} {error.explain(curl=True)} {error.__dict__}"
        return seen.but(
            CANARY in told and "the error shows the key",
            error.__cause__ is not None and "the error has a foreign cause",
        )

    async def partial(self, partial: Partial | None) -> tuple[str, ...]:
        """
        Whether what came of a broken answer is the beginning of the whole one.

        Args:
            partial: What came.

        Returns:
            What is wrong with it.
        """
        text = "" if partial is None else partial.text
        whole = await self.whole()
        if not text:
            return ("what came is not in `.partial`",)
        return () if whole.content.startswith(text) else ("`.partial` is not what came",)


def _answered(error: LoomError) -> bool:
    """Whether a whole reply came that says why."""
    attempts = () if error.timeline is None else error.timeline.attempts
    return bool(attempts) and attempts[-1].status not in (None, 200)


def _charges(timeline: Timeline | None) -> str | None:
    if timeline is None:
        return None
    # Where nothing was tried, nothing is charged.
    return "+".join(_in_turn([attempt.charge for attempt in timeline.attempts])) or "released"


def _in_turn(kinds: Sequence[str]) -> list[str]:
    return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]


def _states(row: Entry) -> tuple[str, ...]:
    """What a row may be as a whole, by its attempts."""
    charges = {attempt.charge for attempt in row.attempts}
    if not row.code:
        return (row.attempts[-1].charge,)
    if "estimated" in charges:
        return ("estimated",)
    return ("uncertain",) if "unknown" in charges else ("released",)

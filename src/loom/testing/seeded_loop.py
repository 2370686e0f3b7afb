"""
An event loop without a machine: time jumps to the next timer, the network is in memory.

It is asyncio's own loop: only what asks the operating system is replaced. So tasks, timeouts and
cancellations behave as they do outside, and aiohttp runs on it unmodified.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from loom.core.ambient import Clock, SystemClock
from loom.testing.cancel import _place
from loom.testing.chance import Chance
from loom.testing.seeded_line import Line, Weather
from loom.testing.seeded_network import Network

__all__ = ["Deadlock", "LoopClock", "SeededLoop"]

# Not 0: code that takes a time of 0 for "not set" shall fail.
_START_S = 1000.0
# As `FakeClock`: the reference page's month.
_START = datetime(2024, 11, 15, 12, tzinfo=UTC)
# A call takes some hundred turns; whatever takes so many spins.
_MOST_TURNS = 1_000_000


class Deadlock(AssertionError):
    """Nothing is ready, no timer runs, and tasks wait: they would wait for ever."""


class _Numbered(asyncio.Future[Any]):
    """
    A future that is hashed by its number.

    aiohttp keeps who waits for a name in a set. Hashed by their address in memory, they would be
    woken in another order in each run.
    """

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class SeededLoop(asyncio.BaseEventLoop):
    """
    A loop with virtual time and a network in memory.

    Use it with `asyncio.Runner(loop_factory=lambda: SeededLoop(7))`. What would need a thread
    runs at once, in its place.

    Args:
        chance: Draws latencies and cuts; a number is a seed.
        weather: What the network is like.
        most_turns: Turns after which it is taken to spin.

    Attributes:
        network: Its network.
        turns: Turns so far.
    """

    def __init__(
        self,
        chance: Chance | int = 0,
        *,
        weather: Weather = Weather(),  # noqa: B008 - a frozen value
        most_turns: int = _MOST_TURNS,
    ) -> None:
        super().__init__()
        self.turns = 0
        self.network = Network(self, Chance(chance) if isinstance(chance, int) else chance, weather)
        self._now_s = _START_S
        self._most_turns = most_turns
        self._futures = 0
        self._at_turn: dict[int, list[Callable[[], object]]] = {}
        # What the base class asks once in a turn.
        self._selector = self
        # Set by the base class; named for the type checker.
        self._ready: Iterable[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        """Virtual seconds; the first is 1000."""
        return self._now_s

    @property
    def timers(self) -> int:
        """Timers that will still ring."""
        return sum(not timer.cancelled() for timer in self._scheduled)

    def at_turn(self, turn: int, callback: Callable[[], object]) -> None:
        """
        Call something when a turn begins.

        Times of the clock lie between the turns in which things happen; a turn hits one.

        Args:
            turn: Which, counted from the first.
            callback: What to call.
        """
        self._at_turn.setdefault(turn, []).append(callback)

    def close(self) -> None:
        """Close the loop, and every socket that its network was given."""
        super().close()
        self.network.shut()

    def select(self, timeout: float | None) -> tuple[()]:
        """
        Let time pass until something is due; the base class calls it.

        Args:
            timeout: Seconds until the next timer; None if there is none.

        Raises:
            Deadlock: If nothing will ever be due.
            AssertionError: If there were too many turns.
        """
        self.turns += 1
        if self.turns > self._most_turns:
            raise AssertionError(f"no end after {self._most_turns} turns: {self._waiting()}")
        for callback in self._at_turn.pop(self.turns, ()):
            callback()
        if timeout is None and not self._ready:
            raise Deadlock(f"nothing will ever happen: {self._waiting()}")
        if timeout and not self._ready:
            self._now_s = self._scheduled[0].when()
        return ()

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future whose place in a set is the same in each run."""
        self._futures += 1
        return _Numbered(self._futures, self)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect in memory; the socket itself stays unconnected."""
        _follow_virtual_time()
        await self.network.connect(sock, address)

    async def getaddrinfo(self, host: Any, port: Any, **_hints: Any) -> list[tuple[Any, ...]]:
        """Look a name up among those of the network."""
        _follow_virtual_time()
        return await self.network.look_up(host, port)

    def run_in_executor(  # type: ignore[override] # it takes whatever a pool of threads takes
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run it now and here, and tell it a turn later: no seed repeats a thread."""
        del executor
        done = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to who waits for it
            self.call_soon(_settle, done, None, error)
        else:
            self.call_soon(_settle, done, result, None)
        return done

    def call_soon_threadsafe(  # type: ignore[override] # the stub has type variables of 3.11
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """
        Call soon, from this thread.

        Raises:
            RuntimeError: From another one.
        """
        running = getattr(self, "_thread_id", None)
        if running is not None and running != threading.get_ident():
            _no_threads()
        return self.call_soon(callback, *args, context=context)

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        **_more: Any,
    ) -> Line:
        return self.network.open(sock, protocol, waiter)

    def _make_ssl_transport(self, *_args: Any, **_more: Any) -> NoReturn:
        raise OSError("there is no TLS in memory: use http:// and a loopback name")

    def _process_events(self, event_list: object) -> None:
        """Do nothing: what happens, happens by timers."""

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "; ".join(f"{t.get_name()} at {_place(t.get_coro())}" for t in tasks) or "no task"


class LoopClock(Clock):
    """
    The clock of a seeded loop, with a wall clock that jumps.

    Args:
        loop: Whose.
        start: The wall clock's first time, with a time zone.
    """

    def __init__(self, loop: SeededLoop, start: datetime = _START) -> None:
        self._loop = loop
        self._offset = start - timedelta(seconds=loop.time())

    def now(self) -> datetime:
        """The wall clock, UTC."""
        return (self._offset + timedelta(seconds=self._loop.time())).astimezone(UTC)

    def monotonic_s(self) -> float:
        """The loop's time."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the loop; at least for a turn."""
        done = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, seconds), _finish, done)
        try:
            await done
        finally:
            timer.cancel()

    def jump(self, seconds: float) -> None:
        """
        Set the wall clock; nothing that waits notices.

        Args:
            seconds: How far; negative for back.
        """
        self._offset += timedelta(seconds=seconds)


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _no_threads() -> NoReturn:
    raise RuntimeError("a seeded loop takes nothing from another thread: no seed would repeat it")


_machine = SystemClock()


def _monotonic() -> float:
    loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises when there is none
    return loop.time() if isinstance(loop, SeededLoop) else _machine.monotonic_s()


def _follow_virtual_time() -> None:
    # aiohttp asks the machine, and not its loop, how long it kept a socket or an address. On any
    # other loop than a seeded one nothing changes for it.
    library = sys.modules.get("aiohttp.connector")
    if library is not None:
        library.__dict__["monotonic"] = _monotonic

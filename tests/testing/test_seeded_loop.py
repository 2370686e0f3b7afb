"""The loop without a machine: time jumps, the network is in memory, and both can fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any

import pytest

from loom.core.errors import TimedOut, Unreachable
from loom.core.request import Timeouts
from loom.testing import Chance, Deadlock, Fate, Host, Line, LoopClock, SeededLoop, Weather, turn
from loom.transport.contract import HttpRequest
from loom.transport.http import HttpTransport

Main = Callable[[SeededLoop], Coroutine[Any, Any, object]]


def run(main: Main, *, seed: int = 1, **options: Any) -> SeededLoop:
    loop = SeededLoop(seed, **options)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
    return loop


class End(asyncio.Protocol):
    """Keeps what it is told."""

    line: Line

    def __init__(self) -> None:
        self.data = b""
        self.pieces = 0
        self.told: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Line)
        self.line = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc


async def connected(loop: SeededLoop) -> tuple[End, End]:
    """Give both ends of a connection, the client's first."""
    far = End()
    loop.network.hosts["127.0.0.2"] = Host(accept=lambda: far, fate=lambda: "accept")
    _, near = await loop.create_connection(End, "127.0.0.2", 80)
    await turn(2)
    return near, far


def test_an_hour_takes_no_time() -> None:
    """Nobody waits: the time jumps to the next timer, and exactly there."""

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        await clock.sleep(3600)
        assert 4600 == clock.monotonic_s()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1800):
                await loop.create_future()
        assert 6400 == loop.time()

    run(main)


def test_the_wall_clock_jumps_alone() -> None:
    """A jump of the wall clock moves no timer and no monotonic second."""

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        before = clock.now()
        clock.jump(-7200)
        await clock.sleep(1)
        assert timedelta(seconds=-7199) == clock.now() - before
        assert 1001 == clock.monotonic_s()

    run(main)


def test_a_deadlock_names_who_waits() -> None:
    """Where nothing will ever happen, the error says which task waits, and where."""

    async def stuck(loop: SeededLoop) -> None:
        await loop.create_future()

    async def main(loop: SeededLoop) -> None:
        await loop.create_task(stuck(loop), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one at test_a_deadlock.*stuck \("):
        run(main)


def test_a_loop_that_spins_is_stopped() -> None:
    """Turns without end are an error, not a test that hangs."""

    async def main(_loop: SeededLoop) -> None:
        while True:
            await turn()

    with pytest.raises(AssertionError, match="no end after 500 turns"):
        run(main, most_turns=500)


def test_something_can_be_done_at_a_turn() -> None:
    """A turn that was named is the one at which the callback comes."""
    turns: list[int] = []

    async def main(loop: SeededLoop) -> None:
        loop.at_turn(loop.turns + 5, lambda: turns.append(loop.turns))
        begin = loop.turns
        await turn(10)
        assert [begin + 5] == turns

    run(main)


def test_a_thread_is_run_in_place() -> None:
    """What asks for a thread runs at once in this one; its result and its error come back."""

    async def main(_loop: SeededLoop) -> None:
        assert threading.get_ident() == await asyncio.to_thread(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        cancelled = asyncio.create_task(asyncio.to_thread(int))
        await turn()
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()

    run(main)


def test_another_thread_is_refused() -> None:
    """A callback from another thread would come at a moment that no seed repeats."""
    raised: list[Exception] = []

    async def main(loop: SeededLoop) -> None:
        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        loop.call_soon_threadsafe(raised.append, ValueError())
        await turn(2)

    run(main)

    assert [RuntimeError, ValueError] == [type(error) for error in raised]


def test_bytes_arrive_in_order_however_cut() -> None:
    """Cut and late, the bytes of both directions arrive whole and in order."""

    async def main(loop: SeededLoop) -> None:
        near, far = await connected(loop)
        text = bytes(range(256)) * 20
        for start in range(0, len(text), 500):
            near.line.write(text[start : start + 500])
            far.line.writelines([b"", text[start : start + 500]])
        near.line.write_eof()
        await LoopClock(loop).sleep(10)
        assert (text, text) == (near.data, far.data)
        assert far.pieces > 11
        assert ["made", "eof", "lost"] == far.told
        assert [] == loop.network.open_lines
        assert 0 == loop.network.open_sockets

    loop = run(main, weather=Weather(shredded=1.0))

    assert loop.time() > 1010


def test_a_small_window_stops_the_writer() -> None:
    """What the peer does not read waits at the writer, who is told to pause and to go on."""

    async def main(loop: SeededLoop) -> None:
        near, far = await connected(loop)
        clock = LoopClock(loop)
        near.line.set_write_buffer_limits(high=1000)
        far.line.pause_reading()
        near.line.write(b"x" * 5000)
        await clock.sleep(5)
        assert ["made", "pause"] == near.told
        assert 4900 == near.line.get_write_buffer_size()
        assert not far.line.is_reading()
        assert b"" == far.data
        far.line.resume_reading()
        await clock.sleep(50)
        assert ["made", "pause", "resume"] == near.told
        assert 5000 == len(far.data)
        near.line.abort()
        await clock.sleep(1)

    run(main, weather=Weather(windows_bytes=(100,)))


def test_close_sends_what_waits_and_abort_drops_it() -> None:
    """`close` keeps the connection until everything has left; `abort` does not."""

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        near, far = await connected(loop)
        near.line.write(b"x" * 5000)
        near.line.close()
        near.line.close()
        assert near.line.is_closing()
        near.line.write(b"too late")
        await clock.sleep(50)
        assert 5000 == len(far.data.rstrip(b"too late"))

        near, far = await connected(loop)
        near.line.write(b"x" * 5000)
        near.line.abort()
        await clock.sleep(50)
        assert 100 == len(far.data)
        assert [] == loop.network.open_lines

    run(main, weather=Weather(windows_bytes=(100,)))


def test_a_reset_is_an_error_at_the_other_end() -> None:
    """A reset ends the peer with `ConnectionResetError`, and so does writing to who has gone."""

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        near, far = await connected(loop)
        far.line.reset()
        far.line.reset()
        await clock.sleep(1)
        assert isinstance(near.error, ConnectionResetError)
        assert far.error is None

        near, far = await connected(loop)
        near.line.abort()
        far.line.write(b"is anybody there?")
        await clock.sleep(1)
        assert isinstance(far.error, ConnectionResetError)

        near, far = await connected(loop)
        near.line.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            near.line.write(b"more")

    run(main)


def test_a_protocol_that_fails_ends_its_connection() -> None:
    """An error in a protocol is told to the loop, and the connection is closed with it."""
    told: list[str] = []

    class Broken(End):
        def data_received(self, data: bytes) -> None:
            raise ValueError("not understood")

    async def main(loop: SeededLoop) -> None:
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        loop.network.hosts["127.0.0.2"] = Host(accept=Broken, fate=lambda: "accept")
        line, _ = await loop.create_connection(End, "127.0.0.2", 80)
        line.write(b"x")
        await LoopClock(loop).sleep(1)
        assert [] == loop.network.open_lines

    run(main)

    assert ["a protocol failed"] == told


def test_nobody_listens() -> None:
    """An address without a host, a host that refuses, a name without address, TLS: all errors."""

    async def main(loop: SeededLoop) -> None:
        host = Host(accept=End, fate=lambda: "refuse")
        loop.network.hosts["127.0.0.2"] = host
        for address in ("127.0.0.2", "127.0.0.3"):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(End, address, 80)
        with pytest.raises(OSError, match="not known"):
            await loop.create_connection(End, "nobody.localhost", 80)
        await connected(loop)
        with pytest.raises(OSError, match="no TLS"):
            await loop.create_connection(End, "127.0.0.2", 443, ssl=True)

    run(main)


class Vendor(End):
    """Answers each request with the number of its connection."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Vendor.made += 1
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % Vendor.made

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.data.endswith(b"\r\n\r\n"):
            self.data = b""
            self.line.write(self.answer)


def request(**timeouts: float) -> HttpRequest:
    return HttpRequest(method="GET", url="http://v.localhost/", timeouts=Timeouts(**timeouts))


async def asked(transport: HttpTransport) -> bytes:
    async with transport.open(request()) as reply:
        return await reply.read()


def test_the_real_transport_runs_on_it() -> None:
    """aiohttp keeps a socket for 15 virtual seconds, and closes it then: it follows the loop."""
    Vendor.made = 0

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        loop.network.hosts["127.0.0.2"] = Host(accept=Vendor, fate=lambda: "accept")
        loop.network.names["v.localhost"] = lambda: ["127.0.0.2"]
        transport = HttpTransport()
        assert b"1" == await asked(transport)
        await clock.sleep(14)
        assert b"1" == await asked(transport)
        await clock.sleep(40)
        assert 0 == transport.open_sockets
        assert b"2" == await asked(transport)
        await transport.aclose()
        await clock.sleep(1)
        assert [] == loop.network.open_lines
        assert 0 == loop.network.open_sockets
        assert 0 == loop.timers

    run(main)


def test_the_real_transport_fails_on_it() -> None:
    """A connection that never stands is a time limit, one that is refused an unreachable vendor."""

    async def main(loop: SeededLoop) -> None:
        fates: Iterator[Fate] = iter(("hang", "refuse"))
        loop.network.hosts["127.0.0.2"] = Host(accept=Vendor, fate=lambda: next(fates))
        loop.network.names["v.localhost"] = lambda: ["127.0.0.2"]
        transport = HttpTransport()
        with pytest.raises(TimedOut) as hung:
            async with transport.open(request(connect_s=3.0)):
                pass
        assert "connect" == hung.value.phase
        assert 3.0 == pytest.approx(loop.time() - 1000, abs=0.001)
        with pytest.raises(Unreachable) as refused:
            async with transport.open(request()):
                pass
        assert "connect" == refused.value.phase
        await transport.aclose()

    run(main)


def test_chance_repeats() -> None:
    """One seed gives the same draws of every kind, and a fork has draws of its own."""

    def draws(chance: Chance) -> list[object]:
        return [
            chance.happens(0.5),
            chance.between(2, 3),
            chance.whole(1, 6),
            chance.pick("abc"),
            chance.weighted({"x": 1, "y": 2}),
        ]

    def all_draws() -> list[object]:
        chance = Chance(7)
        fork = chance.fork()
        return draws(chance) + draws(fork)

    assert all_draws() == all_draws()
    assert {1, 2, 3, 4, 5, 6} == {Chance(n).whole(1, 6) for n in range(100)}
    assert {"x", "y"} == {Chance(n).weighted({"x": 1, "y": 2}) for n in range(100)}

"""Loops that come and go, threads, forks, and clients that nobody closes."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.transport.hostile import (
    STREAM_HEAD,
    Peer,
    Server,
    authority,
    request,
    serve_in_thread,
    server_tls,
)

from loom.testing import turn
from loom.transport.http import HttpTransport

# More than the kernel takes on both sides of a socket that nobody reads.
BIG = 1 << 25


async def plain(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer()


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")
    await peer.gone()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve_in_thread(plain) as running:
        yield running


async def call(transport: HttpTransport, url: str, **options: object) -> bytes:
    async with transport.open(request(url, **options)) as reply:
        return await reply.read()


def test_three_runs_in_a_row(server: Server) -> None:
    """Each `asyncio.run` has its own sockets, and they are closed when it ends."""
    transport = HttpTransport()
    for run in (1, 2, 3):
        assert b"{}" == asyncio.run(call(transport, server.url))
        assert (run, 0) == (server.accepted, transport.open_sockets)
        server.wait_closed()
    asyncio.run(transport.aclose())
    gc.collect()


def test_a_run_that_ends_with_open_streams() -> None:
    """What is under way when the loop ends is closed with it, TLS or not."""
    transport = HttpTransport()

    async def leave_open(url: str) -> None:
        started = asyncio.Event()

        async def hold() -> None:
            async with transport.open(request(url, stream=True)) as reply:
                async for _ in reply.chunks():
                    started.set()

        task = asyncio.ensure_future(hold())
        await started.wait()
        assert not task.done()

    with serve_in_thread(endless) as running:
        asyncio.run(leave_open(running.url))
        assert (0, 0) == (transport.open_sockets, transport.permits_in_use)
        running.wait_closed()
    gc.collect()


@pytest.mark.parametrize("secure", [True, False])
def test_a_loop_that_is_closed_without_its_generators(tmp_path: Path, secure: bool) -> None:  # noqa: FBT001 - parametrized
    """Sockets of such a loop are closed when the transport is used or closed next."""
    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(ca))
    transport = HttpTransport(ca_file=str(ca))
    with serve_in_thread(plain, server_tls() if secure else None) as running:
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(call(transport, running.url))
            loop.close()
            assert 1 == transport.open_sockets
        asyncio.run(transport.aclose())
        assert (2, 0) == (running.accepted, transport.open_sockets)
        running.wait_closed()
    gc.collect()


def test_collected_after_its_loop(server: Server) -> None:
    """A transport that is collected closes what closed loops left."""
    transport = HttpTransport()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(call(transport, server.url))
    loop.close()
    del transport
    gc.collect()
    server.wait_closed()


def test_collected_while_its_loop_runs(server: Server) -> None:
    """A transport that nobody closes is closed by the loop once it is collected."""

    async def use_and_forget() -> None:
        await call(HttpTransport(), server.url)
        gc.collect()
        await asyncio.to_thread(server.wait_closed)

    asyncio.run(use_and_forget())
    gc.collect()


def test_a_stopped_loop(server: Server) -> None:
    """A loop that does not run now closes its sockets when it runs again."""
    transport = HttpTransport()
    with asyncio.Runner() as runner:
        runner.run(call(transport, server.url))
        done = threading.Thread(target=asyncio.run, args=(transport.aclose(),))
        done.start()
        done.join()
        assert 0 == transport.open_sockets
    server.wait_closed()
    gc.collect()


def test_several_threads(server: Server) -> None:
    """Loops on several threads have their own sockets and share the transport."""
    transport = HttpTransport()
    ready = threading.Barrier(4)
    bodies: list[bytes] = []

    async def calls() -> None:
        bodies.extend([await call(transport, server.url) for _ in range(20)])
        await asyncio.to_thread(ready.wait)
        assert 4 == transport.open_sockets
        await asyncio.to_thread(ready.wait)

    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([b"{}"] * 80, 4) == (bodies, server.accepted)
    assert 0 == transport.open_sockets
    server.wait_closed()
    asyncio.run(transport.aclose())


def test_closed_from_another_thread() -> None:
    """A call that is under way in another loop ends with an error, and its socket is closed."""
    transport = HttpTransport()
    started = threading.Event()
    errors: list[BaseException] = []

    async def hold(url: str) -> None:
        try:
            async with transport.open(request(url, stream=True)) as reply:
                async for _ in reply.chunks():
                    started.set()
        except RuntimeError as error:
            errors.append(error)

    with serve_in_thread(endless) as running:
        thread = threading.Thread(target=asyncio.run, args=(hold(running.url),))
        thread.start()
        assert started.wait(10)
        asyncio.run(transport.aclose())
        thread.join(10)
        assert not thread.is_alive()
        running.wait_closed()
    assert ["the transport was closed during the call"] == [str(error) for error in errors]


def test_closed_twice_and_used_after(server: Server) -> None:
    """Closing again does nothing; using it again is a mistake that is named."""
    transport = HttpTransport()

    async def run() -> None:
        await call(transport, server.url)
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await call(transport, server.url)
        assert (0, 0) == (transport.open_sockets, transport.permits_in_use)

    asyncio.run(run())
    asyncio.run(transport.aclose())


def test_closed_while_calls_wait() -> None:
    """Whoever waits for headers, uploads, or waits for a slot hears of it at once."""

    async def silent(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.server.released.wait()

    async def run(url: str) -> None:
        transport = HttpTransport(max_connections=2)
        tasks = [
            asyncio.ensure_future(call(transport, url, body=b"x" * size)) for size in (1, BIG, 1)
        ]
        while transport.open_sockets < 2 or running.accepted < 2:
            await asyncio.wait(tasks, timeout=0)
        await transport.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [RuntimeError] * 3 == [type(result) for result in results]
        assert (0, 0) == (transport.open_sockets, transport.permits_in_use)

    with serve_in_thread(silent) as running:
        asyncio.run(asyncio.wait_for(run(running.url), timeout=10))
        running.release()


def test_closed_while_a_reply_is_held() -> None:
    """An upload that stalls behind a reply that nobody reads does not hold up closing."""

    async def early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(STREAM_HEAD)
        await peer.server.released.wait()

    async def run(url: str) -> None:
        transport = HttpTransport()
        async with transport.open(request(url, body=b"x" * BIG)) as reply:
            (wire,) = next(iter(transport._homes.values())).pool.wires
            while not wire.writing_paused:  # type: ignore[attr-defined] # of the library's
                await turn()
            await transport.aclose()
            assert 0 == transport.open_sockets
            with pytest.raises(RuntimeError, match="closed"):
                await reply.read()

    with serve_in_thread(early) as running:
        asyncio.run(asyncio.wait_for(run(running.url), timeout=10))
        running.release()


def test_ten_thousand_are_nothing_until_used() -> None:
    """Making and closing one opens nothing."""

    async def run() -> None:
        for _ in range(10_000):
            await HttpTransport().aclose()

    asyncio.run(run())


FORK = """
    import asyncio, os, sys, warnings
    from loom.transport.contract import HttpRequest
    from loom.transport.http import HttpTransport

    url, ca = sys.argv[1:]
    transport = HttpTransport(ca_file=ca)

    async def call():
        async with transport.open(HttpRequest(url=url, body=b"{}")) as reply:
            return await reply.read()

    runner = asyncio.Runner()
    assert b"{}" == runner.run(call())
    if not (child := os.fork()):
        # The parent's socket is neither used nor closed here.
        assert 0 == transport.open_sockets or transport._pid != os.getpid()
        assert b"{}" == asyncio.run(call())
        asyncio.run(transport.aclose())
        os._exit(0)
    assert 0 == os.waitpid(child, 0)[1]
    assert b"{}" == runner.run(call())
    assert 1 == transport.open_sockets
    if not (child := os.fork()):
        # A child that never uses it, and ends as a program does. That it leaves the loop that
        # it inherited unclosed is its own affair.
        warnings.simplefilter("ignore")
        sys.exit(0)
    assert 0 == os.waitpid(child, 0)[1]
    assert b"{}" == runner.run(call())
    runner.run(transport.aclose())
    runner.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_after_a_fork(tmp_path: Path) -> None:
    """The child opens its own socket; the parent's goes on, TLS state and all."""
    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(ca))
    with serve_in_thread(plain, server_tls()) as running:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(FORK), running.url, str(ca)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
        assert (2, 4) == (running.accepted, len(running.requests))


EXIT = """
    import asyncio, sys, threading
    from loom.transport.contract import HttpRequest
    from loom.transport.http import HttpTransport

    url = sys.argv[1]
    transport = HttpTransport()
    open_one = threading.Event()

    async def hold():
        async with transport.open(HttpRequest(url=url, stream=True)) as reply:
            async for _ in reply.chunks():
                open_one.set()

    threading.Thread(target=asyncio.run, args=(hold(),), daemon=True).start()
    open_one.wait(10)
"""


def test_an_interpreter_that_ends_with_an_open_stream() -> None:
    """It ends at once and says nothing."""
    with serve_in_thread(endless) as running:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(EXIT), running.url],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_importing_it_loads_no_library() -> None:
    """The HTTP library is loaded by the first call."""
    code = (
        "import sys, loom.transport.http as h; h.HttpTransport(); print('aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert "False\n" == done.stdout

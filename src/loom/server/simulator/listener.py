"""
An ASGI server in a thread of this process, on loopback.

uvicorn's own way to stop waits in steps of 0.1 s and logs what it cancels; a simulator inside a
user's program stops at once and says nothing.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid
from loom.server.simulator.fault_wire import door_protocol

if TYPE_CHECKING:
    from uvicorn import Server

__all__ = ["HOST", "Listener", "listen"]

HOST = "127.0.0.1"

# Longer than any client of ours keeps an idle connection, so that the client closes first.
_KEEP_ALIVE_S = 75
# uvicorn's own number.
_BACKLOG = 2048
# uvicorn renews the date header in this step.
_TICK_S = 1.0
# Turns of the loop that a cancelled request may take; each needs two or three.
_LAST_TURNS = 200


def listen(port: int) -> socket.socket:
    """
    A listening socket on loopback.

    Args:
        port: 0 lets the kernel choose.

    Returns:
        The socket; whoever asked for it closes it.

    Raises:
        ConfigInvalid: If the port is in use or not allowed; the message names it.
    """
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it every plain
    # answer, sent as head and body, waits 40 ms for the caller's delayed acknowledgement.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # As every server: a port whose last connections still wait is free again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigInvalid(
            f"cannot listen on {HOST}:{port}: {reason}",
            hint="Choose another port, or port 0 for a free one.",
        ) from None
    return sock


class Listener:
    """
    Serves an application from a thread until it is stopped.

    Args:
        make_app: Makes the application, in the server's thread.
        port: 0 lets the kernel choose.
    """

    def __init__(self, make_app: Callable[[], Any], port: int) -> None:
        self._make_app = make_app
        self._socket = listen(port)
        self.port: int = self._socket.getsockname()[1]
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._stop: Callable[[], None] | None = None
        # A daemon: an interpreter that ends joins the others before any exit handler runs, and
        # so would never come to stop this one.
        self._thread = threading.Thread(target=self._run, name="loom-simulator", daemon=True)

    def start(self) -> None:
        """
        Serve; returns when a request would be answered.

        Raises:
            BaseException: Whatever kept the server from starting.
        """
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            self._thread.join()
            self._socket.close()
            raise self._problem

    def stop(self) -> None:
        """Drop every connection and end the thread; safe to call twice and from any thread."""
        if self._stop is not None:
            self._stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """In a forked child: close the copy of the socket; the thread is the parent's."""
        self._socket.close()

    def _run(self) -> None:
        try:
            server, loop_factory = _make_server(self._make_app(), self._serving)
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(server.serve(sockets=[self._socket]))
        except BaseException as error:  # noqa: BLE001 - the thread's end; `start` raises it
            self._problem = error
        finally:
            self._ready.set()

    def _serving(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._ready.set()


def _make_server(
    app: Any, serving: Callable[[Callable[[], None]], None]
) -> tuple[Server, Callable[[], asyncio.AbstractEventLoop] | None]:
    import uvicorn  # noqa: PLC0415 - start-up time

    class Quick(uvicorn.Server):
        """Starts and stops without waiting, and without a word."""

        async def main_loop(self) -> None:
            loop = asyncio.get_running_loop()
            stopped = asyncio.Event()

            def stop() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(stopped.set)

            serving(stop)
            waiting = asyncio.ensure_future(stopped.wait())
            while not waiting.done():
                await self.on_tick(0)
                await asyncio.wait({waiting}, timeout=_TICK_S)

        async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
            await _drop_everything(self, sockets or ())

    config = uvicorn.Config(
        app,
        http=door_protocol(),
        log_config=None,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        server_header=False,
        proxy_headers=False,
    )
    return Quick(config), config.get_loop_factory()


async def _drop_everything(server: Server, sockets: Sequence[socket.socket]) -> None:
    for each in server.servers:
        each.close()
    for sock in sockets:
        sock.close()
    # Whoever answers sees that its caller is gone, and ends by itself.
    state = server.server_state
    for connection in list(state.connections):
        connection.transport.abort()
    turns = 0
    while (state.connections or state.tasks) and turns < _LAST_TURNS:
        turns += 1
        await SystemClock().sleep(0)

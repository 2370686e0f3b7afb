"""
The gateway as a process: its socket, its signals, its end.

The order of the end: not ready, no new connections, what runs may finish, what still runs gets an
error in its own stream, the ledger is written, exit 0. A second signal skips the waiting.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ConfigInvalid, LoomError, ServiceUnavailable
from loom.server.gateway.door import Door
from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.process import Signals, listen, rarely_collected
from loom.server.gateway.readiness import Readiness
from loom.server.gateway.refusals import MakeReply, reply_in_dialect

if TYPE_CHECKING:
    from uvicorn.server import ServerState

__all__ = ["MOST_DRAIN_S", "GatewayServer", "refuse_workers"]

MOST_DRAIN_S = 900.0
"""How long running requests may be waited for at most, in seconds."""

_log = logging.getLogger("loom.server")

_INSTALL = "pip install 'looms[server]'"
_INTERRUPTED = 130
# uvicorn's own number.
_BACKLOG = 2048
# How long a request that was cut may take to write its row, and what it has to say to be read.
_LAST_S = 5.0
_FLUSH_S = 1.0
_LEDGER_S = 20.0
_LAST_TURNS = 5
# Ten thousand at once would hold everybody else up for 10 ms.
_LOOKED_AT_ONCE = 256

_HEADERS = [
    ("server", "looms"),  # no version: it would tell whom to attack
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
]

_Async: TypeAlias = Callable[[], Awaitable[Any]]


async def _nothing() -> None:
    pass


class GatewayServer:
    """
    Serves an application until a signal stops it.

    It prints nothing: what there is to be told goes to the log `loom.server`.

    Args:
        app: The ASGI application.
        host: Where to listen: an address or a name.
        port: 0 lets the kernel choose.
        limits: Of the door.
        drain_s: How long running requests may go on after the signal, in seconds, 0 to 900.
        readiness: Told of each change; None: one of its own.
        reply: Makes the reply to what is refused at the door.
        opening: Done before it listens; what it raises, `run` raises.
        closing: Done at the end, once, however it came: writes the ledger.
        reload: Done on SIGHUP; gives the application that takes over, or None. If it raises, the
            old one stays.
        on_ready: Told the port when a request would be answered.
        needs_no_key: Tells whether anybody on this machine may call.
        dropped: Hears of what the door refuses, by a word for the reason.

    Raises:
        ConfigInvalid: If `drain_s` is out of its range.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: DoorLimits = DoorLimits(),  # noqa: B008 - a frozen value
        drain_s: float = 30.0,
        readiness: Readiness | None = None,
        reply: MakeReply = reply_in_dialect,
        opening: _Async = _nothing,
        closing: _Async = _nothing,
        reload: _Async | None = None,
        on_ready: Callable[[int], None] = lambda _: None,
        needs_no_key: Callable[[], bool] = lambda: False,
        dropped: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 0 <= drain_s <= MOST_DRAIN_S:
            raise ConfigInvalid(f"a drain takes 0 to {MOST_DRAIN_S:.0f} seconds, not {drain_s:g}")
        self._address = host, port
        self._limits = limits
        self._drain_s = drain_s
        self.readiness = readiness or Readiness()
        self._reply = reply
        self._opening, self._closing, self._reload = opening, closing, reload
        self._on_ready = on_ready
        self._dropped = dropped
        self._clock: Clock = SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.door = Door(
            app,
            readiness=self.readiness,
            reply=reply,
            needs_no_key=needs_no_key,
            dropped=dropped,
        )

    def run(self) -> int:
        """
        Serve until SIGTERM, SIGINT or `stop`. Signals are heard in the main thread only.

        Returns:
            0 after an orderly end, 130 if a second signal hurried it.

        Raises:
            ConfigInvalid: If it cannot listen there, or the extra `server` is missing.
            LoomError: What `opening` raised.
        """
        try:
            import httptools  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise ConfigInvalid(f"a gateway needs the package httptools: {_INSTALL}") from None
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(self._serve())

    def stop(self) -> None:
        """Do what SIGTERM does, from any thread; the second time, at once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._signalled)

    async def _serve(self) -> int:
        # In the loop's thread: asyncio's events belong to a loop.
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reloading: asyncio.Task[None] | None = None
        with Signals(self._signalled, self._hangup):
            try:
                await self._opening()
                with listen(*self._address) as sock, rarely_collected():
                    await self._listen(sock)
            finally:
                # Whatever happened: rows are not left unwritten.
                await self._write_rows()
        return _INTERRUPTED if self._hurry.is_set() else 0

    async def _listen(self, sock: socket.socket) -> None:
        from uvicorn import Config  # noqa: PLC0415 - start-up time
        from uvicorn.server import ServerState  # noqa: PLC0415 - the same

        from loom.server.gateway.connection import Connection, Doorkeeper  # noqa: PLC0415 - the same

        config = Config(
            self.door,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=_HEADERS,
        )
        config.load()
        # What uvicorn has to say is of nobody's interest, and would go to standard error.
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        state = ServerState()
        keeper = Doorkeeper(self._limits, self._reply, self._dropped)
        loop = asyncio.get_running_loop()
        common = {"config": config, "server_state": state, "app_state": {}, "_loop": loop}
        made = partial(Connection, keeper=keeper, **common)
        self._dated(state, config)
        server = await loop.create_server(made, sock=sock, backlog=_BACKLOG)
        ticking = asyncio.ensure_future(self._tick(state, config, keeper))
        try:
            self.readiness.state = "ready"
            self._on_ready(sock.getsockname()[1])
            await self._stop.wait()
            await self._shut(sock)
            server.close()
            await self._drain(state)
        finally:
            self.readiness.state = "draining"
            ticking.cancel()
            server.close()
            for _ in range(_LAST_TURNS):
                # What was accepted last comes some turns later, and closes some turns later.
                for connection in tuple(state.connections):
                    connection.transport.abort()
                await self._clock.sleep(0)
            await asyncio.gather(ticking, *state.tasks, return_exceptions=True)

    # --- while it runs -------------------------------------------------------------------------

    def _dated(self, state: ServerState, config: Any) -> None:
        date = formatdate(self._clock.now().timestamp(), usegmt=True).encode()
        state.default_headers = [(b"date", date), *config.encoded_headers]

    async def _tick(self, state: ServerState, config: Any, keeper: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._clock.sleep(keeper.tick_s)
            self._dated(state, config)
            everybody = tuple(state.connections)
            for first in range(0, len(everybody), _LOOKED_AT_ONCE):
                keeper.sweep(everybody[first : first + _LOOKED_AT_ONCE], loop.time())
                await self._clock.sleep(0)

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self.readiness.state = "draining"
        self._stop.set()

    def _hangup(self) -> None:
        if self._reload is None:
            _log.warning("SIGHUP: nothing can be reloaded")
        elif self._reloading is None or self._reloading.done():
            self._reloading = asyncio.ensure_future(self._reload_now(self._reload))

    async def _reload_now(self, reload: _Async) -> None:
        try:
            app = await reload()
        except LoomError as error:
            _log.error("the configuration was not reloaded, the old one holds: %s", error)
        except Exception:  # noqa: BLE001 - a border: the gateway goes on
            _log.exception("the configuration was not reloaded, the old one holds")
        else:
            self.door.app = app or self.door.app
            _log.info("the configuration was reloaded")

    # --- its end -------------------------------------------------------------------------------

    async def _shut(self, sock: socket.socket) -> None:
        """
        Accept nobody any more, and let those come in who were accepted.

        asyncio loses a connection that it has accepted, and not yet set up, when a server closes.
        """
        with suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(sock.fileno())
        for _ in range(_LAST_TURNS):
            await self._clock.sleep(0)

    async def _drain(self, state: ServerState) -> None:
        _log.info("stopping: %d requests may run for %g s", self.door.running, self._drain_s)
        for connection in tuple(state.connections):
            connection.finish_soon()  # type: ignore[union-attr]  # all are ours
        if not await self._within(self.door.empty(), self._drain_s):
            _log.warning("%d requests are cut", self.door.running)
            self.door.cut(ServiceUnavailable("the gateway was stopped", retry_after_s=1.0))
            await self._within(self.door.empty(), _LAST_S)
        for connection in tuple(state.connections):
            connection.transport.close()
        await self._within(self._closed(state), _FLUSH_S)

    async def _closed(self, state: ServerState) -> None:
        while state.connections:
            await self._clock.sleep(0.01)

    async def _within(self, work: Any, seconds: float) -> bool:
        """Wait for something, but not longer, and not when somebody is in a hurry."""
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self._hurry.wait())]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(tasks[0].done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write_rows(self) -> None:
        try:
            async with asyncio.timeout(_LEDGER_S):
                await self._closing()
        except TimeoutError:
            _log.error("the ledger was not written in %g s", _LEDGER_S)


def refuse_workers(workers: int, ledger: str) -> None:
    """
    Refuse to share what one process alone keeps.

    Args:
        workers: How many processes are wanted.
        ledger: Where the ledger is, as it was given.

    Raises:
        ConfigInvalid: If it is more than one.
    """
    if workers > 1:
        raise ConfigInvalid(
            f"{workers} workers cannot share the ledger {ledger}: a SQLite ledger has one writing"
            " process, and rate limits, budgets on their way and the breaker are kept in its"
            " memory: two processes would let twice as much through",
            hint="Leave --workers out: one process serves thousands of requests a second.",
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop's, if it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

"""One request and its reply, and whatever of the transport it holds meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NamedTuple

from loom.core.errors import (
    InvalidRequest,
    LoomError,
    Phase,
    UnexpectedRedirect,
    Unreachable,
)
from loom.transport.address import bad_header, parse_address, shown_origin
from loom.transport.body import Body
from loom.transport.contract import HttpReply, HttpRequest, SizeLimits
from loom.transport.errors import Scene, too_late, translate
from loom.transport.inflate import Inflater
from loom.transport.pool import Listener, Pool, Response, Wire
from loom.transport.watch import Watch

__all__ = ["Exchange", "Terms"]

# How long a reply may take to end once nobody reads it, so that its socket can be used again.
_DRAIN_S = 0.05


class Terms(NamedTuple):
    """
    What holds for all exchanges of a transport.

    Attributes:
        limits: What a reply may weigh.
        provider: Who is asked, for errors.
        proxy: The proxy's host and port; empty without one.
    """

    limits: SizeLimits
    provider: str | None
    proxy: str


class Exchange(AbstractAsyncContextManager[HttpReply], HttpReply, Listener):
    """
    A request, then its reply.

    Args:
        request: What to send.
        terms: Of the transport.
        find_pool: Gives the running loop's pool. It is a method of the transport, which so
            lives as long as the exchange.

    Attributes:
        attempts: How often the request was sent: 2 if a kept socket turned out to be closed.
    """

    def __init__(
        self, request: HttpRequest, terms: Terms, find_pool: Callable[[], Awaitable[Pool]]
    ) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.attempts = 0
        self._request = request
        self._terms = terms
        self._find_pool = find_pool
        self._address = parse_address(request.url)
        self._pool: Pool | None = None
        self._watch: Watch | None = None
        self._wire: Wire | None = None
        self._line: asyncio.Transport | None = None
        self._connecting: asyncio.Task[object] | None = None
        self._cut = False
        self._written_at: float | None = None
        self._response: Response | None = None
        self._inflater: Inflater | None = None

    async def __aenter__(self) -> HttpReply:
        """Send the request and wait for the reply's headers."""
        request = self._request
        bad = bad_header(request.headers)
        if bad is not None:
            raise InvalidRequest(
                f"The header {bad!r} holds what HTTP forbids there, such as a line break.",
                provider=self._terms.provider,
            )
        pool = await self._find_pool()
        deadline = request.deadline_s
        if deadline is None:
            deadline = pool.loop.time() + request.timeouts.total_s
        watch = self._watch = Watch(pool.loop, deadline, self._ring)
        try:
            if not pool.slots.try_take():
                await self._queue(pool, watch)
            # Nothing is awaited between taking the slot and this line.
            self._pool = pool
            pool.active[self] = None
            problem = await self._send(pool, watch)
        except BaseException:
            self._leave()
            raise
        if problem is not None:
            self._leave()
            raise problem
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the socket back, or close it."""
        try:
            # On the way out of an error nothing is awaited: a second cancellation would hit it
            # (fault matrix, rows 53 to 55).
            if kind is None and self._ours():
                await self._drain()
        finally:
            self._leave()

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece, as it arrives, inflated."""
        return self._body(None if self._request.stream else self._terms.limits.body_bytes)

    async def read(self) -> bytes:
        """Give the whole body, inflated."""
        pieces = [piece async for piece in self._body(self._terms.limits.body_bytes)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def connected(self, wire: Wire, line: asyncio.Transport) -> None:
        """Take note of the connection that carries the request."""
        pool, watch = self._pool, self._watch
        if pool is None or watch is None:
            return
        wire.uses += 1
        wire.heard = False
        self._wire, self._line, self._connecting = wire, line, None
        self.attempts += 1
        if wire.uses == 1:
            pool.wires.add(wire)
        watch.start("write", self._request.timeouts.write_s)

    def written(self) -> None:
        """Take note that the whole request was handed to the connection."""
        line, watch = self._line, self._watch
        if line is None or watch is None or watch.phase != "write":
            return
        self._written_at = watch.now()
        # A small request is handed over even when the peer reads nothing: then it lies here.
        if not line.get_write_buffer_size():
            watch.start("first_byte", self._request.timeouts.first_byte_s)

    def cut_off(self) -> None:
        """Break off: the pool is being closed."""
        if self._connecting is not None:
            # Nothing else wakes who waits for a connection; it may take as long as `connect_s`.
            # The keeper of the pool closes it once more: once is enough.
            if not self._cut:
                self._cut = self._connecting.cancel()
            return
        self._break(ConnectionAbortedError())
        # The library would wait for what is still to be written, to a peer that may not read.
        if self._line is not None and self._ours():
            self._line.abort()

    async def _queue(self, pool: Pool, watch: Watch) -> None:
        limit_s, left_s = self._request.timeouts.pool_s, watch.left_s
        if left_s > 0 and await pool.slots.wait(min(limit_s, left_s)):
            return
        if pool.closed:
            raise RuntimeError("the transport was closed while a call waited for a connection")
        problem = self._too_late("total" if left_s <= limit_s else "pool")
        problem.attempts = 0
        raise problem

    async def _send(self, pool: Pool, watch: Watch) -> LoomError | RuntimeError | None:
        problem = await self._attempt(pool, watch, fresh=False)
        if isinstance(problem, Unreachable) and self._stale(problem, watch):
            self._drop()
            problem = await self._attempt(pool, watch, fresh=True)
        problem = problem or self._refused()
        if isinstance(problem, LoomError):
            problem.attempts = max(1, self.attempts)
        return problem

    async def _attempt(
        self, pool: Pool, watch: Watch, *, fresh: bool
    ) -> LoomError | RuntimeError | None:
        limit_s, left_s = self._request.timeouts.connect_s, watch.left_s
        if left_s <= 0:
            return self._too_late("total")
        connector = pool.connector(fresh=fresh)
        self._connecting = task = asyncio.current_task()
        asked = 0 if task is None else task.cancelling()
        try:
            answer = await pool.backend.send(connector, self._request, self, min(limit_s, left_s))
        except asyncio.CancelledError:
            if not pool.closed or task is None or self._cancelled(task) > asked:
                raise
            answer = ConnectionAbortedError()
        finally:
            self._connecting = None
        if isinstance(answer, Exception):
            return self._explain(answer, "total" if left_s <= limit_s else "connect")
        watch.pause()
        self._response = answer
        self.status = answer.status
        self.headers = _joined(answer.headers)
        return None

    def _cancelled(self, task: asyncio.Task[object]) -> int:
        """How often the caller cancelled; ours does not count, nor what the library does."""
        # Closed, the library cancels who waits for a name, without asking the task to end.
        if not self._cut:
            return task.cancelling()
        self._cut = False
        return task.uncancel()

    def _stale(self, problem: Unreachable, watch: Watch) -> bool:
        # A socket that was kept and that the server closed meanwhile: it has read nothing, or
        # it would have answered something first (fault matrix, rows 9 and 58).
        wire = self._wire
        return (
            problem.phase == "reset"
            and watch.expired is None
            and wire is not None
            and wire.uses > 1
            and not wire.heard
        )

    def _refused(self) -> LoomError | None:
        # Fault matrix, row 28.
        if 300 <= self.status < 400:
            return UnexpectedRedirect(
                f"{self._address.where} answered with status {self.status} and points to"
                f" {shown_origin(self.headers.get('location', ''))}; nothing was sent there.",
                provider=self._terms.provider,
            )
        # Without a tunnel the proxy's own refusal looks like the vendor's reply.
        if self.status == 407 and self._scene("first_byte").proxy:
            return Unreachable(
                f"The proxy {self._terms.proxy} wants a user name and a password (status 407).",
                phase="proxy",
                provider=self._terms.provider,
                retryable=False,
            )
        return None

    def _body(self, limit: int | None) -> Body:
        encoding = self.headers.get("content-encoding", "").lower()
        where, provider = self._address.where, self._terms.provider
        if self._inflater is None and encoding not in {"", "identity"}:
            self._inflater = Inflater(encoding, self._terms.limits.inflate_ratio, where, provider)
        body = Body(self._next, self._inflater, limit, where=where, provider=provider)
        length = self.headers.get("content-length", "")
        if length.isdecimal():
            body.check(int(length))
        return body

    async def _next(self) -> bytes:
        response, watch, pool = self._response, self._watch, self._pool
        if response is None or watch is None or pool is None:
            raise RuntimeError("the reply was left: read it inside its `async with`")
        content = response.content
        # The deadline may have passed while nobody was reading; what has all arrived is given.
        if watch.expired and not content.is_eof():
            raise self._too_late(watch.expired)
        try:
            data = content.read_nowait()
            if data or content.is_eof():
                return data
            watch.start("idle", self._request.timeouts.idle_s)
            try:
                return await content.readany()
            finally:
                watch.pause()
        except pool.backend.failures as error:
            # What came before the connection broke is given first.
            data = b"" if watch.expired else pool.backend.leftover(content)
            problem = self._explain(error, "idle")
        if data:
            return data
        raise problem

    async def _drain(self) -> None:
        response, watch, pool = self._response, self._watch, self._pool
        if response is None or watch is None or pool is None or watch.expired:
            return
        left = self._terms.limits.drain_bytes
        watch.start("idle", _DRAIN_S)
        try:
            while left > 0:
                data = response.content.read_nowait() or await response.content.readany()
                if not data:
                    return
                left -= len(data)
        except pool.backend.failures:
            return

    def _ring(self) -> None:
        watch, line = self._watch, self._line
        if watch is None:
            return
        if (
            watch.expired == "write"
            and self._written_at is not None
            and line is not None
            and not line.get_write_buffer_size()
        ):
            since_s = watch.now() - self._written_at
            watch.expired = None
            watch.start("first_byte", self._request.timeouts.first_byte_s - since_s)
            return
        self._break(TimeoutError())

    def _break(self, error: OSError) -> None:
        # A reply that has all arrived has no socket any more: that one may carry another's.
        if not self._ours():
            return
        if self._response is not None:
            self._response.content.set_exception(error)
        if self._wire is not None:
            self._wire.set_exception(error)

    def _ours(self) -> bool:
        return self._response is None or self._response.connection is not None

    def _drop(self) -> None:
        # Closing would wait for what is still to be written, and with TLS for the peer's goodbye.
        if self._line is not None and self._ours():
            if self._response is not None:
                self._response.close()
            self._line.abort()
        self._line = self._wire = None

    def _leave(self) -> None:
        pool, watch = self._pool, self._watch
        if watch is not None:
            watch.stop()
        self._drop()
        self._response = None
        if pool is not None:
            self._pool = None
            pool.active.pop(self, None)
            pool.slots.give_back()

    def _explain(self, raised: Exception, waiting: Phase) -> LoomError | RuntimeError:
        watch = self._watch
        if self._pool is None or self._pool.closed or watch is None:
            return RuntimeError("the transport was closed during the call")
        if watch.expired is not None:
            return self._too_late(watch.expired)
        phase = waiting if watch.phase is None else watch.phase
        return translate(raised, self._limit_s(phase), self._scene(phase))

    def _too_late(self, phase: Phase) -> LoomError:
        return too_late(phase, self._limit_s(phase), self._scene(phase))

    def _limit_s(self, phase: Phase) -> float:
        limit_s: float = getattr(self._request.timeouts, f"{phase}_s")
        return limit_s

    def _scene(self, phase: Phase) -> Scene:
        proxy = "" if self._address.loopback else self._terms.proxy
        return Scene(
            self._address.where, proxy, phase, self._line is not None, self._terms.provider
        )


def _joined(headers: Mapping[str, str]) -> dict[str, str]:
    # RFC 9110, section 5.2: fields of one name are one field, joined by ", ".
    joined: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined

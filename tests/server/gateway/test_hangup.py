"""Callers that hang up before their answer: their work is dropped, and nobody else's."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.server.gateway.front import PATIENCE_S, Running, post

from loom.server.gateway.hangup import Listeners, listeners_of, unless_gone
from loom.server.line import CallerGone, Receive, Scope, Send, read_body

pytestmark = pytest.mark.anyio


class Waiting:
    """An application whose work never ends."""

    def __init__(self) -> None:
        self.begun, self.dropped, self.over = threading.Event(), threading.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request and wait."""
        del send
        await read_body(receive, 1000)
        await unless_gone(listeners_of(scope), receive, self._work())
        # The request itself ends in peace: only its work was dropped.
        self.over += 1

    async def _work(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.dropped.set()


def test_the_work_is_dropped_when_its_caller_hangs_up() -> None:
    """The connection tells it, while nobody reads from it."""
    app = Waiting()
    with Running(app) as front:
        with front.connect() as sock:
            sock.sendall(post())
            assert app.begun.wait(PATIENCE_S)
        assert app.dropped.wait(PATIENCE_S)
    assert 1 == app.over


async def test_work_that_ends_is_no_longer_told() -> None:
    """A later request of the same connection is another's."""
    listeners, done = Listeners(), asyncio.Event()

    async def work() -> None:
        done.set()

    await unless_gone(listeners, _never, work())
    listeners.tell()
    assert done.is_set()
    await asyncio.sleep(0)


async def test_a_caller_that_is_gone_already_is_not_worked_for() -> None:
    """A connection that was lost before tells nobody again."""
    listeners, begun = Listeners(), asyncio.Event()

    async def work() -> None:
        begun.set()

    listeners.tell()
    with pytest.raises(CallerGone):
        await unless_gone(listeners, _never, work())
    assert not begun.is_set()


async def test_somebody_elses_cancellation_goes_on() -> None:
    """A request that is cut by the gateway ends as one that is cut."""
    listeners, begun = Listeners(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    for hung_up in (False, True):
        begun.clear()
        task = asyncio.ensure_future(unless_gone(listeners, _never, work()))
        await begun.wait()
        task.cancel()
        if hung_up:
            listeners.tell()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_under_another_server_the_message_is_waited_for() -> None:
    """Without listeners it is ASGI that tells."""

    async def work() -> None:
        await asyncio.Event().wait()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    assert listeners_of({}) is None
    await unless_gone(None, receive, work())


async def _never() -> Any:
    raise AssertionError("nobody waits for a message")

"""An ASGI server in a thread."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import closing
from typing import Any

import pytest

from loom.server.simulator.listener import HOST, Listener, listen


def test_stopping_on_its_own_thread_does_not_wait_for_itself() -> None:
    """The garbage collector may stop a server from any thread, its own too."""
    before = set(threading.enumerate())
    stopped = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        listener.stop()
        stopped.set()

    listener = Listener(lambda: app, 0)
    listener.start()
    connection = http.client.HTTPConnection(HOST, listener.port, timeout=20)
    connection.request("GET", "/")

    assert stopped.wait(20)
    listener.stop()
    connection.close()
    listener.stop()
    assert before == set(threading.enumerate())


def test_small_writes_are_not_held_back() -> None:
    """Its sockets name their protocol: else asyncio leaves Nagle's algorithm on."""
    with closing(listen(0)) as sock:
        assert socket.IPPROTO_TCP == sock.proto


def test_what_keeps_it_from_starting_is_raised() -> None:
    """No thread is left, and the port is free again."""

    def broken() -> Any:
        raise LookupError("no app")

    listener = Listener(broken, 0)

    with pytest.raises(LookupError, match="no app"):
        listener.start()
    Listener(lambda: None, listener.port).abandon()
    listener.stop()

"""How a gateway ends, and what it does meanwhile; without a process of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import pytest
from tests.server.gateway.front import Answer, Echo, Running, Streaming, closed, post, whole

from loom.core.errors import ConfigInvalid, LedgerUnavailable
from loom.server.gateway import process, run
from loom.server.gateway.readiness import OK, Readiness
from loom.server.gateway.run import GatewayServer, refuse_workers


def test_a_running_answer_is_finished() -> None:
    """G21: stop accepting, let what runs end, exit 0."""
    may_end = threading.Event()
    began = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        await asyncio.to_thread(may_end.wait, 20)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    with Running(slow, drain_s=20.0) as front:
        with front.connect() as sock:
            sock.sendall(post())
            assert began.wait(20)
            front.server.stop()
            until_refused(front)
            may_end.set()
            assert b"done" in closed(sock)
        front.thread.join(20)
    assert 0 == front.code


def until_refused(front: Running) -> None:
    """Wait until nobody listens any more."""
    while True:
        try:
            front.connect().close()
        except ConnectionError:
            return


def test_what_does_not_end_gets_an_error_in_its_stream() -> None:
    """G21: after the drain each stream ends with an error event, and the row is written."""
    stream = Streaming()
    written: list[str] = []

    async def closing() -> None:
        written.append("ledger")

    with Running(stream, drain_s=0.0, closing=closing) as front, front.connect() as sock:
        sock.sendall(post())
        assert stream.asked.wait(20)
        front.server.stop()
        data = closed(sock)
        front.thread.join(20)
    assert b'data: {"error":{"message":"the gateway was stopped"' in data
    assert data.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in data
    assert stream.ended.is_set()
    assert (0, ["ledger"]) == (front.code, written)


def test_the_error_event_speaks_the_dialect_of_the_stream() -> None:
    """G21: Mistral's SDK reads Mistral's form."""
    stream = Streaming()
    with Running(stream) as front, front.connect() as sock:
        sock.sendall(post(b"{}", "x-loom-dialect: mistral"))
        assert stream.asked.wait(20)
        front.server.stop()
        assert b'data: {"object":"error","message":"the gateway was stopped"' in closed(sock)


def test_what_has_not_begun_gets_a_plain_error() -> None:
    """G21: who waits for the first byte when the drain is over gets 503, to try elsewhere."""
    began = threading.Event()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    with Running(silent, drain_s=0.0) as front, front.connect() as sock:
        sock.sendall(post())
        assert began.wait(20)
        front.server.stop()
        answer = Answer(closed(sock))
    assert (503, "1") == (answer.status, answer.headers["retry-after"])


def test_a_second_signal_does_not_wait() -> None:
    """G21: now is now; the ledger is written all the same."""
    stream = Streaming()
    written: list[str] = []

    async def closing() -> None:
        written.append("ledger")

    with Running(stream, drain_s=900.0, closing=closing) as front, front.connect() as sock:
        sock.sendall(post())
        assert stream.asked.wait(20)
        front.server.stop()
        until_refused(front)
        front.server.stop()
        front.thread.join(20)
        assert not front.thread.is_alive()
        closed(sock)
    assert (130, ["ledger"]) == (front.code, written)


def test_a_kept_connection_hears_of_the_end() -> None:
    """G21: what comes on an open connection is refused, but whoever watches is answered."""
    stream, echo = Streaming(), Echo()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (stream if scope["path"] == "/stream" else echo)(scope, receive, send)

    with (
        Running(app, drain_s=20.0) as front,
        front.connect() as kept,
        front.connect() as watching,
        front.connect() as running,
    ):
        for sock in (kept, watching):
            sock.sendall(post())
            assert 200 == Answer(whole(sock)).status
        running.sendall(post(path="/stream"))
        assert stream.asked.wait(20)
        front.server.stop()
        until_refused(front)
        kept.sendall(post())
        refused = Answer(closed(kept))
        assert (503, "close") == (refused.status, refused.headers["connection"])
        watching.sendall(post(path="/health/ready"))
        assert 200 == Answer(closed(watching)).status
        front.server.stop()
    assert ["draining"] == front.dropped


def test_an_idle_connection_does_not_hold_the_end_up() -> None:
    """Nobody waits for a client that keeps its connection."""
    with Running(Echo(), drain_s=900.0) as front, front.connect() as sock:
        sock.sendall(post())
        whole(sock)
        front.server.stop()
        assert b"" == closed(sock)
        front.thread.join(20)
        assert not front.thread.is_alive()
    assert 0 == front.code


def test_a_reader_that_left_its_last_words_does_not_hold_the_end_up() -> None:
    """G21: the error event of a stream that nobody reads is not waited for."""
    stream = Streaming(b"data: " + b"x" * 8000 + b"\n\n", paced=False)
    with Running(stream, drain_s=0.0) as front, front.connect(receive_bytes=4096) as sock:
        sock.sendall(post())
        before, waiting = -1, threading.Event()
        while not stream.sent or before != stream.sent:
            before = stream.sent
            waiting.wait(0.1)
        front.server.stop()
        front.thread.join(20)
        assert not front.thread.is_alive()
    assert 0 == front.code


def test_the_states_of_readiness() -> None:
    """Starting, ready, draining; and not ready while a part does not work."""
    readiness = Readiness()
    seen: list[str] = []

    async def opening() -> None:
        seen.append(readiness.state)

    async def closing() -> None:
        seen.append(readiness.state)

    assert {"gateway": "starting"} == readiness()
    with Running(Echo(), readiness=readiness, opening=opening, closing=closing):
        seen.append(readiness.state)
        assert readiness.ready
        readiness.watch("ledger", lambda: "unavailable: full")
        assert not readiness.ready
        assert {"gateway": OK, "ledger": "unavailable: full"} == readiness()
    assert ["starting", "ready", "draining"] == seen


def test_what_keeps_it_from_opening_is_raised() -> None:
    """G19, G23: it does not listen before it is open, and what was opened is closed."""
    closings: list[str] = []

    async def opening() -> None:
        raise LedgerUnavailable("the ledger is another's")

    async def closing() -> None:
        closings.append("closed")

    server = GatewayServer(Echo(), opening=opening, closing=closing)
    with pytest.raises(LedgerUnavailable, match="another's"):
        server.run()
    assert ["closed"] == closings


def test_a_ledger_that_does_not_close_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end comes in any case, and the log says what was not done."""
    monkeypatch.setattr(run, "_LEDGER_S", 0.05)

    async def closing() -> None:
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR, "loom.server"), Running(Echo(), closing=closing):
        pass
    assert "the ledger was not written" in caplog.text


class Reloading:
    """Gives the next of several applications, or raises it."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.done = threading.Event()

    async def __call__(self) -> Any:
        result = self.results.pop(0)
        asyncio.get_running_loop().call_soon(self.done.set)
        if isinstance(result, Exception):
            raise result
        return result


def hang_up(front: Running, reloading: Reloading) -> None:
    reloading.done.clear()
    loop = front.server._loop
    assert loop is not None
    loop.call_soon_threadsafe(front.server._hangup)
    assert reloading.done.wait(20)


def test_a_reload_takes_over_or_keeps_the_old(caplog: pytest.LogCaptureFixture) -> None:
    """G22: a bad configuration changes nothing, and the log says why."""
    old, new = Echo(), Echo()
    reloading = Reloading(ConfigInvalid("looms.toml: 'modell'"), LookupError("oh"), None, new)
    with caplog.at_level(logging.INFO, "loom.server"), Running(old, reload=reloading) as front:
        for _ in range(3):
            hang_up(front, reloading)
            assert 200 == front.ask(post()).status
        assert (3, 0) == (len(old.seen), len(new.seen))
        hang_up(front, reloading)
        assert 200 == front.ask(post()).status
    assert (3, 1) == (len(old.seen), len(new.seen))
    assert "not reloaded, the old one holds: looms.toml: 'modell'" in caplog.text
    assert 2 == caplog.text.count("the configuration was reloaded")


def test_without_anything_to_reload_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP is no reason to end."""
    server = GatewayServer(Echo())
    server._hangup()
    assert "nothing can be reloaded" in caplog.text


@pytest.mark.parametrize("drain_s", [-1.0, 900.1])
def test_a_drain_has_a_longest_time(drain_s: float) -> None:
    """G21: fifteen minutes at most."""
    with pytest.raises(ConfigInvalid, match="0 to 900"):
        GatewayServer(Echo(), drain_s=drain_s)


def test_one_process_keeps_what_only_one_can_keep() -> None:
    """G23: more workers are refused, with the reason."""
    refuse_workers(1, "ledger.db")
    with pytest.raises(ConfigInvalid, match="SQLite ledger has one writing process"):
        refuse_workers(2, "ledger.db")


def test_a_port_that_is_taken_is_named() -> None:
    """The message says which, and what to do."""
    with process.listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConfigInvalid, match=f"127.0.0.1:{port}: Address already in use"):
            process.listen("127.0.0.1", port)
    with pytest.raises(ConfigInvalid, match=r"cannot listen on no\.such\.host\.invalid"):
        process.listen("no.such.host.invalid", 0)


def test_it_listens_on_ipv6_too() -> None:
    """An address of the other family is one."""
    if not socket.has_ipv6:  # pragma: no cover - every machine of ours has it
        pytest.skip("no IPv6")
    with process.listen("::1", 0) as sock:
        assert socket.AF_INET6 == sock.family


def test_files_are_allowed_as_far_as_the_machine_does() -> None:
    """The limit grows and never shrinks."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert 300 == process.raise_file_limit(300)
        assert 300 == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert 300 == process.raise_file_limit(100)
        assert 300 == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("missing", ["httptools", "uvloop"])
def test_without_a_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The parser is needed, and its absence is one line; the loop is not."""
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "uvloop":
        with Running(Echo()) as front:
            assert 200 == front.ask(post()).status
        return
    with pytest.raises(ConfigInvalid, match=r"pip install 'looms\[server\]'"):
        GatewayServer(Echo()).run()

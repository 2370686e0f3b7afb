"""How much, how many and how long: each limit at its last value, and one beyond."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.server.gateway.front import (
    PATH,
    Answer,
    Echo,
    Running,
    Streaming,
    brief,
    closed,
    post,
    whole,
)

from loom.server.gateway.connection import Doorkeeper
from loom.server.gateway.refusals import reply_in_dialect

LIMITS = brief(line_bytes=200, head_bytes=2000, head_fields=10, body_bytes=1000)


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def front(echo: Echo) -> Iterator[Running]:
    with Running(echo, limits=LIMITS) as running:
        yield running


def head_of(size: int) -> bytes:
    """Write a request whose head has so many bytes."""
    frame = len(post(b"", "x-filler: "))
    return post(b"", "x-filler: " + "x" * (size - frame))


@pytest.mark.parametrize(("size", "status"), [(1999, 200), (2000, 200), (2001, 431)])
def test_the_size_of_a_head(front: Running, size: int, status: int) -> None:
    """G4, S6: headers have a size."""
    assert len(head_of(size)) == size
    assert status == front.ask(head_of(size)).status


def test_a_head_that_does_not_end(front: Running) -> None:
    """G4, S6: one header without an end is refused before it is whole."""
    with front.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 2000)
        answer = Answer(closed(sock))
    assert (431, "close") == (answer.status, answer.headers["connection"])


@pytest.mark.parametrize(("count", "status"), [(9, 200), (10, 200), (11, 431)])
def test_the_number_of_headers(front: Running, count: int, status: int) -> None:
    """G4, S6: headers have a number."""
    fields = [f"x-{number}: 1" for number in range(count - 2)]
    assert status == front.ask(post(b"", *fields)).status


@pytest.mark.parametrize(("size", "status"), [(199, 200), (200, 200), (201, 414)])
def test_the_length_of_a_target(front: Running, size: int, status: int) -> None:
    """S6: a request's target has a length."""
    assert status == front.ask(post(b"", path="/" + "x" * (size - 1))).status


@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 413)])
@pytest.mark.parametrize("chunked", ["", "transfer-encoding: chunked"])
def test_the_size_of_a_body(
    front: Running, echo: Echo, size: int, status: int, chunked: str
) -> None:
    """G4, S6: a body has a size, whether it says so before or not."""
    before = len(echo.seen)
    body = b"x" * size
    request = post(body)
    if chunked:
        head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\n{chunked}\r\n\r\n".encode()
        request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    answer = front.ask(request)
    assert status == answer.status
    assert before + (status == 200) == len(echo.seen)
    if status == 413:
        assert "a request's body has at most 1000 bytes" == answer.error["message"]
        assert "close" == answer.headers["connection"]


def test_a_refusal_is_in_the_dialect_of_the_caller(front: Running) -> None:
    """G4: 413 has Mistral's form for who speaks Mistral's."""
    answer = front.ask(post(b"x" * 1001, "user-agent: mistral-client-python/3.7.0"))
    body = json.loads(answer.body)
    assert (413, "error", 413) == (answer.status, body["object"], body["raw_status_code"])


def test_a_body_that_is_announced_too_large_is_not_asked_for(front: Running) -> None:
    """G4: who asks before sending is told at once, and not to go on."""
    answer = front.ask(post(b"", "expect: 100-continue", length=1001))
    assert 413 == answer.status
    assert b"100 Continue" not in answer.data


def test_a_body_that_may_come_is_asked_for(front: Running) -> None:
    """Who asks before sending is told to go on, and answered."""
    with front.connect() as sock:
        sock.sendall(post(b"", "expect: 100-continue", length=3))
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == sock.recv(1000)
        sock.sendall(b"abc")
        assert 200 == Answer(whole(sock)).status


def test_who_is_refused_reads_the_refusal_while_still_sending(front: Running) -> None:
    """G4: the connection is closed late enough: a reset would overtake the reply."""
    with front.connect() as sock:
        sock.sendall(post(b"x" * 1_000_000))
        answer = Answer(closed(sock))
    assert 413 == answer.status


def test_connections_of_an_address() -> None:
    """G4: an address has so many connections, and another one when one of them ended."""
    with Running(Echo(), limits=brief(connections_per_address=3)) as front, ExitStack() as stack:
        held = [stack.enter_context(front.connect()) for _ in range(3)]
        for sock in held:
            sock.sendall(post())
            assert 200 == Answer(whole(sock)).status
        with front.connect() as beyond:
            answer = Answer(closed(beyond))
        assert (429, "close") == (answer.status, answer.headers["connection"])
        held[0].sendall(post(b"{}", "connection: close"))
        assert 200 == Answer(closed(held[0])).status
        assert 200 == front.ask(post()).status
    assert ["connections"] == front.dropped


def test_connections_of_all() -> None:
    """S7: there is an end to connections, whoever has them; who comes later may come again."""
    with Running(Echo(), limits=brief(connections=2)) as front, ExitStack() as stack:
        for _ in range(2):
            sock = stack.enter_context(front.connect())
            sock.sendall(post())
            assert 200 == Answer(whole(sock)).status
        with front.connect() as beyond:
            answer = Answer(closed(beyond))
        assert (503, "close") == (answer.status, answer.headers["connection"])
        assert "1" == answer.headers["retry-after"]
    assert ["connections"] == front.dropped


def test_a_head_has_a_time() -> None:
    """G4, S7: a head that drips is cut, and so is a connection that never begins."""
    with (
        Running(Echo(), limits=brief(head_s=0.2)) as front,
        front.connect() as silent,
        front.connect() as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n")
        assert 408 == Answer(closed(slow)).status
        assert 408 == Answer(closed(silent)).status
    assert ["head_time", "head_time"] == front.dropped


def test_a_blank_line_now_and_then_keeps_no_connection_open() -> None:
    """G4, S7: what may stand before a request begins its time as well."""
    with Running(Echo(), limits=brief(head_s=0.2)) as front, front.connect() as sock:
        sock.sendall(post())
        data = whole(sock)
        waiting = threading.Event()
        with pytest.raises(OSError, match=r"."):
            for _ in range(2000):
                sock.sendall(b"\r\n")
                waiting.wait(0.01)
        assert data.startswith(b"HTTP/1.1 200 OK")


def test_a_body_has_a_time() -> None:
    """G4, S7: a body that does not come is 408, and the application hears that nobody waits."""
    echo = Echo()
    with Running(echo, limits=brief(body_s=0.2)) as front, front.connect() as sock:
        sock.sendall(post(b"abc", length=10))
        answer = Answer(closed(sock))
    assert (408, "close") == (answer.status, answer.headers["connection"])
    assert (1, 0) == (echo.gone, len(echo.seen))
    assert ["body_time"] == front.dropped


def test_a_body_has_a_pace() -> None:
    """G4, S7: a body that drips is 408 long before its time is over."""
    limits = brief(body_bytes_per_s=1000.0, body_grace_s=0.2)
    with Running(Echo(), limits=limits) as front, front.connect() as sock:
        sock.sendall(post(b"abc", length=100_000))
        assert 408 == Answer(closed(sock)).status


def test_a_rest_has_a_time() -> None:
    """S7: a connection that is not used is closed without a word."""
    with Running(Echo(), limits=brief(idle_s=0.2)) as front, front.connect() as sock:
        sock.sendall(post())
        data = whole(sock)
        assert 200 == Answer(data).status
        assert b"" == closed(sock)


def test_an_endless_body_of_a_request_that_was_answered_ends() -> None:
    """G4: an early answer does not keep the line open for the rest of a body without an end."""

    async def early(scope: object, receive: object, send: object) -> None:
        head = {
            "type": "http.response.start",
            "status": 401,
            "headers": [(b"content-length", b"0")],
        }
        await send(head)  # type: ignore[operator]  # as ASGI has it
        await send({"type": "http.response.body"})  # type: ignore[operator]  # the same

    with Running(early, limits=brief(body_bytes=100_000)) as front, front.connect() as sock:
        head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        sock.sendall(head)
        assert 401 == Answer(whole(sock)).status
        with pytest.raises(OSError, match=r"."):
            for _ in range(100):
                sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_a_reader_that_takes_nothing_is_cut() -> None:
    """G3, G4: write-idle: the connection ends, and the application is told."""
    stream = Streaming(b"data: " + b"x" * 8000 + b"\n\n", paced=False)
    with (
        Running(stream, limits=brief(write_s=0.3)) as front,
        front.connect(receive_bytes=4096) as sock,
    ):
        sock.sendall(post())
        assert stream.ended.wait(20)
    assert ["write_time"] == front.dropped


def test_what_waits_for_a_slow_reader_is_bounded() -> None:
    """G3: back-pressure: the application waits when 256 KiB are not taken, for each reader."""
    stream = Streaming(b"data: " + b"x" * 8000 + b"\n\n", paced=False)
    with Running(stream) as front, ExitStack() as stack:
        readers: list[socket.socket] = []
        for _ in range(20):
            sock = stack.enter_context(front.connect(receive_bytes=4096))
            sock.sendall(post())
            readers.append(sock)
        before, waiting = -1, threading.Event()
        while before != stream.sent or len(readers) > stream.sent:
            before = stream.sent
            waiting.wait(0.2)
        each = stream.sent * len(stream.piece) / len(readers)
    # Ours, what the kernels of both ends keep, and the piece that is on its way.
    assert each < 1024 * 1024


def test_one_broken_connection_ends_no_sweep(caplog: pytest.LogCaptureFixture) -> None:
    """S7: what cannot be looked at is ended, and the others are looked at."""

    class Broken:
        aborted = False

        @property
        def transport(self) -> Broken:
            return self

        def abort(self) -> None:
            self.aborted = True

        def check(self, now_s: float) -> None:
            raise LookupError

    keeper = Doorkeeper(LIMITS, reply_in_dialect, lambda _: None)
    both = [Broken(), Broken()]
    keeper.sweep(both, 1.0)
    assert all(each.aborted for each in both)
    assert 2 == caplog.text.count("an unexpected error at a connection")


def healthy_p99_s(front: Running) -> float:
    """Ask 200 times on one connection; the best of three rounds, for a busy machine."""
    best = []
    with front.connect() as sock:
        for _ in range(3):
            times = []
            for _ in range(200):
                began = time.perf_counter()
                sock.sendall(post())
                assert 200 == Answer(whole(sock)).status
                times.append(time.perf_counter() - began)
            best.append(sorted(times)[197])
    return min(best)


@pytest.mark.realtime
def test_slow_callers_do_not_slow_the_others_down() -> None:
    """S7: beside 300 callers that never end their head, p99 is at most twice what it is alone."""
    with Running(Echo()) as front, ExitStack() as stack:
        alone = healthy_p99_s(front)
        slow = [stack.enter_context(front.connect()) for _ in range(300)]
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.05):
                for sock in slow:
                    sock.sendall(b"x")

        for sock in slow:
            sock.sendall(b"POST / HTTP/1.1\r\nhost: a\r\nx: ")
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            beside = healthy_p99_s(front)
        finally:
            over.set()
            thread.join()
    # Both share one interpreter with the callers: what they take of it is not the door's.
    assert beside <= 2 * alone + 0.005

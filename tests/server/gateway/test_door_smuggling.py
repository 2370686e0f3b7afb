"""What is no request, or two at once: 400 and the end of the connection, before the house."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.server.gateway.front import Answer, Echo, Running, closed, post, whole

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

SMUGGLED = {
    "two ways to tell the length": HEAD
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "the same the other way round": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + END,
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "one length twice": HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a length with a sign": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\nabcd",
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "no length in its header": HEAD + b"Content-Length: \r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: identity\r\n\r\nabcd",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
    "chunked, and then not": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END,
    "a coding that ends like chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + END,
    "a coding with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END,
    "a blank before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + END,
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "a chunk without a size": CHUNKED + b"xyz\r\n",
    "a size with 0x": CHUNKED + b"0x4\r\nabcd\r\n" + END,
    "a size that overflows": CHUNKED + b"fffffffffffffffff1\r\nabcd\r\n" + END,
    "a size below zero": CHUNKED + b"-1\r\nabcd\r\n" + END,
    "a blank behind the size": CHUNKED + b"4 \r\nabcd\r\n" + END,
    "a line feed in an extension": CHUNKED + b"4;a\nb\r\nabcd\r\n" + END,
    "chunks that end with a line feed": CHUNKED + b"4\nabcd\n0\n\n",
    "a chunk longer than its size": CHUNKED + b"4\r\nabcdX0\r\n\r\n",
    "a length behind the body": CHUNKED + b"4\r\nabcd\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a bare line feed in the first line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare line feed between headers": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a bare line feed at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a carriage return in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n",
    "a control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n",
    "a line that goes on": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "a coding in the next line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END,
    "a blank before the first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nXb\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host that is a list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "CR and LF in the path, encoded": b"GET /a%0d%0aX:b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the path, encoded": b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the path": b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank in the path": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunks behind an offer of HTTP/2": HEAD
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "HTTP/2 without an offer": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip
OTHERS = {
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/2.0 by name": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "an unknown method": (501, b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a method in lower case": (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a proxy's method": (405, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "TLS": (501, b"\x16\x03\x01\x02\x00\x01\x00"),
}


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def front(echo: Echo) -> Iterator[Running]:
    with Running(echo) as running:
        yield running


@pytest.mark.parametrize("what", SMUGGLED)
def test_smuggling_is_400_and_the_end(front: Running, echo: Echo, what: str) -> None:
    """G26, G25, S5: a strict parser; one reply, the connection closes, nothing comes inside."""
    before = len(echo.seen)
    with front.connect() as sock:
        sock.sendall(SMUGGLED[what] + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = Answer(closed(sock))
    assert (400, "close") == (answer.status, answer.headers["connection"])
    assert "invalid_request_error" == answer.error["type"]
    assert 1 == len(re.findall(rb"HTTP/1.1 \d", answer.data))
    assert before == len(echo.seen)


@pytest.mark.parametrize("what", OTHERS)
def test_what_this_server_does_not_speak(front: Running, what: str) -> None:
    """Other versions and methods have statuses of their own, and the connection closes."""
    status, request = OTHERS[what]
    with front.connect() as sock:
        sock.sendall(request)
        answer = Answer(closed(sock))
    assert (status, "close") == (answer.status, answer.headers["connection"])


def test_a_trailer_is_no_header(front: Running, echo: Echo) -> None:
    """G26: what follows the body was looked at by nobody, and so is left out."""
    head = b"POST /trailer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = front.ask(head + b"4\r\nabcd\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    scope, body = echo.seen[-1]
    assert (200, b"abcd", "/trailer") == (answer.status, body, scope["path"])
    assert b"authorization" not in dict(scope["headers"])


def test_rubbish_behind_a_request_does_not_break_into_its_answer(front: Running) -> None:
    """G26: the error of a second request is no part of the first one's answer."""
    with front.connect() as sock:
        sock.sendall(post() + b"RUBBISH\r\n\r\n")
        data = closed(sock)
    assert len(re.findall(rb"HTTP/1.1 \d", data)) <= 1
    assert b"not HTTP" not in data.partition(b"\r\n\r\n")[2]


def test_two_requests_at_once_are_two(front: Running, echo: Echo) -> None:
    """What is sent ahead is answered in its order."""
    with front.connect() as sock:
        sock.sendall(post(b"1", path="/one") + post(b"22", "connection: close", path="/two"))
        data = closed(sock)
    assert 2 == data.count(b"HTTP/1.1 200 OK")
    assert ["/one", "/two"] == [scope["path"] for scope, _ in echo.seen[-2:]]


@pytest.mark.parametrize("late", [0, 3])
def test_an_offer_of_http_2_is_answered_in_http_1(front: Running, echo: Echo, late: int) -> None:
    """Java's client offers HTTP/2 with every first request; its body is read all the same."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")
    request = post(b"abcdefgh", *offer)
    with front.connect() as sock:
        cut = len(request) - late
        sock.sendall(request[:cut])
        sock.sendall(request[cut:])
        answer = Answer(whole(sock))
        assert (200, "close") == (answer.status, answer.headers["connection"])
        assert b"" == closed(sock)
    assert b"abcdefgh" == echo.seen[-1][1]

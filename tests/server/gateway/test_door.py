"""What the door adds to an answer, and whom it lets in."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.gateway.front import Answer, Echo, Running, Streaming, closed, post, whole

from loom.server.gateway.door import is_local, request_id_of


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def front(echo: Echo) -> Iterator[Running]:
    with Running(echo) as running:
        yield running


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(headers or ("host: localhost",))]
    return "\r\n".join([*lines, "", ""]).encode()


REFUSED = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("request_", [post(), REFUSED], ids=["answered", "refused"])
def test_every_answer_has_the_same_careful_headers(front: Running, request_: bytes) -> None:
    """S19: nothing is stored, guessed, shared with other origins or remembered; no version."""
    headers = front.ask(request_).headers
    assert ("no-store", "nosniff") == (headers["cache-control"], headers["x-content-type-options"])
    assert "looms" == headers["server"]
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "set-cookie" not in headers


@pytest.mark.parametrize("given", ["a", "req_1.2-3", "x" * 128])
def test_a_well_formed_request_id_is_taken(front: Running, echo: Echo, given: str) -> None:
    """The caller's id goes in and comes back."""
    assert given == front.ask(post(b"{}", f"x-request-id: {given}")).headers["x-request-id"]
    assert given == request_id_of(echo.seen[-1][0])


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "<script>", "é"])
def test_another_request_id_is_replaced(front: Running, echo: Echo, given: str) -> None:
    """G25: what a log would read otherwise is not taken; inside there is one id only."""
    made = front.ask(post(b"{}", f"x-request-id: {given}")).headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{13,}", made)
    scope = echo.seen[-1][0]
    assert [made.encode()] == [v for n, v in scope["headers"] if n == b"x-request-id"]
    assert made != front.ask(post()).headers["x-request-id"]


def test_a_compressed_body_is_refused(front: Running, echo: Echo) -> None:
    """S6: nothing is unpacked, so no ratio can be too large."""
    before = len(echo.seen)
    assert 415 == front.ask(post(b"{}", "content-encoding: gzip")).status
    assert 200 == front.ask(post(b"{}", "content-encoding: identity")).status
    assert before + 1 == len(echo.seen)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("host: localhost:5006",), 200),
        (("host: 127.0.0.1",), 200),
        (("host: [::1]:5006",), 200),
        (("host: localhost", "origin: http://localhost:3000"), 200),
        (("host: localhost", "origin: https://evil.example"), 403),
        (("host: localhost", "origin: null"), 403),
        (("host: evil.example",), 403),
        (("host: 127.0.0.1.evil.example",), 403),
    ],
)
def test_a_web_page_cannot_use_a_gateway_without_keys(
    headers: tuple[str, ...], status: int
) -> None:
    """S19, S11: neither from another origin, nor by a name that was bent to this machine."""
    with Running(Echo(), needs_no_key=lambda: True) as front:
        assert status == front.ask(get("/v1/models", *headers)).status


def test_where_keys_are_needed_any_name_will_do(front: Running) -> None:
    """Behind a proxy the gateway has another name, and a page knows no key."""
    asked = get("/v1/models", "host: gateway.example", "origin: https://app.example")
    assert 200 == front.ask(asked).status


def test_an_error_that_nobody_foresaw_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A 500 in the caller's dialect, without a word of what went wrong; the log has it."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a secret")

    with caplog.at_level(logging.ERROR, "loom.server"), Running(broken) as front:
        answer = front.ask(post(b"{}", "x-request-id: abc"))
    assert (500, "Service unavailable.") == (answer.status, answer.error["message"])
    assert "request abc" in caplog.text
    assert b"secret" not in answer.data


def test_an_error_in_the_middle_of_a_stream_is_its_last_event() -> None:
    """The stream ends with the error, and not with `[DONE]`."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        raise LookupError

    with Running(broken) as front, front.connect() as sock:
        sock.sendall(post(b"{}", "connection: close"))
        data = closed(sock)
    assert b'data: {"error":{"message":"Service unavailable."' in data
    assert data.endswith(b"\n\n\r\n0\r\n\r\n")
    assert b"[DONE]" not in data


def test_a_plain_answer_that_broke_is_not_whole() -> None:
    """What was begun cannot be taken back: the connection ends before its announced length."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"10")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise LookupError

    with Running(broken) as front, front.connect() as sock:
        sock.sendall(post())
        assert b"abc" == Answer(closed(sock)).body


def test_a_connection_is_used_again(front: Running) -> None:
    """Requests follow each other on one connection."""
    with front.connect() as sock:
        for _ in range(3):
            sock.sendall(post())
            assert 200 == Answer(whole(sock)).status


def test_who_hangs_up_is_forgotten() -> None:
    """Nobody is inside when the caller of an endless stream is gone."""
    stream = Streaming()
    with Running(stream) as front:
        with front.connect() as sock:
            sock.sendall(post())
            assert stream.asked.wait(20)
            assert 1 == front.server.door.running
        assert stream.ended.wait(20)


@pytest.mark.parametrize(
    ("client", "headers", "local"),
    [
        (("127.0.0.1", 1), [], True),
        (("::1", 1), [], True),
        (("::ffff:127.0.0.1", 1), [], True),
        (("10.0.0.1", 1), [], False),
        (("unix", 1), [], False),
        (None, [], False),
        (("127.0.0.1", 1), [(b"x-forwarded-for", b"1.2.3.4")], False),
        (("127.0.0.1", 1), [(b"via", b"1.1 proxy")], False),
    ],
)
def test_who_is_on_this_machine(client: Any, headers: Any, local: bool) -> None:  # noqa: FBT001 - an expected value
    """S11: a proxy on this machine speaks for others."""
    assert local is is_local({"client": client, "headers": headers})


def test_outside_of_the_door_there_is_no_id() -> None:
    """A scope that did not come in by the door has no id."""
    assert "" == request_id_of({})

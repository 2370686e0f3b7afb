"""The application: a dialect over any provider, on a real socket."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import loom.server.app
from loom.core.ambient import SystemClock
from loom.core.errors import LoomError, RateLimited
from loom.core.events import Sending, StreamEvent, TextDelta
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import SIMULATOR_KEY, Simulator

HELLO = {"model": "some-model", "messages": [{"role": "user", "content": "Say hello"}]}
KEY = {"authorization": f"Bearer {SIMULATOR_KEY}"}


class Answer:
    """What came back."""

    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.headers = {name.lower(): value for name, value in reply.getheaders()}
        self.body = reply.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Speaks HTTP to one server, one connection a request."""

    def __init__(self, base_url: str) -> None:
        self.address = base_url.removeprefix("http://").removesuffix("/v1")

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, body, KEY if headers is None else headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def chat(self, **fields: Any) -> Answer:
        return self.send("POST", "/v1/chat/completions", json.dumps({**HELLO, **fields}).encode())


@contextmanager
def serving(provider: LLMProvider | None = None) -> Iterator[Caller]:
    with Simulator(provider=provider or ScriptedProvider()) as simulator:
        yield Caller(simulator.base_url)


class Live(LLMProvider):
    """A provider made of one function, which tells when it was closed."""

    name = "live"
    model = "live"

    def __init__(self, answer: Callable[[ChatRequest], AsyncGenerator[StreamEvent, None]]) -> None:
        self.answer = answer
        self.asked = threading.Event()
        self.closed = threading.Event()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        events = self.answer(request)
        try:
            async for event in events:
                yield event
        finally:
            self.closed.set()

    async def aclose(self) -> None:
        """Nothing is held."""


def test_health_needs_no_key() -> None:
    """A monitor asks without credentials."""
    with serving() as caller:
        answer = caller.send("GET", "/health", headers={})

    assert (200, {"status": "ok"}) == (answer.status, answer.json)


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("POST", "/v1/chat", 404, "Not Found"),
        ("GET", "/v1/models/", 404, "Not Found"),
        ("GET", "/v1/models/no-such-model", 404, "Not Found"),
        ("GET", "/v1/chat/completions", 405, "Method Not Allowed"),
        ("DELETE", "/v1/models", 405, "Method Not Allowed"),
    ],
)
def test_a_wrong_path_or_method_is_answered(
    method: str, path: str, status: int, detail: str
) -> None:
    """404 and 405 are JSON with `detail`; nothing is redirected."""
    with serving() as caller:
        answer = caller.send(method, path)

    assert (status, {"detail": detail}) == (answer.status, answer.json)
    assert (status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": SIMULATOR_KEY}, {"x-api-key": "x"}],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/v1/chat/completions"])
def test_a_wrong_key_is_turned_away(path: str, headers: dict[str, str]) -> None:
    """401 with the wire's words, and none of the headers of what lies behind the door."""
    with serving() as caller:
        method = "POST" if path.endswith("completions") else "GET"
        answer = caller.send(method, path, b"{}" if method == "POST" else b"", headers)

    assert (401, {"detail": "Invalid API Key"}) == (answer.status, answer.json)
    assert "x-kong-response-latency" in answer.headers
    assert "x-envoy-upstream-service-time" not in answer.headers


def test_a_plain_answer_is_one_object() -> None:
    """The answer of the provider, in the dialect's form."""
    with serving(ScriptedProvider(["two words"])) as caller:
        answer = caller.chat()

    assert 200 == answer.status
    assert "application/json" == answer.headers["content-type"]
    assert str(len(answer.body)) == answer.headers["content-length"]
    assert ["id", "created", "model", "usage", "object", "choices"] == list(answer.json)
    assert "two words" == answer.json["choices"][0]["message"]["content"]
    assert "some-model" == answer.json["model"]


def test_a_stream_is_events_until_done() -> None:
    """Each event is one `data:` line and an empty one; the last says [DONE]."""
    with serving(ScriptedProvider(["two words"])) as caller:
        answer = caller.chat(stream=True)

    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    *chunks, done, rest = answer.body.decode().split("\n\n")
    assert ("data: [DONE]", "") == (done, rest)
    values = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    texts = [value["choices"][0]["delta"].get("content") for value in values]
    assert ["", "two", " words", ""] == texts
    assert 1 == len({value["id"] for value in values})
    assert 2 == values[-1]["usage"]["completion_tokens"] - 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_answer_is_a_plain_reply(stream: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    """The status tells, also when a stream was asked for; notices do not begin an answer."""
    events: list[StreamEvent | LoomError] = [
        Sending(),
        RateLimited("Rate limit exceeded", retry_after_s=3.2),
    ]
    with serving(ScriptedProvider([events])) as caller:
        answer = caller.chat(stream=stream)

    assert 429 == answer.status
    assert "3" == answer.headers["retry-after"]
    assert ("rate_limited", "1300") == (answer.json["type"], answer.json["code"])


def test_an_error_in_the_middle_is_an_event_and_no_end() -> None:
    """What came stands, the error follows, and [DONE] is not said."""
    with serving(ScriptedProvider([[TextDelta("so far"), RateLimited("enough")]])) as caller:
        answer = caller.chat(stream=True)

    assert 200 == answer.status
    assert b"so far" in answer.body
    assert b'"message":"enough"' in answer.body.split(b"\n\n")[-2]
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("begun", [False, True])
def test_an_unexpected_error_gets_an_answer(
    begun: bool,  # noqa: FBT001 - pytest gives it by name
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What nobody foresaw is 500 in the dialect (or an event of a stream), and is logged."""

    async def broken(request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        del request
        if begun:
            yield TextDelta("so far")
        raise KeyError("a bug")

    with caplog.at_level(logging.ERROR, "loom.server"), serving(Live(broken)) as caller:
        answer = caller.chat(stream=True)

    assert (200 if begun else 500) == answer.status
    assert b'"type":"internal_server_error"' in answer.body
    assert ["loom.server"] == [record.name for record in caplog.records]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"no json", 422), (b"[]", 422), (b'{"model": 1}', 422), (b'{"x": "\xff"}', 422)],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, status: int) -> None:
    """What cannot be read is the caller's error."""
    with serving() as caller:
        answer = caller.send("POST", "/v1/chat/completions", body)

    assert status == answer.status
    assert "error" == answer.json["object"]


def test_a_body_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is 413, whatever it holds."""
    monkeypatch.setattr(loom.server.app, "BODY_BYTES", 1000)
    with serving() as caller:
        answer = caller.send("POST", "/v1/chat/completions", b" " * 1001)

    assert 413 == answer.status


async def endless(request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
    del request
    while True:
        yield TextDelta("on ")
        await SystemClock().sleep(0)


async def silent(request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
    del request
    yield Sending()
    await SystemClock().sleep(3600)


@pytest.mark.parametrize(
    ("answer", "stream"),
    [(endless, True), (silent, True), (silent, False)],
    ids=["in a stream", "before a stream", "before a plain answer"],
)
def test_a_caller_that_hangs_up_ends_the_work(
    answer: Callable[[ChatRequest], AsyncGenerator[StreamEvent, None]],
    stream: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """The provider's stream is closed at once when the socket is."""
    provider = Live(answer)
    with serving(provider) as caller:
        connection = http.client.HTTPConnection(caller.address, timeout=20)
        body = json.dumps({**HELLO, "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, KEY)
        if answer is endless:
            connection.getresponse().read(100)
        assert not provider.closed.is_set()
        connection.close()

        assert provider.closed.wait(20)


def test_a_caller_that_hangs_up_while_sending_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half a request is neither answered nor logged, and the server lives on."""
    with serving() as caller:
        connection = http.client.HTTPConnection(caller.address, timeout=20)
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in {**KEY, "content-length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"{")
        connection.close()

        assert 200 == caller.send("GET", "/health").status
    assert [] == caplog.records


def test_an_answer_without_pauses_lets_others_in() -> None:
    """A stream that never waits does not hold the event loop."""

    async def greedy(request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        del request
        while True:
            yield TextDelta("on ")

    provider = Live(greedy)
    with serving(provider) as caller:
        connection = http.client.HTTPConnection(caller.address, timeout=20)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({**HELLO, "stream": True}), KEY
        )
        connection.getresponse().read(100)

        assert 200 == caller.send("GET", "/health").status
        connection.close()
        assert provider.closed.wait(20)


def test_a_kept_connection_serves_many_requests() -> None:
    """Plain answers and streams that were read to their end leave the connection usable."""
    with serving() as caller:
        connection = http.client.HTTPConnection(caller.address, timeout=20)
        sockets = set()
        for stream in (False, True, False):
            body = json.dumps({**HELLO, "stream": stream})
            connection.request("POST", "/v1/chat/completions", body, KEY)
            assert 200 == Answer(connection.getresponse()).status
            sockets.add(id(connection.sock))
        connection.close()

    assert 1 == len(sockets)

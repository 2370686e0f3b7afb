"""Bodies on real sockets: what a caller sees of the rules for them, and the vendor does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.gateway.front import Running, post

from loom.catalog.lookup import Catalog
from loom.core.ambient import SystemClock
from loom.layers.cost import Costing
from loom.ledger.memory import MemoryLedger
from loom.providers.scripted import ScriptedProvider
from loom.server.gateway import app as gateway

MODEL = "mistral-small-latest"
USER = {"role": "user", "content": "Hello"}


class Gateway(Running):
    """A gateway over a script."""

    def __init__(self) -> None:
        catalog, clock = Catalog.builtin(), SystemClock()
        self.ledger = MemoryLedger()
        numbers = iter(range(10_000))
        app = gateway.Gateway(
            provider=Costing(ScriptedProvider(), catalog=catalog, clock=clock),
            ledger=self.ledger,
            ring=None,
            catalog=catalog,
            clock=clock,
            new_id=lambda: f"{next(numbers):032x}",
        )
        super().__init__(app)

    def status(self, path: str = "/v1/chat/completions", **fields: Any) -> int:
        """Ask, and give the status."""
        body = json.dumps({"model": MODEL, "messages": [USER], **fields}).encode()
        return self.ask(post(body, path=path)).status


@pytest.fixture(scope="module")
def front() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


def written(text: bytes) -> bytes:
    """Write a whole chat with one more field, as it stands."""
    chat = json.dumps({"model": MODEL, "messages": [USER]}).encode()
    return chat[:-1] + b", " + text + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model": ',
        written(b'"temperature": NaN'),
        written(b'"user": "\\ud800"'),
        written(b'"user": "\xed\xa0\x80"'),
        written(b'"model": "another"'),
        written(b'"metadata": {"a": "1", "a": "2"}'),
        written(b'"metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        written(b'"metadata": ' + b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=["empty", "list", "half", "nan", "lone", "bytes", "twice", "deep_twice", "deep", "lists"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/mistral/v1/chat/completions"])
def test_what_is_no_body_is_400_in_either_dialect(front: Gateway, path: str, body: bytes) -> None:
    """G5: typed, never 500, and the next request on another connection is answered."""
    answer = front.ask(post(body, path=path))
    error = json.loads(answer.body)
    assert 400 == answer.status
    assert "invalid_request_error" == error.get("error", error)["type"]
    assert 200 == front.status()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "mistral\r\nx-evil: 1"},
        {"model": "mistral\x00"},
        {"metadata": {"team": "a\r\nx-evil: 1"}},
        {"user": "a\nb"},
    ],
    ids=["model", "nul", "metadata", "user"],
)
def test_no_line_end_travels_in_a_name(
    front: Gateway, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """G25, S5: 400; neither a header nor the log holds what followed the line end."""
    answer = front.ask(post(json.dumps({"messages": [USER], "model": MODEL, **fields}).encode()))
    assert 400 == answer.status
    assert "x-evil" not in answer.headers
    assert "evil" not in caplog.text


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "extra_headers", "endpoint"])
def test_a_caller_names_no_host(front: Gateway, name: str) -> None:
    """S4: 400 names the field, at the top and deep down."""
    for fields in ({name: "http://evil.example"}, {"messages": [{**USER, name: "x"}]}):
        body = json.dumps({"model": MODEL, "messages": [USER], **fields}).encode()
        answer = front.ask(post(body))
        assert 400 == answer.status
        assert name in answer.error["message"]


def test_a_tool_may_have_a_parameter_of_that_name(front: Gateway) -> None:
    """S4: what the model shall fill in is no field of the request."""
    schema = {"type": "object", "properties": {"endpoint": {"type": "string"}, "api_base": {}}}
    tool = {"type": "function", "function": {"name": "call", "parameters": schema}}
    assert 200 == front.status(tools=[tool])


@pytest.mark.parametrize(("count", "status"), [(4095, 200), (4096, 200), (4097, 400)])
def test_the_number_of_messages(front: Gateway, count: int, status: int) -> None:
    """S6: 4,096 pass, and one more does not."""
    turns = [USER, {"role": "assistant", "content": "Hi"}] * 2049
    assert status == front.status(messages=turns[2 * 2049 - count :])


@pytest.mark.parametrize(("count", "status"), [(511, 200), (512, 200), (513, 400)])
def test_the_number_of_tools(front: Gateway, count: int, status: int) -> None:
    """S6: 512 pass, and one more does not; OpenAI's own dialect has 128 at most."""
    tools = [
        {"type": "function", "function": {"name": f"f{number}", "parameters": {}}}
        for number in range(count)
    ]
    assert status == front.status("/mistral/v1/chat/completions", tools=tools)
    assert 400 == front.status(tools=tools)

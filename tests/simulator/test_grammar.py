"""What the simulator writes is built as the recorded answers are, down to the order of keys."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.recorded import Exchange, chat_exchanges, needed, with_legal_ids

from loom import Mistral
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import SIMULATOR_KEY, Simulator

MODEL = "mistral-small-latest"
PADDING = "abcdefghijklmnopqrstuvwxyz0123456789"


class Asked:
    """A connection to a simulator that knows every model, retired ones too."""

    def __init__(self, simulator: Simulator) -> None:
        self.connection = http.client.HTTPConnection(simulator.base_url.split("/")[2], timeout=20)

    def __call__(self, body: dict[str, Any]) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {SIMULATOR_KEY}"}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()


@pytest.fixture(scope="module")
def ask() -> Iterator[Asked]:
    with Simulator(provider=ScriptedProvider()) as simulator:
        asked = Asked(simulator)
        yield asked
        asked.connection.close()


def answered() -> list[Exchange]:
    """Recorded requests that were answered."""
    return [each for each in chat_exchanges() if each.request and each.status == 200]


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """Check the framing of a stream and give its chunks."""
    text = body.decode()
    assert text.endswith("data: [DONE]\n\n")
    lines = text.removesuffix("data: [DONE]\n\n").removesuffix("\n\n").split("\n\n")
    assert all(re.fullmatch(r"data: \{.*\}", line) for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def keys_in_order(chunk: dict[str, Any]) -> tuple[str, ...]:
    """The keys of a chunk and of its choice, as they stand on the wire."""
    return (*chunk, "|", *chunk["choices"][0])


def test_every_recorded_request_is_answered(ask: Asked) -> None:
    """What the API took, the simulator takes, and answers in the same form."""
    needed()
    assert answered()
    for exchange in answered():
        assert exchange.request is not None
        status, body = ask(with_legal_ids(exchange.request))

        assert 200 == status, f"{exchange}: {body[:300]!r}"
        assert exchange.stream == body.startswith(b"data: "), str(exchange)
        if not exchange.stream:
            choice = json.loads(body)["choices"][0]
            theirs = json.loads(exchange.body)["choices"][0]
            assert theirs.keys() - {"logprobs"} <= choice.keys(), str(exchange)
            assert {"role", "content", "tool_calls"} == choice["message"].keys()


def test_plain_answers_have_the_keys_in_the_recorded_order(ask: Asked) -> None:
    """Where a recorder kept the bytes, ours stand in the same order."""
    needed()
    orders = {
        tuple(json.loads(exchange.body))
        for exchange in answered()
        if not exchange.stream and exchange.body.startswith(b'{"id"')
    }
    status, body = ask({"model": "m", "messages": [{"role": "user", "content": "Say hello"}]})

    assert 200 == status
    assert tuple(json.loads(body)) in orders


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 5},
        {"n": 2},
        {"reasoning_effort": "high"},
        {
            "tools": [{"type": "function", "function": {"name": "hello", "parameters": {}}}],
            "tool_choice": "any",
        },
    ],
    ids=["text", "length", "n", "thinking", "tools"],
)
def test_streams_have_the_recorded_grammar(ask: Asked, fields: dict[str, Any]) -> None:
    """First a role, then pieces with padding, last the reason with usage, then [DONE]."""
    needed()
    recorded = [
        chunks_of(exchange.body)
        for exchange in answered()
        if exchange.stream and exchange.body.startswith(b'data: {"id"') and b'"p":' in exchange.body
    ]
    assert recorded
    orders = {keys_in_order(chunk) for chunks in recorded for chunk in chunks}
    messages = [{"role": "user", "content": "Tell me a story"}]

    _, body = ask({"model": "m", "messages": messages, "stream": True, **fields})
    chunks = chunks_of(body)

    assert {keys_in_order(chunk) for chunk in chunks} <= orders
    opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    assert [opening] == chunks[0]["choices"]
    assert "p" not in chunks[0]
    assert 1 == len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks})
    assert re.fullmatch("[0-9a-f]{32}", chunks[0]["id"])
    for chunk in chunks:
        assert PADDING.startswith(chunk.get("p", ""))
        assert ("usage" in chunk) == (chunk is chunks[-1])
    ended = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert fields.get("n", 1) == sum(reason is not None for reason in ended)
    assert ended[-1] == (
        "length" if "max_tokens" in fields else chunks[-1]["choices"][0]["finish_reason"]
    )


def test_tool_calls_come_whole_with_the_reason(ask: Asked) -> None:
    """All calls stand in the last chunk, with nine alphanumerics each, as recorded."""
    tools = [
        {"type": "function", "function": {"name": f"tool_{i}", "parameters": {}}} for i in (1, 2)
    ]
    messages = [{"role": "user", "content": "call tool_1 and tool_2"}]

    _, body = ask({"model": "m", "messages": messages, "tools": tools, "stream": True})
    chunks = chunks_of(body)
    (choice,) = chunks[-1]["choices"]

    assert 2 == len(chunks)
    assert "tool_calls" == choice["finish_reason"]
    assert ["tool_1", "tool_2"] == [
        call["function"]["name"] for call in choice["delta"]["tool_calls"]
    ]
    assert [0, 1] == [call["index"] for call in choice["delta"]["tool_calls"]]
    assert all(re.fullmatch("[A-Za-z0-9]{9}", call["id"]) for call in choice["delta"]["tool_calls"])


def test_calls_come_in_pieces_by_switch() -> None:
    """First id and name, then the arguments without either; a client puts them together."""
    schema = {"type": "object", "properties": {"n": {}}, "required": ["n"]}
    tool = {"type": "function", "function": {"name": "find_city", "parameters": schema}}
    prompt = "call find_city"
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "tools": [tool]}
    with Simulator(fragments=True) as simulator:
        asked = Asked(simulator)
        _, streamed = asked({**body, "stream": True})
        asked.connection.close()
        with (
            Mistral(SIMULATOR_KEY, base_url=simulator.base_url, model=MODEL) as mistral,
            mistral.stream(prompt, tools=[tool]) as stream,
        ):
            (call,) = stream.final().tool_calls

    *pieces, last = (chunk["choices"][0] for chunk in chunks_of(streamed)[1:])
    calls = [piece["delta"]["tool_calls"][0] for piece in pieces]
    assert ("find_city", "") == (calls[0]["function"]["name"], calls[0]["function"]["arguments"])
    assert all("id" not in each and not each["function"]["name"] for each in calls[1:])
    assert "n" in json.loads("".join(each["function"]["arguments"] for each in calls))
    assert ("tool_calls", {"content": ""}) == (last["finish_reason"], last["delta"])
    assert "find_city" == call.name
    assert "n" in json.loads(call.arguments)


def test_the_recorded_tools_are_called(ask: Asked) -> None:
    """Where the API called tools, the simulator nearly always calls some too."""
    needed()
    called = missed = 0
    for exchange in answered():
        if exchange.stream or '"tool_calls":null' in exchange.body.decode().replace(" ", ""):
            continue
        assert exchange.request is not None
        _, body = ask(with_legal_ids(exchange.request))
        if json.loads(body)["choices"][0]["message"]["tool_calls"]:
            called += 1
        else:
            missed += 1

    assert called >= 9 * missed, f"{called} called, {missed} missed"

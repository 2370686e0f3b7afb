"""Recorded exchanges with tools drive an agent, which asks what was asked next."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from tests.client.replay import replaying
from tests.recorded import Exchange, chat_exchanges, needed, truth_of, with_legal_ids
from tests.wire.test_recorded import meaning

from loom import AsyncMistral
from loom.agent.limits import AgentLimits
from loom.client.agent import AsyncAgent
from loom.shuttle.tool import Tool

pytestmark = pytest.mark.anyio

KEY = "canary-not-a-real-key"
# What one request of a chain says, and its next one need not.
_OPTIONS = ("model", "temperature", "max_tokens", "response_format", "tool_choice", "top_p")


def said(messages: list[dict[str, Any]]) -> str:
    """Give a conversation in one form, whoever recorded it."""
    told = []
    for message in messages:
        calls = [
            (call["function"]["name"], arguments(call)) for call in message.get("tool_calls") or []
        ]
        told.append([message["role"], message.get("content") or "", calls])
    return json.dumps(told, sort_keys=True)


def arguments(call: dict[str, Any]) -> Any:
    given = call["function"]["arguments"]
    return json.loads(given or "{}") if isinstance(given, str) else given


def before(messages: list[dict[str, Any]]) -> tuple[str, list[Any]] | None:
    """Give the conversation that the last calls of tools answered, and those calls."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "tool":
        end -= 1
    if end == len(messages) or not messages[end - 1].get("tool_calls"):
        return None
    calls = [[c["function"]["name"], arguments(c)] for c in messages[end - 1]["tool_calls"]]
    return said(messages[: end - 1]), calls


def chains() -> list[list[Exchange]]:
    """Give recorded requests that follow each other: each answers the calls of the one before."""
    asked = [e for e in chat_exchanges() if e.request and e.status == 200]
    by_history: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in asked:
        by_history[said((exchange.request or {})["messages"])].append(exchange)
    found = []
    for last in asked:
        chain = [last]
        while (earlier := predecessor(chain[0], by_history)) is not None:
            chain.insert(0, earlier)
        if len(chain) > 1 and not truth_of(last)["choices"][0]["calls"]:
            found.append(chain)
    return found


def predecessor(exchange: Exchange, by_history: dict[str, list[Exchange]]) -> Exchange | None:
    place = before((exchange.request or {})["messages"])
    if place is None:
        return None
    history, calls = place
    for earlier in by_history.get(history, ()):
        answered = truth_of(earlier)["choices"][0]["calls"]
        if [[name, json.loads(text or "{}")] for name, text in answered] == calls:
            return earlier
    return None


class Recorded(Tool):
    """A tool that gives what it gave when the exchange was recorded."""

    def __init__(self, spec: dict[str, Any], results: dict[str, list[Any]]) -> None:
        self._spec = spec
        self._results = results

    @property
    def name(self) -> str:
        return str(self._spec["name"])

    @property
    def description(self) -> str:
        return str(self._spec.get("description") or "")

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self._spec.get("parameters") or {})

    async def execute(self, input: dict[str, Any]) -> Any:  # noqa: A002 - the protocol's name
        return self._results[key(self.name, input)].pop(0)


def key(name: str, given: Any) -> str:
    return json.dumps([name, given], sort_keys=True)


def recorded_results(chain: list[Exchange]) -> dict[str, list[Any]]:
    """Give what each tool gave back, by its name and arguments, in order."""
    found: dict[str, list[Any]] = defaultdict(list)
    for exchange in chain[1:]:
        messages = (exchange.request or {})["messages"]
        end = max(i for i, m in enumerate(messages) if m.get("tool_calls"))
        given = messages[end + 1 :]
        for call in messages[end]["tool_calls"]:
            mine = [m for m in given if m.get("tool_call_id") == call["id"]] or given
            found[key(call["function"]["name"], arguments(call))].append(mine[0]["content"])
    return found


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """
    Give a request's meaning.

    A recorder wrote some arguments with other white space, and none repeated the tool's name
    beside its result, which the call has. Identical calls of one answer run once here: a pair of
    dice was rolled twice, and shows the first roll.
    """
    told = meaning(body)
    first: dict[Any, Any] = {}
    names: dict[Any, str] = {}
    for message in told["messages"]:
        message.pop("name", None)
        message["content"] = message["content"] or ""
        if message["role"] == "tool":
            same = names[message["tool_call_id"]]
            message["content"] = first.setdefault(same, message["content"])
        elif message["tool_calls"]:
            first.clear()
        for call in message["tool_calls"]:
            given = call["arguments"]
            call["arguments"] = json.loads(given) if isinstance(given, str) else given
            names[call["id"]] = key(call["name"], call["arguments"])
    return told


def id_of(chain: list[Exchange]) -> str:
    return f"{len(chain)}-{chain[-1]}"


CHAINS = chains()


def test_there_are_chains() -> None:
    """The recordings hold conversations of several requests, one of them of five."""
    needed()
    assert 15 <= len(CHAINS)
    assert 5 <= max(map(len, CHAINS))


@pytest.mark.parametrize("chain", CHAINS, ids=id_of)
async def test_the_next_request_means_what_was_recorded(chain: list[Exchange]) -> None:
    """The recorded answers make the agent run the tools, and ask what the recorder asked."""
    first = with_legal_ids(chain[0].request or {})
    results = recorded_results(chain)
    tools = [Recorded(tool["function"], results) for tool in first["tools"]]
    options = {name: first[name] for name in _OPTIONS if name in first}
    async with (
        replaying() as server,
        AsyncMistral(KEY, base_url=server.base_url, retry=None) as client,
        AsyncAgent(llm=client, tools=tools, limits=AgentLimits(warn_usd=None)) as agent,
    ):
        server.answers(*chain)
        if chain[-1].stream:
            response = await agent.stream(first["messages"], **options).final()
        else:
            response = await agent.chat(first["messages"], **options)
        sent = server.requests
    assert len(chain) == len(sent) == len(response.calls)
    for asked, exchange in zip(sent, chain, strict=True):
        wanted = plain(with_legal_ids(exchange.request or {}))
        assert wanted["messages"] == plain(asked)["messages"]
        assert wanted["tools"] == plain(asked)["tools"]
    assert truth_of(chain[-1])["choices"][0]["text"] == response.content

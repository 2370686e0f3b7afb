"""The official SDKs through the gateway: what they ask arrives, what comes back they can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import mistralai.client as mistralai
import openai
import pytest
from mistralai.client.errors import MistralError
from tests.server.gateway.kit import MODEL, QUESTION, Served

from loom.core.errors import (
    ContentBlocked,
    ContextTooLong,
    LoomError,
    RateLimited,
    ServiceUnavailable,
)
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
WEATHER: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "colour",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"colour": {"type": "string"}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Give one gateway for every SDK."""
    with Served() as running:
        yield running


@pytest.fixture
def by_openai(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=f"{served.address}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def by_mistral(served: Served) -> Iterator[mistralai.Mistral]:
    with mistralai.Mistral(api_key="any", server_url=served.address) as client:
        yield client


def test_openai_chats_and_streams(by_openai: openai.OpenAI) -> None:
    """Text and usage, plain and streamed."""
    answer = by_openai.chat.completions.create(model=MODEL, messages=QUESTION)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    chunks = list(
        by_openai.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert answer.choices[0].message.content == text
    assert chunks[-1].usage is not None
    assert answer.usage.total_tokens == chunks[-1].usage.total_tokens


def test_openai_uses_tools(by_openai: openai.OpenAI) -> None:
    """A call, its result, and the answer."""
    messages = list(WEATHER)
    first = by_openai.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    message: Any = first.choices[0].message
    (call,) = message.tool_calls
    assert "get_weather" == call.function.name
    messages.append(message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "18 degrees"})
    second = by_openai.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    assert "18 degrees" in (second.choices[0].message.content or "")


def test_openai_gets_json_by_a_schema(by_openai: openai.OpenAI) -> None:
    """A schema goes through, and its answer fits."""
    answer = by_openai.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        response_format=SCHEMA,
    )
    assert {"colour"} == set(json.loads(answer.choices[0].message.content or ""))


def test_openai_lists_models(by_openai: openai.OpenAI) -> None:
    """Every model, and one."""
    assert MODEL in [model.id for model in by_openai.models.list()]
    assert MODEL == by_openai.models.retrieve(MODEL).id


def test_mistral_chats_and_streams(by_mistral: mistralai.Mistral) -> None:
    """Text and usage, plain and streamed."""
    answer = by_mistral.chat.complete(model=MODEL, messages=QUESTION)
    content = answer.choices[0].message.content  # type: ignore[union-attr]  # it has a message
    assert content
    events = list(by_mistral.chat.stream(model=MODEL, messages=QUESTION))
    text = "".join(str(event.data.choices[0].delta.content) for event in events)
    assert content == text
    assert answer.usage.total_tokens == events[-1].data.usage.total_tokens


def test_mistral_uses_tools(by_mistral: mistralai.Mistral) -> None:
    """A call, its result, and the answer."""
    messages = list(WEATHER)
    first = by_mistral.chat.complete(model=MODEL, messages=messages, tools=[TOOL])
    message: Any = first.choices[0].message
    (call,) = message.tool_calls
    assert "get_weather" == call.function.name
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    messages += [message.model_dump(exclude_none=True), result]
    second = by_mistral.chat.complete(model=MODEL, messages=messages, tools=[TOOL])
    assert "18 degrees" in str(second.choices[0].message.content)  # type: ignore[union-attr]  # it has a message


def test_mistral_lists_models(by_mistral: mistralai.Mistral) -> None:
    """Every model."""
    rows: Any = by_mistral.models.list().data
    assert MODEL in [row.id for row in rows]


@pytest.mark.parametrize(
    ("error", "theirs", "status"),
    [
        (RateLimited("slow down"), openai.RateLimitError, 429),
        (ServiceUnavailable("down"), openai.InternalServerError, 503),
        (ContextTooLong("too long"), openai.BadRequestError, 400),
        (ContentBlocked("no"), openai.APIStatusError, 422),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_errors_are_the_sdks_own(
    error: LoomError, theirs: type[openai.APIStatusError], status: int
) -> None:
    """Each class of error is the one that a user of the SDK catches."""
    script = ScriptedProvider([error, error], model=MODEL)
    with Served(Simulator(provider=script)) as served:
        with (
            openai.OpenAI(api_key="any", base_url=f"{served.address}/v1", max_retries=0) as client,
            pytest.raises(theirs) as caught,
        ):
            client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert status == caught.value.status_code
        with (
            mistralai.Mistral(api_key="any", server_url=served.address) as client,
            pytest.raises(MistralError) as by_mistral,
        ):
            client.chat.complete(model=MODEL, messages=QUESTION)
        assert status == by_mistral.value.status_code


def test_the_ledger_equals_the_journal(served: Served) -> None:
    """Tokens and money of every row are what the vendor counted, in order."""
    entries = [e for e in served.sim.journal.entries() if e.path.endswith("chat/completions")]
    rows = served.rows()
    assert entries
    assert [(e.prompt_tokens, e.completion_tokens) for e in entries] == [
        (row.input_tokens, row.output_tokens) for row in rows
    ]
    assert [e.cost_usd for e in entries] == [row.cost_usd for row in rows]

"""Clients that others wrote talk to the simulator, and their own parsers accept everything."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import openai
import pytest
from mistralai.client import Mistral as Theirs
from mistralai.client.errors import SDKError
from tests.sdk.conftest import Served

MODEL = "mistral-small-latest"
PARAMETERS = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "A city."},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location"],
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": PARAMETERS,
    },
}
QUESTION = "What is the weather in Paris and Rome?"
RESULT = '{"temperature": 21, "sky": "clear"}'


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def by_mistral(served: Served) -> Theirs:
    return Theirs(api_key=served.api_key, server_url=served.root)


def by_openai(served: Served) -> openai.OpenAI:
    return openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0)


def test_mistralai_chats(served: Served) -> None:
    """Text, usage and finish reason come out of the official client."""
    with by_mistral(served) as client:
        reply = client.chat.complete(model=MODEL, messages=[user("Explain looms.")])

    assert "looms" in str(reply.choices[0].message.content)
    assert "stop" == reply.choices[0].finish_reason
    assert MODEL == reply.model
    assert reply.usage.total_tokens == (
        (reply.usage.prompt_tokens or 0) + (reply.usage.completion_tokens or 0)
    )


def test_mistralai_streams(served: Served) -> None:
    """The streamed pieces are the plain answer; the last chunk has reason and usage."""
    messages = [user("Tell me a story")]
    with by_mistral(served) as client:
        plain = client.chat.complete(model=MODEL, messages=messages)
        with client.chat.stream(model=MODEL, messages=messages) as stream:
            chunks = [event.data for event in stream]

    text = "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks)
    assert plain.choices[0].message.content == text
    assert "stop" == chunks[-1].choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert plain.usage.completion_tokens == chunks[-1].usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_mistralai_calls_tools_and_sends_results_back(served: Served) -> None:
    """Both calls of the turn go round through the official types."""
    messages: list[Any] = [user(QUESTION)]
    with by_mistral(served) as client:
        first = client.chat.complete(model=MODEL, messages=messages, tools=[TOOL])
        turn = first.choices[0].message
        assert turn is not None
        calls: Any = turn.tool_calls
        messages.append(turn)
        messages += [
            {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": RESULT}
            for call in calls
        ]
        last = client.chat.complete(model=MODEL, messages=messages, tools=[TOOL])

    assert "tool_calls" == first.choices[0].finish_reason
    assert [{"location": "Paris"}, {"location": "Rome"}] == [
        json.loads(call.function.arguments) for call in calls
    ]
    assert "get_weather (Rome): temperature 21, sky clear" in str(last.choices[0].message.content)


def test_mistralai_streams_tool_calls(served: Served) -> None:
    """All calls of the turn come whole, in the last chunk."""
    with (
        by_mistral(served) as client,
        client.chat.stream(model=MODEL, messages=[user(QUESTION)], tools=[TOOL]) as stream,
    ):
        chunks = [event.data for event in stream]

    calls: Any = chunks[-1].choices[0].delta.tool_calls
    assert ["get_weather", "get_weather"] == [call.function.name for call in calls]
    assert "tool_calls" == chunks[-1].choices[0].finish_reason


def test_mistralai_reads_thinking(served: Served) -> None:
    """Thinking chunks are typed parts for the official client, plain and streamed."""
    asked: Any = {"model": MODEL, "messages": [user("Why?")], "reasoning_effort": "high"}
    with by_mistral(served) as client:
        parts: Any = client.chat.complete(**asked).choices[0].message.content
        with client.chat.stream(**asked) as stream:
            pieces = [event.data.choices[0].delta.content for event in stream]

    assert ["thinking", "text"] == [part.type for part in parts]
    kinds = [type(piece).__name__ for piece in pieces if piece]
    assert {"list", "str"} == set(kinds)
    assert kinds == sorted(kinds)


def test_mistralai_parses_structured_answers(served: Served) -> None:
    """A json_schema answer is what the schema asked for."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    with by_mistral(served) as client:
        reply = client.chat.complete(
            model=MODEL, messages=[user("Anna is 33.")], response_format=form
        )

    assert {"name": "Anna", "age": 33} == json.loads(str(reply.choices[0].message.content))


def test_mistralai_lists_models(served: Served) -> None:
    """The list and the card of one model are accepted."""
    with by_mistral(served) as client:
        listed = client.models.list()
        card = client.models.retrieve(model_id=MODEL)

    assert MODEL in {row.id for row in listed.data or []}
    assert MODEL == card.id


def test_mistralai_gets_the_recorded_errors(served: Served) -> None:
    """Wrong key, wrong model and wrong field are the statuses of the real API."""
    with Theirs(api_key="wrong", server_url=served.root) as client:
        with pytest.raises(SDKError) as refused:
            client.chat.complete(model=MODEL, messages=[user("x")])
        assert 401 == refused.value.status_code
    with by_mistral(served) as client:
        with pytest.raises(SDKError, match="Invalid model: nope") as unknown:
            client.chat.complete(model="nope", messages=[user("x")])
        assert 400 == unknown.value.status_code


@pytest.mark.anyio
async def test_mistralai_works_asynchronously(served: Served) -> None:
    """The asynchronous official client chats and streams."""
    async with by_mistral(served) as client:
        reply = await client.chat.complete_async(model=MODEL, messages=[user("Say hello")])
        stream = await client.chat.stream_async(model=MODEL, messages=[user("Say hello")])
        async with stream:
            pieces = [str(event.data.choices[0].delta.content) async for event in stream]

    assert "hello" == reply.choices[0].message.content == "".join(pieces)


def test_openai_chats(served: Served) -> None:
    """OpenAI's client reads the answer and its usage."""
    with by_openai(served) as client:
        reply = client.chat.completions.create(model=MODEL, messages=[user("Explain looms.")])

    assert "looms" in str(reply.choices[0].message.content)
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_openai_streams(served: Served) -> None:
    """The pieces join to the plain answer, `n` of them at once too."""
    with by_openai(served) as client:
        plain = client.chat.completions.create(model=MODEL, messages=[user("A story")], n=2)
        texts = ["", ""]
        with client.chat.completions.create(
            model=MODEL, messages=[user("A story")], n=2, stream=True
        ) as stream:
            for chunk in stream:
                texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [choice.message.content for choice in plain.choices] == texts


def test_openai_calls_tools_and_sends_results_back(served: Served) -> None:
    """The call goes round through OpenAI's types, streamed and plain."""
    messages: list[Any] = [user("What is the weather in Paris?")]
    with by_openai(served) as client:
        with client.chat.completions.create(
            model=MODEL, messages=messages, tools=[TOOL], stream=True
        ) as stream:
            deltas = [chunk.choices[0] for chunk in stream]
        first = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
        turn = first.choices[0].message
        calls: Any = turn.tool_calls
        messages.append(turn.model_dump(include={"role", "content", "tool_calls"}))
        messages.append({"role": "tool", "tool_call_id": calls[0].id, "content": RESULT})
        last = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])

    assert '{"location": "Paris"}' == calls[0].function.arguments
    streamed: Any = deltas[-1].delta.tool_calls
    assert calls[0].function.arguments == streamed[0].function.arguments
    assert "tool_calls" == deltas[-1].finish_reason
    assert "temperature 21" in str(last.choices[0].message.content)


def test_openai_gets_the_recorded_errors(served: Served) -> None:
    """OpenAI's error classes fit the statuses."""
    with by_openai(served) as client:
        with pytest.raises(openai.BadRequestError, match="Invalid model: nope"):
            client.chat.completions.create(model="nope", messages=[user("x")])
        # Mistral refuses OpenAI's own fields.
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.create(model=MODEL, messages=[user("x")], seed=1)
        assert "seed" in str(refused.value.body)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        assert MODEL in {row.id for row in client.models.list()}


@pytest.mark.anyio
async def test_openai_works_asynchronously(served: Served) -> None:
    """The asynchronous client chats, streams, and may leave in the middle."""
    async with openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url) as client:
        create = client.chat.completions.create
        reply = await create(model=MODEL, messages=[user("Say hello")])
        async with await create(model=MODEL, messages=[user("A story")], stream=True) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        again = await create(model=MODEL, messages=[user("Say hello")])

    assert "hello" == reply.choices[0].message.content == again.choices[0].message.content


def test_curl_streams(served: Served) -> None:
    """What the command prints as an example works, streamed too."""
    curl = shutil.which("curl") or pytest.skip("curl is not installed")
    body = json.dumps({"model": MODEL, "messages": [user("Say hello")], "stream": True})
    headers = [
        "-H",
        f"Authorization: Bearer {served.api_key}",
        "-H",
        "Content-Type: application/json",
    ]

    done = subprocess.run(
        [
            curl,
            "-sSN",
            "--noproxy",
            "*",
            f"{served.base_url}/chat/completions",
            *headers,
            "-d",
            body,
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.stdout.endswith("data: [DONE]\n\n")
    assert '"content":"hello"' in done.stdout

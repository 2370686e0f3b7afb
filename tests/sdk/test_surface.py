"""The rest of the surface for clients that others wrote: infills, embeddings, asynchronous use."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from mistralai.client import Mistral as Theirs
from tests.sdk.conftest import Served

MODEL = "mistral-small-latest"
CODE = "codestral-latest"
EMBED = "mistral-embed"
TEXTS = ["a loom weaves cloth", "looms weave a cloth", "quarterly tax report"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris and Rome?"}]
PERSON: Any = [{"role": "user", "content": "Anna is 33."}]


def by_mistral(served: Served) -> Theirs:
    return Theirs(api_key=served.api_key, server_url=served.root)


def by_openai(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0)


def likeness(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def assert_vectors(vectors: Sequence[Sequence[float]]) -> None:
    """Unit vectors, and texts of one meaning are nearer than others."""
    assert 3 == len(vectors)
    for vector in vectors:
        assert math.isclose(1, likeness(vector, vector), abs_tol=1e-3)
    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])


def test_mistralai_fills_in(served: Served) -> None:
    """The plain infill is the streamed one."""
    gap = {"model": CODE, "prompt": "def add(a, b):\n", "suffix": "\n    return c"}
    with by_mistral(served) as client:
        plain = client.fim.complete(**gap)
        with client.fim.stream(**gap) as stream:
            chunks = [event.data for event in stream]

    text = "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks)
    assert text
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage is not None


def test_mistralai_embeds(served: Served) -> None:
    """One vector for each text."""
    with by_mistral(served) as client:
        reply = client.embeddings.create(model=EMBED, inputs=TEXTS)

    assert_vectors([row.embedding or [] for row in reply.data])
    assert (reply.usage.prompt_tokens or 0) > 0


@pytest.mark.anyio
async def test_mistralai_does_it_all_asynchronously(served: Served) -> None:
    """Tools, streams, structured answers, infills, vectors and models."""
    async with by_mistral(served) as client:
        calls = await client.chat.complete_async(model=MODEL, messages=WEATHER, tools=[TOOL])
        stream = await client.chat.stream_async(model=MODEL, messages=WEATHER, tools=[TOOL])
        async with stream:
            chunks = [event.data async for event in stream]
        form: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
        person = await client.chat.complete_async(
            model=MODEL, messages=PERSON, response_format=form
        )
        loose: Any = {"type": "json_object"}
        said: Any = [{"role": "user", "content": "Answer in JSON with the keys name and age."}]
        some = await client.chat.complete_async(model=MODEL, messages=said, response_format=loose)
        infill = await client.fim.complete_async(model=CODE, prompt="def add(a, b):\n")
        gaps = await client.fim.stream_async(model=CODE, prompt="def add(a, b):\n")
        async with gaps:
            pieces = [str(event.data.choices[0].delta.content or "") async for event in gaps]
        vectors = await client.embeddings.create_async(model=EMBED, inputs=TEXTS)
        listed = await client.models.list_async()
        card = await client.models.retrieve_async(model_id=MODEL)

    turn: Any = calls.choices[0].message
    assert ["Paris", "Rome"] == [
        json.loads(call.function.arguments)["location"] for call in turn.tool_calls
    ]
    streamed: Any = chunks[-1].choices[0].delta.tool_calls
    assert [call.id for call in turn.tool_calls] == [call.id for call in streamed]
    assert {"name": "Anna", "age": 33} == json.loads(str(person.choices[0].message.content))
    assert {"name", "age"} == json.loads(str(some.choices[0].message.content)).keys()
    assert infill.choices[0].message.content == "".join(pieces)
    assert_vectors([row.embedding or [] for row in vectors.data])
    assert MODEL in {row.id for row in listed.data or []}
    assert MODEL == card.id


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.anyio
async def test_openai_embeds(served: Served, form: Any) -> None:
    """OpenAI's client asks for base64 unless told otherwise."""
    async with by_openai(served) as client:
        reply = await client.embeddings.create(model=EMBED, input=TEXTS, encoding_format=form)

    if form == "float":
        assert_vectors([row.embedding for row in reply.data])
    assert [0, 1, 2] == [row.index for row in reply.data]


@pytest.mark.anyio
async def test_openai_does_it_all_asynchronously(served: Served) -> None:
    """Tools plain and streamed, structured answers, models."""
    async with by_openai(served) as client:
        create: Any = client.chat.completions.create
        calls = await create(model=MODEL, messages=WEATHER, tools=[TOOL])
        async with await create(model=MODEL, messages=WEATHER, tools=[TOOL], stream=True) as stream:
            chunks = [chunk async for chunk in stream]
        form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
        person = await create(model=MODEL, messages=PERSON, response_format=form)
        card = await client.models.retrieve(MODEL)
        listed = [row.id async for row in client.models.list()]

    turn = calls.choices[0].message
    assert ["get_weather"] * 2 == [call.function.name for call in turn.tool_calls]
    assert [call.id for call in turn.tool_calls] == [
        call.id for call in chunks[-1].choices[0].delta.tool_calls
    ]
    assert {"name": "Anna", "age": 33} == json.loads(person.choices[0].message.content)
    assert MODEL == card.id
    assert MODEL in listed


@pytest.mark.anyio
async def test_openai_parses_into_types(served: Served) -> None:
    """The client's own `parse` makes a value of the asked type."""
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int

    async with by_openai(served) as client:
        reply = await client.chat.completions.parse(
            model=MODEL, messages=PERSON, response_format=Person
        )

    assert Person(name="Anna", age=33) == reply.choices[0].message.parsed

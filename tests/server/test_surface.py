"""The endpoints and options of the offline API, asked over a real socket."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from tests.recorded import exchanges, needed
from tests.server.test_app import Answer, Caller

from loom.server.simulator import Simulator

CHAT, FIM, EMBEDDINGS = "/v1/chat/completions", "/v1/fim/completions", "/v1/embeddings"
WEATHER = {
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
TIME = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk"
    "+M8AAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with Simulator(tier="100000/1000000000") as simulator:
        yield Caller(simulator.base_url)


def post(caller: Caller, path: str, **body: Any) -> Answer:
    return caller.send("POST", path, json.dumps(body).encode())


def ask(caller: Caller, prompt: str, **more: Any) -> Answer:
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "mistral-small-latest", "messages": messages, **more}
    return post(caller, CHAT, **body)


def message(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json["choices"][0]["message"]
    return found


def chunks(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    *events, done, rest = answer.body.split(b"\n\n")
    assert (b"data: [DONE]", b"") == (done, rest)
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def embed(caller: Caller, *texts: str, **more: Any) -> Any:
    answer = post(caller, EMBEDDINGS, **{"model": "mistral-embed", "input": list(texts), **more})
    assert answer.status == 200, answer.body
    return answer.json


def cosine(left: list[float], right: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def test_an_embedding_has_the_recorded_form(caller: Caller) -> None:
    """Keys, their order, the nulls and the length of the vector are those of August 2026."""
    needed()
    recorded = [each for each in exchanges() if each.kind == "embeddings" and each.request]
    newest = [json.loads(each.body) for each in recorded if b'"service_tier"' in each.body]
    ordered = next(body for body in newest if next(iter(body)) == "id")
    ours = embed(caller, "Hello")

    assert list(ordered) == list(ours)
    assert list(ordered["data"][0]) == list(ours["data"][0])
    assert list(ordered["usage"]) == list(ours["usage"])
    assert len(ordered["data"][0]["embedding"]) == len(ours["data"][0]["embedding"])
    nulls = [name for name, value in ordered["usage"].items() if value is None]
    assert nulls == [name for name, value in ours["usage"].items() if value is None]


def test_one_text_is_a_list_of_one(caller: Caller) -> None:
    """A string and a list of it get the same vector; the index counts from 0."""
    alone = post(caller, EMBEDDINGS, model="mistral-embed", input="Hello").json
    listed = embed(caller, "Hello", "Goodbye")

    assert alone["data"][0] == listed["data"][0]
    assert [0, 1] == [row["index"] for row in listed["data"]]
    assert alone["id"] != listed["id"]


def test_similar_texts_are_near(caller: Caller) -> None:
    """Vectors have length 1, repeat, and lie nearer when texts share words."""
    rows = embed(
        caller, "The cat sat on the mat", "A cat sat on a mat", "Quarterly revenue fell sharply"
    )
    cat, kitten, money = (row["embedding"] for row in rows["data"])
    again = embed(caller, "The cat sat on the mat")["data"][0]["embedding"]

    assert cat == again
    assert [1.0] * 3 == [pytest.approx(cosine(each, each)) for each in (cat, kitten, money)]
    assert cosine(cat, kitten) > 0.4
    assert abs(cosine(cat, money)) < 0.2


def test_a_dimension_can_be_chosen_where_the_model_allows_it(caller: Caller) -> None:
    """codestral-embed takes a dimension and mistral-embed refuses it, as recorded."""
    chosen = embed(caller, "def f(): pass", model="codestral-embed", output_dimension=64)
    refused = post(caller, EMBEDDINGS, model="mistral-embed", input="x", output_dimension=64)

    assert 64 == len(chosen["data"][0]["embedding"])
    assert 1536 == len(embed(caller, "x", model="codestral-embed")["data"][0]["embedding"])
    assert (400, "3051") == (refused.status, refused.json["code"])


def test_base64_is_the_same_vector(caller: Caller) -> None:
    """Floats of four bytes, little end first: what OpenAI's SDK asks for by itself."""
    plain = embed(caller, "Hello")["data"][0]["embedding"]
    packed = base64.b64decode(
        embed(caller, "Hello", encoding_format="base64")["data"][0]["embedding"]
    )

    assert plain == pytest.approx(struct.unpack(f"<{len(plain)}f", packed), abs=1e-6)


@pytest.mark.parametrize(
    ("dtype", "length", "low", "high"),
    [
        ("int8", 64, -128, 127),
        ("uint8", 64, 0, 255),
        ("binary", 8, -128, 127),
        ("ubinary", 8, 0, 255),
    ],
)
def test_numbers_can_be_small(caller: Caller, dtype: str, length: int, low: int, high: int) -> None:
    """Whole numbers in their range, eight of them in a byte for the binary kinds."""
    asked = {"model": "codestral-embed", "output_dimension": 64, "output_dtype": dtype}
    row = embed(caller, "x", **asked)["data"][0]["embedding"]
    packed = embed(caller, "x", encoding_format="base64", **asked)["data"][0]["embedding"]

    assert length == len(row) == len(base64.b64decode(packed))
    assert all(isinstance(number, int) and low <= number <= high for number in row)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "mistral-embed", "input": ["x"] * 257}, 400, "3210"),
        ({"model": "no-such-embedding-model", "input": ["x"]}, 400, "1500"),
        ({"model": "mistral-embed", "input": [1]}, 422, None),
        ({"model": "mistral-embed"}, 422, None),
    ],
)
def test_refused_embeddings(caller: Caller, body: dict[str, Any], status: int, code: Any) -> None:
    """Too many texts, an unknown model and a wrong shape are answered as recorded."""
    answer = post(caller, EMBEDDINGS, **body)

    assert (status, code) == (answer.status, answer.json["code"])


def test_every_recorded_embedding_gets_the_recorded_status(caller: Caller) -> None:
    """Accepted ones are answered with as many vectors, refused ones with the recorded body."""
    needed()
    for exchange in exchanges():
        if exchange.request is None or not isinstance(exchange.request.get("input"), str | list):
            continue
        if "embed" not in str(exchange.request.get("model")):
            continue
        answer, recorded = post(caller, EMBEDDINGS, **exchange.request), json.loads(exchange.body)
        assert (exchange.file, exchange.status) == (exchange.file, answer.status)
        if exchange.status != 200:
            assert recorded == answer.json
            continue
        assert [len(row["embedding"]) for row in recorded["data"]] == [
            len(row["embedding"]) for row in answer.json["data"]
        ]


def test_a_gap_is_filled(caller: Caller) -> None:
    """The answer has the shape of a chat's; code gets a line that fits its indent."""
    answer = post(
        caller,
        FIM,
        model="codestral-latest",
        prompt="def add(a, b):\n",
        suffix="\nprint(add(1, 2))",
    )
    usage = answer.json["usage"]

    assert ("chat.completion", "stop") == (
        answer.json["object"], answer.json["choices"][0]["finish_reason"],
    )  # fmt: skip
    assert "    return a + b" == message(answer)["content"].rstrip()
    assert usage["prompt_tokens"] > 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_gap_is_filled_as_a_stream(caller: Caller) -> None:
    """The same text in chunks, usage on the last of them."""
    body = {"model": "codestral-latest", "prompt": "def add(a, b):\n"}
    plain = message(post(caller, FIM, **body))["content"]
    pieces = chunks(post(caller, FIM, **body, stream=True))

    assert plain == "".join(each["choices"][0]["delta"].get("content") or "" for each in pieces)
    assert "usage" in pieces[-1]


@pytest.mark.parametrize(
    ("more", "reason"), [({"stop": "return"}, "stop"), ({"max_tokens": 2}, "length")]
)
def test_a_gap_keeps_to_its_limits(caller: Caller, more: dict[str, Any], reason: str) -> None:
    """`stop` and `max_tokens` cut it as they cut a chat."""
    answer = post(caller, FIM, model="codestral-latest", prompt="def add(a, b):\n", **more)

    assert reason == answer.json["choices"][0]["finish_reason"]
    assert "a + b" not in message(answer)["content"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "codestral-latest"}, 422),
        ({"model": "codestral-latest", "prompt": "x", "messages": []}, 422),
        ({"model": "nobody", "prompt": "x"}, 400),
    ],
)
def test_a_refused_gap(caller: Caller, body: dict[str, Any], status: int) -> None:
    """Wrong fields and unknown models are refused."""
    assert status == post(caller, FIM, **body).status


@pytest.mark.parametrize("path", [FIM, EMBEDDINGS])
def test_new_endpoints_have_a_door(caller: Caller, path: str) -> None:
    """They want the key, and the right method."""
    assert 401 == caller.send("POST", path, b"{}", {}).status
    wrong = caller.send("GET", path)
    assert (405, {"detail": "Method Not Allowed"}) == (wrong.status, wrong.json)


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers(caller: Caller, stream: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    """`n` answers come, each with its number, usage once."""
    answer = ask(caller, "Tell me a story", n=3, stream=stream)
    if not stream:
        assert [0, 1, 2] == [choice["index"] for choice in answer.json["choices"]]
        return
    pieces = chunks(answer)
    ended = [each for each in pieces if each["choices"][0]["finish_reason"]]

    assert {0, 1, 2} == {each["choices"][0]["index"] for each in pieces}
    assert [False, False, True] == ["usage" in each for each in ended]


def test_stop_ends_an_answer_before_itself(caller: Caller) -> None:
    """The stop text is not returned, and the reason is `stop`."""
    answer = ask(caller, "Reply with exactly: red green blue", stop=["green"])

    assert "red" == message(answer)["content"].strip()
    assert "stop" == answer.json["choices"][0]["finish_reason"]


@pytest.mark.parametrize("most", [1, 3, 7])
def test_max_tokens_cuts_a_text(caller: Caller, most: int) -> None:
    """The answer has so many tokens and says `length`."""
    answer = ask(caller, "Tell me a long story about the sea", max_tokens=most)

    assert "length" == answer.json["choices"][0]["finish_reason"]
    assert most == answer.json["usage"]["completion_tokens"]
    assert message(answer)["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("most", "begins"), [(4, ""), (9, "{")])
def test_max_tokens_cuts_a_call(
    caller: Caller,
    most: int,
    begins: str,
    stream: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """The reason is `length`, and the call is there with its arguments cut or empty."""
    answer = ask(
        caller, "What is the weather in Paris?", tools=[WEATHER], tool_choice="any",
        max_tokens=most, stream=stream,
    )  # fmt: skip
    body = chunks(answer)[-1] if stream else answer.json
    choice = body["choices"][0]
    (call,) = (choice["delta"] if stream else choice["message"])["tool_calls"]
    arguments = call["function"]["arguments"]

    assert ("length", most) == (choice["finish_reason"], body["usage"]["completion_tokens"])
    assert "get_weather" == call["function"]["name"]
    assert arguments.startswith(begins)
    assert not arguments.endswith("}")


def test_a_json_object_is_one(caller: Caller) -> None:
    """The text of the answer is a JSON object."""
    form = {"type": "json_object"}
    answer = ask(caller, "Give JSON with the keys name and age", response_format=form)

    assert {"name", "age"} <= set(json.loads(message(answer)["content"]))


SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3},
            "age": {"type": "integer", "minimum": 18, "maximum": 30},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["next"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"value": {"type": "number", "exclusiveMinimum": 0}},
                "required": ["value"],
            }
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["flat", "nested"])
def test_an_answer_fits_its_schema(caller: Caller, schema: dict[str, Any]) -> None:
    """The text of the answer validates against the schema that was sent."""
    wanted = {"name": "answer", "schema": schema, "strict": True}
    form = {"type": "json_schema", "json_schema": wanted}
    answer = ask(caller, "Who is Ada?", response_format=form)

    jsonschema.validate(json.loads(message(answer)["content"]), schema)


@pytest.mark.parametrize("effort", ["high", "none"])
def test_a_model_thinks_when_it_is_asked_to(caller: Caller, effort: str) -> None:
    """Thoughts come first, as a list of chunks; without them the content is a string."""
    content = message(ask(caller, "Why is the sky blue?", reasoning_effort=effort))["content"]

    if effort == "none":
        assert isinstance(content, str)
    else:
        assert ["thinking", "text"] == [chunk["type"] for chunk in content]
        assert content[0]["thinking"][0]["text"]


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "image_url", "image_url": PNG},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "document_url", "document_url": "https://example.com/a.pdf"},
        {"type": "file", "file_id": "00edaf84-95b0-45db-8f83-f71138491f23"},
    ],
)
def test_images_and_documents_are_accepted(caller: Caller, chunk: dict[str, Any]) -> None:
    """A user's turn may hold more than text."""
    content = [{"type": "text", "text": "What is this?"}, chunk]
    turns = [{"role": "user", "content": content}]
    answer = post(caller, CHAT, model="mistral-small-latest", messages=turns)

    assert message(answer)["content"]


@pytest.mark.parametrize("form", [None, {"type": "json_object"}])
def test_an_answer_begins_with_its_prefix(caller: Caller, form: Any) -> None:
    """The prefix is returned, and stands once."""
    turns = [
        {"role": "user", "content": "Give JSON about Ada"},
        {"role": "assistant", "content": "{", "prefix": True},
    ]
    more = {} if form is None else {"response_format": form}
    text = message(post(caller, CHAT, model="mistral-small-latest", messages=turns, **more))

    assert text["content"].startswith("{")
    assert not text["content"].startswith("{{")


def test_a_prediction_changes_nothing(caller: Caller) -> None:
    """It is accepted, and the answer is the same."""
    guess = {"type": "content", "content": "Hello there"}
    plain, guessed = ask(caller, "Hello"), ask(caller, "Hello", prediction=guess)

    assert message(plain)["content"] == message(guessed)["content"]


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        (None, ["get_weather"]),
        ("auto", ["get_weather"]),
        ("none", []),
        ("any", ["get_weather"]),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
    ],
)
def test_tool_choice_is_obeyed(caller: Caller, choice: Any, called: list[str]) -> None:
    """Each mode calls what it must, with arguments that validate."""
    more = {} if choice is None else {"tool_choice": choice}
    answer = ask(caller, "What is the weather in Paris?", tools=[WEATHER, TIME], **more)
    calls = message(answer)["tool_calls"] or []

    assert called == [call["function"]["name"] for call in calls]
    assert ("tool_calls" if called else "stop") == answer.json["choices"][0]["finish_reason"]
    for call in calls:
        tool = WEATHER if call["function"]["name"] == "get_weather" else TIME
        schema: Any = tool["function"]
        jsonschema.validate(json.loads(call["function"]["arguments"]), schema["parameters"])


@pytest.mark.parametrize("choice", ["any", "required"])
def test_a_tool_that_must_be_called_is_called(caller: Caller, choice: str) -> None:
    """A prompt that names no tool gets a call all the same."""
    answer = ask(caller, "Good morning", tools=[TIME], tool_choice=choice)

    assert ["get_time"] == [call["function"]["name"] for call in message(answer)["tool_calls"]]


@pytest.mark.parametrize(("parallel", "count"), [(True, 2), (None, 2), (False, 1)])
def test_calls_come_one_at_a_time_on_wish(caller: Caller, parallel: Any, count: int) -> None:
    """Two cities are two calls, unless parallel calls are switched off."""
    more = {} if parallel is None else {"parallel_tool_calls": parallel}
    answer = ask(caller, "What is the weather in Paris and Rome?", tools=[WEATHER], **more)

    assert count == len(message(answer)["tool_calls"])


def test_repeated_beginnings_are_cached(caller: Caller) -> None:
    """The first prompt is new; the next turn of the same conversation is cached but for its end."""
    system = {"role": "system", "content": "You are a patient teacher of history. " * 20}
    first = {"role": "user", "content": "Who was Ada Lovelace?"}
    body = {"model": "mistral-small-latest", "messages": [system, first]}
    fresh = post(caller, CHAT, **body)
    later = [system, first, {"role": "assistant", "content": message(fresh)["content"]}, first]
    again = post(caller, CHAT, **{**body, "messages": later})
    streamed = chunks(post(caller, CHAT, **{**body, "messages": later}, stream=True))[-1]
    other = post(caller, CHAT, **{**body, "model": "mistral-large-latest"})

    def cached(usage: Any) -> int:
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert 0 == cached(fresh.json["usage"]) == cached(other.json["usage"])
    assert 0 < cached(again.json["usage"]) < again.json["usage"]["prompt_tokens"]
    assert 0 == cached(again.json["usage"]) % 16
    assert cached(streamed["usage"]) > cached(again.json["usage"])
    spent = again.json["usage"]["total_tokens"] - cached(again.json["usage"])
    assert str(spent) == again.headers["x-ratelimit-tokens-query-cost"]


def test_the_list_of_a_422_is_on_the_wire(caller: Caller) -> None:
    """An unknown field comes back by its place, inside the envelope."""
    answer = ask(caller, "Hello", seed=1)

    assert answer.status == 422
    assert [["body", "seed"]] == [each["loc"] for each in answer.json["message"]["detail"]]

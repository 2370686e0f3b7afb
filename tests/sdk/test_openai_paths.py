"""The official `openai` client talks to the simulator's OpenAI side, as to OpenAI itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from loom.server.simulator import Simulator
from loom.server.simulator.scenario import Scenario

MODEL = "gpt-4.1"
# One day in the life of the catalogue, so that a retirement fails no test.
DAY = date(2026, 8, 19)
PARAMETERS = {
    "type": "object",
    "properties": {"location": {"type": "string", "description": "A city."}},
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
RESULT = '{"temperature": 21, "sky": "clear"}'


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def client_of(simulator: Simulator, **options: Any) -> openai.OpenAI:
    given = {"api_key": simulator.api_key, "max_retries": 0, **options}
    return openai.OpenAI(base_url=simulator.openai_base_url, **given)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(as_of=DAY) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    simulator.reset()
    with client_of(simulator) as made:
        yield made


def ask(client: openai.OpenAI, text: str = "Say hello", **options: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": [user(text)], **options})


def test_it_chats(simulator: Simulator, client: openai.OpenAI) -> None:
    """Text, ids, usage and headers are OpenAI's; the journal knows tokens and cost."""
    messages: Any = [{"role": "developer", "content": "Be brief."}, user("Explain looms.")]
    reply = client.chat.completions.create(model=MODEL, messages=messages, seed=1, user="ann")

    assert "looms" in str(reply.choices[0].message.content)
    assert ("stop", None) == (reply.choices[0].finish_reason, reply.choices[0].message.refusal)
    assert reply.id.startswith("chatcmpl-")
    assert str(reply._request_id).startswith("req_")
    assert reply.usage is not None
    (entry,) = simulator.journal.entries()
    assert ("/openai/v1/chat/completions", 200, reply.usage.prompt_tokens) == (
        entry.path,
        entry.status,
        entry.prompt_tokens,
    )
    assert simulator.api_key not in str(entry)


def test_limits_stand_in_the_headers(client: openai.OpenAI) -> None:
    """In OpenAI's names, with durations."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[user("x")])

    assert ("100", "99", "1m0s") == (
        raw.headers["x-ratelimit-limit-requests"],
        raw.headers["x-ratelimit-remaining-requests"],
        raw.headers["x-ratelimit-reset-tokens"],
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_it_streams(simulator: Simulator, client: openai.OpenAI, *, wanted: bool) -> None:
    """The pieces are the plain answer; usage comes when it is asked for, and is always counted."""
    plain = ask(client, "A story")
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    with ask(client, "A story", stream=True, **options) as stream:
        chunks = list(stream)

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert plain.choices[0].message.content == text
    told = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert ([plain.usage.completion_tokens] if wanted else []) == told
    assert plain.usage.completion_tokens == simulator.journal[-1].completion_tokens


def test_several_answers_come_at_once(client: openai.OpenAI) -> None:
    """The pieces of `n` answers join to the plain ones."""
    plain = ask(client, "A story", n=2)
    texts = ["", ""]
    with ask(client, "A story", n=2, stream=True) as stream:
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [choice.message.content for choice in plain.choices] == texts


@pytest.mark.parametrize(
    ("text", "places"),
    [("What is the weather in Paris?", ["Paris"]),
     ("What is the weather in Paris and Rome?", ["Paris", "Rome"])],
)  # fmt: skip
def test_calls_go_round(client: openai.OpenAI, text: str, places: list[str]) -> None:
    """One call and two go through the SDK's own types, and their results back."""
    first = ask(client, text, tools=[TOOL])
    turn = first.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in turn.tool_calls
    ]
    last = ask(client, messages=[user(text), turn, *results], tools=[TOOL])

    assert "tool_calls" == first.choices[0].finish_reason
    assert turn.content is None
    assert places == [json.loads(c.function.arguments)["location"] for c in turn.tool_calls]
    assert all(call.id.startswith("call_") for call in turn.tool_calls)
    assert "temperature 21" in str(last.choices[0].message.content)


def test_calls_are_streamed_in_pieces(client: openai.OpenAI) -> None:
    """The SDK's accumulating helper gathers two calls from their fragments."""
    text = "What is the weather in Paris and Rome?"
    plain = ask(client, text, tools=[TOOL]).choices[0].message
    with client.chat.completions.stream(model=MODEL, messages=[user(text)], tools=[TOOL]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0].message

    assert "tool_calls.function.arguments.delta" in kinds
    assert [(c.id, c.function.arguments) for c in plain.tool_calls] == [
        (c.id, c.function.arguments) for c in final.tool_calls or ()
    ]


class Person(BaseModel):
    """What a structured answer holds."""

    name: str
    age: int


def test_structured_answers_are_parsed(client: openai.OpenAI) -> None:
    """The SDK's `parse` makes the schema, and reads the answer into the type."""
    reply = client.chat.completions.parse(
        model=MODEL, messages=[user("Anna is 33.")], response_format=Person
    )

    assert Person(name="Anna", age=33) == reply.choices[0].message.parsed


def test_thoughts_are_counted_and_not_shown(client: openai.OpenAI) -> None:
    """OpenAI tells how much was thought, and not what."""
    plain = ask(client, "Why?", reasoning_effort="high")
    with ask(client, "Why?", reasoning_effort="high", stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]

    details = plain.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens < plain.usage.completion_tokens
    assert not any(getattr(delta, "reasoning_content", None) for delta in deltas)
    text = "".join(delta.content or "" for delta in deltas)
    assert plain.choices[0].message.content == text


def test_repeated_prompts_are_cached(client: openai.OpenAI) -> None:
    """The second time the beginning of a long prompt is told as cached."""
    text = "Tell me of looms. " * 20
    ask(client, text)
    assert ask(client, text).usage.prompt_tokens_details.cached_tokens >= 16


def test_it_makes_vectors(client: openai.OpenAI) -> None:
    """As the SDK asks for them (base64), as numbers, and in another size."""
    packed = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    plain = client.embeddings.create(
        model="text-embedding-3-small", input=["a", "b"], encoding_format="float"
    )
    short = client.embeddings.create(model="text-embedding-3-large", input="a", dimensions=8)

    assert (2, 1536, 8) == (
        len(packed.data),
        len(packed.data[0].embedding),
        len(short.data[0].embedding),
    )
    for mine, theirs in zip(plain.data[1].embedding, packed.data[1].embedding, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    assert packed.usage.total_tokens == plain.usage.total_tokens


def test_it_lists_models(client: openai.OpenAI) -> None:
    """OpenAI's rows of the catalogue and Mistral's, and the row of one."""
    owners = {row.id: row.owned_by for row in client.models.list()}

    assert "mistral" == owners["mistral-small-latest"]
    assert "mistral-small-latest" == client.models.retrieve("mistral-small-latest").id
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("nope")


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"temperature": 3}, openai.BadRequestError, "decimal_above_max_value"),
        ({"extra_body": {"top_k": 1}}, openai.BadRequestError, None),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]},
         openai.BadRequestError, None),
        ({"model": "nope"}, openai.NotFoundError, "model_not_found"),
        ({"extra_headers": {"x-loom-fault": "33d-429"}}, openai.RateLimitError,
         "rate_limit_exceeded"),
        ({"extra_headers": {"x-loom-fault": "401"}}, openai.AuthenticationError, "invalid_api_key"),
        ({"extra_headers": {"x-loom-fault": "403"}}, openai.PermissionDeniedError,
         "permission_denied"),
        ({"extra_headers": {"x-loom-fault": "402"}}, openai.APIStatusError, "insufficient_quota"),
        ({"extra_headers": {"x-loom-fault": "503"}}, openai.InternalServerError, None),
        ({"extra_headers": {"x-loom-fault": "36b-context"}}, openai.BadRequestError,
         "context_length_exceeded"),
        ({"extra_headers": {"x-loom-fault": "nonsense"}}, openai.BadRequestError, None),
    ],
)  # fmt: skip
def test_errors_have_the_sdks_classes(
    client: openai.OpenAI, options: Any, kind: type[openai.APIStatusError], code: str | None
) -> None:
    """Status, class and code are OpenAI's, for what is refused and for what fails on purpose."""
    with pytest.raises(kind) as caught:
        ask(client, **options)
    assert code == caught.value.code


def test_an_error_inside_a_stream_is_an_error_of_the_sdk(client: openai.OpenAI) -> None:
    """What comes after a 200 is told in a form that the SDK raises."""
    fault = {"x-loom-fault": "32-error-event"}
    with (
        pytest.raises(openai.APIError, match="Service unavailable"),
        ask(client, "A story", stream=True, extra_headers=fault) as stream,
    ):
        list(stream)


@pytest.mark.parametrize(("fault", "expected"), [("46-usage-missing", 0), ("46-usage-zero", 1)])
def test_usage_can_go_wrong_in_its_own_chunk(
    client: openai.OpenAI, fault: str, expected: int
) -> None:
    """The faults of usage strike the chunk that OpenAI sends last."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    options["extra_headers"] = {"x-loom-fault": fault}
    with ask(client, stream=True, **options) as stream:
        told = [chunk.usage for chunk in stream if chunk.usage]

    assert expected == len(told)
    assert all(usage.total_tokens == 0 for usage in told)


def test_keys_are_compared(simulator: Simulator) -> None:
    """A wrong key is refused before anything else is looked at."""
    with client_of(simulator, api_key="wrong") as wrong:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            ask(wrong, model="nope")
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()


def test_unknown_paths_are_told_in_openais_words(client: openai.OpenAI) -> None:
    """What is not served yet is a 404 that names the path."""
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /openai/v1/responses\)"):
        client.responses.create(model=MODEL, input="x")


def test_limits_and_credits_hold_there_too() -> None:
    """One account for both sides: the plan's requests, and what a key may spend."""
    with Simulator(as_of=DAY, tier="1/100000") as limited, client_of(limited) as client:
        ask(client)
        with pytest.raises(openai.RateLimitError, match="Rate limit"):
            ask(client)
        limited.clock.advance(60)
        ask(client)
    with (
        Simulator(as_of=DAY, credits_usd=Decimal("0.0000001")) as poor,
        client_of(poor) as client,
    ):
        ask(client, model="mistral-small-latest")
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert "insufficient_quota" == caught.value.code


def test_a_prompt_beyond_the_window_is_refused(client: openai.OpenAI) -> None:
    """In OpenAI's sentence, with its code."""
    with pytest.raises(openai.BadRequestError, match="maximum context length is") as caught:
        ask(client, model="mistral-small-latest", max_completion_tokens=10**7)
    assert "context_length_exceeded" == caught.value.code


def test_a_script_answers_both_sides() -> None:
    """The same rule of a scenario fits a request wherever it comes in."""
    with (
        Simulator(as_of=DAY, scenario=Scenario(answer="As written.")) as scripted,
        client_of(scripted) as client,
    ):
        assert "As written." == ask(client).choices[0].message.content


def test_the_address_needs_a_running_simulator() -> None:
    """Before it is started there is none."""
    with pytest.raises(RuntimeError, match="not running"):
        _ = Simulator().openai_base_url


@pytest.mark.anyio
async def test_it_works_asynchronously(simulator: Simulator) -> None:
    """The asynchronous client chats, streams, and may leave in the middle."""
    url = simulator.openai_base_url
    async with openai.AsyncOpenAI(api_key=simulator.api_key, base_url=url) as client:
        create = client.chat.completions.create
        reply = await create(model=MODEL, messages=[user("Say hello")])
        async with await create(model=MODEL, messages=[user("A story")], stream=True) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        again = await create(model=MODEL, messages=[user("Say hello")])

    assert "hello" == reply.choices[0].message.content == again.choices[0].message.content

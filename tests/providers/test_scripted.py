"""The provider that asks no vendor."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate

from loom.core.errors import InvalidRequest, ModelNotFound, RateLimited
from loom.core.events import (
    Completed,
    Finished,
    PartReceived,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import (
    ImagePart,
    Message,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.request import ChatRequest, NamedTool, ResponseFormat, Sampling, ToolSpec
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.scripted import ScriptedProvider, rough_tokens
from loom.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

WEATHER = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    parameters={
        "type": "object",
        "properties": {
            "location": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location"],
    },
)
ADD = ToolSpec(
    name="add_numbers",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)
SEARCH = ToolSpec(
    name="search",
    parameters={
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
)
TOOLS = (WEATHER, ADD, SEARCH)


def ask(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest(model="some-model", messages=(Message.user(text),), **fields)


async def events_of(provider: ScriptedProvider, request: ChatRequest) -> list[StreamEvent]:
    return [event async for event in provider.stream(request)]


async def test_the_same_request_gets_the_same_answer() -> None:
    """Two providers of one seed agree in text and ids; another seed gives other ids."""
    first, again, other = [
        await ScriptedProvider(seed=seed).chat(ask("Explain looms.")) for seed in (1, 1, 2)
    ]

    assert (first.content, first.id) == (again.content, again.id)
    assert first.id != other.id
    assert re.fullmatch("[0-9a-f]{32}", first.id)


async def test_two_answers_have_two_ids() -> None:
    """One provider never gives an id twice."""
    provider = ScriptedProvider()

    first, second = [await provider.chat(ask("hello")) for _ in range(2)]

    assert first.id != second.id


async def test_limits_sampling_and_streaming_do_not_change_the_answer() -> None:
    """A stream, a temperature and a limit that is not reached leave the text as it is."""
    plain = await ScriptedProvider().chat(ask("Explain looms."))
    others = [
        ask("Explain looms.", stream=True),
        ask("Explain looms.", sampling=Sampling(temperature=0.0, max_tokens=5000)),
    ]

    for request in others:
        last = (await events_of(ScriptedProvider(), request))[-1]
        assert isinstance(last, Completed)
        assert plain.content == last.response.content


async def test_a_stream_tells_the_answer_word_by_word() -> None:
    """Deltas join to the text; finish, usage and the whole answer come in this order."""
    events = await events_of(ScriptedProvider(), ask("Explain looms.", stream=True))
    *deltas, finished, reported, completed = events

    assert isinstance(completed, Completed)
    assert Finished("stop") == finished
    assert UsageReported(completed.response.usage) == reported
    texts = [event.text for event in deltas if isinstance(event, TextDelta)]
    assert completed.response.content == "".join(texts)
    assert len(texts) == len(completed.response.content.split())


async def test_a_plain_answer_is_one_event() -> None:
    """Without `stream`, only `Completed` comes."""
    (event,) = await events_of(ScriptedProvider(), ask("Explain looms."))

    assert isinstance(event, Completed)
    assert "mistral" == event.response.metadata["provider"]
    assert "some-model" == event.response.model


@given(st.integers(0, 400), st.booleans(), st.sampled_from(["none", "low", "high"]))
async def test_max_tokens_cuts_the_answer(limit: int, tools: bool, effort: str) -> None:  # noqa: FBT001 - hypothesis gives it by place
    """No answer is longer than allowed; a cut one ends with `length` and is a prefix."""
    question = "What is the weather in Paris?" if tools else "Tell me a story"
    request = ask(question, tools=TOOLS if tools else (), reasoning_effort=effort)
    whole = await ScriptedProvider().chat(request)
    cut = await ScriptedProvider().chat(
        ChatRequest(
            model=request.model,
            messages=request.messages,
            tools=request.tools,
            reasoning_effort=effort,
            sampling=Sampling(max_tokens=limit),
        )
    )

    assert cut.usage.output_tokens <= limit
    assert (cut.finish_reason == "length") == (limit < whole.usage.output_tokens)
    assert whole.thinking.startswith(cut.thinking)
    assert whole.content.startswith(cut.content)
    for mine, theirs in zip(cut.tool_calls, whole.tool_calls, strict=False):
        assert theirs.arguments.startswith(mine.arguments)


async def test_stop_ends_the_answer_before_the_text() -> None:
    """The stop text is not part of the answer, and the reason is `stop`."""
    for stop in ("offline", ("nowhere", "offline")):
        response = await ScriptedProvider().chat(ask("Explain it", sampling=Sampling(stop=stop)))

        assert "offline" not in response.content
        assert response.content.endswith("composed ")
        assert "stop" == response.finish_reason


async def test_n_answers_take_turns_in_a_stream() -> None:
    """Each choice is whole, and their pieces come one from each in turn."""
    request = ask("Tell me a story", stream=True, sampling=Sampling(n=3))
    events = await events_of(ScriptedProvider(), request)
    completed = events[-1]

    assert isinstance(completed, Completed)
    first = [event.choice for event in events[:6] if isinstance(event, TextDelta)]
    assert [0, 1, 2, 0, 1, 2] == first
    assert [0, 1, 2] == [choice.index for choice in completed.response.choices]
    assert 3 == sum(isinstance(event, Finished) for event in events)
    for choice in completed.response.choices:
        pieces = [e.text for e in events if isinstance(e, TextDelta) and e.choice == choice.index]
        assert choice.message.text == "".join(pieces)


async def test_thinking_comes_first() -> None:
    """With an effort, a thinking part precedes the text; with "none" there is none."""
    request = ask("Why?", stream=True, reasoning_effort="high")
    kinds = [type(event) for event in await events_of(ScriptedProvider(), request)]
    deltas = [kind for kind in kinds if kind in (ThinkingDelta, TextDelta)]
    response = await ScriptedProvider().chat(request)

    assert deltas == sorted(deltas, key=lambda kind: kind is TextDelta)
    assert ThinkingDelta in deltas
    assert isinstance(response.message.content, tuple)
    assert [ThinkingPart, TextPart] == [type(part) for part in response.message.content]
    assert "" == (await ScriptedProvider().chat(ask("Why?", reasoning_effort="none"))).thinking
    assert (await ScriptedProvider().chat(ask("Why?", prompt_mode="reasoning"))).thinking


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("What's the weather in Paris?", [("get_weather", {"location": "Paris"})]),
        (
            "the weather in Paris and Rome in fahrenheit",
            [
                ("get_weather", {"location": "Paris", "unit": "fahrenheit"}),
                ("get_weather", {"location": "Rome", "unit": "fahrenheit"}),
            ],
        ),
        ("Use add_numbers on 3 and 5", [("add_numbers", {"a": 3, "b": 5})]),
        ("add the numbers 7 and 8", [("add_numbers", {"a": 7, "b": 8})]),
        (
            "call get_weather for Oslo, then add_numbers 1 and 2",
            [("get_weather", {"location": "Oslo"}), ("add_numbers", {"a": 1, "b": 2})],
        ),
        ("search for good tea", [("search", {"query": "search for good tea"})]),
        (
            "add_numbers 1 and 2, then get_weather for Oslo",
            [("add_numbers", {"a": 1, "b": 2}), ("get_weather", {"location": "Oslo"})],
        ),
        ("What is the weather in Paris? Do not call any tools.", []),
        ("Tell me a joke", []),
    ],
)
async def test_the_tool_that_the_prompt_names_is_called(
    prompt: str, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    """By its name or by the words of its name, with arguments from the prompt."""
    response = await ScriptedProvider().chat(ask(prompt, tools=TOOLS))

    assert expected == [(call.name, call.input) for call in response.tool_calls]
    assert ("tool_calls" if expected else "stop") == response.finish_reason
    assert (not expected) == bool(response.content)
    for call in response.tool_calls:
        assert re.fullmatch("[A-Za-z0-9]{9}", call.id)
    assert len(expected) == len({call.id for call in response.tool_calls})


async def test_tool_choice_is_obeyed() -> None:
    """`none` never calls; `any`, `required` and a name always do, and the name wins."""
    provider = ScriptedProvider()

    async def called(choice: Any, prompt: str) -> list[str]:
        response = await provider.chat(ask(prompt, tools=TOOLS, tool_choice=choice))
        return [call.name for call in response.tool_calls]

    assert [] == await called("none", "What's the weather in Paris?")
    assert ["add_numbers"] == await called(NamedTool("add_numbers"), "the weather in Paris")
    assert ["get_weather"] == await called("any", "Tell me a joke")
    assert ["add_numbers"] == await called("required", "add some numbers")
    assert [] == await called(NamedTool("unknown"), "the weather in Paris")


async def test_without_parallel_calls_there_is_one_at_a_time() -> None:
    """The second named tool is called after the first one's result."""
    prompt = "call get_weather for Paris and Rome and add_numbers"
    request = ask(prompt, tools=TOOLS, parallel_tool_calls=False)
    first = await ScriptedProvider().chat(request)
    (call,) = first.tool_calls
    history = (*request.messages, first.message, Message.tool(call, "done"))

    second = await ScriptedProvider().chat(
        ChatRequest(model="m", messages=history, tools=TOOLS, parallel_tool_calls=False)
    )

    assert ("get_weather", "add_numbers") == (call.name, second.tool_calls[0].name)
    assert call.id != second.tool_calls[0].id


async def test_tool_results_are_used_in_the_answer() -> None:
    """After the results a final text names each call and what it gave."""
    request = ask("the weather in Paris and Rome", tools=TOOLS, stream=True)
    events = await events_of(ScriptedProvider(), request)
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    last = events[-1]
    assert isinstance(last, Completed)
    assert [0, 1] == [call.index for call in calls]
    results = tuple(
        Message.tool(call.id, json.dumps({"temperature": 20 + i})) for i, call in enumerate(calls)
    )

    answer = await ScriptedProvider().chat(
        ChatRequest(
            model="m",
            messages=(*request.messages, last.response.message, *results),
            tools=TOOLS,
        )
    )

    assert "get_weather (Paris): temperature 20" in answer.content
    assert "get_weather (Rome): temperature 21" in answer.content
    assert "stop" == answer.finish_reason


async def test_a_result_without_its_call_is_used_too() -> None:
    """A history that lost the call still gets an answer from the result."""
    messages = (Message.user("x"), Message.tool("abcdefghi", "42"))

    answer = await ScriptedProvider().chat(ChatRequest(model="m", messages=messages))

    assert "the tool found: 42." in answer.content


async def test_the_asked_schema_is_obeyed() -> None:
    """A json_schema answer validates and takes words from the prompt."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = ResponseFormat(type="json_schema", name="person", schema=schema)

    response = await ScriptedProvider().chat(ask("Anna is 33.", response_format=form))

    validate(json.loads(response.content), schema)
    assert {"name": "Anna", "age": 33} == json.loads(response.content)


@pytest.mark.parametrize(
    ("prompt", "keys"),
    [
        ("Give me JSON with the keys name and age", {"name", "age"}),
        ("Explain looms as JSON", {"answer", "topic"}),
    ],
)
async def test_a_json_object_is_one(prompt: str, keys: set[str]) -> None:
    """A json_object answer is an object, with the keys that the prompt names."""
    form = ResponseFormat(type="json_object")

    response = await ScriptedProvider().chat(ask(prompt, response_format=form))

    assert keys == json.loads(response.content).keys()


async def test_a_conversation_without_a_user_is_answered() -> None:
    """A history may open with an assistant's call (contract: section 3)."""
    call = ToolCall("abcdefghi", "add_numbers", {"a": 1})
    messages = (Message.assistant(tool_calls=(call,)), Message.tool(call, "3"))

    answer = await ScriptedProvider(model="m").chat(ChatRequest(model="m", messages=messages))

    assert "add_numbers (1) found: 3." in answer.content
    assert "m" == ScriptedProvider(model="m").model
    assert (await ScriptedProvider().chat(ChatRequest(model="m", messages=()))).content


async def test_a_prefix_is_continued() -> None:
    """An assistant turn with `prefix` begins the answer."""
    messages = (Message.user("Explain looms"), Message.assistant("Well, ", prefix=True))

    response = await ScriptedProvider().chat(ChatRequest(model="m", messages=messages))

    assert response.content.startswith("Well, ")
    assert len(response.content) > 20


async def test_usage_counts_what_was_said() -> None:
    """Longer prompts, tools, images and calls cost more; the counts are marked as estimates."""
    provider = ScriptedProvider()

    async def cost(*messages: Message, **fields: Any) -> int:
        request = ChatRequest(model="m", messages=messages, **fields)
        return (await provider.chat(request)).usage.input_tokens

    hello = await cost(Message.user("hello"))
    assert hello < await cost(Message.user("hello to all of you"))
    assert hello < await cost(Message.user("hello"), tools=TOOLS)
    assert hello == await cost(Message.user("hello"), tools=TOOLS, tool_choice="none")
    assert hello + 32 == await cost(Message.user("hello", ImagePart("https://example.com/a.png")))
    call = ToolCall("abcdefghi", "add_numbers", {"a": 1})
    assert hello + 8 < await cost(
        Message.user("hello"), Message.assistant(tool_calls=(call,)), Message.tool(call, "")
    )
    usage = (await provider.chat(ask("hello"))).usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.estimated


@given(st.text())
async def test_rough_tokens_join_to_the_text(text: str) -> None:
    """No character is lost or doubled by the estimate."""
    assert text == "".join(rough_tokens(text))


async def test_an_unknown_model_is_refused_in_the_words_of_the_wire() -> None:
    """Status 400, type invalid_model, code 1500, as recorded."""
    provider = ScriptedProvider(knows=lambda model: model == "mistral-large-latest")

    with pytest.raises(ModelNotFound, match=r"^Invalid model: some-model$") as caught:
        await provider.chat(ask("hello"))

    error = caught.value
    assert (400, "invalid_model", "1500") == (
        error.http_status,
        error.vendor_type,
        error.vendor_code,
    )


async def test_a_request_without_a_model_takes_the_default() -> None:
    """The provider's own model answers when none is named."""
    request = ChatRequest(model="", messages=(Message.user("hello"),))

    assert "mistral-large-latest" == (await ScriptedProvider().chat(request)).model


@pytest.mark.parametrize("sampling", [Sampling(n=0), Sampling(n=65), Sampling(max_tokens=-1)])
async def test_sizes_out_of_range_are_refused(sampling: Sampling) -> None:
    """A number that no server could obey is an error that names the field."""
    with pytest.raises(InvalidRequest, match=r"'(n|max_tokens)' must be"):
        await ScriptedProvider().chat(ask("hello", sampling=sampling))


async def test_a_pace_is_kept_by_the_clock() -> None:
    """Each word waits its share of a second, streamed or not."""
    for stream in (True, False):
        clock = FakeClock(auto=True)
        provider = ScriptedProvider(words_per_second=4, clock=clock)
        request = ask("Say only alpha beta gamma", stream=stream)

        events = await events_of(provider, request)

        assert [0.25, 0.25, 0.25] == clock.slept
        assert isinstance(events[-1], Completed)
        assert 0.75 == events[-1].response.latency_s


@pytest.mark.parametrize("pace", [0, -1.0, float("nan")])
async def test_a_pace_that_is_none_is_refused(pace: float) -> None:
    """Nothing, backwards and not a number are no pace."""
    with pytest.raises(ValueError, match="words_per_second must be above 0"):
        ScriptedProvider(words_per_second=pace)


async def test_a_script_is_answered_in_order() -> None:
    """Texts, turns, responses, events and errors come as they were given."""
    turn = Message.assistant(tool_calls=(ToolCall("abcdefghi", "add_numbers", {"a": 1}),))
    ready = LLMResponse(
        choices=(
            Choice(
                message=Message.assistant(
                    (
                        ThinkingPart((TextPart("hm"),)),
                        TextPart("two words"),
                        ReferencePart((1,)),
                    ),
                    tool_calls=turn.tool_calls,
                ),
                finish_reason="tool_calls",
            ),
        ),
        usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3),
        model="m",
    )
    plain = LLMResponse(choices=(Choice(message=Message.assistant("x")),), usage=Usage(), model="m")
    provider = ScriptedProvider(["one", turn, RateLimited("wait"), ready, plain], name="other")
    request = ask("?", stream=True)

    assert "one" == (await provider.chat(request)).content
    assert turn.tool_calls == (await provider.chat(request)).tool_calls
    with pytest.raises(RateLimited):
        await provider.chat(request)
    assert [
        ThinkingDelta("hm"),
        TextDelta("two"),
        TextDelta(" words"),
        PartReceived(ReferencePart((1,))),
        ToolCallDelta(0, "abcdefghi", "add_numbers", '{"a":1}'),
        Finished("tool_calls"),
        UsageReported(ready.usage),
    ] == (await events_of(provider, request))[:-1]
    assert "x" == (await provider.chat(request)).content
    assert ("other", 5) == (provider.name, len(provider.requests))
    with pytest.raises(RuntimeError, match="no answer number 6"):
        await provider.chat(request)


async def test_a_script_of_events_may_break_off() -> None:
    """An error among the events is raised at its place."""
    provider = ScriptedProvider([[TextDelta("so far"), RateLimited("wait")]])
    seen = []

    with pytest.raises(RateLimited):
        async for event in provider.stream(ask("?", stream=True)):
            seen.append(event)  # noqa: PERF401 - what came before the error is kept

    assert [TextDelta("so far")] == seen
    await provider.aclose()

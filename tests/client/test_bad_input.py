"""Bad input gets a clear error, and nothing is sent."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from loom import (
    AsyncMistral,
    AsyncOpenAI,
    ConfigInvalid,
    ImagePart,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    Message,
    Mistral,
    ModelNotFound,
    OpenAI,
    TextPart,
    Timeouts,
    ToolSpec,
)
from loom.transport.contract import HttpReply, HttpRequest, Transport

pytestmark = pytest.mark.anyio
LOOK = ToolSpec(name="look", parameters={"type": "object"})


class Closed(Transport):
    """A door that must stay shut."""

    def open(self, request: HttpRequest) -> Any:
        raise AssertionError(f"something was sent: {request.url}")

    async def aclose(self) -> None:
        pass


@pytest.fixture
async def client() -> AsyncIterator[AsyncMistral]:
    async with AsyncMistral("a-key", transport=Closed()) as client:
        yield client


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 2.5}, "'temperature' must be between 0 and 2"),
        ({"temperature": float("nan")}, "'temperature' must be between 0 and 2"),
        ({"temperature": "hot"}, "'temperature' must be a number, not str"),
        ({"temperature": True}, "'temperature' must be a number, not bool"),
        ({"max_tokens": 0}, "'max_tokens' must be at least 1"),
        ({"max_tokens": 1.5}, "'max_tokens' must be a whole number"),
        ({"max_tokens": 262145}, "'max_tokens' must be between 1 and 262144"),
        ({"top_p": 0}, "'top_p' must be above 0, up to 1"),
        ({"presence_penalty": -3}, "'presence_penalty' must be between -2 and 2"),
        ({"n": 0}, "'n' must be at least 1"),
        ({"random_seed": -1}, "'random_seed' must be at least 0"),
        ({"temprature": 1}, "unknown option 'temprature'; did you mean 'temperature'?"),
        ({"max_completion_tokens": 9}, "did you mean 'max_tokens'?"),
        ({"seed": 1}, "did you mean 'random_seed'?"),
        ({"stream": True}, "call .stream(...)"),
        ({"stream_options": {}}, "usage always comes with the last event"),
        ({"zzz": 1}, "unknown option 'zzz'; the options are"),
        ({"stop": 7}, "'stop' must be a list, not int"),
        ({"stop": [7]}, "'stop' must be a string or a list of strings"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "any"}, "no tools are offered"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "names 'x'"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"output": int, "response_format": {"type": "text"}}, "not both"),
        ({"prediction": 3}, "prediction"),
        ({"guardrails": {}}, "'guardrails' must be a list"),
        ({"metadata": "x"}, "'metadata' must be a dict"),
        ({"safe_prompt": "yes"}, "'safe_prompt' must be True or False"),
        ({"timeout_s": 0.5}, "'timeout_s' must be between 1 and 600 seconds"),
        ({"timeout_s": timedelta(minutes=11)}, "'timeout_s' must be between 1 and 600"),
        ({"deadline_s": -1}, "'deadline_s' must be between"),
        ({"extra": "x"}, "'extra' must be a dict"),
        ({"timeouts": 3}, "'timeouts' must be a Timeouts"),
        ({"model": ""}, "'model' must be a model id"),
        ({"model": " mistral-large-latest"}, "white space"),
        ({"metadata": {"a": object}}, "cannot be written as JSON"),
    ],
    ids=str,
)
async def test_option_is_refused(client: AsyncMistral, options: Any, said: str) -> None:
    """A bad option is named, with what it may be."""
    with pytest.raises(InvalidRequest, match=re.escape(said)) as caught:
        await client.chat("Hello", **options)
    assert "Hello" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one"),
        (None, "messages must be a string"),
        (7, "messages must be a string"),
        (b"bytes", "messages must be a string"),
        ([7], "messages[0] must be a Message, a dict or a string, not int"),
        ([{"role": "wizard", "content": "x"}], "messages[0]: unknown role 'wizard'"),
        ([{"role": "usr", "content": "x"}], "did you mean 'user'?"),
        ([{"role": "developer", "content": "x"}], "did you mean 'system'?"),
        ([{"content": "x"}], "messages[0]: a role is needed"),
        ([{"role": "user", "content": 7}], "messages[0].content must be a string"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0] must be a part"),
        ([{"role": "user", "content": [{"type": "text"}]}], "'text' needs the field 'text'"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}],
            "no field 'cache_control'",
        ),
        ([{"role": "user", "content": "x", "name": "bob"}], "no field 'name' on a user message"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": ""}]}], "image_url"),
        (["hi", {"role": "assistant", "content": "x"}], "messages[1]: the last message"),
        (
            ["hi", {"role": "tool", "content": "x", "tool_call_id": "abcdefghi"}],
            "messages[1]: tool result for 'abcdefghi' has no call",
        ),
        ([{"role": "assistant", "content": "x", "tool_calls": [7]}, "a"], "tool_calls[0]"),
        ([{"role": "assistant", "content": "x", "prefix": 1}], "prefix must be true or false"),
        (["a\ud800"], "cannot be written as JSON"),
        ([Message(role="user", content=7)], "messages[0].content"),  # type: ignore[arg-type] # on purpose
    ],
    ids=repr,
)
async def test_message_is_refused(client: AsyncMistral, messages: Any, said: str) -> None:
    """A bad message is named by its position; nothing is sent, streamed or not."""
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        await client.chat(messages)
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        await client.stream(messages).final()


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([{"function": {}}], "tools[0]"),
        ([{"function": {"name": "a b", "parameters": {}}}], "tools[0]"),
        ([7], "tools[0]"),
        ("look", "'tools' must be a list"),
        ([LOOK, LOOK], "same name"),
    ],
    ids=str,
)
async def test_tool_is_refused(client: AsyncMistral, tools: Any, said: str) -> None:
    """A bad tool is named by its position."""
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        await client.chat("Hello", tools)


@pytest.mark.parametrize(
    "model", ["mistral-large-lates", "mistal-small-latest", "minstral-8b-latest"]
)
async def test_misspelt_model_names_the_nearest(client: AsyncMistral, model: str) -> None:
    """A typo in a model's id is refused with the ids that were meant."""
    with pytest.raises(ModelNotFound, match="did you mean 'mi") as caught:
        await client.chat("Hello", model=model)
    assert caught.value.model == model


@pytest.mark.parametrize(
    "model", ["my-own-model", "ft:mistral-small-latest:x", "mistral-large-2712"]
)
async def test_unknown_model_that_is_no_typo_is_sent(client: AsyncMistral, model: str) -> None:
    """A model that this version does not know is the vendor's to judge."""
    with pytest.raises(AssertionError, match="something was sent"):
        await client.chat("Hello", model=model)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "API key is required"),
        ("", "empty"),
        ("   ", "empty"),
        ("abc def", "white space"),
        ("abc\ndef", "control|newline|white space"),
        ("abc\x00def", "control"),
    ],
)
async def test_key_is_refused(key: str | None, said: str) -> None:
    """A key that cannot be one is refused, and not shown."""
    with pytest.raises(InvalidAPIKey, match=said) as caught:
        AsyncMistral(key)
    assert "abc" not in str(caught.value)
    assert "ERR_INVALID_API_KEY" == caught.value.printed_name


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"temperature": 2.5}, InvalidRequest, "'temperature' must be between 0 and 2"),
        ({"max_tokens": 0}, InvalidRequest, "'max_tokens' must be at least 1"),
        ({"timeout_s": 601}, InvalidRequest, "'timeout_s' must be between 1 and 600"),
        ({"base_url": "http://example.com"}, ConfigInvalid, "https"),
        ({"base_url": "nonsense"}, ConfigInvalid, "base_url"),
        ({"as_of": "soon"}, ConfigInvalid, "soon"),
        ({"headers": {"x-a": "b\r\nc"}}, ConfigInvalid, "control characters"),
        ({"headers": {"Authorization": "x"}}, ConfigInvalid, "must not set"),
        ({"headers": {"a b": "x"}}, ConfigInvalid, "not a header's name"),
        ({"headers": {"a": 1}}, ConfigInvalid, "both strings"),
        ({"sim": True}, ConfigInvalid, "sim=True brings its own"),
    ],
    ids=str,
)
async def test_argument_is_refused(
    arguments: dict[str, Any], kind: type[LoomError], said: str
) -> None:
    """A bad argument of the client is refused when the client is made."""
    with pytest.raises(kind, match=re.escape(said)):
        AsyncMistral("a-key", **arguments)


@pytest.mark.parametrize("make", [Mistral, AsyncMistral, OpenAI, AsyncOpenAI])
def test_a_wrong_argument_names_what_was_written(make: Any) -> None:
    """Not the class that holds the arguments of both kinds of client."""
    name = make.__name__.removeprefix("Async")
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) .*'modle'"):
        make("key", modle="x")


async def test_unknown_argument_is_a_type_error() -> None:
    """Python's own error for a word that the client does not take."""
    with pytest.raises(TypeError, match="temprature"):
        AsyncMistral("a-key", temprature=1)  # type: ignore[call-arg] # on purpose


async def test_closed_client_says_so(client: AsyncMistral) -> None:
    """A call after `aclose` is a bug of the caller, outside the error tree."""
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.chat("Hello")
    assert "closed" in repr(client)


async def test_other_defaults_share_the_connections(client: AsyncMistral) -> None:
    """`with_options` checks like the constructor, and its client closes nothing."""
    twin = client.with_options(model="mistral-small-latest", timeout_s=5, temperature=0)
    assert "mistral-small-latest" == twin.model
    assert "mistral-large-latest" == client.model
    await twin.aclose()
    with pytest.raises(AssertionError, match="something was sent"):
        await client.chat("Hello")
    with pytest.raises(InvalidRequest, match="temperature"):
        client.with_options(temperature=3)
    with pytest.raises(TypeError, match="colour"):
        client.with_options(colour="red")


async def test_november_2024_has_its_own_windows() -> None:
    """The limit of `max_tokens` is the window of the day that holds."""
    client = AsyncMistral("a-key", transport=Closed(), as_of="2024-11")
    with pytest.raises(InvalidRequest, match="between 1 and 32768"):
        await client.chat("Hello", max_tokens=32769)
    with pytest.raises(AssertionError, match="something was sent"):
        await client.chat("Hello", max_tokens=60_000, model="open-mixtral-8x22b")


class Recorder(Closed):
    """Keeps what would have been sent, and breaks the call off."""

    def __init__(self) -> None:
        self.sent: list[HttpRequest] = []

    def open(self, request: HttpRequest) -> HttpReply:  # type: ignore[override] # never gives one
        self.sent.append(request)
        raise LoomError_Sent("sent")


class LoomError_Sent(Exception):  # noqa: N801 - a marker
    """Raised in place of an answer."""


async def test_only_known_fields_are_sent() -> None:
    """Every option goes out under Mistral's name; nothing else does; 0 is a value."""
    door = Recorder()
    client = AsyncMistral("a-key", transport=door)
    with pytest.raises(LoomError_Sent):
        await client.chat(
            [Message.user("Hi", ImagePart("https://x/y.png")), {"role": "user", "content": "Ho"}],
            [LOOK],
            temperature=0,
            top_p=1,
            stop=["a"],
            random_seed=0,
            tool_choice="look",
            prediction="Hi",
            reasoning_effort="high",
            timeouts=Timeouts(first_byte_s=3),
            logprobs=False,
            extra={"new_field": 1},
        )
    import msgspec

    body = msgspec.json.decode(door.sent[0].body)
    assert 0 == body["temperature"]
    assert 0 == body["random_seed"]
    assert {"type": "function", "function": {"name": "look"}} == body["tool_choice"]
    assert {"type": "content", "content": "Hi"} == body["prediction"]
    assert 1 == body["new_field"]
    assert "stream" not in body
    assert [
        {"type": "text", "text": "Hi"},
        {"type": "image_url", "image_url": "https://x/y.png"},
    ] == body["messages"][0]["content"]
    assert 3 == door.sent[0].timeouts.first_byte_s
    assert "a-key" not in repr(door.sent[0])


async def test_empty_tools_are_not_sent() -> None:
    """`tools=[]` is no tools: the vendor refuses an empty list."""
    door = Recorder()
    client = AsyncMistral("a-key", transport=door)
    with pytest.raises(LoomError_Sent):
        await client.chat(Message(role="user", content=[TextPart("x"), "y"]), [])  # type: ignore[arg-type] # a list is taken too
    assert b"tools" not in door.sent[0].body

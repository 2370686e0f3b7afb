"""A provider has one primitive, and a layer is a provider around a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest

from loom.core.events import Completed, Sending, StreamEvent, TextDelta
from loom.core.messages import Message
from loom.core.provider import Layer, LLMProvider, compose
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage

pytestmark = pytest.mark.anyio


class Echo(LLMProvider):
    """Answers with what it was asked, and remembers the requests."""

    def __init__(self) -> None:
        self.seen: list[ChatRequest] = []
        self.closed = 0

    @property
    def name(self) -> str:
        return "echo"

    @property
    def model(self) -> str:
        return "echo-1"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.seen.append(request)
        yield Sending()
        text = request.messages[-1].text
        yield TextDelta(text)
        choice = Choice(message=Message.assistant(text))
        yield Completed(LLMResponse(choices=(choice,), usage=Usage(), model=request.model))

    async def aclose(self) -> None:
        self.closed += 1


class Bare(Echo):
    """A provider that holds nothing."""

    aclose = LLMProvider.aclose


class Marking(Layer):
    """Writes its mark before the question."""

    mark = ""

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        asked = Message.user(self.mark + request.messages[-1].text)
        return self.inner.stream(msgspec.structs.replace(request, messages=(asked,)))


class Left(Marking):
    mark = "<"


class Right(Marking):
    mark = ">"


REQUEST = ChatRequest(model="echo-1", messages=(Message.user("Hi"),))


async def test_chat_comes_with_stream() -> None:
    """Who writes `stream` has `chat`."""
    echo = Echo()
    assert "Hi" == (await echo.chat(REQUEST)).content
    assert REQUEST is echo.seen[0]


async def test_chat_asks_for_no_stream() -> None:
    """A plain answer is asked for as one, and the caller's request is not edited."""
    echo = Echo()
    asked = msgspec.structs.replace(REQUEST, stream=True)
    await echo.chat(asked)
    assert REQUEST == echo.seen[0]
    assert asked.stream is True


async def test_a_layer_alone_changes_nothing() -> None:
    """A layer that overrides nothing is its provider: name, model, events, close."""
    echo = Echo()
    layer = Layer(echo)
    assert ("echo", "echo-1") == (layer.name, layer.model)
    assert [event async for event in echo.stream(REQUEST)] == [
        event async for event in layer.stream(REQUEST)
    ]
    await layer.aclose()
    assert 1 == echo.closed


async def test_a_provider_that_holds_nothing_closes_twice() -> None:
    """The close that comes with the protocol does nothing, as often as it is called."""
    bare = Bare()
    await bare.aclose()
    await bare.aclose()
    assert 0 == bare.closed


async def test_layers_are_listed_outermost_first() -> None:
    """The first of the list sees the request first."""
    echo = Echo()
    outer = compose(echo, Left, Right)
    assert isinstance(outer, Left)
    assert isinstance(outer.inner, Right)
    assert echo is outer.inner.inner
    # The inner layer writes last, so its mark stands before the outer one's.
    assert "><Hi" == (await outer.chat(REQUEST)).content


def test_compose_without_layers_is_the_provider() -> None:
    """No layers, no wrapping."""
    echo = Echo()
    assert echo is compose(echo)


def test_a_provider_is_recognised_by_its_parts() -> None:
    """What has the parts is a provider, inherited or not; what lacks one cannot be made."""
    assert isinstance(Echo(), LLMProvider)
    assert isinstance(Layer(Echo()), LLMProvider)
    assert not isinstance(object(), LLMProvider)
    with pytest.raises(TypeError, match="abstract"):
        LLMProvider()  # type: ignore[misc]  # that is the test

"""What the tests of agents share: a model that follows a script, and tools that are watched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

from loom.agent.events import AgentEvent
from loom.agent.limits import AgentLimits
from loom.agent.runtime import AgentRuntime
from loom.core.ambient import Clock, SystemDice
from loom.core.errors import LoomError
from loom.core.messages import Message, ToolCall
from loom.core.request import ChatRequest, ToolSpec
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.scripted import ScriptedProvider
from loom.shuttle.tool import Tool
from loom.testing import FakeClock
from loom.wire.mistral.dialect import MistralDialect

MODEL = "mistral-small-latest"

Script: TypeAlias = Sequence[Message | LLMResponse | LoomError | str]


def call(id: str, name: str, /, **given: Any) -> ToolCall:  # noqa: A002 - the wire's word
    return ToolCall(id, name, given, json.dumps(given))


def calls(*wanted: ToolCall, text: str = "") -> Message:
    return Message.assistant(text, tool_calls=wanted)


def answer(
    message: Message, *, finish: str = "stop", tokens: tuple[int, int] = (10, 5)
) -> LLMResponse:
    usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens))
    choice = Choice(message=message, finish_reason=finish)
    return LLMResponse(
        choices=(choice,), usage=usage, model=MODEL, metadata={"provider": "mistral"}
    )


class Echo(Tool):
    """A tool that gives back what it is told to, and remembers its inputs."""

    name = "echo"
    description = "Say it again."
    parameters: ClassVar[dict[str, Any]] = {"type": "object", "additionalProperties": True}

    def __init__(self, name: str = "echo", gives: Any = "done", **attributes: Any) -> None:
        self.name = name
        self.gives = gives
        self.inputs: list[dict[str, Any]] = []
        self.running = 0
        self.most = 0
        self.cancelled = 0
        for attribute, value in attributes.items():
            setattr(self, attribute, value)

    async def execute(self, input: dict[str, Any]) -> Any:  # noqa: A002 - the protocol's name
        self.inputs.append(input)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if isinstance(self.gives, asyncio.Event):
                await self.gives.wait()
                return "let go"
            if isinstance(self.gives, BaseException):
                raise self.gives
            return self.gives(input) if callable(self.gives) else self.gives
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


class Rig:
    """A runtime over a scripted model."""

    def __init__(
        self,
        script: Script,
        *tools: Tool,
        limits: AgentLimits = AgentLimits(),  # noqa: B008 - a frozen value
        clock: Clock | None = None,
        **more: Any,
    ) -> None:
        self.provider = ScriptedProvider(script, model=MODEL)
        self.clock = clock or FakeClock(auto=True)
        self.runtime = AgentRuntime(
            self.provider, clock=self.clock, dice=SystemDice(1), tools=tools, limits=limits, **more
        )

    @property
    def requests(self) -> list[ChatRequest]:
        """Every request that was made; each is legal for Mistral."""
        dialect = MistralDialect(strict=True)
        for request in self.provider.requests:
            dialect.decode_request(MistralDialect().encode_request(request).body)
        return self.provider.requests

    async def chat(self, text: str = "Hello?", **more: Any) -> Any:
        said = (Message.user(text),) if text else ()
        options = {name: more.pop(name) for name in ("session", "parse") if name in more}
        return await self.runtime.chat(said, asking(**more), **options)

    async def events(self, text: str = "Hello?", **more: Any) -> list[AgentEvent]:
        options = {name: more.pop(name) for name in ("session", "parse") if name in more}
        said = (Message.user(text),) if text else ()
        return [
            event
            async for event in self.runtime.stream(said, asking(stream=True, **more), **options)
        ]


def asking(**more: Any) -> Any:
    """Give the request of a turn, without its conversation."""

    async def ask(tools: tuple[ToolSpec, ...]) -> ChatRequest:
        return ChatRequest(model=MODEL, messages=(), tools=tools, **more)

    return ask


def results(messages: Iterable[Message]) -> list[str]:
    """Give the texts of all results of tools, in order."""
    return [message.text for message in messages if message.role == "tool"]

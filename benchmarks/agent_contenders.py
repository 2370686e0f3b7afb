"""
Who is measured by `benchmarks/agent.py`: each does the same turns in its own way.

A contender runs alone in a fresh process, in the environment that has what it imports; nothing
else is imported here.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

__all__ = [
    "ANSWER",
    "ASYNC",
    "BLOCKING",
    "PROMPT",
    "SCRIPTS",
    "SYSTEM",
    "TOOL",
    "BlockingContender",
    "Contender",
]

KEY = "benchmark-key"
MODEL = "mistral-large-latest"
SYSTEM = "You tell the weather. Look it up, and be brief."
PROMPT = "What is the weather like?"
# What the model says at last, in the pieces of a stream.
ANSWER = [*(f"It is sunny in quarter {quarter}. " for quarter in range(20))]
TEXT = "".join(ANSWER)
TOOL = "get_weather"
# script -> how many tools a turn uses, how many at once, whether the model waits 200 ms
SCRIPTS = {"one": (1, 1, False), "three": (3, 3, False), "ten": (10, 1, False)}
SCRIPTS |= {"delay": (1, 1, True)}


def weather(location: str, unit: str) -> dict[str, Any]:
    """Give what every contender's tool gives."""
    return {"location": location, "temperature": 21, "unit": unit, "sky": "clear"}


async def get_weather(location: str, unit: Literal["c", "f"] = "c") -> dict[str, Any]:
    """
    Tell the current weather of a place.

    Args:
        location: City name, for example "San Francisco".
        unit: Celsius or Fahrenheit.
    """
    return weather(location, unit)


def _check(right: bool, what: object) -> None:  # noqa: FBT001  it reads as a sentence
    if not right:
        raise SystemExit(f"a wrong answer: {str(what)[:300]!r}")


def _theirs(name: str) -> Any:
    """Import what is installed for a peer alone, in its own environment."""
    return importlib.import_module(name)


class Contender(Protocol):
    """An agent."""

    @abstractmethod
    async def turn(self) -> None:
        """Do one turn and check its answer."""

    @abstractmethod
    async def streamed(self) -> None:
        """Do one turn, read its text piece by piece, and check it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every socket."""


class BlockingContender(Protocol):
    """A blocking agent."""

    @abstractmethod
    def turn(self) -> None:
        """Do one turn and check its answer."""

    @abstractmethod
    def streamed(self) -> None:
        """Do one turn, read its text piece by piece, and check it."""

    @abstractmethod
    def close(self) -> None:
        """Close every socket."""


class Bare:
    """The loop written by hand over aiohttp: dicts, and no check of anything."""

    _TOOLS: list[dict[str, Any]] = [  # noqa: RUF012  nobody changes it
        {
            "type": "function",
            "function": {
                "name": TOOL,
                "description": "Tell the current weather of a place.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "City name"},
                        "unit": {"enum": ["c", "f"], "default": "c"},
                    },
                    "required": ["location"],
                },
            },
        }
    ]

    def __init__(self, url: str, script: str, sessions: str | None) -> None:  # noqa: ARG002  it keeps none
        import aiohttp  # noqa: PLC0415  each contender loads its own

        self._url = f"{url}/{script}/v1/chat/completions"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )

    async def turn(self) -> None:
        """Take the answers whole."""
        await self._turn(self._whole)

    async def streamed(self) -> None:
        """Read the answers as they come."""
        await self._turn(self._pieces, stream=True)

    async def _whole(self, reply: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(await reply.read())["choices"][0]["message"]
        return said

    async def _pieces(self, reply: Any) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant", "content": ""}
        async for line in reply.content:
            if line.startswith(b"data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                said["content"] += delta.get("content", "")
                if "tool_calls" in delta:
                    said["tool_calls"] = delta["tool_calls"]
        return said

    async def _turn(self, read: Callable[[Any], Awaitable[dict[str, Any]]], **more: object) -> None:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": PROMPT},
        ]
        while True:
            asked = {"model": MODEL, "messages": messages, "tools": self._TOOLS, **more}
            async with self._session.post(self._url, data=json.dumps(asked).encode()) as reply:
                said = await read(reply)
            messages.append(said)
            if not said.get("tool_calls"):
                _check(said["content"] == TEXT, said)
                return
            calls = said["tool_calls"]
            given = (json.loads(call["function"]["arguments"]) for call in calls)
            found = await asyncio.gather(*(get_weather(**each) for each in given))
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(one)}
                for call, one in zip(calls, found, strict=True)
            ]

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()


class LoomByHand:
    """Our client, and the loop written by hand: what is between this and `Loom` is the agent."""

    def __init__(self, url: str, script: str, sessions: str | None) -> None:  # noqa: ARG002  it keeps none
        from loom import AsyncMistral, tool  # noqa: PLC0415  each contender loads its own

        self._tools = [tool(get_weather)]
        self._client = AsyncMistral(KEY, base_url=f"{url}/{script}/v1", model=MODEL)

    async def turn(self) -> None:
        """Take the answers whole."""
        await self._turn(self._client.chat)

    async def streamed(self) -> None:
        """Read the answers as they come."""
        await self._turn(self._pieces)

    async def _pieces(self, messages: Any, **more: Any) -> Any:
        async with self._client.stream(messages, **more) as stream:
            text = [piece async for piece in stream.text_stream]
        response = await stream.final()
        _check("".join(text) == response.content, text)
        return response

    async def _turn(self, ask: Callable[..., Awaitable[Any]]) -> None:
        from loom import Message, tool_result_message  # noqa: PLC0415  the same

        messages = [Message.system(SYSTEM), Message.user(PROMPT)]
        while True:
            response = await ask(messages, tools=self._tools)
            if not response.tool_calls:
                _check(response.content == TEXT, response)
                return
            calls = response.tool_calls
            found = await asyncio.gather(*(get_weather(**call.input) for call in calls))
            messages.append(response.message)
            messages += [
                tool_result_message(call, one) for call, one in zip(calls, found, strict=True)
            ]

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


class Loom:
    """Our asynchronous agent as it comes: prices, retries, limits, permissions, checks."""

    def __init__(self, url: str, script: str, sessions: str | None) -> None:
        from loom import AsyncAgent, AsyncMistral, tool  # noqa: PLC0415  each contender loads its own

        self._tools = SCRIPTS[script][0]
        self._client = AsyncMistral(KEY, base_url=f"{url}/{script}/v1", model=MODEL)
        self._agent = AsyncAgent(
            llm=self._client, tools=[tool(get_weather)], system_prompt=SYSTEM, sessions=sessions
        )

    def _right(self, response: Any) -> None:
        _check(response.content == TEXT, response.content)
        _check(len(response.tool_executions) == self._tools, response)
        _check(response.usage.total_tokens == 150 * len(response.calls), response.usage)
        _check(bool(response.usage.cost_usd), response.usage)

    async def turn(self) -> None:
        """Check text, tools, tokens and cost."""
        self._right(await self._agent.chat(PROMPT))

    async def streamed(self) -> None:
        """Collect the text, and check the same."""
        async with self._agent.stream(PROMPT) as stream:
            text = [piece async for piece in stream.text_stream]
        _check("".join(text) == TEXT, text)
        self._right(await stream.final())

    async def aclose(self) -> None:
        """Close agent and client."""
        await self._agent.aclose()
        await self._client.aclose()


class LoomBlocking:
    """Our blocking agent."""

    def __init__(self, url: str, script: str, sessions: str | None) -> None:
        from loom import Agent, Mistral, tool  # noqa: PLC0415  each contender loads its own

        self._client = Mistral(KEY, base_url=f"{url}/{script}/v1", model=MODEL)
        self._agent = Agent(
            llm=self._client, tools=[tool(get_weather)], system_prompt=SYSTEM, sessions=sessions
        )

    def turn(self) -> None:
        """Check the text."""
        _check(self._agent.chat(PROMPT).content == TEXT, "")

    def streamed(self) -> None:
        """Collect the text."""
        with self._agent.stream(PROMPT) as stream:
            text = list(stream.text_stream)
        _check("".join(text) == TEXT, text)

    def close(self) -> None:
        """Close agent and client."""
        self._agent.close()
        self._client.close()


class PydanticAI:
    """pydantic-ai over the vendor's own client, or over OpenAI's."""

    def __init__(self, script: str, model: Any) -> None:
        self._requests = SCRIPTS[script][0] // SCRIPTS[script][1] + 1
        self._agent = _theirs("pydantic_ai").Agent(model, tools=[get_weather], instructions=SYSTEM)

    @classmethod
    def over_mistral(cls, url: str, script: str, sessions: str | None) -> PydanticAI:  # noqa: ARG003  it keeps none
        """Make one of its Mistral model."""
        made = _theirs("pydantic_ai.providers.mistral").MistralProvider
        provider = made(api_key=KEY, base_url=f"{url}/{script}")
        model = _theirs("pydantic_ai.models.mistral").MistralModel(MODEL, provider=provider)
        return cls(script, model)

    @classmethod
    def over_openai(cls, url: str, script: str, sessions: str | None) -> PydanticAI:  # noqa: ARG003  it keeps none
        """Make one of its OpenAI model."""
        made = _theirs("pydantic_ai.providers.openai").OpenAIProvider
        provider = made(api_key=KEY, base_url=f"{url}/{script}/v1")
        model = _theirs("pydantic_ai.models.openai").OpenAIChatModel(MODEL, provider=provider)
        return cls(script, model)

    def _right(self, usage: Any) -> None:
        _check(usage.requests == self._requests, usage)
        _check(usage.total_tokens == 150 * self._requests, usage)

    async def turn(self) -> None:
        """Check text, calls and tokens."""
        result = await self._agent.run(PROMPT)
        _check(result.output == TEXT, result.output)
        self._right(result.usage)

    async def streamed(self) -> None:
        """Collect the text, and check the same."""
        async with self._agent.run_stream(PROMPT) as result:
            text = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        _check("".join(text) == TEXT, text)
        self._right(result.usage)

    async def aclose(self) -> None:
        """Leave it: it has no end of its own."""


class LangChain:
    """The agent of langchain (langgraph below it) over langchain-mistralai."""

    def __init__(self, url: str, script: str, sessions: str | None) -> None:
        create_agent = _theirs("langchain.agents").create_agent
        self._messages = 2 + SCRIPTS[script][0] + SCRIPTS[script][0] // SCRIPTS[script][1]
        made = _theirs("langchain_mistralai").ChatMistralAI
        model = made(api_key=KEY, endpoint=f"{url}/{script}/v1", model=MODEL)
        tools = [_theirs("langchain.tools").tool(get_weather, parse_docstring=True)]
        self._make: Any = lambda saver: create_agent(
            model, tools=tools, system_prompt=SYSTEM, checkpointer=saver
        )
        self._file = sessions
        self._kept: Any = None
        self._threads = 0
        self._agent: Any = None if sessions else self._make(None)

    async def _config(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        if self._agent is None:
            saver = _theirs("langgraph.checkpoint.sqlite.aio").AsyncSqliteSaver
            self._kept = saver.from_conn_string(self._file)
            self._agent = self._make(await self._kept.__aenter__())
        self._threads += 1
        return {"configurable": {"thread_id": str(self._threads)}}

    async def turn(self) -> None:
        """Check the text, and how many messages there are."""
        said = {"messages": [{"role": "user", "content": PROMPT}]}
        config = await self._config()
        result = await self._agent.ainvoke(said, config)
        _check(result["messages"][-1].content == TEXT, result)
        _check(len(result["messages"]) == self._messages, result)

    async def streamed(self) -> None:
        """Collect the text of the pieces."""
        said = {"messages": [{"role": "user", "content": PROMPT}]}
        text = [
            piece.content
            async for piece, _ in self._agent.astream(said, stream_mode="messages")
            if type(piece).__name__ == "AIMessageChunk"
        ]
        _check("".join(text) == TEXT, text)

    async def aclose(self) -> None:
        """Close the file; the client has no end of its own."""
        if self._kept is not None:
            await self._kept.__aexit__(None, None, None)


Make = Callable[[str, str, str | None], Contender]
ASYNC: dict[str, Make] = {
    "aiohttp-by-hand": Bare,
    "loom-by-hand": LoomByHand,
    "loom": Loom,
    "pydantic-ai-openai": PydanticAI.over_openai,
    "pydantic-ai-mistral": PydanticAI.over_mistral,
    "langchain-mistralai": LangChain,
}
BLOCKING: dict[str, Callable[[str, str, str | None], BlockingContender]] = {
    "loom-blocking": LoomBlocking
}

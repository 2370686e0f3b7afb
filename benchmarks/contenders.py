"""
Who is measured: each makes the same calls in its own way and checks every answer's content.

A contender runs alone in a fresh process (`benchmarks/client.py` starts it), so that what it
imports and keeps is its own.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from upstream import PIECE, PIECES, STREAM_BYTES, TEXT

__all__ = [
    "ASYNC",
    "BLOCKING",
    "KEY",
    "MODEL",
    "PROMPT",
    "AsyncContender",
    "BlockingContender",
]

KEY = "benchmark-key"
MODEL = "mistral-large-latest"
PROMPT = "Why are clouds white?"


def _check(right: bool, what: object) -> None:  # noqa: FBT001  it reads as a sentence
    if not right:
        raise SystemExit(f"a wrong answer: {str(what)[:200]!r}")


class AsyncContender(Protocol):
    """An asynchronous client."""

    @abstractmethod
    async def call(self) -> None:
        """Make one call and check its text."""

    @abstractmethod
    async def stream(self) -> int:
        """Read one stream, check its text, and give the number of its chunks."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every socket."""


class BlockingContender(Protocol):
    """A blocking client."""

    @abstractmethod
    def call(self) -> None:
        """Make one call and check its text."""

    @abstractmethod
    def stream(self) -> int:
        """Read one stream, check its text, and give the number of its chunks."""

    @abstractmethod
    def close(self) -> None:
        """Close every socket."""


class Bare:
    """aiohttp alone: the bytes come, nobody understands them."""

    def __init__(self, url: str, kind: str) -> None:
        import aiohttp  # noqa: PLC0415  each contender loads its own

        self._url = f"{url}/{kind}/v1/chat/completions"
        self._pieces = PIECES.get(kind, 0)
        self._bytes = STREAM_BYTES.get(kind, 0)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"authorization": f"Bearer {KEY}"}
        )
        self._body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        self._json = {"content-type": "application/json"}

    def _post(self, **more: object) -> Any:
        body = json.dumps({**self._body, **more}).encode()
        return self._session.post(self._url, data=body, headers=self._json)

    async def call(self) -> None:
        """Read the body and look for the text."""
        async with self._post() as reply:
            body = await reply.read()
        _check(TEXT.encode() in body, body)

    async def stream(self) -> int:
        """Read the pieces and count their bytes."""
        found = 0
        async with self._post(stream=True) as reply:
            async for piece in reply.content.iter_any():
                found += len(piece)
        _check(found == self._bytes, found)
        return self._pieces

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()


class Loom:
    """Our asynchronous client as it comes: prices, retries, deadlines, windows."""

    def __init__(self, url: str, kind: str, **options: Any) -> None:
        from loom import AsyncMistral  # noqa: PLC0415  each contender loads its own

        self._pieces = PIECES.get(kind, 0)
        self._client = AsyncMistral(KEY, base_url=f"{url}/{kind}/v1", model=MODEL, **options)

    async def call(self) -> None:
        """Check text, tokens and cost."""
        response = await self._client.chat(PROMPT)
        _check(response.content == TEXT, response.content)
        _check(response.usage.total_tokens == 100 and bool(response.usage.cost_usd), response.usage)

    async def stream(self) -> int:
        """Collect the text of the typed events."""
        text = []
        async with self._client.stream(PROMPT) as stream:
            async for piece in stream.text_stream:
                text.append(piece)  # noqa: PERF401  what a user writes
        _check("".join(text) == PIECE * self._pieces, len(text))
        return self._pieces

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


class LoomSteady(Loom):
    """Our asynchronous client with a breaker and a route to fall back on."""

    def __init__(self, url: str, kind: str) -> None:
        from loom import Breaker, Fallback  # noqa: PLC0415  each contender loads its own

        # With a limit for the first token a plain call would travel as a stream.
        fallback = Fallback(["mistral-small-latest"], first_token_s=None)
        super().__init__(url, kind, breaker=Breaker(), fallback=fallback)


class LoomBlocking:
    """Our blocking client."""

    def __init__(self, url: str, kind: str) -> None:
        from loom import Mistral  # noqa: PLC0415  each contender loads its own

        self._pieces = PIECES.get(kind, 0)
        self._client = Mistral(KEY, base_url=f"{url}/{kind}/v1", model=MODEL)

    def call(self) -> None:
        """Check text, tokens and cost."""
        response = self._client.chat(PROMPT)
        _check(response.content == TEXT, response.content)
        _check(response.usage.total_tokens == 100 and bool(response.usage.cost_usd), response.usage)

    def stream(self) -> int:
        """Collect the text of the typed events."""
        with self._client.stream(PROMPT) as stream:
            text = list(stream.text_stream)
        _check("".join(text) == PIECE * self._pieces, len(text))
        return self._pieces

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class MistralSDK:
    """The vendor's own client."""

    def __init__(self, url: str, kind: str) -> None:
        from mistralai.client import Mistral  # noqa: PLC0415  in its own environment

        self._pieces = PIECES.get(kind, 0)
        self._client: Any = Mistral(api_key=KEY, server_url=f"{url}/{kind}")
        self._request: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
        }

    async def call(self) -> None:
        """Check the text."""
        response = await self._client.chat.complete_async(**self._request)
        _check(response.choices[0].message.content == TEXT, response)

    async def stream(self) -> int:
        """Collect the text of the chunks."""
        text = []
        async with await self._client.chat.stream_async(**self._request) as stream:
            async for event in stream:
                text.append(event.data.choices[0].delta.content or "")  # noqa: PERF401  the same
        _check("".join(text) == PIECE * self._pieces, len(text))
        return self._pieces

    async def aclose(self) -> None:
        """Leave the client."""
        await self._client.__aexit__(None, None, None)


class OpenAISDK:
    """The client that most people know."""

    def __init__(self, url: str, kind: str) -> None:
        from openai import AsyncOpenAI  # noqa: PLC0415  in its own environment

        self._pieces = PIECES.get(kind, 0)
        self._client: Any = AsyncOpenAI(api_key=KEY, base_url=f"{url}/{kind}/v1")
        self._request: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
        }

    async def call(self) -> None:
        """Check the text."""
        response = await self._client.chat.completions.create(**self._request)
        _check(response.choices[0].message.content == TEXT, response)

    async def stream(self) -> int:
        """Collect the text of the chunks."""
        text = []
        stream = await self._client.chat.completions.create(**self._request, stream=True)
        async for chunk in stream:
            text.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  the same
        _check("".join(text) == PIECE * self._pieces, len(text))
        return self._pieces

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.close()


ASYNC: dict[str, Callable[[str, str], AsyncContender]] = {
    "aiohttp": Bare,
    "loom": Loom,
    "loom-steady": LoomSteady,
    "mistralai": MistralSDK,
    "openai": OpenAISDK,
}
BLOCKING: dict[str, Callable[[str, str], BlockingContender]] = {"loom-blocking": LoomBlocking}

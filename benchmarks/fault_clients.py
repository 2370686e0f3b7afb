"""
One client under faults, in a process and an environment of its own: `fault_clients.py CLIENT`.

`benchmarks/faults.py` starts it, writes a `Task` to its standard input and reads what came of it,
line by line. It imports nothing of ours but where our client is the one that is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import socket
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO
from urllib.parse import urlsplit

__all__ = ["CLIENTS", "OPTIONS", "FaultClient", "Task", "main"]

MODEL = "mistral-small-latest"
PROMPT = "Tell me about looms"
MESSAGES = [{"role": "user", "content": PROMPT}]
# How long a socket that was let go may take until it is closed.
SETTLE_S = 0.2


class Task(NamedTuple):
    """
    What a client is to do.

    Attributes:
        base_url: The simulator's address, ending in `/v1`.
        api_key: Its key.
        fault: The header `x-loom-fault`; empty for none.
        stream: Whether a stream is asked for.
        deadline_s: Seconds that a call may take; None: the client as it comes.
        guard_s: Seconds after which a call counts as hanging.
        calls: How many calls.
        in_flight: How many of them at once.
        variant: Other options; `OPTIONS` tells them.
    """

    base_url: str
    api_key: str
    fault: str
    stream: bool
    deadline_s: float | None
    guard_s: float
    calls: int
    in_flight: int
    variant: str

    @property
    def headers(self) -> dict[str, str]:
        """What chooses the fault."""
        return {"x-loom-fault": self.fault} if self.fault else {}


class FaultClient(Protocol):
    """A client that is asked once for each call."""

    @abstractmethod
    async def chat(self) -> str:
        """Give the text of a plain answer."""

    @abstractmethod
    async def stream(self) -> str:
        """Give the text of a streamed answer, read to its end."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close it."""


class Loom(FaultClient):
    """Our client."""

    def __init__(self, task: Task) -> None:
        from loom import AsyncMistral, Breaker  # noqa: PLC0415  each client loads its own

        more: dict[str, Any] = {}
        if task.deadline_s is not None:
            more["deadline_s"] = task.deadline_s
        if task.variant == "breaker":
            more["breaker"] = Breaker()
        self._client = AsyncMistral(
            task.api_key, base_url=task.base_url, model=MODEL, headers=task.headers, **more
        )

    async def chat(self) -> str:
        """Ask."""
        return (await self._client.chat(PROMPT)).content

    async def stream(self) -> str:
        """Ask for a stream."""
        async with self._client.stream(PROMPT) as stream:
            return "".join([piece async for piece in stream.text_stream])

    async def aclose(self) -> None:
        """Close it."""
        await self._client.aclose()


class MistralSDK(FaultClient):
    """The vendor's own client."""

    def __init__(self, task: Task) -> None:
        from mistralai.client import Mistral  # noqa: PLC0415  in its own environment
        from mistralai.client.utils import BackoffStrategy, RetryConfig  # noqa: PLC0415  the same

        more: dict[str, Any] = {}
        if task.deadline_s is not None:
            limit_ms = round(task.deadline_s * 1e3)
            backoff = BackoffStrategy(500, 20_000, 2.0, limit_ms)
            more = {"timeout_ms": limit_ms, "retry_config": RetryConfig("backoff", backoff, True)}  # noqa: FBT003  its own signature
        elif task.variant == "backoff":
            backoff = BackoffStrategy(1, 50, 1.1, 100)
            more = {"retry_config": RetryConfig("backoff", backoff, False)}  # noqa: FBT003  the same
        address = task.base_url.removesuffix("/v1")
        self._client: Any = Mistral(api_key=task.api_key, server_url=address, **more)
        self._request: dict[str, Any] = {
            "model": MODEL,
            "messages": MESSAGES,
            "http_headers": task.headers,
        }

    async def chat(self) -> str:
        """Ask."""
        reply = await self._client.chat.complete_async(**self._request)
        return str(reply.choices[0].message.content)

    async def stream(self) -> str:
        """Ask for a stream."""
        async with await self._client.chat.stream_async(**self._request) as events:
            texts = [event.data.choices[0].delta.content or "" async for event in events]
        return "".join(texts)

    async def aclose(self) -> None:
        """Leave it."""
        await self._client.__aexit__(None, None, None)


class OpenAISDK(FaultClient):
    """The client that most people know."""

    def __init__(self, task: Task) -> None:
        from openai import AsyncOpenAI  # noqa: PLC0415  in its own environment

        more: dict[str, Any] = {} if task.deadline_s is None else {"timeout": task.deadline_s}
        self._client: Any = AsyncOpenAI(
            api_key=task.api_key, base_url=task.base_url, default_headers=task.headers, **more
        )
        self._request: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}

    async def chat(self) -> str:
        """Ask."""
        reply = await self._client.chat.completions.create(**self._request)
        return str(reply.choices[0].message.content)

    async def stream(self) -> str:
        """Ask for a stream."""
        events = await self._client.chat.completions.create(**self._request, stream=True)
        async with events:
            return "".join([_delta(event) async for event in events])

    async def aclose(self) -> None:
        """Close it."""
        await self._client.close()


class LiteLLM(FaultClient):
    """The library that speaks to every vendor."""

    def __init__(self, task: Task) -> None:
        # By its name: it is too large for the environment of the checks.
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        self._ask: Any = litellm.acompletion
        more: dict[str, Any] = {}
        if task.deadline_s is not None:
            more = {"timeout": task.deadline_s, "num_retries": 2}
        elif task.variant == "retries":
            more = {"num_retries": 2}
        self._request: dict[str, Any] = {
            "model": f"mistral/{MODEL}",
            "messages": MESSAGES,
            "api_base": task.base_url,
            "api_key": task.api_key,
            "extra_headers": task.headers,
            **more,
        }

    async def chat(self) -> str:
        """Ask."""
        reply = await self._ask(**self._request)
        return str(reply.choices[0].message.content)

    async def stream(self) -> str:
        """Ask for a stream."""
        events = await self._ask(**self._request, stream=True)
        return "".join([_delta(event) async for event in events])

    async def aclose(self) -> None:
        """Leave it: its sockets are the module's."""


CLIENTS: dict[str, Callable[[Task], FaultClient]] = {
    "loom": Loom,
    "mistralai": MistralSDK,
    "openai": OpenAISDK,
    "litellm": LiteLLM,
}
OPTIONS = {
    "loom": "`deadline_s`; 3 attempts, 5 after a 429, as it comes",
    "mistralai": "`timeout_ms`, which holds for each read; retries, off as it comes, with"
    " `BackoffStrategy(500, 20000, 2.0, deadline)` and connection errors",
    "openai": "`timeout`, which holds for each read of each attempt; 3 attempts, as it comes",
    "litellm": "`timeout`, which holds for each read of each attempt; `num_retries=2`",
}
"""How each is set where a deadline is given; none but ours has an option for a whole call."""


def _delta(event: Any) -> str:
    return (event.choices[0].delta.content or "") if event.choices else ""


async def _one(client: FaultClient, task: Task) -> dict[str, Any]:
    """Ask once, and say what the caller got and when."""
    began_s = time.perf_counter()
    result: dict[str, Any]
    try:
        async with asyncio.timeout(task.guard_s) as guard:
            text = await (client.stream() if task.stream else client.chat())
        result = {"kind": "answer", "text": text}
    except Exception as error:  # noqa: BLE001  whatever it raises is what is measured
        if guard.expired():
            result = {"kind": "hang"}
        else:
            kind = type(error)
            result = {"kind": "error", "name": kind.__name__, "module": kind.__module__}
            result["message"] = str(error)[:200]
    return {**result, "elapsed_s": time.perf_counter() - began_s}


def _sockets_to(port: int) -> int:
    """How many sockets of this process lead there; what is kept for another call counts too."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as twin:
                    found += twin.getpeername()[1:2] == (port,)
    return found


async def _do(task: Task, name: str) -> tuple[FaultClient, dict[str, Any]]:
    """Make the calls with a client of their own, which is not closed yet."""
    client = CLIENTS[name](task)
    left = iter(range(task.calls))
    results: list[dict[str, Any]] = []

    async def worker() -> None:
        for _ in left:
            results.append(await _one(client, task))  # noqa: PERF401  a comprehension of awaits would keep its own list

    began_s = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(task.in_flight)))
    elapsed_s = time.perf_counter() - began_s
    await asyncio.sleep(SETTLE_S)
    port = urlsplit(task.base_url).port or 80
    told = {"results": results, "elapsed_s": elapsed_s, "sockets": _sockets_to(port)}
    return client, told


def _serve(name: str, out: TextIO) -> None:
    with asyncio.Runner() as runner:
        client: FaultClient | None = None
        for line in sys.stdin:
            if client is not None:
                runner.run(client.aclose())
            client, told = runner.run(_do(Task(**json.loads(line)), name))
            print(json.dumps(told), file=out, flush=True)


def main() -> None:
    """Do what the lines of standard input say."""
    # Some print to standard output what is for people.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.argv[1], out)


if __name__ == "__main__":
    main()

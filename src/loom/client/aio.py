"""`AsyncMistral` and `AsyncOpenAI`: what people import for asyncio; the blocking ones wrap them."""

from __future__ import annotations

from loom.client.calls import AsyncClient
from loom.client.constructors import MistralConstructor, OpenAIConstructor

__all__ = ["AsyncClient", "AsyncMistral", "AsyncOpenAI"]


class AsyncMistral(MistralConstructor, AsyncClient):
    """
    Mistral for asyncio. Works with `async with`, and without.

    One client serves any number of tasks, several event loops one after the other, and several
    threads with a loop each; a forked child opens connections of its own.
    """


class AsyncOpenAI(OpenAIConstructor, AsyncClient):
    """
    OpenAI, and every server that speaks as it does, for asyncio.

    It has the methods, the layers and the errors of `AsyncMistral`, and options have Mistral's
    names (`random_seed`, not `seed`); what OpenAI has no word for is refused before it is sent.
    """

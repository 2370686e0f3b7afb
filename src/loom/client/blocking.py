"""`Mistral` and `OpenAI`: the blocking twins of `AsyncMistral` and `AsyncOpenAI`."""

from __future__ import annotations

from loom.client.blocking_calls import Client, Stream
from loom.client.constructors import MistralConstructor, OpenAIConstructor

__all__ = ["Client", "Mistral", "OpenAI", "Stream"]


class Mistral(MistralConstructor, Client):
    """
    Mistral for code that blocks. Works with `with`, and without.

    One client serves any number of threads at once, works in a notebook, and after a fork opens
    connections of its own in the child. Ctrl-C takes the request back and raises
    `KeyboardInterrupt`. Every call works on one background event loop, which all clients share;
    a call on that loop's own thread is a `RuntimeError`.
    """


class OpenAI(OpenAIConstructor, Client):
    """
    OpenAI, and every server that speaks as it does, for code that blocks.

    It has the methods, the layers and the errors of `Mistral`, and options have Mistral's names
    (`random_seed`, not `seed`); what OpenAI has no word for is refused before it is sent.
    """

"""`Client`: what every blocking client can do. It holds no logic: the portal runs each call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Self

from loom.client.arguments import Arguments, Constructed
from loom.client.blocking_platform import Platform
from loom.client.calls import AsyncClient
from loom.client.closing import Closing
from loom.client.discreet import discreet
from loom.client.lease import Lease
from loom.client.llm import Llm
from loom.client.options import Messages
from loom.client.stream import AsyncStream
from loom.client.watched_reader import WatchedReader
from loom.config.vendors import Vendor
from loom.core.events import Completed, StreamEvent
from loom.core.plan import Plan, Quote, TokenCount
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.providers.key import KeyLike
from loom.shuttle.tool import ToolLike
from loom.wire.dialect import Dialect

__all__ = ["Client", "Stream"]


class Client(Platform, Constructed, Closing):
    """
    A client for code that blocks. Works with `with`, and without.

    `Mistral` and `OpenAI` are the ones to make.

    Args:
        client: Its twin for asyncio, which nobody else uses.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._async = client
        self._lease = Lease(client.aclose)
        self._first: Client | None = None

    @property
    def name(self) -> str:
        """The vendor: `mistral`, `openai`."""
        return self._async.name

    @property
    def model(self) -> str:
        """The model when a call names none."""
        return self._async.model

    @property
    def provider(self) -> LLMProvider:
        """
        What answers, with all its layers.

        It is for asyncio, and for one event loop at a time: this client's own runs on a thread.
        """
        return self._async.provider

    def as_llm(self) -> Llm:
        """What an agent needs of this client."""
        return self._async.as_llm()

    @discreet
    def request(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> ChatRequest:
        """
        Say what `chat` would ask. Nothing is sent.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            The request, for `provider`; the defaults of the client are filled in.

        Raises:
            CallerError: What is asked is not as it must be.
            RuntimeError: After `close`.
        """
        return self._async.request(messages, tools, **options)

    @discreet
    def chat(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> LLMResponse:
        """
        Ask, and wait for the whole answer.

        Args:
            messages: A string, a `Message`, a dict, or a list of these.
            tools: What the model may call: `ToolSpec`s, wire dicts, or objects of the `Tool`
                protocol.
            options: Any field of Mistral's chat request by its own name (`top_p`, `stop`,
                `random_seed`, `response_format`, `tool_choice`, ...), and `model`, `timeout_s`,
                `deadline_s`, `timeouts`, `fit`, `skip_bad_events`, `session`, `tenant`,
                `priority`, `tags`, `output` (a type: the answer comes back as its value in
                `response.parsed`), `extra` (further body fields).

        Returns:
            The answer.

        Raises:
            CallerError: What is asked is not as it must be; found here, nothing was sent.
            VendorError: The vendor, or the way to it, failed.
            OutputInvalid: With `output`: the answer does not fit; `.text` holds it.
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.chat(messages, tools, **options))

    @discreet
    def stream(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> Stream:
        """
        Ask, and get the answer as it is made; iterate over what this returns.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            A stream of events that ends with `Completed`. Nothing is sent before the first is
            asked for.

        Raises:
            CallerError: What is asked is not as it must be; found here, nothing was sent.
            RuntimeError: After `close`.
        """
        return Stream(self._lease, self._async.stream(messages, tools, **options), owner=self)

    @discreet
    def count(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> TokenCount:
        """
        Count the tokens of a prompt, tools included, as the vendor bills them. Nothing is sent.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            The count; it says whether it is an estimate, and why.

        Raises:
            CallerError: What is asked is not as it must be.
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.count(messages, tools, **options))

    @discreet
    def quote(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> Quote:
        """
        Say what a call costs at the worst. Nothing is sent.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            Tokens and US dollars; None where the price is unknown.

        Raises:
            ContextTooLong: If `chat` would raise it.
            CallerError: What is asked is not as it must be.
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.quote(messages, tools, **options))

    @discreet
    def plan(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> Plan:
        """
        Say exactly what a call would send. Nothing is sent.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            The body, the repairs made to the history, the quote, the room left in the window.

        Raises:
            ContextTooLong: If `chat` would raise it.
            CallerError: What is asked is not as it must be.
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.plan(messages, tools, **options))

    def ping(self) -> LLMResponse:
        """
        The connection test: ask for a word.

        Returns:
            The answer, with latency, tokens and cost.

        Raises:
            LoomError: As `chat`.
        """
        return self._lease.portal().call(self._async.ping)

    @discreet
    def with_options(self, **changes: Any) -> Self:
        """
        The same client with other defaults; connections are shared.

        Args:
            changes: `model`, `max_tokens`, `temperature`, `timeout_s`, `deadline_s`, `timeouts`,
                `fit`, `skip_bad_events`, `session`, `tenant`, `priority`, `tags`, `retry`,
                `breaker`, `rate_limit`, `fallback`, `rescue`, `budget`, `ledger`, `client_name`,
                `telemetry`.

        Returns:
            A client whose `close` does nothing: close the first one.

        Raises:
            InvalidRequest: If a value is out of its range.
            TypeError: If a name is not one of these.
        """
        twin = copy.copy(self)
        twin._async = self._async.with_options(**changes)  # noqa: SLF001  # a copy of itself
        # Kept alive: were the first one collected, the shared connections would be closed.
        twin._first = self  # noqa: SLF001  # a copy of itself
        return twin

    def close(self) -> None:
        """
        Close every connection; safe to call twice.

        Raises:
            RuntimeError: On the thread of the clients' event loop.
        """
        if self._first is None:
            self._lease.close()

    def __del__(self) -> None:
        """Have the connections of a forgotten client closed."""
        # A client whose making failed has neither name.
        if getattr(self, "_first", self) is None:
            self._lease.abandon()

    def __repr__(self) -> str:
        """Name and model; never the key."""
        closed = " closed" if self._lease.closed else ""
        return f"<{type(self).__name__} model={self.model!r}{closed}>"

    def _make(
        self,
        vendor: Vendor,
        api_key: KeyLike | None,
        arguments: Arguments,
        dialect: Dialect | None = None,
    ) -> None:
        Client.__init__(self, AsyncClient(vendor, api_key, arguments, dialect))


class Stream(WatchedReader[StreamEvent, LLMResponse]):
    """
    The events of one answer: an iterator, and a context manager.

    It closes itself at `Completed`, on an error, on Ctrl-C, and when the block is left. One that
    is dropped in the middle is closed by the garbage collector, with a `ResourceWarning`.

    Args:
        lease: The client's share of the portal.
        events: The stream of the async client.
        owner: The client; it lives as long as its streams.
    """

    def __init__(self, lease: Lease, events: AsyncStream, *, owner: object = None) -> None:
        super().__init__(lease, events, last=Completed, owner=owner)

    @property
    def text_stream(self) -> Iterator[str]:
        """
        The pieces of the first answer's text.

        What was given cannot be taken back: when the answer begins anew (`rescue=True`) after
        some of it was, this raises `StreamTruncated`. Iterate over the events to follow it.
        """
        return self._texts()

    @discreet
    def final(self) -> LLMResponse:
        """
        Read to the end.

        Returns:
            The whole answer.

        Raises:
            LoomError: Whatever ended the stream.
            StreamTruncated: If the stream was closed before its end.
        """
        return super().final()

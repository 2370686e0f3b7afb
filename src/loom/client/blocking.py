"""`Mistral`: the blocking twin of `AsyncMistral`. It holds no logic: the portal runs each call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loom.client.aio import AsyncMistral
from loom.client.discreet import discreet
from loom.client.lease import Lease
from loom.client.options import Messages
from loom.client.reader import Reader
from loom.client.stream import AsyncStream, begun_anew
from loom.client.surroundings import BudgetLike, FallbackLike
from loom.core.ambient import Clock, Dice
from loom.core.events import Completed, Restarted, StreamEvent, TextDelta
from loom.core.plan import Plan, Quote, TokenCount
from loom.core.request import Fit, Priority, Timeouts
from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.ledger.contract import Ledger
from loom.shuttle.tool import ToolLike
from loom.transport.contract import Transport

__all__ = ["Mistral", "Stream"]


class Mistral:
    """
    Mistral for code that blocks. Works with `with`, and without.

    One client serves any number of threads at once, works in a notebook, and after a fork opens
    connections of its own in the child. Ctrl-C takes the request back and raises
    `KeyboardInterrupt`. Every call works on one background event loop, which all clients share;
    a call on that loop's own thread is a `RuntimeError`.

    Args:
        api_key: The key, or a function that gives it; None: `LOOM_LLM_MISTRAL_API_KEY`,
            `MISTRAL_API_KEY`, keyring, Vault, settings file, in this order. An empty one is an
            error. When the vendor refuses the key it is looked for once more, and a new one is
            tried.
        model: The model's id or alias.
        max_tokens: The longest answer in tokens, 1 to 32768, or to the model's window where that
            is larger.
        temperature: 0.0 to 2.0; 0 is a value. The API takes up to 1.5.
        timeout_s: Seconds to wait for the first byte, 1 to 600, or a timedelta.
        deadline_s: Seconds for the whole call, or a timedelta.
        timeouts: Every phase by its name, in place of `timeout_s` and `deadline_s`.
        base_url: The API's address, with or without a trailing `/v1`.
        headers: Sent with each request, beside ours.
        fit: What happens to a request beyond the model's window: "error" raises `ContextTooLong`
            and sends nothing, "slide" leaves out the oldest turns.
        proxy: An HTTP proxy's address; None: no proxy, whatever the environment says.
        sim: True: answers come from the offline Mistral on this machine; no key is needed.
        as_of: The day (or month: its last day) whose models and prices hold; None: today.
        max_connections: Sockets at most, at least 1; further calls wait for a free one.
        retry: When a failed attempt is followed by another; None: never.
        breaker: Stops asking who fails; None: nobody does. One breaker may serve many clients.
        fallback: Other models, keys or providers that are asked when this one fails:
            `"mistral:MODEL"`, `Route(...)`, a provider, a list of these, or a `Fallback`.
        rescue: Whether an answer that breaks in the middle begins anew on the next route; a
            stream says so with `Restarted`.
        skip_bad_events: Whether an event of a stream that cannot be read is left out, and
            counted in `metadata["skipped_events"]`; else it is an error.
        rate_limit: Limits that calls keep before they are sent: they queue instead of being
            refused. A `Limiter` may serve many clients; None: no limits of ours.
        budget: What calls may cost: a `Budget`, an amount in US dollars, or a list of these;
            the worst case is kept free before anything is sent. None: no limit.
        ledger: Where each call has a durable row: "sqlite:///calls.db", a path, or a ledger;
            None: nowhere (budgets are then kept in memory).
        client_name: The client's name in the ledger; clients of one name share its budgets.
        session: The conversation that calls belong to, unless they say so themselves.
        tenant: Whose calls these are: those of different tenants queue fairly.
        priority: "interactive", "normal" or "batch": who goes first when calls queue.
        tags: Labels for costs.
        telemetry: Where spans and metrics of the calls go; None: nowhere. Needs the extra `otel`.
        dice: Draws the jitter of waits; for tests.
        clock: Tells time; for tests.
        transport: The door to the vendor; for tests.

    Raises:
        InvalidAPIKey: If there is no key, or it cannot be one.
        InvalidRequest: If a number is out of its range.
        ConfigInvalid: If an address or a settings file is not as it must be.
    """

    @discreet
    def __init__(
        self,
        api_key: str | Secret | Callable[[], str | Secret] | None = None,
        *,
        model: str = "mistral-large-latest",
        max_tokens: int = 4096,
        temperature: float = 1.0,
        timeout_s: float | timedelta = 60.0,
        deadline_s: float | timedelta = 600.0,
        timeouts: Timeouts | None = None,
        fit: Fit = "error",
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        sim: bool = False,
        as_of: str | date | None = None,
        max_connections: int = 1000,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - a frozen value
        breaker: Breaker | None = None,
        fallback: FallbackLike | None = None,
        rescue: bool = False,
        skip_bad_events: bool = False,
        rate_limit: RateLimit | Limiter | None = None,
        budget: BudgetLike | None = None,
        ledger: str | Path | Ledger | None = None,
        client_name: str = "",
        session: str | None = None,
        tenant: str = "",
        priority: Priority = "normal",
        tags: Mapping[str, str] | None = None,
        telemetry: Telemetry | None = None,
        dice: Dice | None = None,
        clock: Clock | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._async = AsyncMistral(
            api_key,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            timeouts=timeouts,
            fit=fit,
            base_url=base_url,
            headers=headers,
            proxy=proxy,
            sim=sim,
            as_of=as_of,
            max_connections=max_connections,
            retry=retry,
            breaker=breaker,
            fallback=fallback,
            rescue=rescue,
            skip_bad_events=skip_bad_events,
            rate_limit=rate_limit,
            budget=budget,
            ledger=ledger,
            client_name=client_name,
            session=session,
            tenant=tenant,
            priority=priority,
            tags=tags,
            telemetry=telemetry,
            dice=dice,
            clock=clock,
            transport=transport,
        )
        self._lease = Lease(self._async.aclose)
        self._first: Mistral | None = None

    @property
    def name(self) -> str:
        """`mistral`."""
        return self._async.name

    @property
    def model(self) -> str:
        """The model when a call names none."""
        return self._async.model

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
        Count the tokens of a prompt, tools included, as Mistral bills them. Nothing is sent.

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

    def __enter__(self) -> Self:
        """Give the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        self.close()

    def __del__(self) -> None:
        """Have the connections of a forgotten client closed."""
        # A client whose making failed has neither name.
        if getattr(self, "_first", self) is None:
            self._lease.abandon()

    def __repr__(self) -> str:
        """Name and model; never the key."""
        closed = " closed" if self._lease.closed else ""
        return f"<{type(self).__name__} model={self.model!r}{closed}>"


class Stream(Reader[StreamEvent]):
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
        super().__init__(lease.portal, events, last=Completed, owner=owner)
        self._lease = lease
        self._events = events

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
        for _ in self:
            pass
        return self._lease.portal().call(self._final)

    def _texts(self) -> Iterator[str]:
        given = False
        event: StreamEvent | None = None
        try:
            for event in self:
                if type(event) is TextDelta and event.choice == 0:
                    given = True
                    yield event.text
                elif given and type(event) is Restarted:
                    self.close()
                    raise begun_anew(event)
        finally:
            event = None  # an error shows this frame's locals

    async def _final(self) -> LLMResponse:
        # Closed first: a stream that was closed before it began must not begin now.
        await self._events.aclose()
        return await self._events.final()

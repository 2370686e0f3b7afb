"""`AsyncMistral`: what people import for asyncio, and the one the blocking client wraps."""

from __future__ import annotations

import copy
import functools
from collections.abc import (
    Callable,
    Iterable,
    Mapping,
)
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from loom.catalog.dates import parse_as_of
from loom.client import planning
from loom.client.attribution import attributed
from loom.client.checks import checked_fit, checked_flag, checked_number, checked_timeouts
from loom.client.defaults import Defaults, changed_defaults
from loom.client.discreet import discreet, discreet_async
from loom.client.options import Messages, build_request
from loom.client.output import parsed_response
from loom.client.stream import AsyncStream
from loom.client.surroundings import (
    SURROUNDING,
    BudgetLike,
    FallbackLike,
    changed_surroundings,
    checked_surroundings,
    find_key,
)
from loom.config.assemble import MISTRAL_BASE_URL, Assembled, assemble_mistral
from loom.config.load import load_settings, normalise_base_url
from loom.core.ambient import Clock, Dice, SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.plan import Plan, Quote, TokenCount
from loom.core.request import Attribution, ChatRequest, Fit, Priority, Timeouts
from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.ledger.contract import Ledger
from loom.providers.key import Key
from loom.shuttle.tool import ToolLike
from loom.transport.contract import Transport

__all__ = ["AsyncMistral"]


class AsyncMistral:
    """
    Mistral for asyncio. Works with `async with`, and without.

    One client serves any number of tasks, several event loops one after the other, and several
    threads with a loop each; a forked child opens connections of its own.

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
        self._closed = False
        self._release: Callable[[], None] | None = None
        settings = load_settings()
        self._clock = clock or SystemClock()
        self._as_of = settings.as_of if as_of is None else parse_as_of(as_of)
        limits = {"first_byte_s": timeout_s, "total_s": deadline_s} if timeouts is None else {}
        self._defaults = Defaults(
            model=model,
            max_tokens=checked_number("max_tokens", max_tokens),
            temperature=checked_number("temperature", temperature),
            timeouts=checked_timeouts(timeouts or Timeouts(), limits),
            fit=checked_fit(fit),
            skip_bad_events=checked_flag("skip_bad_events", skip_bad_events),
            attribution=attributed(
                Attribution(),
                {"session": session, "tenant": tenant, "priority": priority, "tags": tags or {}},
            ),
        )
        if sim and (base_url is not None or api_key is not None):
            raise ConfigInvalid("sim=True brings its own address and key: give neither with it")
        if sim or (settings.sim and base_url is None and api_key is None):
            address, key = self._simulated()
        else:
            address = normalise_base_url(base_url or settings.base_url or MISTRAL_BASE_URL)
            key = find_key(api_key, settings)
        try:
            around = {
                "retry": retry, "breaker": breaker, "rate_limit": rate_limit,
                "fallback": fallback, "rescue": rescue, "budget": budget, "ledger": ledger,
                "client_name": client_name, "telemetry": telemetry,
            }  # fmt: skip
            self._surroundings = checked_surroundings(around, self._clock)
            self._assemble = functools.partial(
                assemble_mistral,
                key=key,
                model=self._defaults.model,
                base_url=address,
                headers=headers,
                transport=transport or _transport(max_connections, proxy or settings.proxy),
                clock=self._clock,
                dice=dice,
                as_of=self._as_of,
                billed=self._release is None,
            )
            self._assembled: Assembled = self._assemble(surroundings=self._surroundings)
        except BaseException:
            self._free()
            raise

    @property
    def name(self) -> str:
        """`mistral`."""
        return self._assembled.provider.name

    @property
    def model(self) -> str:
        """The model when a call names none."""
        return self._defaults.model

    @discreet_async
    async def chat(
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
            RuntimeError: After `aclose`.
        """
        response = await self._assembled.provider.chat(self._request(messages, tools, options))
        output = options.get("output")
        return response if output is None else parsed_response(response, output)

    @discreet
    def stream(
        self, messages: Messages, tools: Iterable[ToolLike] | None = None, **options: Any
    ) -> AsyncStream:
        """
        Ask, and get the answer as it is made. A plain call; iterate over what it returns.

        Args:
            messages: As for `chat`.
            tools: As for `chat`.
            options: As for `chat`.

        Returns:
            A stream of events that ends with `Completed`. Nothing is sent before the first is
            asked for.

        Raises:
            CallerError: What is asked is not as it must be; found here, nothing was sent.
            RuntimeError: After `aclose`.
        """
        request = self._request(messages, tools, options)
        request = msgspec.structs.replace(request, stream=True)
        return AsyncStream(self._assembled.provider.stream(request), options.get("output"))

    @discreet_async
    async def count(
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
            RuntimeError: After `aclose`.
        """
        request = self._request(messages, tools, options)
        return await planning.count(self._assembled, request, self._day())

    @discreet_async
    async def quote(
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
            RuntimeError: After `aclose`.
        """
        return (await self.plan(messages, tools, **options)).quote

    @discreet_async
    async def plan(
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
            RuntimeError: After `aclose`.
        """
        request = self._request(messages, tools, options)
        return await planning.plan(self._assembled, request, self._day())

    async def ping(self) -> LLMResponse:
        """
        The connection test: ask for a word.

        Returns:
            The answer, with latency, tokens and cost.

        Raises:
            LoomError: As `chat`.
        """
        return await self.chat("Say hello", max_tokens=16)

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
            A client whose `aclose` does nothing: close the first one.

        Raises:
            InvalidRequest: If a value is out of its range.
            TypeError: If a name is not one of these.
        """
        defaults = changed_defaults(self._defaults, changes)
        around = {name: changes.pop(name) for name in SURROUNDING if name in changes}
        if changes:
            raise TypeError(f"with_options() does not know {min(changes)!r}")
        twin = copy.copy(self)
        if around:
            surroundings = changed_surroundings(self._surroundings, around, self._clock)
            twin._surroundings = surroundings  # noqa: SLF001 - a copy of itself
            twin._assembled = self._assemble(surroundings=surroundings)  # noqa: SLF001 - a copy of itself
        twin._release = _nothing  # noqa: SLF001 - a copy of itself
        twin._defaults = defaults  # noqa: SLF001 - a copy of itself
        return twin

    async def aclose(self) -> None:
        """Close every connection; safe to call twice."""
        if self._release is _nothing:
            return
        self._closed = True
        await self._assembled.provider.aclose()
        self._free()

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self.aclose()

    def __repr__(self) -> str:
        """Name and model; never the key."""
        return f"<{type(self).__name__} model={self.model!r}{' closed' if self._closed else ''}>"

    def _request(
        self, messages: Messages, tools: Iterable[ToolLike] | None, options: Mapping[str, Any]
    ) -> ChatRequest:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return build_request(
            messages,
            tools,
            options,
            defaults=self._defaults,
            catalog=self._assembled.catalog,
            on=self._day(),
        )

    def _day(self) -> date:
        return self._as_of or self._clock.now().date()

    def _simulated(self) -> tuple[str, Key]:
        from loom.server.simulator import shared_simulator  # noqa: PLC0415 - brings a server

        simulator = shared_simulator(self._as_of)
        self._release = simulator.release
        return simulator.base_url, Key(Secret(simulator.api_key))

    def _free(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None


def _nothing() -> None:
    """What a client with borrowed connections gives back."""


def _transport(max_connections: int, proxy: str | None) -> Transport:
    from loom.transport.http import HttpTransport  # noqa: PLC0415 - the first call pays

    return HttpTransport(max_connections=max_connections, proxy=proxy)

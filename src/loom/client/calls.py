"""`AsyncClient`: what every client for asyncio can do, whoever its vendor is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Self

import msgspec

from loom.catalog.dates import parse_as_of
from loom.client import planning
from loom.client.arguments import Arguments, Constructed
from loom.client.attribution import attributed
from loom.client.checks import (
    checked_fit,
    checked_flag,
    checked_number,
    checked_temperature,
    checked_timeouts,
)
from loom.client.closing import AsyncClosing
from loom.client.defaults import Defaults, changed_defaults
from loom.client.discreet import discreet, discreet_async
from loom.client.llm import Llm
from loom.client.options import Messages, build_request
from loom.client.output import parsed_response
from loom.client.platform import AsyncPlatform
from loom.client.stream import AsyncStream
from loom.config.load import load_settings
from loom.config.places import Place, find_place
from loom.config.settings import Settings
from loom.config.vendors import Vendor
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.plan import Plan, Quote, TokenCount
from loom.core.provider import LLMProvider
from loom.core.request import Attribution, ChatRequest, Timeouts
from loom.core.response import LLMResponse
from loom.core.route import Route
from loom.providers.key import KeyLike
from loom.shuttle.tool import ToolLike
from loom.transport.contract import Transport
from loom.wire.dialect import Dialect

if TYPE_CHECKING:
    from loom.config.assemble import Assembled, Elsewhere

__all__ = ["AsyncClient"]


class AsyncClient(AsyncPlatform, Constructed, AsyncClosing):
    """
    A client for asyncio. Works with `async with`, and without.

    `AsyncMistral` and `AsyncOpenAI` are the ones to make; `loom.provider` makes one for any vendor.

    Args:
        vendor: Whose API is asked.
        api_key: The key, or a function that gives it; None: it is looked for.
        arguments: Everything else that a caller may say.
        dialect: How the vendor is spoken to; None: as it is usual.
    """

    def __init__(
        self,
        vendor: Vendor,
        api_key: KeyLike | None,
        arguments: Arguments,
        dialect: Dialect | None = None,
    ) -> None:
        from loom.client.surroundings import checked_surroundings  # noqa: PLC0415 - brings layers
        from loom.config.assemble import assemble  # noqa: PLC0415 - brings every layer

        given = arguments
        self._closed = False
        self._release: Callable[[], None] | None = None
        self._vendor = vendor
        settings = load_settings()
        self._clock = given.clock or SystemClock()
        self._as_of = settings.as_of if given.as_of is None else parse_as_of(given.as_of)
        self._defaults = _defaults(given, given.model or self._usual_model())
        try:
            self._place, elsewhere = self._placed(api_key, given, settings)
            self._surroundings = checked_surroundings(given.surroundings(), self._clock)
            self._assemble = functools.partial(
                assemble,
                vendor,
                place=self._place,
                model=self._defaults.model,
                elsewhere=elsewhere,
                headers=given.headers,
                dialect=dialect,
                transport=given.transport
                or _transport(given.max_connections, given.proxy or settings.proxy),
                clock=self._clock,
                dice=given.dice,
                as_of=self._as_of,
                billed=self._release is None,
            )
            self._assembled: Assembled = self._assemble(surroundings=self._surroundings)
        except BaseException:  # Ctrl-C too: the simulator counts who uses it
            self._free()
            raise

    @property
    def name(self) -> str:
        """The vendor: `mistral`, `openai`."""
        return self._assembled.provider.name

    @property
    def model(self) -> str:
        """The model when a call names none."""
        return self._defaults.model

    @property
    def provider(self) -> LLMProvider:
        """What answers, with all its layers; it takes a `ChatRequest`, as `request` makes one."""
        return self._assembled.provider

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
            RuntimeError: After `aclose`.
        """
        return self._request(messages, tools, options)

    def as_llm(self) -> Llm:
        """What an agent needs of this client."""
        catalog = self._assembled.catalog

        def window(model: str) -> int | None:
            card = catalog.find(model, self._day(), self.name)
            return None if card is None else card.context_window

        return Llm(
            provider=self.provider,
            build=lambda tools, options: self._request("?", tools, options),
            clock=self._clock,
            window=window,
            telemetry=self._surroundings.telemetry,
        )

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
        Count the tokens of a prompt, tools included, as the vendor bills them. Nothing is sent.

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
        from loom.client.surroundings import (  # noqa: PLC0415 - brings layers
            SURROUNDING,
            changed_surroundings,
        )

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

    def __repr__(self) -> str:
        """Name and model; never the key."""
        return f"<{type(self).__name__} model={self.model!r}{' closed' if self._closed else ''}>"

    def _make(
        self,
        vendor: Vendor,
        api_key: KeyLike | None,
        arguments: Arguments,
        dialect: Dialect | None = None,
    ) -> None:
        AsyncClient.__init__(self, vendor, api_key, arguments, dialect)

    def _request(
        self,
        messages: Messages,
        tools: Iterable[ToolLike] | None,
        options: Mapping[str, Any],
        defaults: Defaults | None = None,
    ) -> ChatRequest:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return build_request(
            messages,
            tools,
            options,
            defaults=defaults or self._defaults,
            catalog=self._assembled.catalog,
            on=self._day(),
            vendor=self._vendor.name,
            own=self._place.own or not self._vendor.compatible,
        )

    def _placed(
        self, api_key: KeyLike | None, given: Arguments, settings: Settings
    ) -> tuple[Place, Elsewhere]:
        """Where the client's own calls go, and what finds the places of its routes."""
        elsewhere: Elsewhere = functools.partial(_found, settings)
        own = given.base_url is not None or api_key is not None
        if given.sim and own:
            raise ConfigInvalid("sim=True brings its own address and key: give neither with it")
        if given.sim or (settings.sim and not own):
            from loom.client.simulated import simulated  # noqa: PLC0415 - for sim=True alone

            elsewhere, self._release = simulated(self._as_of, elsewhere)
            return elsewhere(self._vendor, Route()), elsewhere
        place = find_place(self._vendor, settings, api_key=api_key, base_url=given.base_url)
        return place, elsewhere

    def _usual_model(self) -> str:
        from loom.config.assemble import load_catalog  # noqa: PLC0415 - brings every layer

        card = load_catalog().default(self._day(), self._vendor.name)
        model = self._vendor.model if card is None else card.id
        if not model:
            raise ConfigInvalid(
                f"no model of {self._vendor.title} is usual on {self._day()}: name one with model="
            )
        return model

    def _day(self) -> date:
        return self._as_of or self._clock.now().date()

    def _free(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None


def _defaults(given: Arguments, model: str) -> Defaults:
    waits = {"timeout_s": given.timeout_s, "deadline_s": given.deadline_s}
    named = {
        "session": given.session, "tenant": given.tenant, "priority": given.priority,
        "tags": given.tags or {},
    }  # fmt: skip
    return Defaults(
        model=model,
        max_tokens=checked_number("max_tokens", given.max_tokens),
        temperature=checked_temperature(given.temperature),
        timeouts=checked_timeouts(
            given.timeouts or Timeouts(), waits if given.timeouts is None else {}
        ),
        fit=checked_fit(given.fit),
        skip_bad_events=checked_flag("skip_bad_events", given.skip_bad_events),
        attribution=attributed(Attribution(), named),
    )


def _found(settings: Settings, vendor: Vendor, route: Route) -> Place:
    return find_place(vendor, settings, api_key=route.api_key, base_url=route.base_url, strict=True)


def _nothing() -> None:
    """What a client with borrowed connections gives back."""


def _transport(max_connections: int, proxy: str | None) -> Transport:
    from loom.transport.http import HttpTransport  # noqa: PLC0415 - the first call pays

    return HttpTransport(max_connections=max_connections, proxy=proxy)

"""
What people say when they make a client of a vendor: its arguments, with their defaults.

The client for asyncio and the blocking one take the same, so both inherit it from here. What they
are made of is hidden behind `_make`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path

from loom.client.arguments import Arguments, BudgetLike, Constructed, FallbackLike
from loom.client.discreet import discreet
from loom.config.vendors import MISTRAL, OPENAI, LimitField, chat_completions
from loom.core.ambient import Clock, Dice
from loom.core.request import Fit, Priority, Timeouts
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.ledger.contract import Ledger
from loom.transport.contract import Transport

__all__ = ["MistralConstructor", "OpenAIConstructor"]


class MistralConstructor(Constructed):
    """The arguments of `AsyncMistral` and `Mistral`."""

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
        """
        Make a client of Mistral; nothing is sent.

        Args:
            api_key: The key, or a function that gives it; None: `LOOM_LLM_MISTRAL_API_KEY`,
                `MISTRAL_API_KEY`, keyring, Vault, settings file, in this order. An empty one is an
                error. When the vendor refuses the key it is looked for once more, and a new one is
                tried.
            model: The model's id or alias.
            max_tokens: The longest answer in tokens, 1 to 32768, or to the model's window where
                that is larger.
            temperature: 0.0 to 2.0; 0 is a value. The API takes up to 1.5.
            timeout_s: Seconds to wait for the first byte, 1 to 600, or a timedelta.
            deadline_s: Seconds for the whole call, or a timedelta.
            timeouts: Every phase by its name, in place of `timeout_s` and `deadline_s`.
            base_url: The API's address, with or without a trailing `/v1`.
            headers: Sent with each request, beside ours.
            fit: What happens to a request beyond the model's window: "error" raises
                `ContextTooLong` and sends nothing, "slide" leaves out the oldest turns.
            proxy: An HTTP proxy's address; None: no proxy, whatever the environment says.
            sim: True: answers come from the offline Mistral on this machine; no key is needed.
            as_of: The day (or month: its last day) whose models and prices hold; None: today.
            max_connections: Sockets at most, at least 1; further calls wait for a free one.
            retry: When a failed attempt is followed by another; None: never.
            breaker: Stops asking who fails; None: nobody does. One breaker may serve many clients.
            fallback: Other models, keys or providers that are asked when this one fails:
                `"mistral:MODEL"`, `"openai:MODEL"`, `Route(...)`, a provider, a list of these, or a
                `Fallback`.
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
            telemetry: Where spans and metrics of the calls go; None: nowhere. Needs the extra
                `otel`.
            dice: Draws the jitter of waits; for tests.
            clock: Tells time; for tests.
            transport: The door to the vendor; for tests.

        Raises:
            InvalidAPIKey: If there is no key, or it cannot be one.
            InvalidRequest: If a number is out of its range.
            ConfigInvalid: If an address or a settings file is not as it must be.
        """
        arguments = Arguments(
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
        self._make(MISTRAL, api_key, arguments)


class OpenAIConstructor(Constructed):
    """The arguments of `AsyncOpenAI` and `OpenAI`."""

    @discreet
    def __init__(
        self,
        api_key: str | Secret | Callable[[], str | Secret] | None = None,
        *,
        model: str | None = None,
        max_tokens: int = 4096,
        temperature: float | None = None,
        timeout_s: float | timedelta = 60.0,
        deadline_s: float | timedelta = 600.0,
        timeouts: Timeouts | None = None,
        fit: Fit = "error",
        base_url: str | None = None,
        limit_field: LimitField | None = None,
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
        """
        Make a client of OpenAI, or of a server that speaks as it does; nothing is sent.

        Args:
            api_key: The key, or a function that gives it; None: `LOOM_LLM_OPENAI_API_KEY`,
                `OPENAI_API_KEY`, keyring, Vault, settings file, in this order. An empty one is an
                error. When the vendor refuses the key it is looked for once more, and a new one is
                tried. A server on this machine is sent none unless you give one, and any other
                address needs one of its own: the key that was found goes to OpenAI alone.
            model: The model's id or alias; None: the newest general model of the catalogue.
            max_tokens: The longest answer in tokens, at least 1, and at most what the model says. A
                model that reasons spends them on its thoughts too: give it more.
            temperature: 0.0 to 2.0; 0 is a value. None: nothing is sent, and OpenAI takes 1; models
                that reason take nothing else.
            timeout_s: Seconds to wait for the first byte, 1 to 600, or a timedelta.
            deadline_s: Seconds for the whole call, or a timedelta.
            timeouts: Every phase by its name, in place of `timeout_s` and `deadline_s`.
            base_url: The API's address, or that of another server that speaks as OpenAI does:
                "http://localhost:11434/v1". A path is taken as it is; without one it is `/v1`.
            limit_field: What `max_tokens` is called on the wire; None: "max_completion_tokens" for
                OpenAI itself, "max_tokens" for every other address.
            headers: Sent with each request, beside ours.
            fit: What happens to a request beyond the model's window: "error" raises
                `ContextTooLong` and sends nothing, "slide" leaves out the oldest turns.
            proxy: An HTTP proxy's address; None: no proxy, whatever the environment says.
            sim: True: answers come from the simulator on this machine; no key is needed.
            as_of: The day (or month: its last day) whose models and prices hold; None: today.
            max_connections: Sockets at most, at least 1; further calls wait for a free one.
            retry: When a failed attempt is followed by another; None: never.
            breaker: Stops asking who fails; None: nobody does. One breaker may serve many clients.
            fallback: Other models, keys or providers that are asked when this one fails:
                `"mistral:MODEL"`, `"openai:MODEL"`, `Route(...)`, a provider, a list of these, or a
                `Fallback`.
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
            telemetry: Where spans and metrics of the calls go; None: nowhere. Needs the extra
                `otel`.
            dice: Draws the jitter of waits; for tests.
            clock: Tells time; for tests.
            transport: The door to the vendor; for tests.

        Raises:
            InvalidAPIKey: If there is no key, or it cannot be one.
            InvalidRequest: If a number is out of its range.
            ConfigInvalid: If an address or a settings file is not as it must be.
        """
        arguments = Arguments(
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
        # None: as the place is usually spoken to.
        chosen = None if limit_field is None else chat_completions(limit_field=limit_field)
        self._make(OPENAI, api_key, arguments, chosen)


# A wrong argument's error names what people write.
MistralConstructor.__init__.__wrapped__.__qualname__ = "Mistral.__init__"  # type: ignore[attr-defined]  # `discreet` wraps it
OpenAIConstructor.__init__.__wrapped__.__qualname__ = "OpenAI.__init__"  # type: ignore[attr-defined]  # the same

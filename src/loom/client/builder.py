"""
`AgentBuilder`: an agent in a chain of calls, the way the reference page has it.

    agent = AgentBuilder().with_mistral_llm(api_key).with_tools(get_weather).build()

Nothing is made, looked up or opened before `build()`, which raises whatever was wrong on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from loom.agent.backend import Backend
from loom.agent.limits import AgentLimits, ContextPolicy
from loom.agent.session import SessionStore
from loom.client.agent import AgentTool, AsyncAgent, checked_tools
from loom.client.aio import AsyncMistral, AsyncOpenAI
from loom.client.answering import llm_of
from loom.client.arguments import BudgetLike, FallbackLike
from loom.client.calls import AsyncClient
from loom.client.llm import Llm, LlmLike
from loom.config.secrets import find_in_keyring
from loom.core.errors import ConfigInvalid, InvalidAPIKey, LoomError
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.ledger.contract import Ledger
from loom.providers.key import KeyLike
from loom.shuttle.permission import Permissions

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from loom.client.agent_blocking import Agent

__all__ = ["AgentBuilder"]

T = TypeVar("T")


class AgentBuilder:
    """
    Builds agents. Each `with_` gives the builder back; of two that say the same, the last wins.

    `with_tools` is the exception: it adds. A builder may build several agents; each has a client
    of its own, unless it was given one by `with_llm`.
    """

    def __init__(self) -> None:
        self._llm: Callable[[dict[str, Any]], LlmLike] | None = None
        self._owned = False
        self._tools: list[AgentTool] = []
        self._around: dict[str, Any] = {}
        self._agent: dict[str, Any] = {}
        self._options: dict[str, Any] = {}

    # --- who answers -------------------------------------------------------------------------

    def with_mistral_llm(self, api_key: KeyLike | None = None) -> Self:
        """
        Let `mistral-large-latest` answer.

        Args:
            api_key: The key, or a function that gives it; None: environment, keyring, Vault,
                settings file, in this order.

        Returns:
            The builder.
        """
        return self._made(lambda around: AsyncMistral(_given(api_key), **around))

    def with_mistral_llm_custom_model(self, api_key: KeyLike | None, model: str) -> Self:
        """
        Let another model of Mistral answer.

        Args:
            api_key: As for `with_mistral_llm`.
            model: The model's id or alias, for example "mistral-small-latest".

        Returns:
            The builder.
        """
        return self._made(lambda around: AsyncMistral(_given(api_key), model=model, **around))

    def with_mistral_llm_from_keyring(
        self, name: str, *, model: str = "mistral-large-latest"
    ) -> Self:
        """
        Let Mistral answer, with a key from the machine's keyring.

        Needs the extra `keyring`. On a machine without one `build()` says so.

        Args:
            name: The entry's name under the service `loom`, for example "mistral_key".
            model: The model's id or alias.

        Returns:
            The builder.
        """
        return self._made(
            lambda around: AsyncMistral(find_in_keyring(name).secret, model=model, **around)
        )

    def with_openai_llm(
        self,
        api_key: KeyLike | None = None,
        model: str | None = None,
        *,
        base_url: str | None = None,
    ) -> Self:
        """
        Let OpenAI answer, or a server that speaks its dialect.

        Args:
            api_key: The key, or a function that gives it; None: `LOOM_LLM_OPENAI_API_KEY`,
                `OPENAI_API_KEY`, keyring, Vault, settings file, in this order.
            model: The model's id; None: the newest general one of the catalogue.
            base_url: Another server's address; None: OpenAI's.

        Returns:
            The builder.
        """
        return self._made(
            lambda around: AsyncOpenAI(_given(api_key), model=model, base_url=base_url, **around)
        )

    def with_llm(self, llm: LlmLike) -> Self:
        """
        Let anybody answer.

        Args:
            llm: `"mistral:MODEL"`, a client (it stays yours to close), or any `LLMProvider`.

        Returns:
            The builder.
        """
        self._llm, self._owned = lambda _: llm, False
        return self

    # --- what it works with --------------------------------------------------------------------

    def with_tools(self, *tools: AgentTool) -> Self:
        """
        Add tools, and sources of tools (`mcp(...)`), to those that are there.

        Args:
            tools: Functions that `@tool` decorates, and objects of the protocols.

        Returns:
            The builder.
        """
        self._tools += tools
        return self

    def with_backend(self, backend: Backend) -> Self:
        """
        Give the agent something to work on; its operations become tools.

        Args:
            backend: For example `SQLiteBackend("shop.db")`; closed with the agent.

        Returns:
            The builder.
        """
        return self._set(backend=backend)

    def with_system_prompt(self, text: str) -> Self:
        """
        Tell the model its task.

        Args:
            text: What stands before each conversation.

        Returns:
            The builder.
        """
        return self._set(system_prompt=text)

    def with_session_store(self, sessions: str | Path | SessionStore) -> Self:
        """
        Keep conversations.

        Args:
            sessions: "sqlite:///chats.db", a path, "memory:", or a store.

        Returns:
            The builder.
        """
        return self._set(sessions=sessions)

    def with_name(self, name: str) -> Self:
        """
        Give the agent a name in traces.

        Args:
            name: The name.

        Returns:
            The builder.
        """
        return self._set(name=name)

    def with_options(self, **options: Any) -> Self:
        """
        Set options of each call; they are added to those that are there.

        Args:
            options: Any option of `Mistral.chat`: `temperature`, `max_tokens`, ...

        Returns:
            The builder.
        """
        self._options |= options
        return self

    # --- how far it may go -----------------------------------------------------------------

    def with_limits(self, limits: AgentLimits) -> Self:
        """
        Say how far one turn may go.

        Args:
            limits: Turns, tools, time.

        Returns:
            The builder.
        """
        return self._set(limits=limits)

    def with_permissions(self, permissions: Permissions) -> Self:
        """
        Say which tools may run, and who is asked.

        Args:
            permissions: Allow-list and hooks.

        Returns:
            The builder.
        """
        return self._set(permissions=permissions)

    def with_context(self, context: ContextPolicy) -> Self:
        """
        Say what happens to a conversation that outgrows the model's window.

        Args:
            context: "slide", "summarise" or "error".

        Returns:
            The builder.
        """
        return self._set(context=context)

    def with_budget(self, budget: BudgetLike) -> Self:
        """
        Say what calls may cost; the worst case is kept free before anything is sent.

        Args:
            budget: A `Budget`, an amount in US dollars as text ("0.50"), or a list of these.

        Returns:
            The builder.
        """
        return self._surround(budget=budget)

    def with_ledger(self, ledger: str | Path | Ledger) -> Self:
        """
        Write a durable row of each call.

        Args:
            ledger: "sqlite:///calls.db", a path, or a ledger.

        Returns:
            The builder.
        """
        return self._surround(ledger=ledger)

    # --- how it stays up -----------------------------------------------------------------------

    def with_rate_limit(self, rate_limit: RateLimit | Limiter) -> Self:
        """
        Let calls queue instead of being refused by the vendor.

        Args:
            rate_limit: For example `RateLimit.starter()`.

        Returns:
            The builder.
        """
        return self._surround(rate_limit=rate_limit)

    def with_circuit_breaker(self, breaker: Breaker | None = None) -> Self:
        """
        Stop asking a provider that fails.

        Args:
            breaker: One that may serve many agents; None: a new one with its usual numbers.

        Returns:
            The builder.
        """
        return self._surround(breaker=breaker or Breaker())

    def with_retry(self, retry: RetryPolicy | None) -> Self:
        """
        Say when a failed attempt is followed by another; the usual is on by default.

        Args:
            retry: For example `RetryPolicy.robust()`; None: never.

        Returns:
            The builder.
        """
        return self._surround(retry=retry)

    def with_fallback(self, fallback: FallbackLike, *, rescue: bool = False) -> Self:
        """
        Ask others when the model fails, in the middle of a conversation too.

        Args:
            fallback: For example `"mistral:mistral-small-latest"`, or a list.
            rescue: Whether an answer that breaks in the middle begins anew there.

        Returns:
            The builder.
        """
        return self._surround(fallback=fallback, rescue=rescue)

    def with_tracer(self, tracer: Telemetry | TracerProvider) -> Self:
        """
        Record spans and metrics of turns, calls and tools. Needs the extra `otel`.

        Args:
            tracer: A `Telemetry`, or the provider of its spans.

        Returns:
            The builder.
        """
        self._around["telemetry"] = tracer
        return self

    # --- the agent ---------------------------------------------------------------------------

    def build(self) -> Agent:
        """
        Make a blocking agent.

        Returns:
            It; use it in a `with` block, or close it.

        Raises:
            InvalidAPIKey: If there is no key, or it cannot be one: `API key is required`.
            ConfigInvalid: `LLM provider is required`, or whatever else is not as it must be; if
                several things are, the message lists them.
            LoomError: The one thing that is wrong.
        """
        from loom.client.agent_blocking import Agent  # noqa: PLC0415 - asyncio needs no portal

        return Agent.of(self.build_async())

    def build_async(self) -> AsyncAgent:
        """
        Make an agent for asyncio; errors as of `build`.

        Returns:
            It; use it in an `async with` block, or close it.
        """
        wrong: list[LoomError] = []
        tools = self._gathered(wrong, lambda: checked_tools(self._tools))
        llm = self._gathered(wrong, self._client)
        if wrong or tools is None or llm is None:
            raise _joined(wrong)
        return AsyncAgent(llm=llm, tools=tools, options=self._options, **self._agent)

    def _client(self) -> Llm:
        if self._llm is None:
            raise ConfigInvalid(
                "LLM provider is required: call with_mistral_llm(...), with_openai_llm(...) or"
                " with_llm(...)"
            )
        around = dict(self._around)
        tracer = around.get("telemetry")
        if tracer is not None and not isinstance(tracer, Telemetry):
            around["telemetry"] = Telemetry(tracer_provider=tracer)
        if not self._owned:
            return llm_of(self._llm({}), around)
        client = self._llm(around)
        assert isinstance(client, AsyncClient)  # noqa: S101 - what `_made` was given makes
        return msgspec.structs.replace(client.as_llm(), close=client.aclose)

    def _gathered(self, wrong: list[LoomError], make: Callable[[], T]) -> T | None:
        try:
            return make()
        except LoomError as error:
            wrong.append(error)
            return None

    def _made(self, make: Callable[[dict[str, Any]], AsyncClient]) -> Self:
        self._llm, self._owned = make, True
        return self

    def _set(self, **given: Any) -> Self:
        self._agent |= given
        return self

    def _surround(self, **given: Any) -> Self:
        self._around |= given
        return self


def _given(api_key: KeyLike | None) -> KeyLike | None:
    """The key; an empty one is as good as none, and never leads to another place's."""
    if isinstance(api_key, str) and not api_key.strip():
        raise InvalidAPIKey(
            "API key is required: the one that was given is empty. Pass None to have the"
            " environment, the keyring and the settings asked"
        )
    return api_key


def _joined(wrong: list[LoomError]) -> LoomError:
    if len(wrong) == 1:
        return wrong[0]
    listed = "; ".join(f"{place}) {error.message}" for place, error in enumerate(wrong, 1))
    return ConfigInvalid(f"the agent cannot be built: {listed}")

"""OpenAI's side of the simulator: its desk, what it refuses, and how its models answer."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import date
from typing import Any

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.errors import ContextTooLong, InvalidAPIKey, ModelNotFound
from loom.core.events import Completed, StreamEvent, ThinkingDelta, ToolCallDelta
from loom.core.messages import Message, TextPart, ThinkingPart
from loom.core.model import ModelCard
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.scripted import Split
from loom.server.desk import Outcome
from loom.server.simulator.exchange import CURRENT, Exchange
from loom.server.simulator.front import SimulatedEdge
from loom.wire.chat_completions.checks import check_request
from loom.wire.chat_completions.embeddings import (
    EMBEDDING_MODELS,
    decode_embeddings_request,
)

__all__ = ["OPENAI_BASE", "AsOpenAI", "OpenAICheck", "OpenAIEdge", "OpenAIModels"]

OPENAI_BASE = "/openai/v1"
"""Where OpenAI's paths begin."""

# What the API tells of the same counts. Its limits have no word for the cost of a request.
_LIMITS = {
    "x-ratelimit-limit-requests": "x-ratelimit-limit-req-minute",
    "x-ratelimit-limit-tokens": "x-ratelimit-limit-tokens-minute",
    "x-ratelimit-remaining-requests": "x-ratelimit-remaining-req-minute",
    "x-ratelimit-remaining-tokens": "x-ratelimit-remaining-tokens-minute",
}
# All is free again when a minute has passed.
_RESET = {"x-ratelimit-reset-requests": "1m0s", "x-ratelimit-reset-tokens": "1m0s"}


class OpenAIEdge(SimulatedEdge):
    """What stands before OpenAI's API, as far as its answers show it."""

    def admit(self, authorization: str | None) -> None:
        """
        Compare the key.

        Args:
            authorization: `Bearer <key>`.

        Raises:
            InvalidAPIKey: If it is another one, in OpenAI's words.
        """
        try:
            super().admit(authorization)
        except InvalidAPIKey:
            said = "You didn't provide an API key." if not authorization else "Incorrect API key"
            said += " provided." if authorization else ""
            raise InvalidAPIKey(
                f"{said} You can find your API key at https://platform.openai.com/account/api-keys.",
                provider="openai",
            ) from None

    def models(self) -> Sequence[Mapping[str, Any]]:
        """One row for each id and alias."""
        # When a model was made is not known.
        created = int(self._clock.now().timestamp())
        return [
            {"id": name, "object": "model", "created": created, "owned_by": card.provider}
            for card in self._cards()
            for name in (card.id, *card.aliases)
        ]

    def new_id(self) -> str:
        """The id of the next streamed answer, as OpenAI's look."""
        return f"chatcmpl-{super().new_id()}"

    def used(self, usage: Usage) -> None:
        """
        Hear what a streamed answer used: its stream may not tell.

        Args:
            usage: Its tokens.
        """
        exchange = CURRENT.get()
        if exchange is not None:
            exchange.usage = usage

    def headers(self, outcome: Outcome) -> Mapping[str, str]:
        """
        The headers of OpenAI's answers.

        Args:
            outcome: How the request ended.

        Returns:
            Names in lower case; the limits stand on answers that are charged.

        Source: OpenAI, "Debugging requests" and "Rate limits" (read 2026-11).
        """
        exchange = CURRENT.get()
        elapsed_s = outcome.elapsed_s
        if exchange is not None:
            # The application does not see the latency before it.
            elapsed_s = self._clock.monotonic_s() - exchange.began_s
        number = int(self._dice.random() * 2**52)
        headers = {
            "x-request-id": f"req_{hashlib.sha256(number.to_bytes(8)).hexdigest()[:32]}",
            "openai-processing-ms": str(round(elapsed_s * 1000)),
            "openai-version": "2020-10-01",
            "server": "loom-simulator",
            "access-control-expose-headers": "X-Request-ID",
            "x-content-type-options": "nosniff",
        }
        if exchange is not None and outcome.status == 200 and outcome.endpoint:
            if outcome.usage is not None:
                exchange.usage = outcome.usage
                self._limiter.settle(exchange)
            told = self._limiter.headers(exchange)
            headers |= {theirs: told[ours] for theirs, ours in _LIMITS.items()} | _RESET
        return headers


class OpenAIModels:
    """
    The models that are known here: the catalogue's rows of OpenAI, and Mistral's.

    Args:
        catalog: What is known of models.
        day: The day whose models exist.
        mistral: The card of a model of Mistral; None for one that is unknown.
    """

    def __init__(
        self,
        catalog: Catalog,
        day: Callable[[], date],
        mistral: Callable[[str], ModelCard | None],
    ) -> None:
        self._catalog = catalog
        self._day = day
        self._mistral = mistral

    def cards(self) -> Sequence[ModelCard]:
        """OpenAI's first."""
        day = self._day()
        return [*self._catalog.cards(day, "openai"), *self._catalog.cards(day, "mistral")]

    def find(self, model: str) -> ModelCard | None:
        """
        The card of a model.

        Args:
            model: Its id or an alias.

        Returns:
            It; None for one that is unknown or retired.
        """
        card = self._catalog.find(model, self._day(), "openai")
        if card is not None:
            return None if card.state == "retired" else card
        return self._mistral(model)

    def knows(self, model: str, *, embeds: bool) -> bool:
        """
        Whether there is a model of this name.

        Args:
            model: Its id or an alias.
            embeds: Whether it is asked for vectors.

        Returns:
            True for every name where the catalogue has no rows of OpenAI for the day.
        """
        if self.find(model) is not None or (embeds and model in EMBEDDING_MODELS):
            return True
        return not self._catalog.cards(self._day(), "openai")


class OpenAICheck:
    """
    Refuses what OpenAI refuses before it charges anything: shape, model, window.

    Args:
        models: Those that are known; None takes every model.
        count: Counts the tokens of a request's prompt.
    """

    def __init__(self, models: OpenAIModels | None, count: Callable[[Exchange], int]) -> None:
        self._models = models
        self._count = count

    def __call__(self, exchange: Exchange) -> None:
        """
        Look at one request.

        Args:
            exchange: The request; its body is a JSON object.

        Raises:
            InvalidRequest: In OpenAI's words.
            ModelNotFound: If there is no such model.
            ContextTooLong: If prompt and answer together pass the model's window.
        """
        path = exchange.asked.path
        if not path.startswith(OPENAI_BASE):
            return
        fields = exchange.fields or {}
        embeds = path.endswith("/embeddings")
        if embeds:
            decode_embeddings_request(fields)
        else:
            check_request({name: value for name, value in fields.items() if value is not None})
        if self._models is None:
            return
        if not self._models.knows(exchange.model, embeds=embeds):
            raise ModelNotFound("no such model", http_status=404, model=exchange.model)
        self._check_window(exchange, fields)

    def _check_window(self, exchange: Exchange, fields: Mapping[str, Any]) -> None:
        window = None if exchange.card is None else exchange.card.context_window
        most = fields.get("max_completion_tokens") or fields.get("max_tokens") or 0
        # A token is a byte of the body at least: a body that fits need not be counted.
        if window is None or len(exchange.body) + most <= window:
            return
        prompt = self._count(exchange)
        if prompt + most > window:
            said = f"This model's maximum context length is {window} tokens. However, you"
            said += f" requested {prompt + most} tokens ({prompt} in the messages, {most} in the"
            said += " completion). Please reduce the length of the messages or completion."
            raise ContextTooLong(said)


class AsOpenAI(LLMProvider):
    """
    Answers as OpenAI's models do: with ids of their form, and thoughts that are only counted.

    Args:
        inner: Who answers.
        splits: Gives what cuts a text into a model's tokens, to count thoughts.
    """

    def __init__(self, inner: LLMProvider, splits: Callable[[str], Split]) -> None:
        self._inner = inner
        self._splits = splits

    @property
    def name(self) -> str:
        """Whose models these are."""
        return "openai"

    @property
    def model(self) -> str:
        """The inner provider's."""
        return self._inner.model

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass on what the inner provider says.

        Args:
            request: What is asked.

        Yields:
            Its events.

        Raises:
            LoomError: What the inner provider raises.
        """
        async with aclosing(self._inner.stream(request)) as events:
            async for event in events:
                match event:
                    case ThinkingDelta():
                        continue
                    case ToolCallDelta(id=call_id) if call_id:
                        yield msgspec.structs.replace(event, id=_call_id(call_id))
                    case Completed(response=response):
                        yield Completed(self._told(response))
                    case _:
                        yield event

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self._inner.aclose()

    def _told(self, response: LLMResponse) -> LLMResponse:
        split = self._splits(response.model)
        thought = sum(len(split(choice.message.thinking)) for choice in response.choices)
        usage = response.usage
        return msgspec.structs.replace(
            response,
            id=f"chatcmpl-{response.id}",
            choices=tuple(map(_as_openai, response.choices)),
            usage=msgspec.structs.replace(
                usage, reasoning_tokens=min(thought, usage.output_tokens)
            ),
        )


def _as_openai(choice: Choice) -> Choice:
    message = choice.message
    content = message.content
    if content is not None and not isinstance(content, str):
        content = tuple(part for part in content if not isinstance(part, ThinkingPart))
        if all(isinstance(part, TextPart) for part in content):
            content = message.text
    calls = tuple(
        msgspec.structs.replace(call, id=_call_id(call.id)) for call in message.tool_calls
    )
    said = Message(role="assistant", content=content, tool_calls=calls)
    return msgspec.structs.replace(choice, message=said)


def _call_id(ours: str) -> str:
    """The id of a call as OpenAI's look: `call_` and 24 letters or digits."""
    return f"call_{hashlib.sha256(ours.encode()).hexdigest()[:24]}"

"""What a model answered, and what it used."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from loom.core.messages import Message, ToolCall
from loom.core.model import Price
from loom.core.timeline import Timeline

__all__ = ["Choice", "FinishReason", "LLMResponse", "Partial", "RateLimitState", "Usage"]

FinishReason: TypeAlias = str
"""
`stop`, `length`, `tool_calls`, `model_length`, `content_filter`, `refusal`, `error`.

An unknown word is kept as it came. `content_filter`: the vendor cut the answer; `refusal`: the
text is the model's refusal (OpenAI tells it apart).
"""

_KNOWN_REASONS = frozenset(
    {"content_filter", "error", "length", "model_length", "refusal", "stop", "tool_calls"}
)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """
    Tokens and money of one call.

    Attributes:
        input_tokens: Prompt tokens, the cached ones among them.
        output_tokens: Answer tokens, thinking and tool calls among them.
        total_tokens: As the vendor counts: with audio tokens, where there are any.
        cached_tokens: Prompt tokens that came from the vendor's cache.
        audio_tokens: Prompt tokens that stand for sound.
        reasoning_tokens: Answer tokens that were thought and not said, as far as the vendor says.
        audio_seconds: Seconds of sound in the prompt.
        service_tier: The tier that served: "standard" or "priority"; None when not said.
        cost_usd: US dollars; None when the price is unknown, never a guess.
        price: The row that `cost_usd` was computed with.
        estimated: True when the vendor did not report tokens and these were counted here.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    audio_seconds: int = 0
    service_tier: str | None = None
    cost_usd: Decimal | None = None
    price: Price | None = None
    estimated: bool = False


class RateLimitState(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the vendor's headers said of the limits; None where they said nothing.

    Attributes:
        limit_requests_minute: Requests allowed in a minute. 0 means: not in the plan.
        remaining_requests_minute: Of these, still free.
        limit_tokens_minute: Tokens allowed in a minute.
        remaining_tokens_minute: Of these, still free.
        limit_tokens_month: Tokens allowed in a month.
        remaining_tokens_month: Of these, still free.
        query_cost_tokens: Tokens that this call was charged against the limit.
        reset_s: Seconds until the window begins anew.
        headers: Every rate-limit header as it came, names in lower case.
    """

    limit_requests_minute: int | None = None
    remaining_requests_minute: int | None = None
    limit_tokens_minute: int | None = None
    remaining_tokens_minute: int | None = None
    limit_tokens_month: int | None = None
    remaining_tokens_month: int | None = None
    query_cost_tokens: int | None = None
    reset_s: float | None = None
    headers: Mapping[str, str] = {}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """
    One of the answers.

    Attributes:
        index: From 0.
        message: The assistant's turn, whole: append it to the history as it is.
        finish_reason: Why it ended; None when it did not say.
    """

    index: int = 0
    message: Message
    finish_reason: FinishReason | None = None

    @property
    def finish_reason_known(self) -> bool:
        """Whether the reason is one that this version knows; True when it did not say."""
        # Fault matrix, row 45.
        return self.finish_reason is None or self.finish_reason in _KNOWN_REASONS


class LLMResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    The answer to one request.

    Attributes:
        choices: All answers, by index; more than one only with `n` above 1.
        usage: Tokens and money.
        model: The model that the response names; the price is that model's.
        id: The vendor's id of the answer.
        created: Unix time in seconds; None when not said.
        request_id: The vendor's id of the request, for a support ticket.
        rate_limit: What the headers said of the limits.
        attempts: Requests that were sent for this answer, from 1.
        latency_s: Seconds from the call to the end of the answer, with every attempt and wait.
        timeline: Each attempt with its times, status and charge; None if nobody kept one.
        budget_remaining_usd: What is left of the tightest budget of this call, in US dollars, this
            call taken off; None without a budget.
        metadata: `{"provider": ...}` and what layers add.
        parsed: The validated value of a structured answer (`output=`), or the
            `EmbeddingsResponse` of a request for vectors; None otherwise.
        raw_body: The vendor's body as it came; for a stream the last chunk that said something.
            None if not kept.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    model: str
    id: str = ""
    created: int | None = None
    request_id: str | None = None
    rate_limit: RateLimitState = RateLimitState()
    attempts: int = 1
    latency_s: float = 0.0
    timeline: Timeline | None = None
    budget_remaining_usd: Decimal | None = None
    metadata: Mapping[str, Any] = {}
    parsed: Any = None
    raw_body: bytes | None = None

    @property
    def raw(self) -> Any:
        """The vendor's body as JSON values, with every field that this version does not know."""
        return None if self.raw_body is None else msgspec.json.decode(self.raw_body)

    @property
    def message(self) -> Message:
        """The first answer as a turn of the conversation: append it to the history."""
        return self.choices[0].message

    @property
    def content(self) -> str:
        """The first answer's text."""
        return self.choices[0].message.text

    @property
    def thinking(self) -> str:
        """What the model thought before the first answer; empty when it did not."""
        return self.choices[0].message.thinking

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the first answer wants run."""
        return self.choices[0].message.tool_calls

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first answer ended."""
        return self.choices[0].finish_reason

    @property
    def finish_reason_known(self) -> bool:
        """Whether that is a reason that this version knows."""
        return self.choices[0].finish_reason_known


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """
    What had arrived when a call failed.

    Attributes:
        text: The answer's text so far.
        thinking: The thoughts so far.
        tool_calls: The calls so far; the last may be cut.
        usage: Tokens, if they were reported.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None

"""What is known of a call before it is sent: its tokens, its worst cost, its exact body."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from loom.core.model import Price

__all__ = ["BYTES_PER_TOKEN", "Plan", "Quote", "TokenCount"]

BYTES_PER_TOKEN = 3.2
"""
How many bytes of text are taken for a token where nobody counts.

Source: the project's limiter design, "bytes/3.2".
"""


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """
    How many tokens a prompt has.

    Attributes:
        tokens: Of the whole prompt: messages, tools, and what the vendor's format adds.
        estimated: False when counted with the model's own vocabulary by a known rule.
        reason: Why it is an estimate, for people; None when it is exact.
    """

    tokens: int
    estimated: bool
    reason: str | None = None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """
    The bill before the call.

    Attributes:
        model: The model that was asked for.
        input_tokens: Tokens of the prompt.
        max_output_tokens: The most that can be billed as answer, over all `n` answers; None when
            neither the request nor the model's card sets a limit.
        input_cost_usd: US dollars for the prompt, none of it cached; None when the price is
            unknown, never a guess.
        max_cost_usd: US dollars for the prompt and the longest answer; None when either is
            unknown.
        estimated: True when `input_tokens` is an estimate.
        reason: Why it is an estimate, for people; None when it is exact.
        price: The row that the costs were computed with; None when the price is unknown.
    """

    model: str
    input_tokens: int
    max_output_tokens: int | None
    input_cost_usd: Decimal | None
    max_cost_usd: Decimal | None
    estimated: bool
    reason: str | None = None
    price: Price | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    Exactly what would be sent, and what is known of it. Nothing was sent.

    Attributes:
        body: The request's body as JSON values.
        repairs: What was changed in the history to make it legal, or to make it fit; one
            sentence each.
        quote: Tokens and money.
        window: Prompt and answer together, in tokens; None when the model's is unknown.
        room: Tokens that are left in the window beside the prompt and the longest answer; None
            when the window is unknown. Below 0 only when the count is an estimate.
        tool_ids: Ids of tool calls on the wire, and the caller's ids that they stand for.
    """

    body: Mapping[str, Any]
    repairs: tuple[str, ...] = ()
    quote: Quote
    window: int | None = None
    room: int | None = None
    tool_ids: Mapping[str, str] = {}

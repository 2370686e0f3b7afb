"""The bill before the call: what would be sent, its tokens, and what it costs at the worst."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

from loom.catalog.cost import cost
from loom.core.errors import ContextTooLong
from loom.core.model import ModelCard, Price
from loom.core.plan import Plan, Quote, TokenCount
from loom.core.request import ChatRequest
from loom.layers.window import Fitted
from loom.layers.worst import has_sound

if TYPE_CHECKING:
    from loom.config.assemble import Assembled

__all__ = ["count", "plan"]

P = ParamSpec("P")
T = TypeVar("T")


async def count(assembled: Assembled, request: ChatRequest, on: date) -> TokenCount:
    """
    Count a request's prompt, however long it is.

    Args:
        assembled: The client's parts.
        request: What is asked.
        on: The day whose models hold.

    Returns:
        The count.

    Raises:
        InvalidRequest: If the request cannot be written.
    """
    card = assembled.catalog.find(request.model, on, assembled.provider.name)
    return (await _in_thread(assembled.window.measure, request, card)).count


async def plan(assembled: Assembled, request: ChatRequest, on: date) -> Plan:
    """
    Say what a call would send and what it costs at the worst.

    Args:
        assembled: The client's parts.
        request: What is asked.
        on: The day whose models and prices hold.

    Returns:
        The plan.

    Raises:
        InvalidRequest: If the request cannot be written.
        ContextTooLong: If the call would raise it.
    """
    name = assembled.provider.name
    card = assembled.catalog.find(request.model, on, name)
    fit = request.fit or "error"
    try:
        fitted = await _in_thread(assembled.window.fit, request, card, fit)
    except ContextTooLong as error:
        error.provider = name
        raise
    window = None if card is None else card.context_window
    tokens = fitted.count.tokens
    return Plan(
        body=msgspec.json.decode(fitted.encoded.body),
        repairs=fitted.repairs,
        quote=_quote(fitted, card),
        window=window,
        room=None if window is None else window - tokens - (request.sampling.max_tokens or 0),
        tool_ids=fitted.encoded.tool_ids,
    )


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Counting takes time, and the first count loads a vocabulary: not on the event loop.
    from asyncio import to_thread  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

    return await to_thread(work, *args, **kwargs)


def _quote(fitted: Fitted, card: ModelCard | None) -> Quote:
    request, tokens = fitted.request, fitted.count.tokens
    longest = _longest(fitted, card)
    price = None if card is None else card.price
    of_input = None if price is None else _cost(request, price, tokens, 0)
    at_most = None if price is None or longest is None else _cost(request, price, tokens, longest)
    return Quote(
        model=request.model,
        input_tokens=tokens,
        max_output_tokens=longest,
        input_cost_usd=of_input,
        max_cost_usd=at_most,
        estimated=fitted.count.estimated,
        reason=fitted.count.reason,
        price=None if of_input is None else price,
    )


def _longest(fitted: Fitted, card: ModelCard | None) -> int | None:
    """The tokens of all answers together."""
    sampling = fitted.request.sampling
    longest = sampling.max_tokens
    if longest is None and card is not None:
        longest = card.max_output
        if longest is None and card.context_window is not None:
            longest = max(0, card.context_window - fitted.count.tokens)
    return None if longest is None else longest * (sampling.n or 1)


def _cost(request: ChatRequest, price: Price, tokens: int, longest: int) -> Decimal | None:
    if price.usd_per_audio_second and has_sound(request):
        return None  # billed by the second, and nobody has listened to it yet
    # With "auto" the vendor chooses the tier when it answers.
    tier = "priority" if request.service_tier == "auto" else None
    return cost(price, input_tokens=tokens, output_tokens=longest, tier=tier)

"""
What a call costs: exact decimal arithmetic, no rounding of tokens and pages.

    cost = (plain * input + cached * cached_input + output * output) / 1,000,000
           + pages * per_page + seconds * per_audio_second

times the batch factor, times the priority factor; the rates of a long prompt are higher with some
models. A quantity without a rate makes the whole cost unknown; a quantity of zero needs no rate.
"""

from __future__ import annotations

from decimal import Context, Decimal

import msgspec

from loom.core.model import ModelCard, Price
from loom.core.response import Usage

__all__ = ["cost", "price_usage"]

# Its own context: a caller's `localcontext(prec=6)` must not round our money. 60 digits hold
# 10**18 tokens at any price with 30 digits to spare.
_EXACT = Context(prec=60)
_MILLIONTH = Decimal("0.000001")
_ZERO = Decimal(0)

# A sixtieth of a price per minute may have no end; a sum is cut far below a millionth of a cent.
_SOUND_STEP = Decimal("1e-15")


def cost(
    price: Price,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    audio_seconds: int = 0,
    pages: int = 0,
    batch: bool = False,
    tier: str | None = None,
) -> Decimal | None:
    """
    The price of so many tokens, pages and seconds in US dollars.

    Cached tokens are charged at their own rate, or like other input where there is none.

    Args:
        price: The row to compute with.
        input_tokens: Prompt tokens, the cached ones among them.
        output_tokens: Answer tokens.
        cached_tokens: Prompt tokens that came from the cache.
        audio_seconds: Seconds of sound.
        pages: Pages read.
        batch: Whether it was a batch job.
        tier: The tier that served; "priority" costs more, "flex" less, nobody wrote how much.

    Returns:
        US dollars, or None when a rate is unknown or a number makes no sense (negative, or more
        cached tokens than tokens).
    """
    plain = input_tokens - cached_tokens
    if plain < 0 or cached_tokens < 0 or output_tokens < 0 or audio_seconds < 0 or pages < 0:
        return None
    total = _tokens(price, plain, cached_tokens, output_tokens)
    if total is None:
        return None
    if pages or audio_seconds:
        more = _pages_and_sound(price, pages, audio_seconds)
        if more is None:
            return None
        total = _EXACT.add(total, more)
    if batch:
        total = _EXACT.multiply(total, price.batch_factor)
    if tier == "flex" or (tier == "priority" and price.priority_factor is None):
        return None
    if tier == "priority" and price.priority_factor is not None:
        total = _EXACT.multiply(total, price.priority_factor)
    return total


def _tokens(price: Price, plain: int, cached: int, output: int) -> Decimal | None:
    plain_rate = price.input_usd_per_mtok
    cached_rate = price.cached_input_usd_per_mtok
    output_rate = price.output_usd_per_mtok
    if cached_rate is None:
        cached_rate = plain_rate
    if (
        (plain and plain_rate is None)
        or (cached and cached_rate is None)
        or (output and output_rate is None)
    ):
        return None
    total = _EXACT.multiply(plain, plain_rate or _ZERO)
    if cached:
        total = _EXACT.fma(cached, cached_rate or _ZERO, total)
    said = _EXACT.multiply(output, output_rate or _ZERO)
    long = price.long_prompt_tokens
    if long is not None and plain + cached > long:
        total = _EXACT.multiply(total, price.long_input_factor)
        said = _EXACT.multiply(said, price.long_output_factor)
    return _EXACT.multiply(_EXACT.add(total, said), _MILLIONTH)


def _pages_and_sound(price: Price, pages: int, seconds: int) -> Decimal | None:
    total = _ZERO
    if pages:
        if price.usd_per_page is None:
            return None
        total = _EXACT.multiply(pages, price.usd_per_page)
    if seconds:
        if price.usd_per_audio_second is None:
            return None
        sound = _EXACT.multiply(seconds, price.usd_per_audio_second)
        total = _EXACT.add(total, sound.quantize(_SOUND_STEP, context=_EXACT))
    return total


def price_usage(
    usage: Usage, card: ModelCard | None, *, pages: int = 0, batch: bool = False
) -> Usage:
    """
    The same usage with its cost and the row that the cost was computed with.

    Args:
        usage: What the vendor counted.
        card: The model that the response names, on the day of the call; None when unknown.
        pages: Pages read, which `usage` does not hold.
        batch: Whether it was a batch job.

    Returns:
        A copy; `cost_usd` and `price` are None when the cost is unknown.
    """
    price = None if card is None else card.price
    total = None
    if price is not None:
        total = cost(
            price,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            audio_seconds=usage.audio_seconds,
            pages=pages,
            batch=batch,
            tier=usage.service_tier,
        )
    return msgspec.structs.replace(usage, cost_usd=total, price=None if total is None else price)

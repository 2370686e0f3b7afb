"""
Exact money: sums of US dollars that never round.

Prices have no fixed number of digits (a cached token may cost 37.5 nano-dollars, a second of sound
a sixtieth of a cent), so amounts are `Decimal` and lie in stores as text. The context here has room
for every sum of amounts that `usd` lets in, and a sum that it could not hold is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation

__all__ = ["ZERO", "add", "less", "total", "usd"]

ZERO = Decimal(0)

# 30 digits before the point and 60 behind it, for more than 10**30 amounts.
_EXACT = Context(prec=120, traps=[Inexact, InvalidOperation])
_LARGEST = 30
_FINEST = -60


def usd(value: Decimal | str | int, what: str = "an amount") -> Decimal:
    """
    An amount of US dollars.

    Args:
        value: `Decimal`, text or a whole number, at least 0. A float is refused: 0.1 is none.
        what: What the amount is, for the message.

    Returns:
        The same amount, to the last digit.

    Raises:
        TypeError: If it is a float, or no number.
        ValueError: If it is negative, not finite, or has more digits than any price.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int):
        raise TypeError(f'{what} is {value!r}: give a Decimal or text like "0.10"')
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f'{what} is {value!r}: give a number like "0.10"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{what} is {value!r}: it must be finite and at least 0")
    exponent = amount.as_tuple().exponent
    if amount.adjusted() > _LARGEST or (isinstance(exponent, int) and exponent < _FINEST):
        raise ValueError(f"{what} is {value!r}: that has more digits than any price")
    return amount


def add(one: Decimal, other: Decimal) -> Decimal:
    """
    The sum of two amounts, unrounded.

    Args:
        one: US dollars.
        other: US dollars.

    Returns:
        US dollars.
    """
    return _EXACT.add(one, other)


def less(one: Decimal, other: Decimal) -> Decimal:
    """
    The difference of two amounts, unrounded.

    Args:
        one: US dollars.
        other: What is taken away.

    Returns:
        US dollars; below 0 when more is taken away.
    """
    return _EXACT.subtract(one, other)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """
    The sum of amounts, unrounded.

    Args:
        amounts: US dollars.

    Returns:
        US dollars; 0 without any.
    """
    sum_usd = ZERO
    for amount in amounts:
        sum_usd = _EXACT.add(sum_usd, amount)
    return sum_usd

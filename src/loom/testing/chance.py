"""Draws of every kind from one `Dice`, so that a seed repeats them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from loom.core.ambient import Dice, SystemDice

__all__ = ["Chance"]

T = TypeVar("T")

# A float holds every whole number up to here.
_WHOLE = 2**53


class Chance:
    """
    Draws.

    Args:
        dice: Where they come from; a number is the seed of new dice.
    """

    def __init__(self, dice: Dice | int) -> None:
        self._dice = SystemDice(dice) if isinstance(dice, int) else dice

    @property
    def dice(self) -> Dice:
        """The dice themselves, for what takes a `Dice`."""
        return self._dice

    def fork(self) -> Chance:
        """Chance of its own for one part of a world: what the others draw does not change it."""
        return Chance(int(self._dice.random() * _WHOLE))

    def happens(self, probability: float) -> bool:
        """
        Say whether something happens.

        Args:
            probability: 0 to 1.
        """
        return self._dice.random() < probability

    def between(self, low: float, high: float) -> float:
        """
        Draw a number, all alike.

        Args:
            low: The least.
            high: Which is not reached.
        """
        return low + (high - low) * self._dice.random()

    def whole(self, low: int, high: int) -> int:
        """
        Draw a whole number, all alike.

        Args:
            low: The least.
            high: The greatest.
        """
        return low + int((high - low + 1) * self._dice.random())

    def pick(self, options: Sequence[T]) -> T:
        """
        Draw one of several, all alike.

        Args:
            options: At least one.
        """
        return options[int(len(options) * self._dice.random())]

    def weighted(self, options: Mapping[T, float]) -> T:
        """
        Draw one of several by weight.

        Args:
            options: Each with its weight, above 0.
        """
        left = self._dice.random() * sum(options.values())
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return next(reversed(list(options)))

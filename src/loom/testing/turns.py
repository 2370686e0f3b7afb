"""Turns of the event loop, without the clock."""

from __future__ import annotations

from collections.abc import Callable, Generator

__all__ = ["turn", "turn_until"]


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        """Suspend once: the task goes on at the loop's next turn."""
        yield


async def turn(times: int = 1) -> None:
    """
    Let everything that is ready run.

    Args:
        times: Turns of the event loop, at least 0.
    """
    for _ in range(times):
        await _Turn()


async def turn_until(condition: Callable[[], bool], *, at_most: int = 1000) -> bool:
    """
    Let the loop turn until something is true.

    Args:
        condition: Looked at before each turn.
        at_most: Turns after which it is given up.

    Returns:
        Whether it became true.
    """
    for _ in range(at_most):
        if condition():
            return True
        await _Turn()
    return condition()

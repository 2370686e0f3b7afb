"""Values of options, checked one by one: numbers, times, switches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.request import Fit, Timeouts

__all__ = [
    "LIMITS",
    "RANGES",
    "checked_fit",
    "checked_flag",
    "checked_number",
    "checked_temperature",
    "checked_timeouts",
    "kind_of",
]

# Numbers: lowest, highest, whether the lowest itself is allowed, whether it is whole.
RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "temperature": (0, 2, True, False),
    "top_p": (0, 1, False, False),
    "presence_penalty": (-2, 2, True, False),
    "frequency_penalty": (-2, 2, True, False),
    "repetition_penalty": (0, math.inf, False, False),
    "max_tokens": (1, math.inf, True, True),
    "min_tokens": (0, math.inf, True, True),
    "top_k": (1, math.inf, True, True),
    "random_seed": (0, math.inf, True, True),
    "n": (1, math.inf, True, True),
    "top_logprobs": (0, math.inf, True, True),
    "top_prompt_logprobs": (0, math.inf, True, True),
}
"""Of each option that is a number."""

LIMITS = {"timeout_s": "first_byte_s", "deadline_s": "total_s"}
"""The options that are times, and the limit of `Timeouts` that each of them sets."""


def checked_fit(value: Any) -> Fit:
    """
    What happens to a request beyond the model's window.

    Args:
        value: "error" or "slide".

    Returns:
        The value itself.

    Raises:
        InvalidRequest: If it is neither.
    """
    if value in ("error", "slide"):
        return cast("Fit", value)
    raise InvalidRequest(f"'fit' must be 'error' or 'slide', not {value!r}")


def checked_flag(name: str, value: Any) -> bool:
    """
    A switch.

    Args:
        name: The option.
        value: True or False.

    Returns:
        The value itself.

    Raises:
        InvalidRequest: If it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be True or False, not {kind_of(value)}")
    return value


def checked_number(name: str, value: Any) -> Any:
    """
    A number within its range.

    Args:
        name: The option.
        value: What was given.

    Returns:
        The value itself.

    Raises:
        InvalidRequest: In the words of the reference page: `'temperature' must be between 0
            and 2`.
    """
    low, high, closed, whole = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        wanted = "a whole number" if whole else "a number"
        raise InvalidRequest(f"'{name}' must be {wanted}, not {kind_of(value)}")
    if not (low <= value <= high) or (value == low and not closed):
        if high == math.inf:
            bounds = f"at least {low:g}" if closed else f"above {low:g}"
        else:
            bounds = f"between {low:g} and {high:g}" if closed else f"above {low:g}, up to {high:g}"
        raise InvalidRequest(f"'{name}' must be {bounds}")
    return value


def checked_temperature(value: Any) -> Any:
    """
    How tokens are drawn.

    Args:
        value: 0 to 2; None: as the vendor does it, and nothing is sent.

    Returns:
        The value itself.

    Raises:
        InvalidRequest: If it is neither.
    """
    return None if value is None else checked_number("temperature", value)


def checked_timeouts(base: Timeouts, limits: Mapping[str, float | timedelta]) -> Timeouts:
    """
    Limits by phase, some of them replaced.

    Args:
        base: What holds otherwise.
        limits: `timeout_s` (1 to 600) and `deadline_s` (above 0), as seconds or timedeltas.

    Returns:
        The limits.

    Raises:
        InvalidRequest: If one is no duration, or out of range.
    """
    if not isinstance(base, Timeouts):
        raise InvalidRequest(f"'timeouts' must be a Timeouts, not {kind_of(base)}")
    if not limits:
        return base
    changes = {LIMITS[name]: _seconds(name, value) for name, value in limits.items()}
    return msgspec.structs.replace(base, **changes)


def _seconds(name: str, value: Any) -> float:
    low, high = (1, 600) if name == "timeout_s" else (0.001, 86400)
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidRequest(f"'{name}' must be seconds or a timedelta, not {kind_of(value)}")
    if not low <= number <= high:
        raise InvalidRequest(f"'{name}' must be between {low:g} and {high:g} seconds")
    return float(number)


def kind_of(value: object) -> str:
    """
    What a value is, for messages.

    Args:
        value: Anything.

    Returns:
        The name of its type; `None` for None.
    """
    return "None" if value is None else type(value).__name__

"""The rule that every cap of a backend keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = ["checked"]

B = TypeVar("B", bound=msgspec.Struct)


def checked(bounds: B, least: Mapping[str, int] | None = None) -> B:
    """
    The same caps, if each can be kept.

    Args:
        bounds: As they were given: whole numbers, and `timeout_s`.
        least: What a cap must be at least, where that is not 1.

    Returns:
        The same.

    Raises:
        ConfigInvalid: If one is too small; the message names it.
    """
    for field in bounds.__struct_fields__:
        value, lowest = getattr(bounds, field), (least or {}).get(field, 1)
        if field == "timeout_s":
            if not 0 < value < float("inf"):
                raise ConfigInvalid(f"timeout_s is {value!r}: give seconds above 0")
        elif not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ConfigInvalid(f"{field} is {value!r}: give a whole number, at least {lowest:,}")
    return bounds

"""
Counts of tokens as vendors report them.

0 is a count; a missing, negative or absurd number is none, and whoever knows the request
estimates instead (fault matrix, row 46).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

__all__ = ["Count", "count"]

_MOST = 10**9
"""Larger counts are garbage: the largest window is about a million tokens."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
"""A count in a typed decode."""


def count(value: Any) -> int | None:
    """
    A count from a JSON value.

    Args:
        value: What stands where a count is expected.

    Returns:
        The count; None for what is none.
    """
    return value if type(value) is int and 0 <= value <= _MOST else None

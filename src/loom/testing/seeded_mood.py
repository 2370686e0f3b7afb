"""How a vendor in memory behaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Mood"]


class Mood(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a vendor behaves.

    Attributes:
        faults: How many requests of all go wrong, 0 to 1; by model, "" for all others.
        kinds: Which faults there are; empty for all of `FAULTS`.
        refuses: How many attempts to connect are refused, 0 to 1.
        hangs: How many of them never end.
        deaf: How many connections are never read from.
        restless: After how many answers the connection is closed although it may be kept.
        down_s: From when to when it refuses everything, on the loop's clock.
    """

    faults: Mapping[str, float] = {}
    kinds: Sequence[str] = ()
    refuses: float = 0.0
    hangs: float = 0.0
    deaf: float = 0.0
    restless: float = 0.0
    down_s: tuple[float, float] | None = None

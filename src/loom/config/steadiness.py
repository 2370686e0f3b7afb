"""What keeps a provider up, as one value; `config/assemble.py` makes layers of it."""

from __future__ import annotations

import msgspec

from loom.core.route import Fallback
from loom.layers.breaker import Breaker
from loom.layers.retry_policy import RetryPolicy

__all__ = ["Steadiness"]


class Steadiness(msgspec.Struct, frozen=True, kw_only=True):
    """
    What keeps a provider up.

    Attributes:
        retry: When a failed attempt is followed by another; None: never.
        breaker: Stops asking who fails; None: nobody does.
        fallback: Other routes; None: there are none.
        rescue: Whether a route is left in the middle of its answer too.
    """

    retry: RetryPolicy | None = RetryPolicy()
    breaker: Breaker | None = None
    fallback: Fallback | None = None
    rescue: bool = False

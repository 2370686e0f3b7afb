"""Which tool calls may be run, and who decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import msgspec

from loom.core.messages import ToolCall

__all__ = ["Approval", "Permissions", "Verdict"]

Verdict: TypeAlias = Literal["allow", "deny", "ask"]
"""What is decided about a call; "ask" leaves it to a person."""

Approval: TypeAlias = Callable[[ToolCall], Verdict | bool | Awaitable[Verdict | bool]]
"""
Decides about a call. True is "allow" and False "deny".

A function that is not `async` runs in a worker thread. One that raises, or gives anything else,
denies the call.
"""


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which tool calls may be run.

    Attributes:
        allowed: Names of the tools that may be run; the model is told of no other. None: all
            that were offered.
        approve: Asked for each call of an allowed tool, before it begins; None: the tool's own
            `approval`, which is "allow" unless the tool says otherwise.
        ask: A person: asked when `approve` (or the tool's own `approval`) says "ask", one
            question at a time; None: such a call is denied.
    """

    allowed: frozenset[str] | None = None
    approve: Approval | None = None
    ask: Approval | None = None

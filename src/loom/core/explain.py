"""The story of a failed call, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loom.core.error_table import ERROR_TABLE
from loom.core.faults import FaultFacts, FaultRow, row_of
from loom.core.timeline import Timeline

if TYPE_CHECKING:
    from loom.core.response import Partial

__all__ = ["Failed", "explanation"]


class Failed(Protocol):
    """What is read of an error; `core/errors.py` stands on this file, and not it on that one."""

    message: str
    partial: Partial | None
    retry_after_s: float | None
    timeline: Timeline | None
    attempts: int
    request_id: str | None
    hint: str
    curl: str | None

    @property
    def code(self) -> str:
        """The code of its class."""

    @property
    def phase(self) -> str | None:
        """Where on the way it happened."""

    @property
    def printed_name(self) -> str:
        """The name for people."""


def explanation(error: Failed, *, curl: bool = False) -> str:
    """
    Put together what is known of an error.

    Args:
        error: What happened.
        curl: Whether a command that repeats the call is added.

    Returns:
        Several lines; none ends in white space.
    """
    lines = [f"{error.printed_name}: {error.message}"]
    timeline = error.timeline
    if timeline is not None and timeline.attempts:
        lines += ["", "What happened:", *(f"  {line}" for line in timeline.lines())]
    elif error.attempts == 0:
        lines += ["", "Nothing was sent, nothing is charged."]
    lines += [f"Also: {note}" for note in getattr(error, "__notes__", ())]
    if error.request_id:
        lines += ["", f"Request id: {error.request_id}"]
    row, hint = _row_of(error), error.hint
    if row is not None:
        lines += ["", f"Fault matrix row {row.id} ({row.fault}): {row.says}"]
        # A hint of the call knows more than that of its row, and that more than one of the code.
        hint = row.hint if row.hint and hint == ERROR_TABLE[error.code].hint else hint
    if hint:
        lines += ["", f"What to do: {hint}"]
    if curl and error.curl:
        lines += ["", "The call again (put in your key and your texts):", error.curl]
    return "\n".join(lines)


def _row_of(error: Failed) -> FaultRow | None:
    timeline, partial = error.timeline, error.partial
    attempts = () if timeline is None else timeline.attempts
    said = partial is not None and (partial.text or partial.thinking or partial.tool_calls)
    facts = FaultFacts(
        code=error.code,
        phase=error.phase,
        status=attempts[-1].status if attempts else None,
        partial=bool(said),
        asked=error.retry_after_s is not None,
    )
    return row_of(facts)

"""The story of a failed call, as a person reads it."""

from __future__ import annotations

from typing import Protocol

from loom.core.timeline import Timeline

__all__ = ["Failed", "explanation"]


class Failed(Protocol):
    """What is read of an error; `core/errors.py` stands on this file, and not it on that one."""

    message: str
    timeline: Timeline | None
    attempts: int
    request_id: str | None
    hint: str
    curl: str | None

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
    if error.hint:
        lines += ["", f"What to do: {error.hint}"]
    if curl and error.curl:
        lines += ["", "The call again (put in your key and your texts):", error.curl]
    return "\n".join(lines)

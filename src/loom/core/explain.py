"""The story of a failed call, as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

from loom.core.timeline import Timeline

__all__ = ["explanation"]


def explanation(
    *,
    name: str,
    message: str,
    timeline: Timeline | None = None,
    notes: Sequence[str] = (),
    request_id: str | None = None,
    hint: str = "",
    curl: str | None = None,
) -> str:
    """
    Put together what is known of an error.

    Args:
        name: For example `ERR_TIMEOUT`.
        message: What happened.
        timeline: Each attempt; None if nobody kept one.
        notes: What else happened, for example on other routes.
        request_id: The vendor's id of the request.
        hint: What to do next.
        curl: A command that repeats the call.

    Returns:
        Several lines; none ends in white space.
    """
    lines = [f"{name}: {message}"]
    if timeline is not None and timeline.attempts:
        lines += ["", "What happened:", *(f"  {line}" for line in timeline.lines())]
    elif timeline is not None:
        lines += ["", "Nothing was sent, nothing is charged."]
    if notes:
        lines += ["", *(f"Also: {note}" for note in notes)]
    if request_id:
        lines += ["", f"Request id: {request_id}"]
    if hint:
        lines += ["", f"What to do: {hint}"]
    if curl:
        lines += ["", "The call again (put in your key and your texts):", curl]
    return "\n".join(lines)

"""What happened during a call: each request that was sent, and what it may have cost."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["Attempt", "Charge", "Timeline"]

Charge: TypeAlias = Literal["released", "settled", "estimated", "unknown"]
"""
What an attempt cost.

`released`: nothing. `settled`: what the vendor reported. `estimated`: tokens were seen and not
reported. `unknown`: the vendor may have received, and billed, the prompt.

Source: the project's fault matrix, "Terms".
"""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request on its way, or one that a limit of ours kept back.

    Attributes:
        provider: Who was asked, for example "mistral".
        model: Which model was asked.
        origin: Scheme, host and port; empty when nothing was sent.
        sent_s: When it left, in seconds of the clock's monotonic time.
        first_byte_s: When the reply's headers came; None if they never did.
        ended_s: When it was over.
        sends: How often it was sent: 2 when a kept socket turned out to be closed, 0 when
            nothing was sent.
        status: The HTTP status; None if no headers came.
        code: The error's code; empty for an answer.
        request_id: The vendor's id of the request.
        charge: What it may have cost.
        wait_s: Seconds that were waited after it, before the next one.
    """

    provider: str
    model: str
    origin: str = ""
    sent_s: float
    first_byte_s: float | None = None
    ended_s: float
    sends: int = 1
    status: int | None = None
    code: str = ""
    request_id: str | None = None
    charge: Charge = "released"
    wait_s: float = 0.0


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """
    A call from its beginning to its end.

    Attributes:
        began_s: When it began, in seconds of the clock's monotonic time.
        attempts: In the order in which they left, the last one last.
    """

    began_s: float
    attempts: tuple[Attempt, ...] = ()

    @property
    def sends(self) -> int:
        """Requests that were sent."""
        return sum(attempt.sends for attempt in self.attempts)

    def after(self, past: tuple[Attempt, ...]) -> Timeline:
        """
        The same call, with what happened before.

        Args:
            past: Earlier attempts, the oldest first.

        Returns:
            A new timeline; this one when there is nothing to add.
        """
        if not past:
            return self
        return Timeline(began_s=self.began_s, attempts=past + self.attempts)

    def to_json(self) -> list[dict[str, Any]]:
        """
        The attempts as JSON values.

        Returns:
            Their fields; times in seconds since the call began.
        """
        return [
            {
                **msgspec.structs.asdict(attempt),
                **{
                    name: None if when_s is None else round(when_s - self.began_s, 6)
                    for name, when_s in (
                        ("sent_s", attempt.sent_s),
                        ("first_byte_s", attempt.first_byte_s),
                        ("ended_s", attempt.ended_s),
                    )
                },
            }
            for attempt in self.attempts
        ]

    def lines(self) -> list[str]:
        """
        The call as a person reads it.

        Returns:
            A line for each thing that happened, with the seconds since the call began.
        """
        lines: list[str] = []
        past_s = self.began_s
        for number, attempt in enumerate(self.attempts, 1):
            queued_s = attempt.sent_s - past_s
            if attempt.sends and queued_s >= _WORTH_SAYING_S:
                lines.append(f"{self._at(past_s)}  queued for {queued_s:.3f} s")
            lines += self._lines_of(number, attempt)
            past_s = attempt.ended_s + attempt.wait_s
        return lines

    def _lines_of(self, number: int, attempt: Attempt) -> list[str]:
        who = f"{attempt.provider} {attempt.model}"
        if not attempt.sends:
            return [f"{self._at(attempt.ended_s)}  not sent to {who}: {attempt.code}"]
        again = " twice (the kept connection was closed)" if attempt.sends == 2 else ""
        lines = [f"{self._at(attempt.sent_s)}  attempt {number}: sent{again} to {who}"]
        if attempt.origin:
            lines[0] += f" at {attempt.origin}"
        if attempt.first_byte_s is not None:
            lines.append(f"{self._at(attempt.first_byte_s)}  first byte, status {attempt.status}")
        how = attempt.code or "answered"
        lines.append(f"{self._at(attempt.ended_s)}  {how}; {_CHARGES[attempt.charge]}")
        if attempt.wait_s:
            lines.append(f"{self._at(attempt.ended_s)}  waited {attempt.wait_s:.3f} s")
        return lines

    def _at(self, when_s: float) -> str:
        # The beginning is the deadline less the limit: a tiny bit off, and "-0.000" looks odd.
        return f"{max(0.0, when_s - self.began_s):9.3f} s"


# Shorter than this is the work of a call, and no queue.
_WORTH_SAYING_S = 0.010

_CHARGES: dict[Charge, str] = {
    "released": "nothing is charged",
    "settled": "charged as the vendor reported",
    "estimated": "what came may be charged",
    "unknown": "the prompt may be charged",
}

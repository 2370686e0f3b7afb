"""One attempt, from the moment it leaves: where it was, how far it came, what it may cost."""

from __future__ import annotations

from loom.core.errors import LoomError
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.core.timeline import Attempt, Charge, Timeline
from loom.transport.contract import HttpReply

__all__ = ["Trip"]


class Trip:
    """
    What is known of one attempt so far.

    Args:
        provider: Who is asked.
        origin: Scheme, host and port.
        request: What is asked.
        sent_s: When it leaves, in seconds of the clock's monotonic time.

    Attributes:
        answered: Whether a part of the answer was handed on.
        sends: How often it was sent.
        sent_s: When it left.
    """

    __slots__ = (
        "_first_byte_s", "_origin", "_provider", "_request", "_status", "answered", "sends",
        "sent_s",
    )  # fmt: skip

    def __init__(self, provider: str, origin: str, request: ChatRequest, sent_s: float) -> None:
        self.sent_s = sent_s
        self.sends = 1
        self.answered = False
        self._provider = provider
        self._origin = origin
        self._request = request
        self._first_byte_s: float | None = None
        self._status: int | None = None

    def arrive(self, reply: HttpReply, now_s: float) -> None:
        """
        Take note of a reply's headers.

        Args:
            reply: The reply.
            now_s: Seconds of the clock's monotonic time.
        """
        self._first_byte_s, self._status, self.sends = now_s, reply.status, reply.attempts

    def charge(self, error: LoomError) -> Charge:
        """
        What a failed attempt may have cost (fault matrix, column "charge").

        Args:
            error: How it failed.

        Returns:
            Nothing, what came, or perhaps the prompt.
        """
        if self.answered:
            return "estimated"
        if self._status is None:
            # Fault matrix, rows 1 to 9 and 27: the transport knows whether it may have arrived.
            return "unknown" if error.uncertain else "released"
        # Fault matrix, rows 10 to 13, 26 and 30: an answer was made, and not read. Fault matrix,
        # rows 35 and 40: it may have been.
        return "unknown" if self._status in (200, 408, 504) else "released"

    def failed(self, error: LoomError, charge: Charge, now_s: float) -> Timeline:
        """
        The attempt as part of an error.

        Args:
            error: How it failed.
            charge: What it may have cost.
            now_s: Seconds of the clock's monotonic time.

        Returns:
            The call so far.
        """
        if self._status is None:
            self.sends = error.attempts
        else:
            # A reply that breaks later does not know how often it was asked for.
            error.attempts = self.sends
        return self._timeline(charge, now_s, code=error.code, request_id=error.request_id)

    def answer(self, response: LLMResponse, charge: Charge, now_s: float) -> Timeline:
        """
        The attempt as part of an answer.

        Args:
            response: The answer.
            charge: Whether its tokens were reported or counted here.
            now_s: Seconds of the clock's monotonic time.

        Returns:
            The call so far.
        """
        return self._timeline(charge, now_s, model=response.model, request_id=response.request_id)

    def _timeline(
        self,
        charge: Charge,
        now_s: float,
        *,
        model: str = "",
        code: str = "",
        request_id: str | None = None,
    ) -> Timeline:
        attempt = Attempt(
            provider=self._provider,
            model=model or self._request.model,
            origin=self._origin,
            sent_s=self.sent_s,
            first_byte_s=self._first_byte_s,
            ended_s=now_s,
            sends=self.sends,
            status=self._status,
            code=code,
            request_id=request_id,
            charge=charge,
        )
        began_s = self._request.began_s
        return Timeline(began_s=self.sent_s if began_s is None else began_s, attempts=(attempt,))

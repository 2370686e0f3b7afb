"""
The two lines of a call in the log: what is asked, and what it came to. Never what was said.

The fields travel as `extra=`, so that a formatter for JSON shows them; each line has the same
ones every time, None where nothing is known.

Source: the reference page of Loom for Go, "Monitor Usage" (messages and names of the fields).
"""

from __future__ import annotations

import logging

from loom.core.errors import LoomError
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

__all__ = ["Lines"]


class Lines:
    """
    The log of a provider's calls: the logger `loom.<name>`.

    Args:
        name: The provider, for example "openai".
        title: The same as people write it, "OpenAI"; empty: the name with a capital.
    """

    def __init__(self, name: str, title: str = "") -> None:
        self._log = logging.getLogger(f"loom.{name}")
        title = title or name[:1].upper() + name[1:]
        self._asked = f"{title} request"
        self._answered = f"{title} response"
        self._failed = f"{title} request failed"
        self._ended = f"{title} request ended early"

    @property
    def wanted(self) -> bool:
        """Whether anybody reads them now."""
        return self._log.isEnabledFor(logging.INFO)

    def asked(self, request: ChatRequest) -> None:
        """
        Say that a call begins.

        Args:
            request: What is asked.
        """
        self._log.info(
            self._asked,
            extra={
                "model": request.model,
                "input_message_count": len(request.messages),
                "tools": len(request.tools),
                "stream": request.stream,
            },
        )

    def answered(self, response: LLMResponse, latency_s: float) -> None:
        """
        Say what an answer used.

        Args:
            response: The answer, priced.
            latency_s: Seconds from the call to its end.
        """
        usage, choices = response.usage, response.choices
        self._log.info(
            self._answered,
            extra={
                "latency": _seconds(latency_s),
                "model": response.model,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cost_usd": usage.cost_usd,
                "tool_calls": sum(len(choice.message.tool_calls) for choice in choices),
                "finish_reason": choices[0].finish_reason if choices else None,
                "attempts": response.attempts,
                "request_id": response.request_id,
            },
        )

    def failed(self, error: LoomError, request: ChatRequest, latency_s: float) -> None:
        """
        Say that a call failed.

        Args:
            error: How.
            request: What was asked.
            latency_s: Seconds from the call to its end.
        """
        self._log.warning(
            self._failed,
            extra={
                "latency": _seconds(latency_s),
                "model": error.model or request.model,
                "code": error.code,
                "http_status": error.http_status,
                "attempts": error.attempts,
                "request_id": error.request_id,
            },
        )

    def ended(self, code: str, request: ChatRequest, latency_s: float, *, attempts: int) -> None:
        """
        Say that a call ended without an answer and without an error of ours.

        Args:
            code: `cancelled`, `abandoned`, or the class of a foreign error.
            request: What was asked.
            latency_s: Seconds from the call to its end.
            attempts: Requests that were begun.
        """
        self._log.info(
            self._ended,
            extra={
                "latency": _seconds(latency_s),
                "model": request.model,
                "code": code,
                "attempts": attempts,
            },
        )


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"

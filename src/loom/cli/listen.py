"""Follows one call: events to the two streams, and what it cost, also when it is interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
from click.exceptions import Exit

from loom.cli.heard import Heard, show_event, warn_if_cut
from loom.cli.terminal import Terminal, cost_line
from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.core.events import (
    Completed,
    Rerouted,
    Retried,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    UsageReported,
)
from loom.core.messages import Message
from loom.core.response import LLMResponse, Usage

if TYPE_CHECKING:
    from loom.client.blocking import Client

__all__ = ["Listener", "event_name", "event_object", "response_object", "usage_object"]

_INTERRUPTED = 130


class Listener:
    """
    Makes one call and shows it.

    Args:
        terminal: Where things go.
        client: Makes the call.
        as_of: The day whose prices hold for an estimate; None: today.
    """

    def __init__(self, terminal: Terminal, client: Client, *, as_of: date | None = None) -> None:
        self._terminal = terminal
        self._client = client
        self._as_of = as_of
        self._clock = SystemClock()
        self._begun_s = self._clock.monotonic_s()
        self._heard = Heard()

    def chat(self, messages: Sequence[Message], options: Mapping[str, Any]) -> LLMResponse:
        """
        Make a call and show its whole answer.

        Args:
            messages: The conversation.
            options: Options of the call; None values are left out by the client.

        Returns:
            The answer.

        Raises:
            LoomError: What the call raised.
            Exit: With 130 when it was interrupted.
        """
        terminal = self._terminal
        try:
            with terminal.waiting(self._client.model):
                response = self._client.chat(list(messages), **options)
        except KeyboardInterrupt:
            raise self._interrupted(messages) from None
        if terminal.json:
            terminal.write_json(response_object(response))
        else:
            if terminal.verbose and response.thinking:
                terminal.say(response.thinking)
            terminal.write(response.content)
        self._close(response)
        return response

    def stream(self, messages: Sequence[Message], options: Mapping[str, Any]) -> LLMResponse:
        """
        Make a call and show its answer as it comes.

        Args:
            messages: The conversation.
            options: Options of the call.

        Returns:
            The answer.

        Raises:
            LoomError: What the call raised; the text so far was shown.
            Exit: With 130 when it was interrupted.
        """
        waiting = self._terminal.waiting(self._client.model)
        try:
            with waiting, self._client.stream(list(messages), **options) as events:
                for event in events:
                    if isinstance(event, TextDelta | ThinkingDelta | Completed):
                        waiting.stop()
                    self._show(event)
                response = events.final()
        except KeyboardInterrupt:
            raise self._interrupted(messages) from None
        except LoomError as error:
            if (missing := self._heard.missing(error)) is not None:
                self._show(missing)
            self._so_far(messages, "ended early")
            raise
        self._close(response)
        return response

    def _show(self, event: StreamEvent) -> None:
        self._heard.note(event)
        if self._terminal.json:
            self._terminal.write_json(event_object(event))
        else:
            show_event(self._terminal, event)

    def _close(self, response: LLMResponse) -> None:
        terminal = self._terminal
        terminal.end_line()
        warn_if_cut(terminal, response.finish_reason)
        if not terminal.json:
            for repair in response.metadata.get("repairs", ()):
                terminal.say(f"repair: {repair}")
            terminal.used(cost_line(response.model, response.usage, response.latency_s))

    def _interrupted(self, messages: Sequence[Message]) -> Exit:
        usage = self._so_far(messages, "interrupted")
        if self._terminal.json:
            partial = {"text": "".join(self._heard.text), "usage": usage_object(usage)}
            self._terminal.print_error("ERR_INTERRUPTED", "interrupted", partial=partial)
        return Exit(_INTERRUPTED)

    def _so_far(self, messages: Sequence[Message], how: str) -> Usage:
        heard, model = self._heard, self._client.model
        told = (message.text for message in messages)
        usage = heard.usage or heard.estimate(model, told, self._as_of)
        self._terminal.end_line()
        if not self._terminal.json and (heard.text or heard.thinking or how == "interrupted"):
            elapsed_s = self._clock.monotonic_s() - self._begun_s
            self._terminal.say(f"{how} · {cost_line(model, usage, elapsed_s)}")
        return usage


def response_object(response: LLMResponse) -> dict[str, Any]:
    """
    An answer as `--json` prints it.

    Args:
        response: The answer.

    Returns:
        Its fields; money as a decimal string.
    """
    return {
        "content": response.content,
        "thinking": response.thinking,
        "tool_calls": response.tool_calls,
        "finish_reason": response.finish_reason,
        "model": response.model,
        "id": response.id,
        "request_id": response.request_id,
        "usage": usage_object(response.usage),
        "attempts": response.attempts,
        "latency_s": round(response.latency_s, 6),
        "timeline": None if response.timeline is None else response.timeline.to_json(),
        "metadata": response.metadata,
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """
    Tokens and money as `--json` prints them.

    Args:
        usage: What a call, or several, used.

    Returns:
        The fields; money as a decimal string.
    """
    fields = msgspec.structs.asdict(usage)
    # Not 2E-7, which few readers of JSON strings take for a number.
    fields["cost_usd"] = None if usage.cost_usd is None else f"{usage.cost_usd:f}"
    return fields


def event_name(event: object) -> str:
    """
    What an event is called in JSON.

    Args:
        event: The event.

    Returns:
        For example `text_delta`.
    """
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__)
    return words.removeprefix("_")


def event_object(event: msgspec.Struct) -> dict[str, Any]:
    """
    An event as `--json --stream` prints it.

    Args:
        event: What happened.

    Returns:
        Its name and fields.
    """
    fields: dict[str, Any] = msgspec.structs.asdict(event)
    match event:
        case Completed(response=response):
            fields = {"response": response_object(response)}
        case UsageReported(usage=usage):
            fields = {"usage": usage_object(usage)}
        case Retried(error=error) | Rerouted(error=error):
            fields["error"] = {"code": error.code, "message": error.message}
        case _:
            pass
    return {"event": event_name(event), **fields}

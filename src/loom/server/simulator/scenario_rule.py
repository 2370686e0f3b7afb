"""What a rule of a script asks of a request, and what it says."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

import msgspec

from loom.core.errors import ConfigInvalid
from loom.server.simulator.faults import RequestInfo, parse_fault

if TYPE_CHECKING:
    from loom.providers.scripted import ScriptItem

__all__ = ["Rule", "check_rule"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """
    What happens to the requests that it fits; conditions that are None fit all.

    Attributes:
        model: The model, with `*` and `?` as in file names.
        text: A regular expression, found anywhere in the last user message.
        tool: A tool that is offered.
        result_of: The tool whose result is the last message.
        last_role: Whose message is the last.
        turn: How many user messages the conversation has, from 1.
        stream: Whether a stream is asked for.
        requests: Which of the requests that fit so far, counted from 1: pairs of first and
            last; a last of None is without end.
        after_s: From so many seconds after the simulator's first request on.
        before_s: Until so many seconds after it.
        answer: A text, a message, a whole response, an error or events; None: see `Scenario`.
        fault: A fault as `parse_fault` reads it; None: none.
    """

    model: str | None = None
    text: str | None = None
    tool: str | None = None
    result_of: str | None = None
    last_role: str | None = None
    turn: int | None = None
    stream: bool | None = None
    requests: tuple[tuple[int, int | None], ...] | None = None
    after_s: float = 0.0
    before_s: float | None = None
    answer: ScriptItem | None = None
    fault: str | None = None

    def fits(self, info: RequestInfo) -> bool:
        """
        Whether a request has what the rule asks for, its number and its time left out.

        Args:
            info: The request.

        Returns:
            Whether every condition holds.
        """
        return (
            (self.model is None or fnmatch.fnmatchcase(info.model, self.model))
            and (self.text is None or re.search(self.text, info.text) is not None)
            and (self.tool is None or self.tool in info.tools)
            and self.result_of in (None, info.result_of)
            and self.last_role in (None, info.last_role)
            and self.turn in (None, info.turn)
            and self.stream in (None, info.stream)
        )

    def holds(self, count: int, at_s: float) -> bool:
        """
        Whether it is this request's turn.

        Args:
            count: How many requests fitted so far, this one counted.
            at_s: Seconds since the simulator's first request.

        Returns:
            Whether number and time are right.
        """
        if at_s < self.after_s or (self.before_s is not None and at_s >= self.before_s):
            return False
        ranges = self.requests
        return ranges is None or any(
            first <= count and (last is None or count <= last) for first, last in ranges
        )


def check_rule(rule: Rule, where: str) -> None:
    """
    Refuse a rule that would fail when a request comes.

    Args:
        rule: It.
        where: What messages call it.

    Raises:
        ConfigInvalid: If its expression or its fault is not one.
    """
    if rule.text is not None:
        try:
            re.compile(rule.text)
        except re.error as error:
            raise ConfigInvalid(f"{where}: 'text' is no regular expression: {error}") from None
    if rule.fault is not None:
        try:
            parse_fault(rule.fault)
        except ConfigInvalid as error:
            raise ConfigInvalid(f"{where}: 'fault': {error.message}") from None

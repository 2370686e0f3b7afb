"""What a model said so far in one call: noted, shown, and counted where it broke off."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from loom.cli.terminal import Terminal
from loom.core.errors import LoomError
from loom.core.events import Restarted, TextDelta, ThinkingDelta, Throttled, UsageReported
from loom.core.response import Usage

__all__ = ["Heard", "show_event", "warn_if_cut"]


class Heard:
    """
    The first answer of a call, as far as it came.

    Attributes:
        text: Pieces of the answer.
        thinking: Pieces of its thoughts.
        usage: What the vendor reported; None: nothing yet.
    """

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.usage: Usage | None = None

    def note(self, event: object) -> None:
        """
        Take note of an event, before it is shown: Ctrl-C may come between the two.

        Args:
            event: Any; most say nothing of the answer.
        """
        match event:
            case TextDelta(text=text, choice=0):
                self.text.append(text)
            case ThinkingDelta(text=text, choice=0):
                self.thinking.append(text)
            case UsageReported(usage=usage):
                self.usage = usage
            case Restarted():
                self.text, self.thinking, self.usage = [], [], None
            case _:
                pass

    def missing(self, error: LoomError) -> TextDelta | None:
        """
        The text that came with an error and was in no event.

        Args:
            error: What ended the answer.

        Returns:
            The rest of the text; None where there is none.
        """
        text = "" if error.partial is None else error.partial.text
        noted = "".join(self.text)
        if not text.startswith(noted) or text == noted:
            return None
        return TextDelta(text.removeprefix(noted))

    def estimate(
        self, model: str, told: Iterable[str], as_of: date | None, *, before: int = 0
    ) -> Usage:
        """
        What the call may have used, for when the vendor reported nothing.

        Args:
            model: Who was asked.
            told: Texts that the model was to read.
            as_of: The day whose prices hold; None: today.
            before: Tokens of the prompt beside those texts.

        Returns:
            Tokens and money, marked as estimated.
        """
        from loom.client.facts import cost  # noqa: PLC0415 - only when it is needed
        from loom.providers.scripted import rough_tokens  # noqa: PLC0415 - only when it is needed

        input_tokens = before + sum(len(rough_tokens(text)) for text in told)
        output_tokens = len(rough_tokens("".join(self.thinking + self.text)))
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cost_usd=cost(model, input_tokens, output_tokens, as_of),
            estimated=True,
        )


def show_event(terminal: Terminal, event: object) -> None:
    """
    Show an event of a call to a person.

    Args:
        terminal: Where it goes.
        event: Any; most are not shown.
    """
    match event:
        case TextDelta(text=text, choice=0):
            terminal.write(text)
        case ThinkingDelta(text=text, choice=0) if terminal.verbose:
            terminal.murmur(text)
        case Throttled(wait_s=wait_s):
            terminal.say(f"waiting {wait_s:.1f} s for the rate limit")
        case Restarted(model=model):
            terminal.end_line()
            terminal.warn(f"the answer begins anew with {model}")
        case _:
            pass


def warn_if_cut(terminal: Terminal, finish_reason: str | None) -> None:
    """
    Warn of an answer that reached its longest length.

    Args:
        terminal: Where the warning goes.
        finish_reason: Why the answer ended.
    """
    if finish_reason in {"length", "model_length"}:
        terminal.warn("the answer was cut: it reached its longest length (--max-tokens)")

"""
What goes to which stream, and how.

Standard output is the answer and nothing else; progress, costs, warnings and errors go to
standard error. Each of them is looked at by itself: one may be a terminal and the other a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from loom.cli.clean import Cleaner, cleaned
from loom.core.errors import InvalidAPIKey, LoomError
from loom.core.response import Usage

if TYPE_CHECKING:
    from logging import LogRecord

    from rich.console import Console
    from rich.status import Status

__all__ = ["Terminal", "Waiting", "cost_line", "dollars", "json_text"]

# Rich tables fold to the width; what reads a pipe has none.
_PIPE_WIDTH = 400
_FOLDED_WIDTH = 14


class Terminal:
    """
    The two streams of a command, and the flags that say how to use them.

    Attributes:
        json: Whether the answer is JSON.
        quiet: Whether standard error stays empty but for errors.
        verbose: How much more is told: 1 notices and thinking, 2 everything logged.
        debug: Whether an error shows its traceback.
        color: False: no colour even on a terminal.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = 0
        self.debug = False
        self.color = True
        self._cleaner = Cleaner()
        self._at_line_start = True
        self._notes: list[str] = []
        self._murmuring = False
        self._held: list[str] = []

    @cached_property
    def out(self) -> Console:
        """Standard output for tables; a pipe gets lines that are not folded."""
        return self._console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Standard error."""
        return self._console(stderr=True)

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console  # noqa: PLC0415 - start-up time

        stream = sys.stderr if stderr else sys.stdout
        return Console(
            stderr=stderr,
            # None leaves the decision to NO_COLOR, FORCE_COLOR and TERM, which rich reads.
            no_color=None if self.color else True,
            width=None if stream.isatty() else _PIPE_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def is_bare(self, *, asked: bool) -> bool:
        """
        Whether somebody sits in front of it and asked nothing yet.

        Args:
            asked: Whether the command's words ask something.

        Returns:
            True only if all three streams are a terminal.
        """
        streams = (sys.stdin, sys.stdout, sys.stderr)
        there = all(stream is not None and stream.isatty() for stream in streams)
        return there and not asked and not self.json

    def write(self, text: str) -> None:
        """
        Add to the answer at once; what a terminal would obey is taken out.

        Args:
            text: The next piece of the model's text.
        """
        shown = self._cleaner.feed(text)
        if shown:
            # Noted before it is shown: Ctrl-C may come between the two.
            self._at_line_start = shown.endswith("\n")
            sys.stdout.write(shown)
            sys.stdout.flush()

    def end_line(self) -> None:
        """End the last lines of answer and thoughts, if they are not ended."""
        self._cleaner = Cleaner()
        if not self._at_line_start:
            self.write("\n")
        if self._murmuring:
            self._murmuring = False
            self.say("")
            while self._held:
                self.say(self._held.pop(0))

    def write_json(self, value: Any) -> None:
        """
        Put one JSON object on a line of standard output.

        Args:
            value: Anything that msgspec encodes.
        """
        sys.stdout.write(json_text(value) + "\n")
        sys.stdout.flush()

    def table(
        self,
        title: str,
        headers: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        drop: Sequence[str] = (),
        fold: Collection[str] = (),
        right: Collection[str] = (),
    ) -> set[str]:
        """
        Put a table on standard output; columns that are empty or have no room are left out.

        Args:
            title: Stands above it.
            headers: One for each column.
            rows: A cell for each header.
            drop: Headers of columns that may be left out for room, first to last.
            fold: Headers of columns whose text may go on in the next line.
            right: Headers of columns of numbers.

        Returns:
            The headers that had no room.
        """
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - start-up time
        from rich.table import Table  # noqa: PLC0415 - start-up time

        heads = {name: name for name in headers}
        cells = [dict(zip(headers, row, strict=True)) for row in rows]
        widths = {
            # A column that folds needs some words on a line to be read.
            name: _FOLDED_WIDTH if name in fold else max(len(row[name]) for row in [heads, *cells])
            for name in headers
            if any(row[name] for row in cells)
        }
        left_out = set()
        for name in drop:
            # Rich's frame: a blank on each side of a cell and one between cells.
            if sum(widths.values()) + 3 * len(widths) + 1 <= self.out.width:
                break
            if widths.pop(name, None) is not None:
                left_out.add(name)
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for name in widths:
            justify: Literal["left", "right"] = "right" if name in right else "left"
            table.add_column(name, no_wrap=name not in fold, justify=justify)
        for row in cells:
            table.add_row(*(row[name] for name in widths))
        with self.out.capture() as capture:
            self.out.print(table)
        lines = (line.rstrip() for line in capture.get().rstrip().split("\n"))
        sys.stdout.write("\n".join(lines) + "\n\n")
        return left_out

    def used(self, line: str) -> None:
        """
        Put on standard error what a call used, and what is to be known of its price.

        Args:
            line: As `cost_line` makes it.
        """
        self.say(line)
        while self._notes:
            self.say(f"note: {self._notes.pop(0)}")

    def say(self, text: str, *, style: str = "dim") -> None:
        """
        Put a line on standard error, unless `-q` was given.

        Args:
            text: The line.
            style: As rich names it.
        """
        if not self.quiet:
            self.err.print(cleaned(text), style=style, soft_wrap=not self.err.is_terminal)

    def murmur(self, text: str) -> None:
        """
        Add to standard error without ending the line, unless `-q` was given.

        Args:
            text: The next piece of what the model thinks.
        """
        if not self.quiet:
            self._murmuring = True
            self.err.print(cleaned(text), style="dim", end="", soft_wrap=True)

    def question(self, text: str) -> None:
        """
        Put a question on standard error, and leave the cursor behind it; `-q` does not hush it.

        Args:
            text: The question.
        """
        self.end_line()
        self.err.print(cleaned(text), style="yellow", end="", soft_wrap=True)
        sys.stderr.flush()

    def waiting(self, model: str) -> Waiting:
        """
        Show on standard error that a model is being waited for; nothing off a terminal.

        Args:
            model: Who is waited for.

        Returns:
            A context manager; `stop()` ends the display early.
        """
        shown = sys.stderr.isatty() and not self.quiet and not self.json
        return Waiting(self.err.status(f"{model} ...", spinner="dots") if shown else None)

    def start_log(self) -> None:
        """
        Send the library's log to standard error: warnings, more with `-v`.

        With `-q`, and with `--json` alone, only errors: a program reads what stands there.
        """
        import logging  # noqa: PLC0415 - start-up time

        levels = {0: logging.WARNING, 1: logging.INFO}
        log = logging.getLogger("loom")
        hushed = self.quiet or (self.json and not self.verbose)
        log.setLevel(logging.ERROR if hushed else levels.get(self.verbose, logging.DEBUG))
        handler = logging.Handler()
        handler.emit = self._log  # type: ignore[method-assign] # one line is not worth a class
        log.handlers[:] = [handler]
        log.propagate = False

    def quiet_log(self) -> None:
        """Show errors of the library's log only: a demonstration warns of nothing."""
        import logging  # noqa: PLC0415 - start-up time

        logging.getLogger("loom").setLevel(logging.ERROR)

    def _log(self, record: LogRecord) -> None:
        if record.name == "loom.catalog":
            # How old a price is matters beside the cost, not before the answer.
            self._notes.append(record.getMessage())
            return
        style = "yellow" if record.levelno >= 30 else "dim"
        line = f"{record.levelname.lower()}: {record.getMessage()}{_fields(record)}"
        if self._murmuring and record.levelno < 30:
            # The library logs on its own thread, ahead of what is shown: thoughts are not cut.
            self._held.append(line)
            return
        self.say(line, style=style)

    def warn(self, text: str) -> None:
        """
        Put a warning on standard error, unless `-q` was given.

        Args:
            text: What is to be known.
        """
        self.say(f"warning: {text}", style="yellow")

    def fail(self, error: LoomError) -> None:
        """
        Put an error on standard error: a line and what to do, or a JSON object.

        Args:
            error: What happened.
        """
        message, hint = error.message, error.hint
        if isinstance(error, InvalidAPIKey) and message.startswith("API key is required"):
            message, hint = _without_key(error), ""
        self.print_error(error.printed_name, message, hint, **_error_fields(error))
        if self.debug and not self.json:
            self.err.print(cleaned("\n" + error.explain(curl=True)), style="dim", soft_wrap=True)

    def print_error(self, name: str, message: str, hint: str = "", **fields: Any) -> None:
        """
        Put an error on standard error: what happened and what to do, or a JSON object.

        Args:
            name: For people, for example `ERR_USAGE`.
            message: What happened.
            hint: What to do next.
            fields: Further fields of the JSON object; None leaves one out.
        """
        self.end_line()
        if self.json:
            every = {"name": name, "message": message, "hint": hint, **fields}
            known = {key: value for key, value in every.items() if value not in (None, "")}
            sys.stderr.write(json_text({"error": known}) + "\n")
            return
        from rich.text import Text  # noqa: PLC0415 - start-up time

        stop = "" if message.endswith((".", "?", "!", ":")) else "."
        fix = f"{stop} Fix: {hint}" if hint else ""
        line = Text.assemble((f"error[{name}]:", "bold red"), f" {cleaned(message + fix)}")
        self.err.print(line, soft_wrap=not self.err.is_terminal)


class Waiting:
    """
    A sign that something is being waited for.

    Args:
        status: Rich's; None shows nothing.
    """

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def __enter__(self) -> Self:
        """Show it."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Take it away."""
        self.stop()

    def stop(self) -> None:
        """Take it away; safe to call twice."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _fields(record: LogRecord) -> str:
    """What a line of the log has beside its message: ` name=value`, None left out."""
    from logging import makeLogRecord  # noqa: PLC0415 - start-up time

    usual = {*vars(makeLogRecord({})), "asctime", "message"}
    found = ((name, value) for name, value in vars(record).items() if name not in usual)
    return "".join(f" {name}={_field(value)}" for name, value in found if value is not None)


def _field(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # An amount is written out: 7.5E-7 reads badly.
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    return json_text(text) if not text or any(letter.isspace() for letter in text) else text


def _without_key(error: InvalidAPIKey) -> str:
    variable = error.message.partition("environment variable ")[2].partition(" ")[0]
    if not variable:
        return error.message  # a server that needs a key of its own
    notes = "; ".join(getattr(error, "__notes__", ()))
    found = f"no key found ({notes})" if notes else "no key found"
    return f"{found}: run with --sim, or export {variable}=..."


def json_text(value: Any) -> str:
    """
    JSON on one line that is safe on a terminal too.

    Args:
        value: Anything that msgspec encodes; a `Decimal` becomes a string, nothing is rounded.

    Returns:
        The text, without a line feed.
    """
    text = msgspec.json.encode(value).decode()
    if text.isascii() and "\x7f" not in text:
        return text
    # JSON leaves these as they are; a terminal takes some of them for commands.
    return "".join(f"\\u{ord(c):04x}" if "\x7f" <= c <= "\x9f" else c for c in text)


def _error_fields(error: LoomError) -> dict[str, Any]:
    return {
        "code": error.code,
        "http_status": error.http_status,
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
        "request_id": error.request_id,
        "provider": error.provider,
        "model": error.model,
        "attempts": error.attempts,
        "timeline": None if error.timeline is None else error.timeline.to_json(),
        "notes": getattr(error, "__notes__", None),
        "partial": error.partial,
    }


def dollars(amount: Decimal | None) -> str:
    """
    An amount as people read it.

    Args:
        amount: US dollars; None when unknown.

    Returns:
        For example `$0.002800`; `cost unknown` for None.
    """
    return "cost unknown" if amount is None else f"${amount:.6f}"


def cost_line(model: str, usage: Usage, latency_s: float) -> str:
    """
    What a call used, on one line.

    Args:
        model: The model that answered.
        usage: Tokens and money.
        latency_s: Seconds from the call to the end.

    Returns:
        For example `mistral-small-2603 · 12 in, 34 out · $0.000022 · 0.8 s`.
    """
    about = "about " if usage.estimated else ""
    tokens = f"{about}{usage.input_tokens:,} in, {usage.output_tokens:,} out"
    cost = dollars(usage.cost_usd)
    if usage.cost_usd is not None:
        cost = about + cost
    return f"{model} · {tokens} · {cost} · {latency_s:.1f} s"

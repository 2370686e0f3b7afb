"""The options that every command has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import rich_click as click

from loom.catalog.dates import parse_as_of
from loom.cli.terminal import Terminal
from loom.core.errors import ConfigInvalid

__all__ = ["DAY", "DOLLARS", "as_of_option", "common_options", "pass_terminal", "with_options"]

F = TypeVar("F", bound=Callable[..., Any])

pass_terminal = click.make_pass_decorator(Terminal, ensure=True)


class _Day(click.ParamType[date]):
    name = "day"

    def convert(
        self, value: str | date, param: click.Parameter | None, ctx: click.Context | None
    ) -> date:
        """Read `2024-11` or `2024-11-30`."""
        try:
            return parse_as_of(value)
        except ConfigInvalid as error:
            self.fail(error.message, param, ctx)


DAY = _Day()


class _Dollars(click.ParamType[Decimal]):
    name = "dollars"

    def convert(
        self, value: str | Decimal, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        """Read `0.05`."""
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} is not an amount in US dollars, for example 0.05", param, ctx)
        return amount


DOLLARS = _Dollars()

as_of_option = click.option(
    "--as-of",
    type=DAY,
    metavar="DAY",
    help="Take models and prices of that day or month, for example 2024-11.",
)


def _sets(name: str, value: Any = True) -> Callable[[click.Context, click.Parameter, Any], None]:  # noqa: FBT002 - a constant, not a switch
    def callback(context: click.Context, _option: click.Parameter, given: Any) -> None:
        if given:
            terminal = context.ensure_object(Terminal)
            setattr(terminal, name, given if isinstance(given, int) and given > 1 else value)

    return callback


_COMMON = (
    click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_sets("json"),
        help="Print one JSON object; an error is one on standard error.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_sets("quiet"),
        help="Print no costs, progress or warnings.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        expose_value=False,
        callback=_sets("verbose", 1),
        help="Tell more; twice: everything.",
    ),
    click.option(
        "--no-color",
        is_flag=True,
        expose_value=False,
        callback=_sets("color", value=False),
        help="Use no colour. NO_COLOR, FORCE_COLOR and TERM=dumb are obeyed too.",
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_sets("debug"),
        help="Show the story of an error: each attempt, a curl command, the traceback.",
    ),
)


def common_options(command: F) -> F:
    """
    Add the options that every command has.

    Args:
        command: A command's function.

    Returns:
        The same, with `--json`, `-q`, `-v`, `--no-color` and `--debug`.
    """
    return with_options(command, _COMMON)


def with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """
    Add options to a command.

    Args:
        command: A command's function.
        options: In the order in which the help lists them.

    Returns:
        The same, with the options.
    """
    for option in reversed(options):
        command = option(command)
    return command

"""The client of a command: flags, then settings, then defaults."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from loom.cli.options import as_of_option
from loom.cli.terminal import Terminal
from loom.config.load import load_settings

if TYPE_CHECKING:
    from loom.client.blocking import Mistral

__all__ = ["connect", "connection_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-m", "--model", metavar="ID", help="The model; `looms models` lists them."),
    click.option("--sim", is_flag=True, help="Ask the simulator: no key, no network, no cost."),
    as_of_option,
)


def connection_options(command: F) -> F:
    """
    Add the options that say who is asked: `-m`, `--sim`, `--as-of`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connect(terminal: Terminal, *, model: str | None, sim: bool, as_of: date | None) -> Mistral:
    """
    A client as flags and settings say.

    Args:
        terminal: Where the client's log goes.
        model: The flag; None: the settings', or the client's own.
        sim: Whether the simulator answers.
        as_of: The day whose models and prices hold; None: the settings', or today.

    Returns:
        The client; close it, or use it in a `with` block.

    Raises:
        InvalidAPIKey: If there is no key, or it cannot be one.
        ConfigInvalid: If a setting is not as it must be.
    """
    from loom.client.blocking import Mistral  # noqa: PLC0415 - start-up time

    terminal.start_log()
    settings = load_settings()
    chosen = {
        "model": model or settings.model,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "timeout_s": settings.timeout_s,
        "deadline_s": settings.deadline_s,
        "as_of": as_of,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    return Mistral(sim=sim, **given)

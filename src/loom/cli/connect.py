"""The client of a command: flags, then settings, then defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import rich_click as click

from loom.cli.options import as_of_option, with_options
from loom.cli.terminal import Terminal
from loom.cli.whose import async_client_of, client_of
from loom.config.load import load_settings
from loom.transport.contract import HttpRequest, Transport

if TYPE_CHECKING:
    from loom.client.aio import AsyncClient
    from loom.client.blocking import Client

__all__ = [
    "connect",
    "connect_async",
    "connection_options",
    "model_options",
    "steady",
    "steady_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_MODEL = click.option(
    "-m",
    "--model",
    metavar="ID",
    help="The model; `looms models` lists them. Another vendor's: openai:gpt-4.1.",
)
_SIM = click.option("--sim", is_flag=True, help="Ask the simulator: no key, no network, no cost.")
_STEADY = (
    click.option(
        "--fallback",
        multiple=True,
        metavar="MODEL",
        help="Ask this model when the first one fails, perhaps another vendor's (openai:gpt-4.1);"
        " may be given several times.",
    ),
    click.option(
        "--rescue",
        is_flag=True,
        help="Begin the answer anew with --fallback when it breaks in the middle.",
    ),
    click.option(
        "--attempts",
        type=click.IntRange(min=1),
        metavar="N",
        help="Requests at most for a call that fails; 1 never tries again.",
    ),
    click.option("--deadline", type=float, metavar="S", help="Seconds for the whole call."),
)


def connection_options(command: F) -> F:
    """
    Add the options that say who is asked: `-m`, `--sim`, `--as-of`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return _MODEL(_SIM(as_of_option(command)))


def steady_options(command: F) -> F:
    """
    Add the options that keep a call up: `--fallback`, `--rescue`, `--attempts`, `--deadline`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, _STEADY)


def steady(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    What `steady_options` took, as arguments of a client.

    Args:
        given: The command's options by name.

    Returns:
        Only what was given.
    """
    from loom.layers.retry_policy import RetryPolicy  # noqa: PLC0415 - start-up time

    chosen: dict[str, Any] = {}
    if given["fallback"]:
        chosen["fallback"] = list(given["fallback"])
    if given["rescue"]:
        chosen["rescue"] = True
    attempts = given["attempts"]
    if attempts is not None:
        chosen["retry"] = RetryPolicy(
            attempts=attempts,
            rate_limit_attempts=attempts,
            silent_attempts=min(attempts, 2),
            malformed_attempts=min(attempts, 2),
        )
    if given["deadline"] is not None:
        chosen["deadline_s"] = given["deadline"]
    return chosen


def model_options(command: F) -> F:
    """
    Add the options of what asks nobody: `-m`, `--as-of`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return _MODEL(as_of_option(command))


def connect(
    terminal: Terminal,
    *,
    model: str | None,
    sim: bool = False,
    as_of: date | None,
    offline: bool = False,
    **more: Any,
) -> Client:
    """
    A client as flags and settings say.

    Args:
        terminal: Where the client's log goes.
        model: The flag; None: the settings', or the client's own.
        sim: Whether the simulator answers.
        as_of: The day whose models and prices hold; None: the settings', or today.
        offline: True for what only counts: no key is needed, and nothing can be sent.
        more: Further arguments of the client, as `steady` gives them.

    Returns:
        The client; close it, or use it in a `with` block.

    Raises:
        InvalidAPIKey: If there is no key, or it cannot be one.
        ConfigInvalid: If a setting is not as it must be.
    """
    given = _arguments(terminal, model=model, as_of=as_of, more=more)
    return client_of(given | _door(sim=sim, offline=offline))


def connect_async(
    terminal: Terminal,
    *,
    model: str | None,
    sim: bool = False,
    as_of: date | None,
    offline: bool = False,
    **more: Any,
) -> AsyncClient:
    """
    Do the same as `connect` for asyncio; arguments and errors as there.

    Args:
        terminal: Where the client's log goes.
        model: The flag.
        sim: Whether the simulator answers.
        as_of: The day whose models and prices hold.
        offline: True for what only counts.
        more: Further arguments of the client.

    Returns:
        The client; close it.
    """
    given = _arguments(terminal, model=model, as_of=as_of, more=more)
    return async_client_of(given | _door(sim=sim, offline=offline))


def _door(*, sim: bool, offline: bool) -> dict[str, Any]:
    if offline:
        return {"api_key": "no-key-is-needed", "transport": _Shut()}
    return {"sim": sim}


def _arguments(
    terminal: Terminal, *, model: str | None, as_of: date | None, more: Mapping[str, Any]
) -> dict[str, Any]:
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
    return {name: value for name, value in chosen.items() if value is not None} | dict(more)


class _Shut(Transport):
    """A transport through which nothing goes."""

    def open(self, request: HttpRequest) -> NoReturn:
        raise RuntimeError(f"nothing may be sent, and this was to go to {request.url}")

    async def aclose(self) -> None:
        """Hold nothing, so give nothing back."""

"""The options that make an agent of `looms chat`: tools, a backend, a session, limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from loom.cli.approve import APPROVALS
from loom.cli.options import with_options

if TYPE_CHECKING:
    from loom.agent.backend import Backend
    from loom.client.agent import AgentTool

__all__ = [
    "approve_option",
    "backend_at",
    "backend_of",
    "continue_option",
    "tool_options",
    "tools_of",
    "wants_agent",
]

F = TypeVar("F", bound=Callable[..., Any])

approve_option = click.option(
    "--approve",
    type=click.Choice(APPROVALS),
    help="auto runs every tool, ask asks for each, never runs none; without it only tools that"
    " change something, or say so themselves, are asked for.",
)
continue_option = click.option(
    "-c", "--continue", "go_on", is_flag=True, help="Go on with the newest conversation."
)

_OPTIONS = (
    click.option(
        "-t",
        "--tool",
        "tools",
        multiple=True,
        metavar="NAME",
        help="Let the model use a function: module:function, path/to/file.py:function, or a module"
        " for all of its tools; may be given several times.",
    ),
    click.option(
        "--backend",
        metavar="PLACE",
        help="Let it look into a database or a folder: sqlite:shop.db, files:./data.",
    ),
    click.option("--write", is_flag=True, help="Let it change what --backend names; it asks you."),
    click.option(
        "--mcp",
        multiple=True,
        metavar="SERVER",
        help="Let it use an MCP server: a command, or its address.",
    ),
    continue_option,
    click.option(
        "--max-turns",
        type=click.IntRange(min=1),
        metavar="N",
        help="Ask the model at most so often for one answer; 25 unless you say so.",
    ),
    approve_option,
)


def tool_options(command: F) -> F:
    """
    Add the options of tools and sessions: `--tool`, `--backend`, `--mcp`, `-c`, `--approve`, ...

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, _OPTIONS)


def wants_agent(given: Mapping[str, Any]) -> bool:
    """
    Whether what was asked takes an agent.

    Args:
        given: The command's options by name.

    Returns:
        True with tools, a session, or a limit of these.

    Raises:
        UsageError: If `--write` stands alone.
    """
    if given["write"] and given["backend"] is None:
        raise click.UsageError("--write allows what --backend names to be changed: give it too")
    names = ("tools", "backend", "mcp", "session", "go_on", "max_turns", "approve")
    return any(given[name] for name in names)


def tools_of(given: Mapping[str, Any]) -> list[AgentTool]:
    """
    What `--tool` and `--mcp` name; modules are imported, servers are not started yet.

    Args:
        given: The command's options by name.

    Returns:
        Tools, and sources of tools.

    Raises:
        ConfigInvalid: If there is no such tool, or no such server can be.
    """
    from loom.client.tool_import import import_tools  # noqa: PLC0415 - start-up time

    found: list[AgentTool] = []
    for name in given["tools"]:
        found += import_tools(name)
    for server in given["mcp"]:
        from loom.shuttle.mcp import mcp  # noqa: PLC0415 - start-up time

        found.append(mcp(server))
    return found


def backend_of(place: str | None, *, write: bool = False) -> Backend | None:
    """
    What `--backend` names.

    Args:
        place: `sqlite:FILE` or `files:FOLDER`; None: nothing.
        write: Whether it may be changed.

    Returns:
        The backend; it is read-only unless `write`.

    Raises:
        UsageError: If it is of another kind.
        ConfigInvalid: If the file or folder cannot be used.
    """
    if place is None:
        return None
    kind, _, where = place.partition(":")
    if not where or kind not in ("sqlite", "files"):
        raise click.UsageError(
            f"--backend is sqlite:FILE or files:FOLDER, for example sqlite:shop.db, not {place!r}"
        )
    return backend_at(place, write=write)


def backend_at(place: str, *, folder: Path | None = None, write: bool = False) -> Backend:
    """
    A database or a folder of files.

    Args:
        place: `sqlite:FILE` or `files:FOLDER`.
        folder: Where a relative path begins; None: the current folder.
        write: Whether it may be changed.

    Returns:
        The backend.

    Raises:
        ConfigInvalid: If the file or folder cannot be used.
    """
    kind, _, where = place.partition(":")
    text = where.removeprefix("///")
    path = (folder or Path()) / Path(text).expanduser()
    if kind == "sqlite":
        from loom.agent.backend_sqlite import SQLiteBackend  # noqa: PLC0415 - start-up time

        return SQLiteBackend(path, read_only=not write)
    from loom.agent.backend_files import FilesBackend  # noqa: PLC0415 - start-up time

    return FilesBackend(path, read_only=not write)

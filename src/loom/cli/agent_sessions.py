"""`looms agent sessions`: the conversations that are kept: list, read, search, delete, export."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rich_click as click

from loom.agent.session import Entry, SessionInfo, SessionStore
from loom.cli.options import common_options, pass_terminal
from loom.cli.session_store import stored
from loom.cli.terminal import Terminal, dollars
from loom.cli.tool_text import visible

__all__ = ["delete", "export", "list_", "search", "sessions", "show"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_STORE = click.option(
    "--store",
    metavar="PLACE",
    help="Another store: a file or sqlite:///FILE. Without it, sessions.db in the data folder.",
)
_FORMS = ("markdown", "json", "jsonl")
_TITLE = 48


@click.group(invoke_without_command=True)
@_STORE
@common_options
@pass_terminal
@click.pass_context
def sessions(context: click.RichContext, terminal: Terminal, /, *, store: str | None) -> None:
    """Look after conversations; alone it lists them."""
    if context.invoked_subcommand is None:
        _list(terminal, store, search=None, limit=20)
    context.obj = terminal


def _limited(command: F) -> F:
    limit = click.option(
        "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N"
    )
    return limit(command)


@sessions.command("list")
@_STORE
@_limited
@common_options
@pass_terminal
def list_(terminal: Terminal, /, *, store: str | None, limit: int) -> None:
    """List conversations, the newest first."""
    _list(terminal, store, search=None, limit=limit)


@sessions.command()
@click.argument("words", nargs=-1, required=True)
@_STORE
@_limited
@common_options
@pass_terminal
def search(terminal: Terminal, /, *, words: tuple[str, ...], store: str | None, limit: int) -> None:
    """List conversations in which all these words were said."""
    _list(terminal, store, search=" ".join(words), limit=limit)


@sessions.command()
@click.argument("name")
@_STORE
@common_options
@pass_terminal
def show(terminal: Terminal, /, *, name: str, store: str | None) -> None:
    """Print a conversation."""
    _export(terminal, store, name, "json" if terminal.json else "markdown", None)


@sessions.command()
@click.argument("name")
@click.option(
    "--form",
    type=click.Choice(_FORMS),
    default="markdown",
    show_default=True,
    help="jsonl can be read back; json is one document; markdown is for people.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there; standard output without it.",
)
@_STORE
@common_options
@pass_terminal
def export(
    terminal: Terminal, /, *, name: str, form: str, output: Path | None, store: str | None
) -> None:
    """Write a conversation as a document."""
    _export(terminal, store, name, form, output)


@sessions.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_STORE
@common_options
@pass_terminal
def delete(terminal: Terminal, /, *, names: tuple[str, ...], yes: bool, store: str | None) -> None:
    """Delete conversations, with every trace of what was said."""

    async def every(place: SessionStore) -> None:
        for name in names:
            await _known(place, name)

    _with_store(store, every)
    if not yes:
        if not (sys.stdin is not None and sys.stdin.isatty()):
            raise click.UsageError("nobody can be asked off a terminal: --yes deletes")
        click.confirm(f"Delete {', '.join(map(visible, names))}?", abort=True, err=True)

    async def all_of_them(place: SessionStore) -> list[str]:
        return [name for name in names if await place.delete(name)]

    deleted = _with_store(store, all_of_them)
    if terminal.json:
        terminal.write_json({"deleted": deleted})
    else:
        for name in deleted:
            terminal.say(f"deleted {visible(name)}")


def _list(terminal: Terminal, store: str | None, *, search: str | None, limit: int) -> None:
    found = _with_store(store, lambda place: place.list(search=search, limit=limit))
    if terminal.json:
        terminal.write_json({"sessions": [_object(info) for info in found]})
    elif found:
        _table(terminal, found)
    else:
        terminal.say("No conversation matches." if search else "No conversation is kept yet.")


def _table(terminal: Terminal, found: Sequence[SessionInfo]) -> None:
    rows = [
        (
            visible(info.id),
            f"{info.updated_at:%Y-%m-%d %H:%M}",
            f"{info.turns:,}",
            f"{info.input_tokens + info.output_tokens:,}",
            dollars(info.cost_usd) + ("+" if info.unpriced_calls else ""),
            visible(info.title if len(info.title) <= _TITLE else f"{info.title[:_TITLE]}..."),
        )
        for info in found
    ]
    terminal.table(
        "Conversations",
        ("Name", "Last (UTC)", "Questions", "Tokens", "Cost", "Begins"),
        rows,
        drop=("Tokens", "Last (UTC)", "Cost"),
        fold=("Begins",),
        right=("Questions", "Tokens", "Cost"),
    )


def _export(
    terminal: Terminal, store: str | None, name: str, form: str, output: Path | None
) -> None:
    from loom.agent.session_export import export_session  # noqa: PLC0415 - start-up time

    async def read(place: SessionStore) -> tuple[SessionInfo, tuple[Entry, ...]]:
        return await _known(place, name), await place.read(name)

    info, entries = _with_store(store, read)
    text = export_session(info, entries, form)  # type: ignore[arg-type] # one of the choices
    if output is None:
        terminal.write(text if text.endswith("\n") else f"{text}\n")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.UsageError(f"cannot write {str(output)!r}: {error.strerror}") from None
    terminal.say(f"written to {output}")


async def _known(store: SessionStore, name: str) -> SessionInfo:
    info = await store.info(name)
    if info is not None:
        return info
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    others = [each.id for each in await store.list(limit=1000)]
    near = get_close_matches(name, others, n=1)
    wish = f": did you mean {near[0]!r}?" if near else ""
    raise click.UsageError(f"there is no session {name!r}{wish}")


def _with_store(store: str | None, ask: Callable[[SessionStore], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner() as runner, stored(runner, store) as place:
        return runner.run(ask(place))


def _object(info: SessionInfo) -> dict[str, Any]:
    fields = msgspec.structs.asdict(info)
    return {**fields, "cost_usd": f"{info.cost_usd:f}"}

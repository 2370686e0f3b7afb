"""`looms chat`: one question, one answer on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from loom.cli.connect import connect, connection_options, steady, steady_options
from loom.cli.keep import account_options, accounts
from loom.cli.listen import Listener
from loom.cli.options import DOLLARS, common_options, pass_terminal
from loom.cli.prompt import prompt_options, read_question
from loom.cli.quote import check_cost, show_plan
from loom.cli.terminal import Terminal
from loom.cli.tool_options import tool_options, wants_agent
from loom.core.request import ResponseFormat

__all__ = ["chat"]

_EPILOG = (
    "Piped text comes first, then the prompt: `cat notes.txt | looms chat 'summarise'`."
    " Alone on a terminal it talks: a line after another, and /help says more."
    " With `--json --stream` each event is an object on a line of its own."
    " With `--json` an error is an object on standard error, and standard output stays empty."
)


_SECTIONS = {
    "The question": (
        "--system", "--attach", "--messages", "--model", "--sim", "--as-of", "--schema",
        "--temperature", "--max-tokens", "--fit",
    ),
    "Tools and conversations": (
        "--tool", "--backend", "--write", "--mcp", "--approve", "--max-turns", "--session",
        "--continue",
    ),
    "Money": (
        "--dry-run", "--max-cost", "--budget", "--rate-limit", "--tag", "--ledger", "--no-ledger",
    ),
    "When it fails": ("--attempts", "--deadline", "--fallback", "--rescue"),
    "What is shown": (
        "--stream", "--json", "--quiet", "--verbose", "--no-color", "--debug", "--help",
    ),
}  # fmt: skip


def _in_sections(command: click.RichCommand) -> click.RichCommand:
    for name, options in _SECTIONS.items():
        command = click.option_panel(name, options=list(options))(command)
    return command


@_in_sections
@click.command(epilog=_EPILOG)
@prompt_options
@connection_options
@steady_options
@account_options
@tool_options
@click.option("--schema", type=click.Path(path_type=Path), help="Answer as this JSON schema says.")
@click.option("--temperature", type=float, metavar="X", help="0 to 2: how freely words are drawn.")
@click.option("--max-tokens", type=int, metavar="N", help="The longest answer.")
@click.option(
    "--fit",
    type=click.Choice(["error", "slide"]),
    help="What is too long for the model: refuse it, or leave out the oldest turns.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent and its cost; send nothing.")
@click.option("--max-cost", type=DOLLARS, metavar="USD", help="Send nothing that may cost more.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print the answer as it is made (the default without --json; with tools, on a terminal),"
    " or in one piece.",
)
@common_options
@pass_terminal
@click.pass_context
def chat(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Ask a model; the answer goes to standard output, costs to standard error."""
    asked = ("prompt", "attach", "messages", "schema", "dry_run")
    if terminal.is_bare(asked=any(given[name] for name in asked)):
        from loom.cli.agent_chat import talk  # noqa: PLC0415 - start-up time

        talk(terminal, given, _options(given, {}))
        return
    question = read_question(context, given)
    options = _options(given, question.options)
    if wants_agent(given):
        from loom.cli.agent_chat import ask  # noqa: PLC0415 - start-up time

        ask(terminal, given, question.messages, options)
        return
    stream = not terminal.json if given["stream"] is None else given["stream"]
    as_of: date | None = given["as_of"]
    dry: bool = given["dry_run"]
    model = given["model"] or options.pop("model", None)
    more = steady(given)
    with (
        accounts(given, offline=dry) as money,
        connect(
            terminal, model=model, sim=given["sim"], as_of=as_of, offline=dry, **more, **money
        ) as client,
    ):
        if given["max_cost"] is not None:
            quoted = client.quote(question.messages, **options)
            check_cost(terminal, quoted, given["max_cost"])
        listener = Listener(terminal, client, as_of=as_of)
        if dry:
            show_plan(terminal, client.plan(question.messages, **options))
        elif stream:
            listener.stream(question.messages, options)
        else:
            listener.chat(question.messages, options)


def _options(given: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options of the call: those of a file, and over them the flags."""
    options = dict(asked)
    for name in ("temperature", "max_tokens", "fit"):
        if given[name] is not None:
            options[name] = given[name]
    if given["schema"] is not None:
        options["response_format"] = _response_format(given["schema"])
    return options


def _response_format(path: Path) -> ResponseFormat:
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{str(path)!r} is not a JSON schema: {error}") from None
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in path.stem) or "answer"
    return ResponseFormat(type="json_schema", name=name, schema=schema, strict=True)

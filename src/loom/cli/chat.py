"""`looms chat`: one question, one answer on standard output."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from loom.cli.attachment import read_attachment, read_stdin, utf8
from loom.cli.connect import connect, connection_options
from loom.cli.listen import Listener
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal
from loom.core.messages import Message, Part
from loom.core.request import ResponseFormat

__all__ = ["chat"]

_EPILOG = (
    "Piped text comes first, then the prompt: `cat notes.txt | looms chat 'summarise'`."
    " With `--json --stream` each event is an object on a line of its own."
    " With `--json` an error is an object on standard error, and standard output stays empty."
)


@click.command(epilog=_EPILOG)
@click.argument("prompt", nargs=-1)
@connection_options
@click.option("-s", "--system", metavar="TEXT", help="What the model is told about its task.")
@click.option(
    "-a",
    "--attach",
    multiple=True,
    metavar="FILE",
    help="Add an image, a document, a sound or a text; `-` is standard input.",
)
@click.option("--schema", type=click.Path(path_type=Path), help="Answer as this JSON schema says.")
@click.option("--temperature", type=float, metavar="X", help="0 to 2: how freely words are drawn.")
@click.option("--max-tokens", type=int, metavar="N", help="The longest answer.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print the answer as it is made (the default without --json), or in one piece.",
)
@common_options
@pass_terminal
@click.pass_context
def chat(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Ask a model; the answer goes to standard output, costs to standard error."""
    message = _question(given["prompt"], given["attach"])
    if message is None:
        # Somebody typed `looms chat` and waits: say what can be done, and leave.
        click.echo(context.get_help(), err=True)
        context.exit(2)
    messages = [message] if given["system"] is None else [Message.system(given["system"]), message]
    options = {name: given[name] for name in ("temperature", "max_tokens")}
    if given["schema"] is not None:
        options["response_format"] = _response_format(given["schema"])
    stream = not terminal.json if given["stream"] is None else given["stream"]
    as_of: date | None = given["as_of"]
    with connect(terminal, model=given["model"], sim=given["sim"], as_of=as_of) as client:
        listener = Listener(terminal, client, as_of=as_of)
        if stream:
            listener.stream(messages, options)
        else:
            listener.chat(messages, options)


def _question(words: tuple[str, ...], attached: tuple[str, ...]) -> Message | None:
    parts = [read_attachment(source) for source in attached]
    # An attachment from standard input has read it to its end.
    piped = "" if "-" in attached else utf8(read_stdin(), "standard input").strip("\n")
    texts = [text for text in (piped, " ".join(words)) if text.strip()]
    content: list[str | Part] = [*(["\n\n".join(texts)] if texts else []), *parts]
    if content:
        return Message.user(*content)
    if sys.stdin is not None and sys.stdin.isatty():
        return None
    raise click.UsageError("there is no prompt: give one as an argument or on standard input")


def _response_format(path: Path) -> ResponseFormat:
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{str(path)!r} is not a JSON schema: {error}") from None
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in path.stem) or "answer"
    return ResponseFormat(type="json_schema", name=name, schema=schema, strict=True)

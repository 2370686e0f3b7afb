"""What a command asks about: arguments, standard input, attachments, or a file of messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rich_click as click

from loom.cli.attachment import read_attachment, read_stdin, utf8
from loom.cli.options import with_options
from loom.core.messages import Message, Part

__all__ = ["Question", "prompt_options", "read_question"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("prompt", nargs=-1),
    click.option("-s", "--system", metavar="TEXT", help="What the model is told about its task."),
    click.option(
        "-a",
        "--attach",
        multiple=True,
        metavar="FILE",
        help="Add an image, a document, a sound or a text; `-` is standard input.",
    ),
    click.option(
        "--messages",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Take a JSON file: a list of messages, or a whole request.",
    ),
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is asked.

    Attributes:
        messages: The conversation.
        options: Further options of the call, from a file that holds a whole request.
    """

    messages: list[Message]
    options: Mapping[str, Any] = {}


def prompt_options(command: F) -> F:
    """
    Add the words that say what is asked: the prompt, `-s`, `-a`, `--messages`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, _OPTIONS)


def read_question(context: click.RichContext, given: Mapping[str, Any]) -> Question:
    """
    Read what is asked.

    Args:
        context: Gives the help when somebody typed the command alone.
        given: What `prompt_options` took.

    Returns:
        The conversation: the file's messages first, then what was piped and written.

    Raises:
        UsageError: If there is nothing to ask, or a file cannot be read.
        InvalidRequest: If one of the file's messages is none; its position is named.
        Exit: With 2, when the command stands alone on a terminal.
    """
    path: Path | None = given["messages"]
    asked = _message(given["prompt"], given["attach"])
    if asked is None and path is None:
        if sys.stdin is not None and sys.stdin.isatty():
            # Somebody typed `looms chat` and waits: say what can be done, and leave.
            click.echo(context.get_help(), err=True)
            context.exit(2)
        raise click.UsageError("there is no prompt: give one as an argument or on standard input")
    system = [] if given["system"] is None else [Message.system(given["system"])]
    options = {} if path is None else _read_request(path)
    messages = options.pop("messages", [])
    return Question(
        messages=[*system, *messages, *([] if asked is None else [asked])], options=options
    )


def _message(words: tuple[str, ...], attached: tuple[str, ...]) -> Message | None:
    parts = [read_attachment(source) for source in attached]
    # An attachment from standard input has read it to its end.
    piped = "" if "-" in attached else utf8(read_stdin(), "standard input").strip("\n")
    texts = [text for text in (piped, " ".join(words)) if text.strip()]
    content: list[str | Part] = [*(["\n\n".join(texts)] if texts else []), *parts]
    return Message.user(*content) if content else None


def _read_request(path: Path) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.UsageError(f"{str(path)!r} is not JSON: {error}") from None
    request = {"messages": value} if isinstance(value, list) else value
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise click.UsageError(
            f"{str(path)!r} must hold a list of messages, or a request with 'messages' in it"
        )
    from loom.client.options import coerce_messages  # noqa: PLC0415 - start-up time

    request["messages"] = list(coerce_messages(request["messages"]))
    # How the answer is to come is the command's to say.
    request.pop("stream", None)
    return request

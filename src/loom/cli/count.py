"""`looms count`: how many tokens a prompt has."""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click

from loom.cli.connect import connect, model_options
from loom.cli.options import common_options, pass_terminal
from loom.cli.prompt import prompt_options, read_question
from loom.cli.terminal import Terminal

__all__ = ["count"]

_EPILOG = "Nothing is sent and no key is needed. Standard output is the number alone."


@click.command(epilog=_EPILOG)
@prompt_options
@model_options
@common_options
@pass_terminal
@click.pass_context
def count(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Count the tokens of a prompt, as the vendor bills them."""
    question = read_question(context, given)
    options = dict(question.options)
    model = given["model"] or options.pop("model", None)
    with connect(terminal, model=model, as_of=given["as_of"], offline=True) as client:
        counted = client.count(question.messages, **options)
        if terminal.json:
            terminal.write_json({"model": client.model, **msgspec.structs.asdict(counted)})
            return
    terminal.write(f"{counted.tokens}\n")
    if counted.estimated:
        terminal.say(f"an estimate: {counted.reason}")

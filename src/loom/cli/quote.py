"""`looms quote`: what a call costs at the worst, before it is made."""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click

from loom.cli.connect import connect, model_options
from loom.cli.options import common_options, pass_terminal
from loom.cli.prompt import prompt_options, read_question
from loom.cli.terminal import Terminal, dollars
from loom.core.plan import Quote

__all__ = ["quote", "quote_line", "quote_object"]

_EPILOG = "Nothing is sent and no key is needed."


@click.command(epilog=_EPILOG)
@prompt_options
@click.option("--max-tokens", type=int, metavar="N", help="The longest answer.")
@model_options
@common_options
@pass_terminal
@click.pass_context
def quote(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Tell what a call costs at the worst; nothing is sent."""
    question = read_question(context, given)
    options = dict(question.options)
    if given["max_tokens"] is not None:
        options["max_tokens"] = given["max_tokens"]
    model = given["model"] or options.pop("model", None)
    with connect(terminal, model=model, as_of=given["as_of"], offline=True) as client:
        quoted = client.quote(question.messages, **options)
    if terminal.json:
        terminal.write_json(quote_object(quoted))
        return
    terminal.write(quote_line(quoted) + "\n")
    terminal.used(f"an estimate: {quoted.reason}" if quoted.estimated else "counted exactly")


def quote_line(quoted: Quote) -> str:
    """
    A quote on one line.

    Args:
        quoted: The quote.

    Returns:
        For example `mistral-large-latest · 12 in, $0.000006 · at most 4,096 out, $0.006150 in all`.
    """
    about = "about " if quoted.estimated else ""
    prompt = f"{about}{quoted.input_tokens:,} in, {dollars(quoted.input_cost_usd)}"
    if quoted.max_output_tokens is None:
        return f"{quoted.model} · {prompt} · an answer of unknown length"
    total = dollars(quoted.max_cost_usd)
    return f"{quoted.model} · {prompt} · at most {quoted.max_output_tokens:,} out, {total} in all"


def quote_object(quoted: Quote) -> dict[str, Any]:
    """
    A quote as `--json` prints it.

    Args:
        quoted: The quote.

    Returns:
        Its fields; money as a decimal string.
    """
    fields = msgspec.structs.asdict(quoted)
    for name in ("input_cost_usd", "max_cost_usd"):
        if fields[name] is not None:
            # Not 2E-7, which few readers of JSON strings take for a number.
            fields[name] = f"{fields[name]:f}"
    return fields

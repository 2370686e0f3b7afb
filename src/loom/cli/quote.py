"""`looms quote`: what a call costs at the worst, before it is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import rich_click as click

from loom.cli.connect import connect, model_options
from loom.cli.options import common_options, pass_terminal
from loom.cli.prompt import prompt_options, read_question
from loom.cli.terminal import Terminal, dollars
from loom.core.errors import BudgetExceeded
from loom.core.plan import Plan, Quote

__all__ = ["check_cost", "quote", "quote_line", "quote_object", "show_plan"]

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


def check_cost(terminal: Terminal, quoted: Quote, limit: Decimal) -> None:
    """
    Keep `--max-cost`.

    Args:
        terminal: Where a warning goes.
        quoted: What the call may cost.
        limit: US dollars.

    Raises:
        BudgetExceeded: If it may cost more, or nobody knows what it costs.
    """
    if quoted.max_cost_usd is None:
        raise BudgetExceeded(
            f"what {quoted.model!r} costs is unknown, so --max-cost {limit:f} cannot be kept",
            hint="Take a model with a known price (`looms models`), or add its price to"
            " prices.toml.",
            attempts=0,
        )
    if quoted.max_cost_usd > limit:
        raise BudgetExceeded(
            f"the call may cost {dollars(quoted.max_cost_usd)}, more than --max-cost {limit:f}",
            hint="Raise --max-cost, lower --max-tokens, or take a cheaper model.",
            attempts=0,
        )
    if quoted.estimated:
        terminal.warn(f"--max-cost is kept by an estimate: {quoted.reason}")


def show_plan(terminal: Terminal, plan: Plan) -> None:
    """
    Show what would be sent: the body on standard output, the rest beside it.

    Args:
        terminal: Where it goes.
        plan: What the client would do.
    """
    if terminal.json:
        fields = msgspec.structs.asdict(plan)
        terminal.write_json({**fields, "quote": quote_object(plan.quote)})
        return
    body = msgspec.json.format(msgspec.json.encode(plan.body), indent=2)
    terminal.write(body.decode() + "\n")
    for repair in plan.repairs:
        terminal.say(f"repair: {repair}")
    if plan.room is not None:
        terminal.say(f"room: {plan.room:,} of {plan.window:,} tokens are left in the window")
    if plan.quote.estimated:
        terminal.say(f"an estimate: {plan.quote.reason}")
    terminal.used(f"nothing was sent · {quote_line(plan.quote)}")

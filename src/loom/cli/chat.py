"""`looms chat`: one question, one answer on standard output."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from loom.cli.connect import connect, connection_options, steady, steady_options
from loom.cli.keep import account_options, accounts
from loom.cli.listen import Listener
from loom.cli.options import DOLLARS, common_options, pass_terminal
from loom.cli.prompt import prompt_options, read_question
from loom.cli.terminal import Terminal, dollars
from loom.core.errors import BudgetExceeded
from loom.core.messages import Message
from loom.core.request import ResponseFormat

if TYPE_CHECKING:
    from loom.client.blocking import Mistral

__all__ = ["chat"]

_EPILOG = (
    "Piped text comes first, then the prompt: `cat notes.txt | looms chat 'summarise'`."
    " With `--json --stream` each event is an object on a line of its own."
    " With `--json` an error is an object on standard error, and standard output stays empty."
)


@click.command(epilog=_EPILOG)
@prompt_options
@connection_options
@steady_options
@account_options
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
    help="Print the answer as it is made (the default without --json), or in one piece.",
)
@common_options
@pass_terminal
@click.pass_context
def chat(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Ask a model; the answer goes to standard output, costs to standard error."""
    question = read_question(context, given)
    options = dict(question.options)
    for name in ("temperature", "max_tokens", "fit"):
        if given[name] is not None:
            options[name] = given[name]
    if given["schema"] is not None:
        options["response_format"] = _response_format(given["schema"])
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
            _check_cost(terminal, client, question.messages, options, given["max_cost"])
        listener = Listener(terminal, client, as_of=as_of)
        if dry:
            _show_plan(terminal, client, question.messages, options)
        elif stream:
            listener.stream(question.messages, options)
        else:
            listener.chat(question.messages, options)


def _check_cost(
    terminal: Terminal,
    client: Mistral,
    messages: list[Message],
    options: dict[str, Any],
    limit: Decimal,
) -> None:
    quoted = client.quote(messages, **options)
    if quoted.max_cost_usd is None:
        raise BudgetExceeded(
            f"what {quoted.model!r} costs is unknown, so --max-cost {limit} cannot be kept",
            hint="Take a model with a known price (`looms models`), or add its price to"
            " prices.toml.",
            attempts=0,
        )
    if quoted.max_cost_usd > limit:
        raise BudgetExceeded(
            f"the call may cost {dollars(quoted.max_cost_usd)}, more than --max-cost {limit}",
            hint="Raise --max-cost, lower --max-tokens, or take a cheaper model.",
            attempts=0,
        )
    if quoted.estimated:
        terminal.warn(f"--max-cost is kept by an estimate: {quoted.reason}")


def _show_plan(
    terminal: Terminal, client: Mistral, messages: list[Message], options: dict[str, Any]
) -> None:
    from loom.cli.quote import quote_line, quote_object  # noqa: PLC0415 - start-up time

    plan = client.plan(messages, **options)
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


def _response_format(path: Path) -> ResponseFormat:
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{str(path)!r} is not a JSON schema: {error}") from None
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in path.stem) or "answer"
    return ResponseFormat(type="json_schema", name=name, schema=schema, strict=True)

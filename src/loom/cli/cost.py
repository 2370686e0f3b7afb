"""`looms cost`: what the ledger's calls cost, by day, model, key, session or tag."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from textwrap import fill
from typing import Any

import msgspec
import rich_click as click

from loom.cli.book import (
    default_path,
    ledger_option,
    ledger_path,
    opened,
    rows_of,
    selected,
    selection_options,
    wait_for,
)
from loom.cli.options import DAY, common_options, pass_terminal
from loom.cli.reprice import anew, reprice, show_rows
from loom.cli.sums import csv_text, show_sums, sum_of, sums_line, total_object
from loom.cli.terminal import Terminal
from loom.core.errors import InvalidRequest
from loom.ledger.contract import EVERY_ROW, Ledger, Query, Total
from loom.ledger.export import csv_lines, json_lines
from loom.ledger.totals import group_by

__all__ = ["check", "cost", "export", "prune", "rows"]

_EPILOG = (
    "Amounts are US dollars as they were written when each call ended; days are UTC."
    " `--by` takes day, week, month, model, asked_model, provider, key, client, session, tenant,"
    " state, code, price_id, all, or tag:NAME."
    " Calls that may have been billed are `uncertain`, with the most that they can have cost;"
    " calls at an unknown price are counted and said, never taken for 0."
)
_SUMS = tuple(Total.__struct_fields__)


class _By(click.ParamType[str]):
    name = "group"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read what to group by."""
        try:
            group_by(value)
        except InvalidRequest as error:
            self.fail(error.message, param, ctx)
        return value


@click.group(epilog=_EPILOG, invoke_without_command=True)
@click.option(
    "--by", type=_By(), default="day", show_default=True, metavar="GROUP", help="What to sum by."
)
@selection_options
@click.option(
    "--as-of", type=DAY, metavar="DAY", help="Show what it would cost by that day's prices."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@common_options
@pass_terminal
@click.pass_context
def cost(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Sum up the ledger: what was called, and what it cost."""
    if context.invoked_subcommand is not None:
        return
    by, query, as_of = given["by"], selected(given), given["as_of"]
    ledger = opened(terminal, given["ledger"])
    if ledger is None:
        totals: Sequence[Total] = ()
    elif as_of is None:
        totals = wait_for(ledger.totals(query, by))
    else:
        totals = anew(rows_of(ledger, query), by, as_of)
    if as_csv := given["as_csv"]:
        terminal.write(_csv(by, totals))
    elif terminal.json:
        terminal.write_json(_object(given, query, totals, exists=ledger is not None))
    elif totals:
        show_sums(terminal, _title(by, query, as_of), by, totals)
    _end(terminal, given, totals, plain=not (as_csv or terminal.json), exists=ledger is not None)


def _end(
    terminal: Terminal,
    given: Mapping[str, Any],
    totals: Sequence[Total],
    *,
    plain: bool,
    exists: bool,
) -> None:
    if totals:
        if plain:
            line = sums_line(sum_of(totals))
            terminal.write(f"{fill(line, terminal.out.width, subsequent_indent='  ')}\n")
    elif not exists:
        terminal.say(
            f"There is no ledger yet: `looms chat` and `looms ping` write {default_path()}."
        )
    else:
        chosen = selected(given) != msgspec.structs.replace(EVERY_ROW, limit=selected(given).limit)
        terminal.say("No calls match." if chosen else "The ledger holds no calls yet.")


@cost.command()
@selection_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, every column.")
@common_options
@pass_terminal
def rows(terminal: Terminal, /, **given: Any) -> None:
    """List calls, the newest first; with --json one object a line."""
    ledger = opened(terminal, given["ledger"])
    query = msgspec.structs.replace(selected(given), newest_first=True, limit=given["limit"])
    found = () if ledger is None else wait_for(ledger.entries(query))
    if given["as_csv"]:
        for line in csv_lines(found):
            terminal.write(line)
    elif terminal.json:
        for line in json_lines(found):
            terminal.write(line)
    elif found:
        show_rows(terminal, found)
    else:
        terminal.say("No calls match.")


cost.add_command(reprice)


@cost.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@ledger_option
@common_options
@pass_terminal
@click.pass_context
def check(
    context: click.RichContext, terminal: Terminal, file: Path | None, ledger: Path | None
) -> None:
    """Look for damage: of the file, of rows, of sums; 1 if there is any."""
    chosen = file or ledger
    path = ledger_path(chosen)
    # Somebody wants to see it as it is.
    book = opened(terminal, chosen, take_in=False)
    found = () if book is None else wait_for(book.check())
    calls = 0
    if book is not None and not found:
        calls = sum_of(wait_for(book.totals())).calls
    if terminal.json:
        terminal.write_json(
            {"ledger": str(path), "exists": book is not None, "calls": calls, "damage": found}
        )
    elif found:
        for line in found:
            terminal.write(f"{line}\n")
    elif book is None:
        terminal.say(f"There is no ledger yet: it would be {path}.")
    else:
        terminal.write(f"ok · {calls:,} calls · {path}\n")
    if found:
        context.exit(1)


@cost.command()
@click.option(
    "--before", type=DAY, required=True, metavar="DAY", help="Rows of earlier days go (UTC)."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@ledger_option
@common_options
@pass_terminal
def prune(terminal: Terminal, before: date, yes: bool, ledger: Path | None) -> None:  # noqa: FBT001 - click passes flags by name
    """Forget old rows; sums of budgets stay, and so do this month's rows."""
    book = opened(terminal, ledger)
    if book is None:
        terminal.say("There is no ledger yet.")
        return
    path = ledger_path(ledger)
    if not yes:
        click.confirm(
            f"Rows before {before} leave {path} for good; `looms cost export` keeps a copy. Go?",
            abort=True,
            err=True,
        )
    moment = datetime.fromisoformat(f"{before}T00:00:00+00:00")
    gone = wait_for(_pruned(book, moment))
    if terminal.json:
        terminal.write_json({"ledger": str(path), "before": before, "pruned": gone})
    else:
        terminal.write(f"{gone:,} rows went\n")


@cost.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@selection_options
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@common_options
@pass_terminal
def export(terminal: Terminal, /, **given: Any) -> None:
    """Write rows to FILE: .csv for spreadsheets, .jsonl for everything else."""
    path: Path = given["file"]
    if path.suffix not in (".csv", ".jsonl"):
        raise click.UsageError(f"{path.name!r} must end in .csv or .jsonl")
    ledger = opened(terminal, given["ledger"])
    entries = () if ledger is None else rows_of(ledger, selected(given))
    lines = csv_lines(entries) if path.suffix == ".csv" else json_lines(entries)
    count = _written(path, lines, force=given["force"]) - (path.suffix == ".csv")
    if terminal.json:
        terminal.write_json({"file": str(path), "rows": count})
    else:
        terminal.say(f"{count:,} rows are in {path}")


async def _pruned(ledger: Ledger, before: datetime) -> int:
    try:
        return await ledger.prune(before)
    finally:
        await ledger.aclose()


def _written(path: Path, lines: Iterable[str], *, force: bool) -> int:
    flags = os.O_CREAT | os.O_WRONLY | (os.O_TRUNC if force else os.O_EXCL)
    try:
        # Whose calls they were is nobody else's business.
        handle = os.open(path, flags, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{str(path)!r} is there already: --force writes over it") from None
    except OSError as error:
        raise click.UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    count = 0
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def _title(by: str, query: Query, as_of: date | None) -> str:
    chosen = [
        f"{name} {value}"
        for name in ("model", "session", "client", "tenant", "key")
        if (value := getattr(query, name)) is not None
    ]
    if query.tag is not None:
        chosen.append("=".join(query.tag))
    if query.since is not None:
        chosen.append(f"since {query.since:%Y-%m-%d %H:%M} UTC")
    if query.until is not None:
        chosen.append(f"until {query.until:%Y-%m-%d %H:%M} UTC")
    if as_of is not None:
        chosen.append(f"by the prices of {as_of}")
    return " · ".join([f"Cost by {by.removeprefix('tag:').replace('_', ' ')}", *chosen])


def _csv(by: str, totals: Sequence[Total]) -> str:
    rows = [[getattr(total, name) for name in _SUMS] for total in totals]
    return csv_text([by, *_SUMS[1:]], rows)


def _object(
    given: Mapping[str, Any], query: Query, totals: Sequence[Total], *, exists: bool
) -> dict[str, Any]:
    return {
        "ledger": str(ledger_path(given["ledger"])),
        "exists": exists,
        "by": given["by"],
        "since": query.since,
        "until": query.until,
        "as_of": given["as_of"],
        "totals": [total_object(total) for total in totals],
        "all": total_object(sum_of(totals)),
    }

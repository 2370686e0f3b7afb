"""`looms fault-matrix`: each fault, what should happen then, and what does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal

if TYPE_CHECKING:
    from loom.testing.matrix import FaultResult

__all__ = ["fault_matrix"]

_FOLD = frozenset({"Fault", "Expected", "Seen"})
_OK = {True: "yes", False: "NO", None: "waits"}


@click.command("fault-matrix")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="ID",
    help="Only this row, for example 33b; may be given several times.",
)
@common_options
@pass_terminal
def fault_matrix(terminal: Terminal, rows: tuple[str, ...]) -> None:
    """
    Cause every fault on this machine, and see that what should happen does.

    A real client meets real sockets: the offline Mistral and hostile servers on loopback. Nothing
    else is asked, and no key is needed. Ends with 1 if a row does not hold.
    """
    # The retries of a fault are no news here.
    terminal.quiet_log()
    with terminal.waiting("fault matrix"):
        results = asyncio.run(_results(terminal, rows))
    if not terminal.json:
        _show(terminal, results)
    _sum_up(terminal, results)


def _sum_up(terminal: Terminal, results: Sequence[FaultResult]) -> None:
    failed = [result.id for result in results if result.ok is False]
    waiting = sum(result.ok is None for result in results)
    took_s = sum(result.ms for result in results) / 1000
    held = len(results) - len(failed) - waiting
    terminal.say(
        f"{held} {'row holds' if held == 1 else 'rows hold'},"
        f" {len(failed)} {'does' if len(failed) == 1 else 'do'} not,"
        f" {waiting} {'waits' if waiting == 1 else 'wait'} · {took_s:.1f} s"
    )
    if failed:
        terminal.say(f"failed: {', '.join(failed)}", style="bold red")
        raise Exit(1)


async def _results(terminal: Terminal, rows: Sequence[str]) -> list[FaultResult]:
    from loom.client.aio import AsyncMistral  # noqa: PLC0415 - start-up time
    from loom.client.blocking import Mistral  # noqa: PLC0415 - the same
    from loom.testing.matrix import run_matrix  # noqa: PLC0415 - brings a server

    results = []
    async for result in run_matrix(AsyncMistral, Mistral, rows):
        results.append(result)
        if terminal.json:
            terminal.write_json(
                {
                    "id": result.id,
                    "fault": result.fault,
                    "expected": result.expected,
                    "seen": result.seen,
                    "ok": result.ok,
                    "needs": result.needs,
                }
            )
    return results


def _show(terminal: Terminal, results: Sequence[FaultResult]) -> None:
    rows = [
        (
            result.id,
            result.fault,
            result.expected,
            "the same" if result.ok else result.seen or f"needs the {result.needs}",
            _OK[result.ok],
        )
        for result in results
    ]
    terminal.table(
        "What happens when ...", ("Row", "Fault", "Expected", "Seen", "OK"), rows, fold=_FOLD
    )

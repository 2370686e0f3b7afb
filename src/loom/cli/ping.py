"""`looms ping`: the connection test."""

from __future__ import annotations

from datetime import date

import rich_click as click

from loom.cli.connect import connect, connection_options
from loom.cli.listen import response_object
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal, cost_line

__all__ = ["ping"]


@click.command()
@connection_options
@common_options
@pass_terminal
def ping(terminal: Terminal, model: str | None, sim: bool, as_of: date | None) -> None:  # noqa: FBT001 - click passes flags by name
    """Test key and connection: one small call, and what it cost."""
    small = "mistral-small-latest"
    with (
        connect(terminal, model=model or small, sim=sim, as_of=as_of) as client,
        terminal.waiting(client.model),
    ):
        response = client.chat("Say hello", max_tokens=16)
    if terminal.json:
        terminal.write_json({"ok": True, **response_object(response)})
        return
    terminal.write(f"ok · {cost_line(response.model, response.usage, response.latency_s)}\n")

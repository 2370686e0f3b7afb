"""`looms ping`: the connection test."""

from __future__ import annotations

from typing import Any

import rich_click as click

from loom.cli.connect import connect, connection_options, steady, steady_options
from loom.cli.keep import account_options, accounts
from loom.cli.listen import response_object
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal, cost_line

__all__ = ["ping"]


@click.command()
@connection_options
@steady_options
@account_options
@common_options
@pass_terminal
def ping(terminal: Terminal, /, **given: Any) -> None:
    """Test key and connection: one small call, and what it cost."""
    small = "mistral-small-latest"
    with (
        accounts(given) as money,
        connect(
            terminal,
            model=given["model"] or small,
            sim=given["sim"],
            as_of=given["as_of"],
            **steady(given),
            **money,
        ) as client,
        terminal.waiting(client.model),
    ):
        response = client.chat("Say hello", max_tokens=16)
    if terminal.json:
        terminal.write_json({"ok": True, **response_object(response)})
        return
    terminal.write(f"ok · {cost_line(response.model, response.usage, response.latency_s)}\n")

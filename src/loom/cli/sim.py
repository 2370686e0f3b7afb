"""`looms sim`: the offline Mistral, until it is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import rich_click as click

from loom.cli.options import as_of_option, common_options, pass_terminal
from loom.cli.terminal import Terminal

__all__ = ["sim"]

# Beside the 5006 of `looms serve`, so that both can run.
_PORT = 5007
_MODEL = "mistral-small-latest"


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Listen there, on 127.0.0.1; 0 takes a free port.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, min_open=True),
    metavar="WORDS",
    help="Answer with so many words a second; at full speed without it.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Other seeds give other wordings and ids.",
)
@click.option("--any-key", is_flag=True, help="Accept every key that is not empty.")
@as_of_option
@common_options
@pass_terminal
def sim(
    terminal: Terminal,
    *,
    port: int,
    pace: float | None,
    seed: int,
    any_key: bool,
    as_of: date | None,
) -> None:
    """
    Serve Mistral's API on this machine, without a key, a bill or a network.

    Answers are composed from the prompt; no model is asked. Point any client at the address that
    it prints. It serves until Ctrl-C or SIGTERM. With --json it prints one line,
    {"base_url": ..., "api_key": ...}, when it is ready.
    """
    from loom.server.simulator import Simulator  # noqa: PLC0415 - start-up time

    with _stop_signal() as stopped:
        simulator = Simulator(
            port=port, words_per_second=pace, seed=seed, as_of=as_of, any_key=any_key
        )
        with simulator:
            if terminal.json:
                ready = {"base_url": simulator.base_url, "api_key": simulator.api_key}
                terminal.write_json(ready)
            else:
                terminal.write(_welcome(simulator.base_url, simulator.api_key))
                terminal.say("Ctrl-C stops it.")
            stopped.wait()


def _welcome(base_url: str, api_key: str) -> str:
    return (
        f"base_url  {base_url}\n"
        f"api_key   {api_key}\n\n"
        f"curl {base_url}/chat/completions \\\n"
        f"  -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \\\n"
        f'  -d \'{{"model": "{_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'\n'
    )


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event: to stop a server is no interruption."""
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

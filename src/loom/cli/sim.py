"""`looms sim`: the offline Mistral, until it is stopped."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click

from loom.cli.options import DOLLARS, as_of_option, common_options, pass_terminal
from loom.cli.terminal import Terminal

__all__ = ["sim"]

# Beside the 5006 of `looms serve`, so that both can run.
_PORT = 5007
# As `server/simulator/options.py`, which would cost `looms --help` its import; a test compares.
_WINDOWS = ("sliding", "calendar", "bucket")
_CHARGES = ("finish", "arrival", "arrival_corrected")
_MODEL = "mistral-small-latest"


class _Seconds(click.ParamType[float]):
    name = "time"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read `200ms`, `1.5s` or `1.5`."""
        found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s)?", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: write 200ms or 1.5s", param, ctx)
        return float(found[1]) / (1000 if found[2] == "ms" else 1)


_SECONDS = _Seconds()


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
@click.option(
    "--tier",
    metavar="PLAN",
    help="Enforce limits: free, starter, pro, or requests/tokens a minute, for example 10/20000.",
)
@click.option(
    "--window",
    type=click.Choice(_WINDOWS),
    default="sliding",
    show_default=True,
    help="How a minute of the limits is counted.",
)
@click.option(
    "--charge-at",
    type=click.Choice(_CHARGES),
    default="finish",
    show_default=True,
    help="When tokens are charged against the limits.",
)
@click.option(
    "--credits", "credits_usd", type=DOLLARS, help="Answer 402 when a key has spent so much."
)
@click.option(
    "--latency",
    "latency_s",
    type=_SECONDS,
    default="0",
    help="Wait so long before each answer, for example 200ms or 1.5s.",
)
@click.option(
    "--script",
    "scenario",
    metavar="FILE",
    help="Answer and fail as this TOML file says, or a script that is shipped: FB01 to FB16.",
)
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Pass every request on, and write the exchanges there, without keys.",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="The API to record; the settings' base_url without it, else Mistral's.",
)
@click.option(
    "--replay",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Answer from the exchanges that were recorded there, and from nothing else.",
)
@as_of_option
@common_options
@pass_terminal
def sim(terminal: Terminal, /, *, pace: float | None, **options: Any) -> None:
    """
    Serve Mistral's API on this machine, without a key, a bill or a network.

    Answers are composed from the prompt; no model is asked. Point any client at the address that
    it prints. It serves until Ctrl-C or SIGTERM. With --json it prints one line,
    {"base_url": ..., "api_key": ...}, when it is ready; with --record the key is your own, and
    null here. What came stands at /_sim/journal beside
    /v1; POST {"advance_s": 60} to /_sim/clock lets a minute pass.
    """
    from loom.server.simulator import Simulator  # noqa: PLC0415 - start-up time

    recording = options["record"] is not None
    if recording:
        options["upstream"] = _upstream(options["upstream"])
    with _stop_signal() as stopped:
        simulator = Simulator(words_per_second=pace, **options)
        with simulator:
            if terminal.json:
                key = None if recording else simulator.api_key
                terminal.write_json({"base_url": simulator.base_url, "api_key": key})
            else:
                key = "$MISTRAL_API_KEY" if recording else simulator.api_key
                terminal.write(_welcome(simulator.base_url, key))
                terminal.say("Ctrl-C stops it.")
            stopped.wait()


def _upstream(given: str | None) -> str:
    from loom.config.load import load_settings, normalise_base_url  # noqa: PLC0415 - the same
    from loom.config.vendors import MISTRAL  # noqa: PLC0415 - start-up time

    if given is not None:
        return normalise_base_url(given)
    return load_settings().base_url or MISTRAL.base_url


def _welcome(base_url: str, api_key: str) -> str:
    return (
        f"base_url  {base_url}\n"
        f"api_key   {api_key}\n\n"
        f"curl {base_url}/chat/completions \\\n"
        f"  -H \"Authorization: Bearer {api_key}\" -H 'Content-Type: application/json' \\\n"
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

"""The part of `looms demo` in which the vendor fails: a 429, an outage, an open breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loom.core.errors import LoomError
from loom.core.events import Completed, Rerouted, Retried
from loom.core.response import LLMResponse
from loom.layers.breaker import Breaker

if TYPE_CHECKING:
    from loom.client.blocking import Mistral

__all__ = ["FALLBACK", "Lines", "stay_up"]

_QUESTION = "Say hello."
FALLBACK = "mistral-small-latest"
"""Who is asked when the demonstration's model fails."""

_FAILURES = 2


class Lines(Protocol):
    """Where the demonstration is shown."""

    def line(self, words: str = "", *, style: str | None = None) -> None:
        """Show a line."""

    def pause(self) -> None:
        """Let the reader read."""


def stay_up(stage: Lines, client: Mistral, *, wait_ms: int) -> dict[str, LLMResponse]:
    """
    Let the simulator fail in three ways, and show what the client makes of them.

    Args:
        stage: Where it is shown.
        client: Talks to the simulator.
        wait_ms: How long the simulator's 429 asks to wait.

    Returns:
        The answers that came all the same, by the failure.
    """
    limited = _limited(stage, client, wait_ms)
    outage = _outage(stage, client)
    _open(stage, client)
    return {"rate_limit": limited, "outage": outage}


def _limited(stage: Lines, client: Mistral, wait_ms: int) -> LLMResponse:
    # What stands behind the plus sign is the fault that the simulator makes.
    model = f"{client.model}+33c-ms:{wait_ms};times=1"
    response = None
    with client.stream(_QUESTION, model=model) as events:
        for event in events:
            if isinstance(event, Retried):
                stage.line(f"  429     {event.text}", style="yellow")
            elif isinstance(event, Completed):
                response = event.response
    response = response or events.final()
    stage.line(f"          answered after {response.attempts} attempts", style="green")
    stage.pause()
    return response


def _outage(stage: Lines, client: Mistral) -> LLMResponse:
    steady = client.with_options(retry=None, fallback=[f"mistral:{FALLBACK}"])
    with steady.stream(_QUESTION, model=f"{client.model}+503") as events:
        for event in events:
            if isinstance(event, Rerouted):
                stage.line(f"  503     {event.model} is asked instead", style="yellow")
        response = events.final()
    stage.line(f"          answered by {response.model}", style="green")
    stage.pause()
    return response


def _open(stage: Lines, client: Mistral) -> None:
    guarded = client.with_options(retry=None, breaker=Breaker(min_calls=_FAILURES))
    for _ in range(_FAILURES + 1):
        try:
            guarded.chat(_QUESTION, model=f"{client.model}+503")
        except LoomError as error:
            last = error
    wait_s = last.retry_after_s or 0.0
    stage.line(
        f"  open    after {_FAILURES} failures nothing is sent for {wait_s:.1f} s: {last.code}",
        style="yellow",
    )
    stage.pause()

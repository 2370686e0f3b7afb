"""The simulator as a thing that is started and stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loom.core.ambient import Clock, SystemClock
from loom.core.provider import LLMProvider
from loom.server.simulator.clock import SimulatedClock
from loom.server.simulator.journal import Journal
from loom.server.simulator.listener import HOST, Listener
from loom.server.simulator.options import (
    ChargeAt,
    RefusalKind,
    SimulatorOptions,
    Tier,
    WindowKind,
)

if TYPE_CHECKING:
    from loom.server.simulator.scenario import Scenario

__all__ = ["SIMULATOR_KEY", "Simulator"]

SIMULATOR_KEY = "loom-sim-key"
"""What the simulator takes for a key. It opens nothing else."""


class Simulator:
    """
    Mistral's API on loopback, answered without a model.

    A context manager: `with Simulator() as sim: Mistral(sim.api_key, base_url=sim.base_url)`.
    It speaks as OpenAI does too, at `openai_base_url`: same answers, journal, limits and faults.

    Attributes:
        options: What was chosen.
        clock: Its time: `clock.advance(60)` lets a minute pass at once.
        journal: Every request, without its key.

    Args:
        port: Where to listen; 0 lets the kernel choose a free port.
        words_per_second: The pace of the answers; None for full speed.
        seed: Other seeds give other wordings and ids; equal seeds give equal answers.
        as_of: The day whose models exist; None for today.
        any_key: Whether every key that is not empty is accepted.
        provider: Who answers; None answers from the prompt.
        clock: Tells the time and waits.
        tier: A plan's name ("free", "starter", "pro"), its two numbers ("10/20000"), or a
            `Tier`; None: no limits.
        not_in_plan: Models whose limit is 0.
        window: How a minute is counted: "sliding", "calendar" or "bucket".
        charge_at: When tokens are charged: at "finish", at "arrival" with prompt and
            `max_tokens`, or "arrival_corrected" when the answer ends.
        refusal: Which 429 a full window gives: "rate" (1300) or "capacity" (3505).
        latency_s: Seconds before the first byte of an answer.
        credits_usd: What each key may spend, in US dollars; None: without end.
        journal_size: How many requests the journal keeps.
        fragments: Whether tool calls are streamed in pieces, as some models send them.
        scenario: A script of answers and faults, or its file, or the name of one that is shipped,
            for example "FB03".
        faults: Faults as `x-loom-fault` names them, and how likely each is, 0 to 1.
        record: A folder for what the API at `upstream` answers; no key is written.
        upstream: That API's address, ending in `/v1`.
        replay: A folder of such recordings: they are the answers, and there are no others.

    Raises:
        ValueError: If a number is out of its range, or a word is not one of those above.
        ConfigInvalid: If there is no such tier, or options contradict each other.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        words_per_second: float | None = None,
        seed: int = 0,
        as_of: date | None = None,
        any_key: bool = False,
        provider: LLMProvider | None = None,
        clock: Clock | None = None,
        tier: str | Tier | None = None,
        not_in_plan: Sequence[str] = (),
        window: WindowKind = "sliding",
        charge_at: ChargeAt = "finish",
        refusal: RefusalKind = "rate",
        latency_s: float = 0.0,
        credits_usd: Decimal | None = None,
        journal_size: int = 10_000,
        fragments: bool = False,
        scenario: Scenario | str | Path | None = None,
        faults: Mapping[str, float] | None = None,
        record: Path | str | None = None,
        upstream: str | None = None,
        replay: Path | str | None = None,
    ) -> None:
        self.options = SimulatorOptions(
            port=port,
            words_per_second=words_per_second,
            seed=seed,
            as_of=as_of,
            any_key=any_key,
            tier=tier,
            not_in_plan=tuple(not_in_plan),
            window=window,
            charge_at=charge_at,
            refusal=refusal,
            latency_s=latency_s,
            credits_usd=credits_usd,
            journal_size=journal_size,
            fragments=fragments,
            scenario=scenario,
            faults=faults,
            record=None if record is None else Path(record),
            upstream=upstream,
            replay=None if replay is None else Path(replay),
        )
        self.clock = SimulatedClock(clock or SystemClock())
        self.journal = Journal(journal_size)
        self._provider = provider
        self._resets: list[Callable[[], None]] = []
        self._listener: Listener | None = None

    @property
    def api_key(self) -> str:
        """The key that it accepts."""
        return SIMULATOR_KEY

    @property
    def base_url(self) -> str:
        """
        Where it listens, for example `http://127.0.0.1:40123/v1`.

        Raises:
            RuntimeError: If it is not started.
        """
        return f"{self._root}/v1"

    @property
    def openai_base_url(self) -> str:
        """
        Where it speaks as OpenAI does, for example `http://127.0.0.1:40123/openai/v1`.

        Raises:
            RuntimeError: If it is not started.
        """
        return f"{self._root}/openai/v1"

    @property
    def _root(self) -> str:
        if self._listener is None:
            raise RuntimeError("the simulator is not running: call start(), or use `with`")
        return f"http://{HOST}:{self._listener.port}"

    def start(self) -> Self:
        """
        Listen; returns when a request would be answered.

        Returns:
            Itself.

        Raises:
            ConfigInvalid: If the port is in use.
            RuntimeError: If it runs already.
        """
        if self._listener is not None:
            raise RuntimeError("the simulator runs already")
        listener = Listener(self._app, self.options.port)
        listener.start()
        self._listener = listener
        return self

    def stop(self) -> None:
        """Drop every connection and end the thread; safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def reset(self) -> None:
        """Begin anew: an empty journal, unused limits and credits; the time goes on."""
        self.journal.clear()
        for reset in self._resets:
            reset()

    def abandon(self) -> None:
        """Forget the server in a forked child, where its thread does not exist."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.abandon()

    def __enter__(self) -> Self:
        """Start, if it does not run."""
        return self if self._listener is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _app(self) -> Any:
        from loom.server.simulator.build import build_gate  # noqa: PLC0415 - start-up time

        gate, self._resets = build_gate(
            self.options,
            key=None if self.options.any_key else self.api_key,
            provider=self._provider,
            clock=self.clock,
            journal=self.journal,
            reset=self.reset,
        )
        return gate

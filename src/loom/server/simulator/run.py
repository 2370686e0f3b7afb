"""The simulator as a thing that is started and stopped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loom.core.ambient import Clock, SystemClock, SystemDice
from loom.core.model import ModelCard
from loom.core.provider import LLMProvider
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator.front import SimulatedEdge
from loom.server.simulator.listener import HOST, Listener

if TYPE_CHECKING:
    from loom.catalog.lookup import Catalog

__all__ = ["SIMULATOR_KEY", "Simulator"]

SIMULATOR_KEY = "loom-sim-key"
"""What the simulator takes for a key. It opens nothing else."""


class Simulator:
    """
    Mistral's API on loopback, answered without a model.

    A context manager: `with Simulator() as sim: Mistral(sim.api_key, base_url=sim.base_url)`.

    Args:
        port: Where to listen; 0 lets the kernel choose a free port.
        words_per_second: The pace of the answers; None for full speed.
        seed: Other seeds give other wordings and ids; equal seeds give equal answers.
        as_of: The day whose models exist; None for today.
        any_key: Whether every key that is not empty is accepted.
        provider: Who answers; None answers from the prompt.
        clock: Tells the time and waits.
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
    ) -> None:
        if words_per_second is not None and not words_per_second > 0:
            raise ValueError(f"words_per_second must be above 0, not {words_per_second!r}")
        self._port = port
        self._words_per_second = words_per_second
        self._seed = seed
        self._as_of = as_of
        self._any_key = any_key
        self._provider = provider
        self._clock = clock or SystemClock()
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
        if self._listener is None:
            raise RuntimeError("the simulator is not running: call start(), or use `with`")
        return f"http://{HOST}:{self._listener.port}/v1"

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
        listener = Listener(self._app, self._port)
        listener.start()
        self._listener = listener
        return self

    def stop(self) -> None:
        """Drop every connection and end the thread; safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

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
        from loom.catalog.lookup import Catalog  # noqa: PLC0415 - reads the rows
        from loom.server.app import build_app  # noqa: PLC0415 - start-up time
        from loom.wire.mistral.dialect import MistralDialect  # noqa: PLC0415 - start-up time

        catalog = Catalog.builtin()
        edge = SimulatedEdge(
            key=None if self._any_key else self.api_key,
            cards=lambda: self._cards(catalog),
            seed=self._seed,
            clock=self._clock,
            dice=SystemDice(self._seed),
        )
        provider = self._provider or ScriptedProvider(
            seed=self._seed,
            words_per_second=self._words_per_second,
            clock=self._clock,
            knows=lambda model: self._card(catalog, model) is not None,
        )
        return build_app(provider, MistralDialect(), edge, clock=self._clock)

    def _day(self) -> date:
        return self._as_of or self._clock.now().date()

    def _card(self, catalog: Catalog, model: str) -> ModelCard | None:
        card = catalog.find(model, self._day())
        # A retired model is as unknown to the API as one that never was (contract, section 6).
        return None if card is None or card.state == "retired" else card

    def _cards(self, catalog: Catalog) -> Sequence[ModelCard]:
        return catalog.cards(self._day(), "mistral")

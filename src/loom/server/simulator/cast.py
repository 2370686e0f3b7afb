"""Who answers in a simulator, when nobody else was given: composed, and counted as the vendor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loom.catalog.tokens import count_prompt, split_text
from loom.core.model import ModelCard
from loom.core.request import ChatRequest
from loom.providers.embedded import HashedEmbeddings
from loom.providers.infill import infill
from loom.providers.scripted import ScriptedProvider, ScriptItem, Split
from loom.server.simulator.clock import SimulatedClock
from loom.server.simulator.exchange import CURRENT
from loom.server.simulator.options import SimulatorOptions
from loom.wire.chat_completions.embeddings import EMBEDDING_MODELS, embedding_size
from loom.wire.mistral.embeddings import vector_size
from loom.wire.mistral.request import encode_chat_request

__all__ = ["Cast"]


class Cast:
    """
    The providers of one simulator.

    Args:
        options: The seed and the pace.
        clock: The simulator's time.
        find: The card of a model; None for one that is unknown.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        *,
        clock: SimulatedClock,
        find: Callable[[str], ModelCard | None],
    ) -> None:
        self._options = options
        self._clock = clock
        self._find = find

    def chat(self) -> ScriptedProvider:
        """Who answers chats."""
        return self._counting(seed=self._options.seed)

    def saying(self, item: ScriptItem, number: int) -> ScriptedProvider:
        """
        Who gives one answer.

        Args:
            item: The answer.
            number: Keeps the ids of equal answers apart.
        """
        return self._counting(script=[item], seed=self._options.seed + number)

    def infill(self) -> ScriptedProvider:
        """Who fills in the middle."""
        return self._counting(seed=self._options.seed, compose=infill)

    def embeddings(self) -> HashedEmbeddings:
        """Who turns texts into vectors."""
        return HashedEmbeddings(
            seed=self._options.seed,
            split=self.splits("mistral-embed"),
            dimension=_dimension,
            clock=self._clock,
        )

    def _counting(self, **how: Any) -> ScriptedProvider:
        return ScriptedProvider(
            words_per_second=self._options.words_per_second,
            clock=self._clock,
            splits=self.splits,
            count=self._count,
            **how,
        )

    def splits(self, model: str) -> Split:
        """What cuts a text into a model's tokens."""
        card = self._find(model)

        def split(text: str) -> Sequence[str]:
            return split_text(text, card)

        return split

    def _count(self, request: ChatRequest) -> int:
        exchange = CURRENT.get()
        if exchange is None or exchange.fields is None or exchange.foreign:
            return count_prompt(encode_chat_request(request), self._find(request.model)).tokens
        # The body as it came: the order of its keys counts too.
        return count_prompt(exchange.fields, exchange.card).tokens


def _dimension(model: str) -> int:
    return embedding_size(model) if model in EMBEDDING_MODELS else vector_size(model).usual

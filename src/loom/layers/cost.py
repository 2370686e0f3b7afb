"""Prices every answer: by the model that the response names, on the day of the call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import date

import msgspec

from loom.catalog.cost import price_usage
from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.events import Completed, StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

__all__ = ["Costing"]


class Costing(Layer):
    """
    Fills in `usage.cost_usd` and `usage.price`.

    Args:
        inner: The provider that answers.
        catalog: The dated prices.
        clock: Tells the day.
        as_of: Another day whose prices hold; None: the day of the call, UTC.
    """

    def __init__(
        self, inner: LLMProvider, *, catalog: Catalog, clock: Clock, as_of: date | None = None
    ) -> None:
        super().__init__(inner)
        self._catalog = catalog
        self._clock = clock
        self._as_of = as_of

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass every event on; `Completed` with its cost.

        Args:
            request: What is asked.

        Yields:
            The inner provider's events.
        """
        request = request.begun(self._clock.monotonic_s())
        events = self.inner.stream(request)
        try:
            async for event in events:
                if type(event) is Completed:
                    yield Completed(self._priced(event.response))
                else:
                    yield event
        finally:
            await events.aclose()

    def _priced(self, response: LLMResponse) -> LLMResponse:
        on = self._as_of or self._clock.now().date()
        # With routes to fall back on, another provider may have answered.
        provider = response.metadata.get("provider") or self.name
        # Fault matrix, rows 50 and 65: the price of the model that answered, or none.
        card = self._catalog.find(response.model, on, provider=provider)
        return msgspec.structs.replace(response, usage=price_usage(response.usage, card))

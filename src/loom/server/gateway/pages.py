"""What a gateway tells without asking a model: models, health, metrics, its own document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.errors import InvalidAPIKey, InvalidRequest
from loom.server.gateway.caller import Call
from loom.server.gateway.keys import VirtualKey, allows
from loom.server.gateway.metrics import ABSENT, Metrics
from loom.server.simulator.rows import model_rows

__all__ = ["Pages"]

_JSON = {"content-type": "application/json"}


class Pages:
    """
    What is read with GET.

    Args:
        admit: Lets a caller in, or raises.
        catalog: Models.
        vendor: Whose models are listed.
        clock: Tells the day.
        readiness: The state of each part, "ok" if it is well.
        metrics: Counts; None: nobody does.
        needs_key: Whether callers have keys at all.
    """

    def __init__(
        self,
        admit: Callable[[Call], None],
        *,
        catalog: Catalog,
        vendor: str,
        clock: Clock,
        readiness: Callable[[], Mapping[str, str]],
        metrics: Metrics | None,
        needs_key: bool,
    ) -> None:
        self._admit = admit
        self._catalog = catalog
        self._vendor = vendor
        self._clock = clock
        self._readiness = readiness
        self._metrics = metrics
        self._needs_key = needs_key

    async def models(self, call: Call) -> None:
        """List the models that the caller may ask."""
        self._admit(call)
        await _json(call, 200, {"object": "list", "data": self._rows(call.key)})

    async def model(self, call: Call, name: str) -> None:
        """
        Show one model.

        Args:
            call: Whose request.
            name: The model.

        Raises:
            InvalidRequest: With status 404 if there is none, or it is not the caller's.
        """
        self._admit(call)
        row = next((row for row in self._rows(call.key) if row["id"] == name), None)
        if row is None:
            raise InvalidRequest(f"there is no model {name[:128]!r} here", http_status=404)
        await _json(call, 200, row)

    async def health(self, call: Call) -> None:
        """Say that the process lives; asks nobody."""
        await call.line.whole(200, _JSON, b'{"status":"ok"}')

    async def ready(self, call: Call) -> None:
        """Say of each part whether it is well."""
        parts = dict(self._readiness())
        well = all(state == "ok" for state in parts.values())
        await _json(call, 200 if well else 503, {"status": "ok" if well else "not ready", **parts})

    async def metrics(self, call: Call) -> None:
        """
        Tell what was counted: to whoever is on this machine, and to the gateway's own key.

        Args:
            call: Whose request.

        Raises:
            InvalidAPIKey: For anybody else.
        """
        if not call.local and self._needs_key:
            self._admit(call)
            if call.key is None or not call.key.is_admin:
                raise InvalidAPIKey("metrics are for the gateway's own key")
        if self._metrics is None:
            status, headers, body = ABSENT
            await call.line.whole(status, headers, body)
            return
        accept = call.headers.get(b"accept", b"").decode("latin-1")
        await call.line.whole(*self._metrics.page(accept))

    async def document(self, call: Call) -> None:
        """Give the OpenAPI document."""
        from loom.server.gateway.openapi import (  # noqa: PLC0415 - seldom asked for
            gateway_document,
        )

        await call.line.whole(200, _JSON, msgspec.json.encode(gateway_document()))

    def _rows(self, key: VirtualKey | None) -> Sequence[Mapping[str, Any]]:
        now = self._clock.now()
        cards = self._catalog.cards(now.date(), self._vendor)
        rows = model_rows(cards, int(now.timestamp()))
        return [row for row in rows if key is None or allows(key, row["id"])]


async def _json(call: Call, status: int, value: Mapping[str, Any]) -> None:
    headers = {**_JSON, "x-request-id": call.request_id}
    await call.line.whole(status, headers, msgspec.json.encode(value))

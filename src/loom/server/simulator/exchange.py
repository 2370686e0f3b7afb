"""One request on its way through the simulator, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from loom.core.errors import LoomError
from loom.core.model import ModelCard
from loom.core.response import Usage

__all__ = ["CURRENT", "Asked", "Exchange"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a caller asks.

    Attributes:
        number: The request's number since the start or the last reset, from 1.
        method: For example `POST`.
        path: For example `/v1/chat/completions`.
        query: What stands behind the question mark; empty without one.
        headers: Names in lower case; of two equal names the last.
        body: As it came.
        clean: Whether its key was taken out.
    """

    number: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    clean: bool = False


class Exchange(msgspec.Struct, kw_only=True):
    """
    A request and its answer while it is made.

    Attributes:
        asked: The request as it came.
        body: What the rest of the way takes for the request's body.
        fields: The JSON object of `body`; None if it is none.
        began_s: When it came, by the monotonic clock.
        at_s: When it came, in Unix seconds.
        key: The key's fingerprint; empty without a key.
        card: The model; None if it is unknown.
        problem: Why the body could not be read; None if it could.
        fault: The name of the fault that befalls it; None for none.
        made: Whether the API itself was asked, whatever a fault left of its answer.
        status: The status that was sent; None as long as there is none.
        sent: The answer's headers; names in lower case.
        pieces: The answer's body as it was sent.
        usage: Tokens of the answer; None if it used none.
        taken_s: When the limits let it in, by their clock; None before.
        charged: What it is charged against the minute's tokens until now.
        query_cost: What its answer costs against the minute's tokens.
        told: Whether everyone who charges for it knows how it ended.
        settled: Whether the limits know what its answer used.
        weight: The bytes of it that the journal counts; None if it does not keep it.
        ended_s: When its answer ended, by the monotonic clock; None before.
    """

    asked: Asked
    body: bytes
    fields: Mapping[str, Any] | None = None
    began_s: float
    at_s: float
    key: str = ""
    card: ModelCard | None = None
    problem: LoomError | None = None
    fault: str | None = None
    made: bool = False
    status: int | None = None
    sent: list[tuple[bytes, bytes]] = []
    pieces: list[bytes] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    taken_s: float | None = None
    charged: int = 0
    query_cost: int = 0
    told: bool = False
    settled: bool = False
    weight: int | None = None
    ended_s: float | None = None

    @property
    def model(self) -> str:
        """The model that is asked for; empty if none is named."""
        model = (self.fields or {}).get("model")
        return model if isinstance(model, str) else ""

    @property
    def limited_model(self) -> str:
        """The model that limits are counted for: its own id, whatever alias was used."""
        return self.card.id if self.card is not None else self.model

    @property
    def foreign(self) -> bool:
        """Whether another vendor's API is asked, and not Mistral's."""
        return not self.asked.path.startswith("/v1/")

    @property
    def streamed(self) -> bool:
        """Whether a stream is asked for."""
        return (self.fields or {}).get("stream") is True


CURRENT: ContextVar[Exchange | None] = ContextVar("loom-simulator-exchange", default=None)
"""The exchange that the running task works on."""

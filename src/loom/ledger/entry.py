"""
A row of the ledger: what one accepted call was, and what it cost. Never a prompt, never a key.

An `Opening` is what is known before anything is sent, an `Entry` the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from loom.core.timeline import Charge
from loom.ledger.money import ZERO

__all__ = ["Entry", "Opening", "Sent", "State"]

State: TypeAlias = Literal["open", "settled", "estimated", "released", "uncertain"]
"""
What is known of a call's cost.

`open`: the call is on its way. `settled`: what the vendor reported. `estimated`: tokens were seen
and not reported. `released`: nothing. `uncertain`: the vendor may have billed it, and nobody can
say how much; the worst case counts.
"""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt of a call; times in seconds since the call began.

    Attributes:
        provider: Who was asked.
        model: Which model was asked.
        sent_s: When it left.
        first_byte_s: When the reply's headers came; None if they never did.
        ended_s: When it was over.
        sends: How often it was sent; 0 when a limit kept it back.
        status: The HTTP status; None if no headers came.
        code: The error's code; empty for an answer.
        request_id: The vendor's id of the request.
        charge: What it may have cost.
    """

    provider: str
    model: str
    sent_s: float = 0.0
    first_byte_s: float | None = None
    ended_s: float = 0.0
    sends: int = 1
    status: int | None = None
    code: str = ""
    request_id: str | None = None
    charge: Charge = "released"


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a call before anything is sent.

    Attributes:
        provider: Who will be asked first.
        asked_model: The model as it was asked for.
        kind: What is asked for.
        stream: Whether the answer comes as a stream.
        key: The fingerprint of the key, never the key.
        client: The name of the client; clients of one name share a budget.
        session: The conversation; None: none.
        tenant: Whose call it is.
        tags: Labels for costs.
        worst_usd: The most that the call may cost; None when the price is unknown.
    """

    provider: str
    asked_model: str
    kind: str = "chat"
    stream: bool = False
    key: str = ""
    client: str = ""
    session: str | None = None
    tenant: str = ""
    tags: Mapping[str, str] = {}
    worst_usd: Decimal | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row: one accepted call, whoever answered it.

    Attributes:
        id: Unique; ids sort by time.
        at: When the call was accepted, UTC by the ledger's clock; its period is that of this time.
        state: What is known of the cost.
        provider: Who answered; before that, who is asked.
        model: The model that the answer names; empty without an answer.
        asked_model: The model as it was asked for.
        kind: What was asked for, for example "chat".
        stream: Whether the answer came as a stream.
        key: The fingerprint of the key.
        client: The name of the client.
        session: The conversation; None: none.
        tenant: Whose call it was.
        tags: Labels for costs.
        input_tokens: Prompt tokens, the cached ones among them.
        output_tokens: Answer tokens.
        cached_tokens: Prompt tokens that came from the vendor's cache.
        audio_tokens: Prompt tokens that stand for sound.
        audio_seconds: Seconds of sound in the prompt.
        service_tier: The tier that served; None when not said.
        price_id: The row of the catalogue that the cost was computed with; empty: unpriced.
        cost_usd: US dollars; None when unknown, never a guess.
        reserved_usd: What was kept free for it, at most; None when its price was unknown.
        attempts: What was sent, the oldest first; failed attempts cost nothing here.
        latency_s: Seconds from the call to the end of its answer.
        first_byte_s: Seconds from the call to the first headers of the answer.
        code: The error's code; empty for an answer.
        request_id: The vendor's id of the request.
    """

    id: str
    at: datetime
    state: State = "open"
    provider: str
    model: str = ""
    asked_model: str
    kind: str = "chat"
    stream: bool = False
    key: str = ""
    client: str = ""
    session: str | None = None
    tenant: str = ""
    tags: Mapping[str, str] = {}
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    audio_tokens: int = 0
    audio_seconds: int = 0
    service_tier: str | None = None
    price_id: str = ""
    cost_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    attempts: tuple[Sent, ...] = ()
    latency_s: float | None = None
    first_byte_s: float | None = None
    code: str = ""
    request_id: str | None = None

    @property
    def counted_usd(self) -> Decimal:
        """What budgets count: the cost; while it is unknown, what was kept free for it."""
        if self.state == "released":
            return ZERO
        if self.state == "open" or self.cost_usd is None:
            return ZERO if self.reserved_usd is None else self.reserved_usd
        return self.cost_usd

    @property
    def unpriced(self) -> bool:
        """Whether the call was made and nobody knows its price."""
        return self.state in ("settled", "estimated") and self.cost_usd is None

"""The last form of a row: from the answer of its call, or from its error."""

from __future__ import annotations

import msgspec

from loom.core.errors import LoomError
from loom.core.response import LLMResponse, Usage
from loom.core.timeline import Attempt, Timeline
from loom.ledger.entry import Entry, Sent, State
from loom.ledger.money import ZERO

__all__ = ["closed"]


def closed(
    opened: Entry,
    state: State,
    *,
    response: LLMResponse | None = None,
    error: LoomError | None = None,
    usage: Usage | None = None,
    timeline: Timeline | None = None,
) -> Entry:
    """
    The last form of a row.

    Args:
        opened: The open row.
        state: What is known of its cost; "released" drops the cost.
        response: The answer, priced; None if there was none.
        error: Why there was none.
        usage: Tokens and cost, priced; None takes those of the answer, or of what had arrived.
        timeline: What was sent, where neither answer nor error tells it.

    Returns:
        The row to settle with.
    """
    if response is not None:
        usage, timeline = usage or response.usage, response.timeline
    elif error is not None:
        timeline = error.timeline
        if usage is None and error.partial is not None:
            usage = error.partial.usage
    usage = usage or Usage()
    free = state == "released"
    answered = {} if response is None else _answered(opened, response)
    failed = {} if error is None else {"code": error.code, "request_id": error.request_id}
    return msgspec.structs.replace(
        opened,
        state=state,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        audio_tokens=usage.audio_tokens,
        audio_seconds=usage.audio_seconds,
        service_tier=usage.service_tier,
        price_id="" if free or usage.price is None else usage.price.id,
        cost_usd=ZERO if free else usage.cost_usd,
        **{**_when(timeline), **failed, **answered},
    )


def _answered(opened: Entry, response: LLMResponse) -> dict[str, object]:
    return {
        "provider": response.metadata.get("provider", opened.provider),
        "model": response.model,
        "latency_s": response.latency_s,
        "request_id": response.request_id,
    }


def _when(timeline: Timeline | None) -> dict[str, object]:
    if timeline is None or not timeline.attempts:
        return {}
    began_s = timeline.began_s
    last = timeline.attempts[-1]
    return {
        "attempts": tuple(_sent(attempt, began_s) for attempt in timeline.attempts),
        "latency_s": _since(last.ended_s, began_s),
        "first_byte_s": _since(last.first_byte_s, began_s),
    }


def _sent(attempt: Attempt, began_s: float) -> Sent:
    return Sent(
        provider=attempt.provider,
        model=attempt.model,
        sent_s=_since(attempt.sent_s, began_s) or 0.0,
        first_byte_s=_since(attempt.first_byte_s, began_s),
        ended_s=_since(attempt.ended_s, began_s) or 0.0,
        sends=attempt.sends,
        status=attempt.status,
        code=attempt.code,
        request_id=attempt.request_id,
        charge=attempt.charge,
    )


def _since(when_s: float | None, began_s: float) -> float | None:
    # The beginning is the deadline less the limit, a tiny bit off: no time is before it.
    return None if when_s is None else max(0.0, round(when_s - began_s, 6))

"""
What a played failover scenario is worth, by what the caller got and what the providers saw.

*pass*: the answer, whole; or the one error that is right. *safe*: another clear error of the
library's. *fail*: a cut or mixed answer as a success, a hang, an error that hides the first one, a
provider that is hammered, a connection that is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Literal

import msgspec
from tests.client.failover import DRAWS, FALLBACK, PRIMARY, PROMPT, Got, Played

from loom import LLMResponse, LoomError, Rerouted, Restarted, TextDelta, cost
from loom.core.timeline import Charge
from loom.server.simulator import Scenario
from loom.server.simulator.journal import Entry

__all__ = ["LAWS", "TEXT", "Grade", "Law", "grade"]

TEXT = str(Scenario.load("FB01").answer)


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is right in a scenario.

    Attributes:
        answers: Who answers, where there is a fallback; None: nobody, and the error is right.
        requests: How many the primary may see in a call, where there is a fallback.
        alone: The same where there is none.
        code: Of the error that the primary gives.
        plain: Of the error that it gives to a plain request, where that is another.
        charge: What its failed attempts may have cost.
        asked_s: The wait that it asks for; None: the waits are the client's own.
        base_s: The client's own first wait, at most.
        once: Whether it is well at the next call.
        cut: Whether it fails in the middle of an answer.
        waits: Whether it answers a client that waits for it, when there is no fallback.
        right: Whether its error is right when there is no fallback.
    """

    answers: Literal["primary", "fallback"] | None = "fallback"
    requests: int
    alone: int
    code: str
    plain: str = ""
    charge: Charge = "released"
    asked_s: float | None = None
    base_s: float = 0.5
    once: bool = False
    cut: bool = False
    waits: bool = False
    right: bool = False


_WELL = Law(answers="primary", requests=1, alone=1, code="", once=True)
_DOWN = Law(requests=3, alone=3, code="service_unavailable")
_CUT = Law(
    requests=1, alone=3, code="stream_truncated", plain="unreachable", charge="estimated", cut=True
)

LAWS: dict[str, Law] = {
    "FB01": Law(
        answers="primary", requests=2, alone=2, code="rate_limit_exceeded", asked_s=2.0, once=True
    ),
    "FB02": Law(requests=3, alone=5, code="rate_limit_exceeded", base_s=1.0),
    "FB03": Law(answers="primary", requests=2, alone=2, code="service_unavailable", once=True),
    "FB04": _DOWN,
    "FB05": Law(
        answers="primary", requests=2, alone=2, code="unreachable", charge="unknown", once=True
    ),
    "FB06": Law(requests=1, alone=2, code="timeout", charge="unknown"),
    "FB07": Law(requests=1, alone=1, code="timeout", charge="unknown", waits=True),
    "FB08": _CUT,
    "FB09": Law(
        requests=1, alone=2, code="stream_stalled", plain="timeout", charge="estimated",
        once=True, cut=True,
    ),
    "FB10": Law(requests=1, alone=1, code="malformed_reply", charge="estimated", cut=True),
    "FB11": _WELL,
    "FB12": Law(requests=1, alone=1, code="context_length_exceeded", right=True),
    "FB13": Law(answers=None, requests=1, alone=1, code="content_blocked", right=True),
    "FB14": _CUT,
    "FB15": _DOWN,
    "FB16": _DOWN,
}  # fmt: skip


class Grade(msgspec.Struct, frozen=True):
    """A word, and why it is no better."""

    word: Literal["pass", "safe", "fail"]
    why: str = ""


def grade(played: Played) -> Grade:
    """
    Judge a scenario.

    Args:
        played: What everybody saw.

    Returns:
        The grade of its worst call; `why` names what is wrong.
    """
    law = LAWS[played.scenario]
    wrong: list[str] = []
    safe = ""
    for number, got in enumerate(played.calls):
        here = law
        if number and law.once:
            here = _WELL
        elif played.scenario == "FB15" and _well(got.primary):
            here = _WELL if len(got.primary) == 1 else LAWS["FB03"]
        call = _Call(got, here, played)
        wrong += [f"call {number + 1}: {fault}" for fault in call.faults()]
        if got.error is not None and not call.is_right:
            safe = safe or f"call {number + 1}: {got.error!r}"
    if played.sockets:
        wrong.append(f"{played.sockets} sockets are open at the end")
    if played.unended:
        wrong.append(f"{played.unended} requests are still answered at the end")
    if wrong:
        return Grade("fail", "; ".join(wrong))
    return Grade("safe", safe) if safe else Grade("pass")


def _well(entries: tuple[Entry, ...]) -> bool:
    return bool(entries) and entries[-1].status == 200


class _Call:
    """One call before the judge."""

    def __init__(self, got: Got, law: Law, played: Played) -> None:
        self._got = got
        self._law = law
        self._alone = played.mode == "alone"
        self._rescue = played.mode == "rescue"
        self._streams = played.kind == "stream"
        # A plain call is a stream on its way, as long as there is another route.
        self._plain = self._alone and not self._streams

    @property
    def is_right(self) -> bool:
        """Whether an error is the right end."""
        return self._law.right and (self._alone or self._law.answers is None)

    def faults(self) -> Iterator[str]:
        """What nobody may do."""
        got = self._got
        if got.permits:
            yield f"{got.permits} connections are held"
        yield from self._wire()
        if got.response is not None:
            yield from self._answer(got.response)
        elif isinstance(got.error, LoomError):
            yield from self._error(got.error)
        elif got.error is not None:
            yield f"no error of the library's: {got.error!r}"
        else:
            yield "it hung"

    def _wire(self) -> Iterator[str]:
        got, law = self._got, self._law
        most = law.alone if self._alone else law.requests
        if len(got.primary) > most:
            yield f"the primary saw {len(got.primary)} requests, not {most} at most"
        if len(got.fallback) > 1 or (got.fallback and law.answers is None):
            yield f"the fallback saw {len(got.fallback)} requests"
        entries = [*got.primary, *got.fallback]
        for entry in entries:
            body = msgspec.json.decode(entry.body)
            if [{"role": "user", "content": PROMPT}] != body["messages"]:
                yield f"the messages were changed: {body['messages']}"
        for number, (one, two) in enumerate(pairwise(got.primary)):
            gap_s = (two.at - one.at).total_seconds()
            low_s, high_s = self._bounds_s(number)
            if not low_s - 1e-3 <= gap_s <= high_s + 1e-3:
                yield f"a gap of {gap_s} s, not {low_s} to {high_s} s"

    def _bounds_s(self, number: int) -> tuple[float, float]:
        """The wait between two requests: as asked and 10 % more, or a draw that grows."""
        if self._law.asked_s is not None:
            return self._law.asked_s, self._law.asked_s * 1.1
        most_s = self._law.base_s * 2.0**number
        return most_s * min(DRAWS), most_s * max(DRAWS)

    def _answer(self, response: LLMResponse) -> Iterator[str]:
        got, law = self._got, self._law
        if response.content != TEXT or response.finish_reason != "stop":
            yield f"a wrong answer as a success: {response.content!r}"
        if law.answers is None:
            yield "an answer, where there is none"
        by_fallback = bool(got.fallback)
        answerer, model = (got.fallback, FALLBACK) if by_fallback else (got.primary, PRIMARY)
        if not self._alone and by_fallback != (law.answers == "fallback"):
            yield f"{model} answered"
        used = response.usage
        entry = answerer[-1]
        if model != response.model or model != entry.model:
            yield f"{entry.model} answered, and {response.model} is named"
        if (entry.prompt_tokens, entry.completion_tokens) != (
            used.input_tokens, used.output_tokens,
        ) or used.estimated:  # fmt: skip
            yield f"usage is not that of the answer: {used}"
        price = cost(model, used.input_tokens, used.output_tokens, as_of=got.began_at.date())
        if not isinstance(used.cost_usd, Decimal) or price != used.cost_usd:
            yield f"the price is {used.cost_usd}, not {price}"
        yield from self._story(response, by_fallback=by_fallback)
        if self._streams:
            yield from self._stream(by_fallback=by_fallback)

    def _story(self, response: LLMResponse, *, by_fallback: bool) -> Iterator[str]:
        sent = len(self._got.primary) + len(self._got.fallback)
        timeline = response.timeline
        if timeline is None or not sent == response.attempts == timeline.sends:
            yield f"{sent} requests, and {response.attempts} are told"
            return
        *failed, last = [attempt for attempt in timeline.attempts if attempt.sends]
        if "settled" != last.charge or any(one.charge != self._charge for one in failed):
            yield f"charged: {[attempt.charge for attempt in timeline.attempts]}"
        told = response.metadata.get("failed_routes", ())
        routes = [{"route": f"mistral:{PRIMARY}", "code": code} for code in self._codes]
        if by_fallback != bool(told) or any(one not in routes for one in told):
            yield f"routes that failed: {told}"

    @property
    def _charge(self) -> Charge:
        return "unknown" if self._plain and self._law.plain else self._law.charge

    @property
    def _codes(self) -> tuple[str, ...]:
        code = self._law.plain if self._plain and self._law.plain else self._law.code
        return code, "circuit_open"

    def _stream(self, *, by_fallback: bool) -> Iterator[str]:
        text = given = ""
        turns: list[str] = []
        for event in self._got.events:
            match event:
                case TextDelta():
                    text += event.text
                    given += event.text
                case Restarted():
                    turns.append("restarted" if given else "restarted without need")
                    text = ""
                case Rerouted():
                    turns.append("rerouted" if not given else "rerouted too late")
        if text != TEXT:
            yield f"mixed text: {text!r}"
        wanted = ["restarted" if self._law.cut else "rerouted"] if by_fallback else []
        if wanted != turns:
            yield f"announced: {turns}, not {wanted}"

    def _error(self, error: LoomError) -> Iterator[str]:
        law, got = self._law, self._got
        if error.code not in self._codes:
            yield f"another error hides the first one: {error!r}"
        if (error.provider, error.model) != ("mistral", PRIMARY):
            yield f"the error is of {error.provider}:{error.model}"
        if error.attempts != len(got.primary) + len(got.fallback):
            yield f"{len(got.primary)} requests, and {error.attempts} are told"
        if not error.message or not error.hint or error.timeline is None:
            yield f"an error that says nothing: {error!r}"
        given = "".join(event.text for event in got.events if isinstance(event, TextDelta))
        partial = error.partial.text if error.partial is not None else ""
        if not TEXT.startswith(given) or (given and given != partial):
            yield f"half an answer leaked: {given!r} given, {partial!r} told"
        may_leave = self._rescue or not (law.cut and self._streams)
        if not self._alone and may_leave and law.answers is not None:
            yield f"an error where another route would have answered: {error!r}"

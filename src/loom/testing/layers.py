"""
The contract of a layer: its laws as functions that any layer can be put to.

    @pytest.mark.parametrize("law", LAYER_LAWS)
    @pytest.mark.anyio
    async def test_retrying_keeps_the_law(law):
        await law(LayerCase(make=lambda inner: Retrying(inner, clock=FakeClock(auto=True))))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeAlias, get_args

import msgspec

from loom.core.errors import LoomError, ServiceUnavailable
from loom.core.events import (
    Completed,
    Finished,
    ModelEvent,
    Sending,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    UsageReported,
)
from loom.core.messages import Message
from loom.core.provider import LayerFactory, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage
from loom.testing.cancel import Probes, abandoned_generators, cancel_everywhere
from loom.testing.turns import turn

__all__ = [
    "LAYER_LAWS",
    "LayerCase",
    "LayerLaw",
    "Witness",
    "a_cancellation_closes_inner",
    "an_error_closes_inner",
    "chat_and_closing_reach_inner",
    "completed_comes_last_and_settled",
    "events_pass_in_order",
    "layer_contract",
    "leaving_early_closes_inner",
    "no_context_leaks",
    "no_time_limit_leaks",
    "nothing_is_sent_again_once_begun",
]

_USAGE = Usage(input_tokens=3, output_tokens=2, total_tokens=5)
_RESPONSE = LLMResponse(
    choices=(Choice(message=Message.assistant("ab"), finish_reason="stop"),),
    usage=_USAGE,
    model="witness-1",
    id="answer-1",
)
_EVENTS: tuple[StreamEvent, ...] = (
    Sending(),
    ThinkingDelta("hm"),
    TextDelta("a"),
    TextDelta("b"),
    Finished("stop"),
    UsageReported(_USAGE),
    Completed(_RESPONSE),
)
_REQUEST = ChatRequest(model="witness-1", messages=(Message.user("ab?"),), stream=True)
# Longer than any limit of a call: one that is still set would run out.
_A_DAY_S = 86_400.0


class Witness(LLMProvider):
    """
    A provider that plays events and sees how it is treated.

    It suspends before each event and once while it is closed, as one with a socket does.

    Attributes:
        calls: Requests that were begun.
        held: Streams that are open now.
        shut: How often `aclose` was called.

    Args:
        events: What each stream gives.
        error: Raised instead of the event number `fail_at`; None for no error.
        fail_at: From 0.
    """

    def __init__(
        self,
        events: Sequence[StreamEvent] = _EVENTS,
        *,
        error: LoomError | None = None,
        fail_at: int = 0,
    ) -> None:
        self.calls = 0
        self.held = 0
        self.shut = 0
        self._events = events
        self._error = error
        self._fail_at = fail_at

    @property
    def name(self) -> str:
        """The name "witness"."""
        return "witness"

    @property
    def model(self) -> str:
        """The model "witness-1"."""
        return "witness-1"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:  # noqa: ARG002  # it plays
        """Play the events."""
        self.calls += 1
        self.held += 1
        try:
            for position, event in enumerate(self._events):
                await turn()
                if self._error is not None and position == self._fail_at:
                    raise self._error
                yield event
        finally:
            self.held -= 1
            await turn()

    async def aclose(self) -> None:
        """Count."""
        self.shut += 1


class LayerCase(msgspec.Struct, frozen=True, kw_only=True):
    """
    A layer to put to the laws.

    Attributes:
        make: Puts a new layer around a provider; give it a `FakeClock(auto=True)` if it waits.
        request: What is asked.
        probes: What the layer holds now: permits, reservations; as before after every exit.
        settled: How many calls are settled (written, paid) so far; one more at `Completed`.
        untouched: Whether model events pass as they are (the answer of `Completed` may be changed).
    """

    make: LayerFactory
    request: ChatRequest = _REQUEST
    probes: Probes = {}
    settled: Callable[[], int] | None = None
    untouched: bool = True


LayerLaw: TypeAlias = Callable[[LayerCase], Coroutine[Any, Any, None]]


async def layer_contract(case: LayerCase) -> None:
    """
    Put a layer to every law.

    Args:
        case: The layer.

    Raises:
        AssertionError: If a law is broken; the message says which and how.
    """
    for law in LAYER_LAWS:
        # Each in a task of its own: what one leaks into its context does not blind the next.
        await asyncio.ensure_future(law(case))


async def leaving_early_closes_inner(case: LayerCase) -> None:
    """Law 1: who stops after any event, or raises there, has the inner stream closed at once."""
    for place in range(len(_EVENTS)):
        with _balance(case, Witness(), f"left after event {place}") as layer:
            await _read(layer, case, leave_after=place)
        what = f"an error of the reader after event {place}"
        with _balance(case, Witness(), what) as layer, suppress(_ReaderError):
            await _read(layer, case, leave_after=place, error=_ReaderError())


async def an_error_closes_inner(case: LayerCase) -> None:
    """Law 1: an inner error comes out as a `LoomError`, and nothing is held when it does."""
    for place in range(len(_EVENTS)):
        witness = Witness(error=_failure(), fail_at=place)
        with _balance(case, witness, f"an inner error at event {place}") as layer:
            try:
                await _read(layer, case)
            except LoomError:
                continue
            # Before the first model event a layer may have found the answer elsewhere.
            _must(not _begun(place), f"an inner error at event {place} was swallowed")


async def a_cancellation_closes_inner(case: LayerCase) -> None:
    """Laws 1 and 5: a cancellation at any suspension, and a second one, leave nothing held."""
    witness = Witness()
    probes = {"inner streams": lambda: witness.held, **case.probes}

    async def call() -> None:
        await _read(case.make(witness), case, pause=True)

    await cancel_everywhere(call, probes=probes)


async def nothing_is_sent_again_once_begun(case: LayerCase) -> None:
    """Law 2: after a model event was handed on, the inner provider is not asked again."""
    for place in range(len(_EVENTS)):
        if not _begun(place):
            continue
        witness = Witness(error=_failure(), fail_at=place)
        with suppress(LoomError):
            await _read(case.make(witness), case)
        _must(witness.calls == 1, f"asked {witness.calls} times, though event {place} was out")


async def no_context_leaks(case: LayerCase) -> None:
    """Law 3: the reader's context variables are the same after each event."""
    async with aclosing(case.make(Witness()).stream(case.request)) as events:
        before = dict(copy_context().items())
        async for event in events:
            after = dict(copy_context().items())
            changed = [name for name in after if after[name] is not before.get(name)]
            _must(before.keys() == after.keys() and not changed, f"{event!r} changed the context")


async def no_time_limit_leaks(case: LayerCase) -> None:
    """Law 3: a reader that takes a day over an event is not cancelled by the layer's limit."""
    for place in range(len(_EVENTS)):
        reader = asyncio.ensure_future(_read(case.make(Witness()), case, dawdle_at=place))
        await asyncio.wait([reader])
        _must(not reader.cancelled(), f"a time limit ran on while the reader had event {place}")
        reader.result()


async def events_pass_in_order(case: LayerCase) -> None:
    """Law 4: model events come once, in order, and as they were; the last is `Completed`."""
    events = await _read(case.make(Witness()), case)
    _must(bool(events) and type(events[-1]) is Completed, "the last event is not Completed")
    model_events = [event for event in events if _is_answer(event)]
    if case.untouched:
        expected = [event for event in _EVENTS if _is_answer(event)]
        _must(expected == model_events, f"{expected} became {model_events}")


async def completed_comes_last_and_settled(case: LayerCase) -> None:
    """Law 6: what must be written is written when `Completed` comes, and nothing follows it."""
    before = case.settled() if case.settled is not None else 0
    async with aclosing(case.make(Witness()).stream(case.request)) as events:
        completed = False
        async for event in events:
            _must(not completed, f"{event!r} came after Completed")
            completed = type(event) is Completed
            if completed and case.settled is not None:
                _must(
                    case.settled() == before + 1,
                    "Completed was handed on before everything was settled",
                )
    _must(completed, "the stream ended without Completed")


async def chat_and_closing_reach_inner(case: LayerCase) -> None:
    """A layer answers `chat`, has its inner provider's name and model, and closes it."""
    witness = Witness()
    layer = case.make(witness)
    answer = await layer.chat(case.request)
    _must(answer.content == _RESPONSE.content, f"chat gave {answer.content!r}")
    _must((layer.name, layer.model) == (witness.name, witness.model), "another name or model")
    await layer.aclose()
    await layer.aclose()
    _must(witness.shut > 0, "aclose did not reach the inner provider")


LAYER_LAWS: tuple[LayerLaw, ...] = (
    leaving_early_closes_inner,
    an_error_closes_inner,
    a_cancellation_closes_inner,
    nothing_is_sent_again_once_begun,
    no_context_leaks,
    no_time_limit_leaks,
    events_pass_in_order,
    completed_comes_last_and_settled,
    chat_and_closing_reach_inner,
)
"""Every law, for `pytest.mark.parametrize`."""


class _ReaderError(Exception):
    pass


async def _read(
    layer: LLMProvider,
    case: LayerCase,
    *,
    leave_after: int | None = None,
    error: Exception | None = None,
    dawdle_at: int | None = None,
    pause: bool = False,
) -> list[StreamEvent]:
    seen: list[StreamEvent] = []
    async with aclosing(layer.stream(case.request)) as events:
        async for event in events:
            if pause:
                await turn()
            if len(seen) == dawdle_at:
                with _a_day_later():
                    await turn(5)
            if len(seen) == leave_after:
                if error is not None:
                    raise error
                break
            seen.append(event)
    return seen


@contextmanager
def _balance(case: LayerCase, witness: Witness, what: str) -> Generator[LLMProvider, None, None]:
    before = {name: probe() for name, probe in case.probes.items()}
    with abandoned_generators() as abandoned:
        yield case.make(witness)
    # At once: not after a turn of the loop, and not when the collector comes.
    _must(witness.held == 0 and not abandoned, f"the inner stream is open after {what}")
    for name, probe in case.probes.items():
        _must(
            probe() == before[name], f"{name}: {probe()} held after {what}, {before[name]} before"
        )


@contextmanager
def _a_day_later() -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    real = loop.time
    loop.time = lambda: real() + _A_DAY_S  # type: ignore[method-assign]  # timers look here
    try:
        yield
    finally:
        loop.time = real  # type: ignore[method-assign]  # and back


def _failure() -> LoomError:
    return ServiceUnavailable("the witness fails", http_status=503)


def _begun(place: int) -> bool:
    return any(isinstance(event, get_args(ModelEvent)) for event in _EVENTS[:place])


def _is_answer(event: StreamEvent) -> bool:
    return isinstance(event, get_args(ModelEvent)) and type(event) is not Completed


def _must(kept: bool, broken: str) -> None:  # noqa: FBT001  # reads like the assert it stands for
    if not kept:
        raise AssertionError(broken)

"""The laws let sound layers pass and catch a layer that breaks one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import ContextVar

import pytest

from loom.core.errors import VendorError
from loom.core.events import Completed, Retried, Sending, StreamEvent, TextDelta
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.testing import LAYER_LAWS, FakeClock, LayerCase, LayerLaw, layer_contract, turn

Events = AsyncGenerator[StreamEvent, None]


class Passing(Layer):
    """Hands everything on."""

    async def stream(self, request: ChatRequest) -> Events:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event


class Again(Layer):
    """Tries again after an error, up to three times, and as long as nothing was handed on."""

    once_begun = False

    async def stream(self, request: ChatRequest) -> Events:
        clock = FakeClock(auto=True)
        for attempt in (1, 2, 3):
            begun = False
            failure: VendorError | None = None
            try:
                async with aclosing(self.inner.stream(request)) as events:
                    async for event in events:
                        begun = begun or not isinstance(event, Sending)
                        yield event
            except VendorError as error:
                if attempt == 3 or (begun and not self.once_begun):
                    raise
                failure = error
            if failure is None:
                return
            yield Retried(attempt, 1.0, failure)
            await clock.sleep(1.0)


class Permits(Layer):
    """Takes a permit for each stream."""

    held = 0

    async def stream(self, request: ChatRequest) -> Events:
        Permits.held += 1
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            Permits.held -= 1


class AwaitsFirst(Permits):
    """Awaits before it gives the permit back."""

    async def stream(self, request: ChatRequest) -> Events:
        Permits.held += 1
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            await turn()
            Permits.held -= 1


class NotClosing(Layer):
    """Leaves the inner stream to the garbage collector."""

    async def stream(self, request: ChatRequest) -> Events:
        async for event in self.inner.stream(request):
            yield event


class Swallowing(Layer):
    """Ends quietly when the inner stream fails."""

    async def stream(self, request: ChatRequest) -> Events:
        async with aclosing(self.inner.stream(request)) as events:
            try:
                async for event in events:
                    yield event
            except VendorError:
                return


class AgainOnceBegun(Again):
    """Tries again though text was handed on."""

    once_begun = True


SPAN: ContextVar[str] = ContextVar("SPAN", default="none")


class Spanning(Layer):
    """Keeps a context variable set across its yields."""

    async def stream(self, request: ChatRequest) -> Events:
        SPAN.set("inside")
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event


class Limiting(Layer):
    """Keeps a time limit set across its yields."""

    async def stream(self, request: ChatRequest) -> Events:
        async with asyncio.timeout(600), aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event


class Doubling(Layer):
    """Hands text on twice."""

    async def stream(self, request: ChatRequest) -> Events:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield event
                yield event


class Trailing(Layer):
    """Says something after the end."""

    async def stream(self, request: ChatRequest) -> Events:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event
        yield TextDelta("more")


class SettlingLate(Layer):
    """Writes its row after `Completed` was handed on."""

    rows: list[str] = []  # noqa: RUF012  # the test looks here

    async def stream(self, request: ChatRequest) -> Events:
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event
                if isinstance(event, Completed):
                    self.rows.append(event.response.id)


class Unclosable(Layer):
    """Does not hand `aclose` on."""

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("law", LAYER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", [Passing, Again, Permits, Layer])
@pytest.mark.anyio
async def test_a_sound_layer_keeps_every_law(
    law: LayerLaw, make: Callable[[LLMProvider], LLMProvider]
) -> None:
    """Layers that are written by the laws pass."""
    await law(LayerCase(make=make, probes={"permits": lambda: Permits.held}))


@pytest.mark.parametrize(
    ("make", "law", "message"),
    [
        (NotClosing, "leaving_early_closes_inner", "inner stream is open after left after event"),
        (NotClosing, "a_cancellation_closes_inner", "half-read"),
        (Swallowing, "an_error_closes_inner", "was swallowed"),
        (AwaitsFirst, "a_cancellation_closes_inner", "permits: 1 held"),
        (AgainOnceBegun, "nothing_is_sent_again_once_begun", "asked 3 times"),
        (Spanning, "no_context_leaks", "changed the context"),
        (Limiting, "no_time_limit_leaks", "a time limit ran on"),
        (Doubling, "events_pass_in_order", "became"),
        (Trailing, "completed_comes_last_and_settled", "came after Completed"),
        (SettlingLate, "completed_comes_last_and_settled", "before everything was settled"),
        (Unclosable, "chat_and_closing_reach_inner", "aclose did not reach"),
    ],
)
@pytest.mark.anyio
async def test_a_broken_law_is_found(
    make: Callable[[LLMProvider], LLMProvider], law: str, message: str
) -> None:
    """Each law catches the layer that breaks it, and the contract does as a whole."""
    held = Permits.held
    SettlingLate.rows.clear()
    case = LayerCase(
        make=make,
        probes={"permits": lambda: Permits.held - held},
        settled=(lambda: len(SettlingLate.rows)) if make is SettlingLate else None,
    )
    [found] = [one for one in LAYER_LAWS if getattr(one, "__name__", "") == law]

    with pytest.raises(AssertionError, match=message):
        await asyncio.ensure_future(found(case))  # whose context is its own
    Permits.held = held
    with pytest.raises(AssertionError):
        await layer_contract(case)
    Permits.held = held


@pytest.mark.anyio
async def test_a_layer_may_change_what_it_is_there_to_change() -> None:
    """With `untouched=False`, the content of the events is the layer's own affair."""
    await layer_contract(LayerCase(make=Doubling, untouched=False))

"""
Keeps requests within the model's window: counts, refuses, or leaves out the oldest turns.

A window holds the prompt and the answer together. What is surely small enough is not counted:
a token is at least one byte of text, so a short request costs a few additions and no wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import date
from typing import Any, TypeAlias

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.errors import ContextTooLong
from loom.core.events import Completed, StreamEvent
from loom.core.messages import Message
from loom.core.model import ModelCard
from loom.core.plan import TokenCount
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest, Fit
from loom.core.response import LLMResponse
from loom.layers.bounds import fewest_tokens, most_tokens
from loom.layers.slide import last_turn, slide
from loom.wire.dialect import Dialect
from loom.wire.encoded import EncodedRequest

__all__ = ["Counter", "Fitted", "Fitting", "Window"]

Counter: TypeAlias = Callable[[Mapping[str, Any], ModelCard | None], TokenCount]
"""Counts the prompt of a body as it goes out, for example `catalog.tokens.count_prompt`."""

_decode = msgspec.json.Decoder().decode


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request that may be sent, and what was found out about it.

    Attributes:
        request: What to send; with fewer messages when some were left out.
        encoded: As it goes out.
        count: The tokens of its prompt.
        left_out: Says what was left out; None when nothing was.
    """

    request: ChatRequest
    encoded: EncodedRequest
    count: TokenCount
    left_out: str | None = None

    @property
    def repairs(self) -> tuple[str, ...]:
        """What was changed, one sentence each."""
        return _repairs(self.left_out, self.encoded.repairs)


class Window:
    """
    Counts requests, and makes them fit. Slow: call it in a thread, not on an event loop.

    Args:
        dialect: Writes a request as it goes out.
        count: Counts the prompt of a body.
    """

    def __init__(self, dialect: Dialect, count: Counter) -> None:
        self._dialect = dialect
        self._count = count

    def measure(self, request: ChatRequest, card: ModelCard | None) -> Fitted:
        """
        Count a request as it is.

        Args:
            request: What is asked.
            card: Its model; None when unknown.

        Returns:
            The request with its count.

        Raises:
            InvalidRequest: If it cannot be written.
        """
        encoded = self._dialect.encode_request(request)
        count = self._count(_decode(encoded.body), card)
        return Fitted(request=request, encoded=encoded, count=count)

    def fit(self, request: ChatRequest, card: ModelCard | None, fit: Fit) -> Fitted:
        """
        Count a request, and make it fit if that is wanted.

        An estimated count refuses nothing that may fit: only when the words of the text alone are
        too many, for a token never holds two words. With "slide" it is taken as it is.

        Args:
            request: What is asked.
            card: Its model; with None, or without a window in it, everything fits.
            fit: What to do with a request that does not fit.

        Returns:
            The request, or a shorter one, with its count.

        Raises:
            ContextTooLong: If it does not fit, or not even its last turn does.
            InvalidRequest: If it cannot be written.
        """
        fitted = self.measure(request, card)
        window = None if card is None else card.context_window
        if window is None or _is_within(fitted, window):
            return fitted
        if fit == "slide":
            fitted = self._shortened(fitted, card, window)
        if not _is_within(fitted, window) and (
            not fitted.count.estimated or fewest_tokens(fitted.request) > _room(request, window)
        ):
            error = _too_long(fitted, window)
            if fit == "error":
                error.hint += ' With fit="slide" the oldest turns are left out instead.'
            raise error
        return fitted

    def _shortened(self, whole: Fitted, card: ModelCard | None, window: int) -> Fitted:
        messages = whole.request.messages

        def shorter(kept: tuple[Message, ...]) -> Fitted:
            return self.measure(msgspec.structs.replace(whole.request, messages=kept), card)

        kept = slide(messages, lambda kept: _is_within(shorter(kept), window))
        if not kept:
            kept = last_turn(messages)
        if len(kept) == len(messages):
            return whole
        text = (
            f"left out the oldest turns, {len(messages) - len(kept)} of {len(messages)} messages,"
            f" to fit the window of {window} tokens"
        )
        return msgspec.structs.replace(shorter(kept), left_out=text)


class Fitting(Layer):
    """
    Sends nothing that is beyond the model's window.

    A model whose window is not known is not checked.

    Args:
        inner: The provider that answers.
        window: Counts, and makes fit.
        catalog: Knows the windows.
        clock: Tells the day.
        as_of: Another day whose windows hold; None: the day of the call, UTC.
        fit: What happens to a request that does not say it itself: "error" raises
            `ContextTooLong`, "slide" leaves out the oldest turns.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        window: Window,
        catalog: Catalog,
        clock: Clock,
        as_of: date | None = None,
        fit: Fit = "error",
    ) -> None:
        super().__init__(inner)
        self._window = window
        self._catalog = catalog
        self._clock = clock
        self._as_of = as_of
        self._fit: Fit = fit
        self._smallest_window = catalog.smallest_window(inner.name)

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass on what surely fits; count the rest first.

        Args:
            request: What is asked.

        Returns:
            The inner provider's events; with `Completed` goes what was left out, in
            `metadata["repairs"]`.

        Raises:
            ContextTooLong: When the events are read: nothing was sent.
        """
        if request.kind != "chat":
            # The templates that are counted by are those of chats, and a text that is to become
            # a vector has a window for itself.
            return self.inner.stream(request)
        most = most_tokens(request)
        if most <= _room(request, self._smallest_window):
            # The inner stream itself: no event passes through this layer.
            return self.inner.stream(request)
        on = self._as_of or self._clock.now().date()
        card = self._catalog.find(request.model, on, self.name)
        if (
            card is None
            or card.context_window is None
            or most <= _room(request, card.context_window)
        ):
            return self.inner.stream(request)
        return self._fitted(request, card)

    async def _fitted(
        self, request: ChatRequest, card: ModelCard
    ) -> AsyncGenerator[StreamEvent, None]:
        from asyncio import to_thread  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        try:
            fitted = await to_thread(self._window.fit, request, card, request.fit or self._fit)
        except ContextTooLong as error:
            error.provider = self.name
            raise
        async with aclosing(self.inner.stream(fitted.request)) as events:
            async for event in events:
                if fitted.left_out is not None and type(event) is Completed:
                    yield Completed(_told(event.response, fitted.left_out))
                else:
                    yield event


def _room(request: ChatRequest, window: int) -> int:
    return window - (request.sampling.max_tokens or 0)


def _is_within(fitted: Fitted, window: int) -> bool:
    return fitted.count.tokens <= _room(fitted.request, window)


def _too_long(fitted: Fitted, window: int) -> ContextTooLong:
    request, tokens = fitted.request, fitted.count.tokens
    about = "about " if fitted.count.estimated else ""
    asked = request.sampling.max_tokens
    answer = "" if asked is None else f" and the answer may have {asked} (max_tokens)"
    whose = "" if fitted.left_out is None else " with the last turn alone"
    error = ContextTooLong(
        f"the prompt has {about}{tokens} tokens{whose}{answer}; the window of {request.model!r}"
        f" is {window} tokens",
        model=request.model,
        attempts=0,
    )
    error.tokens, error.limit = tokens, window
    return error


def _told(response: LLMResponse, left_out: str) -> LLMResponse:
    repairs = _repairs(left_out, response.metadata.get("repairs", ()))
    return msgspec.structs.replace(response, metadata={**response.metadata, "repairs": repairs})


def _repairs(left_out: str | None, others: tuple[str, ...]) -> tuple[str, ...]:
    if left_out is None:
        return others
    return (f"{left_out}; what follows counts without them" if others else left_out, *others)

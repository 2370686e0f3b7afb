"""
One provider made of several routes: the next one is asked when one fails.

A route is left before any of its answer was handed on. With `rescue` it is left in the middle
too; then `Restarted` says that the answer begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import LoomError
from loom.core.events import NOTICES, Completed, Rerouted, Restarted, Sending, StreamEvent
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.core.timeline import Attempt, Timeline

__all__ = ["Branch", "FallingBack"]

_log = logging.getLogger("loom.fallback")
# What another model does not help against, as long as the key is the same.
_OF_THE_KEY = frozenset({"invalid_api_key", "insufficient_credits"})


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """
    One of the routes.

    Attributes:
        provider: Who answers there.
        model: The model that is asked there; None: the model of the call.
        scope: Gives origin and key fingerprint; None: unlike every other.
        owned: Whether it is closed with the others.
    """

    provider: LLMProvider
    model: str | None = None
    scope: Callable[[], tuple[str, str]] | None = None
    owned: bool = True


class FallingBack(LLMProvider):
    """
    Asks the first route, and the next when it fails.

    Args:
        branches: The routes, the first one first; at least one.
        clock: Tells the time.
        first_token_s: Seconds after which a route that has sent no token is left; None: never.
        rescue: Whether a route is left in the middle of its answer too.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        *,
        clock: Clock,
        first_token_s: float | None = None,
        rescue: bool = False,
    ) -> None:
        self._branches = tuple(branches)
        self._clock = clock
        self._first_token_s = first_token_s
        self._rescue = rescue

    @property
    def name(self) -> str:
        """The first route's name."""
        return self._branches[0].provider.name

    @property
    def model(self) -> str:
        """The first route's model."""
        return self._branches[0].provider.model

    async def aclose(self) -> None:
        """Close every route that is ours to close."""
        for branch in self._branches:
            if branch.owned:
                await branch.provider.aclose()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass on the events of the route that answers, and a notice before each further one.

        Args:
            request: What is asked.

        Yields:
            The routes' events; of a plain call's answer only `Completed`.

        Raises:
            LoomError: How the first route failed, with the attempts on all routes in its
                timeline and the other routes' errors in its notes.
        """
        request = request.begun(self._clock.monotonic_s())
        story = _Story()
        left = self._serving(request)
        while left:
            branch = left.pop(0)
            failed: LoomError | None = None
            asked = self._asked(request, branch, last=not left)
            story.answered = False
            try:
                events = branch.provider.stream(asked)
                try:
                    async for event in events:
                        kind = type(event)
                        if kind is Completed:
                            yield story.completed(event)  # type: ignore[arg-type] # `kind` says so
                            return
                        if kind is Sending:
                            yield story.sending(event)  # type: ignore[arg-type] # the same
                        elif kind in NOTICES:
                            yield event
                        elif request.stream:  # a plain answer is `Completed` alone
                            story.answered = True
                            yield event
                finally:
                    await events.aclose()
            except LoomError as error:
                failed = error
            if failed is None:
                return
            story.add(failed, branch, asked)
            left = self._left(failed, branch, left, story)
            if left:
                yield story.notice(failed, left[0], request)
        try:
            raise story.told()
        finally:
            failed = story = None  # type: ignore[assignment] # frame and error form a ring

    def _serving(self, request: ChatRequest) -> list[Branch]:
        """The routes that may answer: all for a chat, the client's own model for the rest."""
        first, *others = self._branches
        if request.kind == "chat":
            return [first, *others]
        # Vectors of two models cannot be compared, and hardly a chat's model fills a gap.
        alike = [one for one in others if one.model is None and one.provider.name == self.name]
        return [first, *alike]

    def _asked(self, request: ChatRequest, branch: Branch, *, last: bool) -> ChatRequest:
        """The request as a route gets it."""
        changes: dict[str, object] = {}
        if branch.model is not None:
            changes["model"] = branch.model
        first_s = self._first_token_s
        if not last and first_s is not None and request.kind != "embeddings":
            first_s = min(first_s, request.timeouts.first_token_s or first_s)
            if request.deadline_s is not None:
                # A silent route must leave time for the next one.
                left_s = request.deadline_s - self._clock.monotonic_s()
                first_s = max(0.0, min(first_s, left_s / 2))
            changes["timeouts"] = msgspec.structs.replace(request.timeouts, first_token_s=first_s)
            # Only a stream shows whether an answer is on its way: a plain one comes at its end.
            changes["stream"] = True
        return msgspec.structs.replace(request, **changes) if changes else request

    def _left(
        self, error: LoomError, branch: Branch, left: list[Branch], story: _Story
    ) -> list[Branch]:
        """The routes that may do better."""
        if not error.may_fall_back or (story.answered and not self._rescue):
            return []
        if error.code in _OF_THE_KEY and branch.scope is not None:
            here = branch.scope()
            return [other for other in left if other.scope is None or other.scope() != here]
        return left


class _Story:
    """What happened on the routes so far."""

    __slots__ = ("_errors", "_past", "_routes", "answered", "sends")

    def __init__(self) -> None:
        self.answered = False
        self.sends = 0
        self._errors: list[LoomError] = []
        self._routes: list[str] = []
        self._past: tuple[Attempt, ...] = ()

    def sending(self, event: Sending) -> Sending:
        """Count an attempt from the first route on."""
        return Sending(self.sends + event.attempt)

    def add(self, error: LoomError, branch: Branch, asked: ChatRequest) -> None:
        """Take note of a route that failed."""
        self.sends += error.attempts
        self._errors.append(error)
        self._routes.append(f"{branch.provider.name}:{asked.model}")
        if error.timeline is not None:
            self._past += error.timeline.attempts

    def notice(self, error: LoomError, branch: Branch, request: ChatRequest) -> StreamEvent:
        """Say that another route is asked now."""
        name, model = branch.provider.name, branch.model or request.model
        _log.warning("Falling back to %s:%s: %s", name, model, error.message)
        if self.answered:
            return Restarted(error.message, name, model, error)
        return Rerouted(error, name, model)

    def told(self) -> LoomError:
        """Give the first route's error: those of the others do not hide it."""
        first, *others = self._errors
        first.attempts = self.sends
        if first.timeline is not None:
            first.timeline = Timeline(began_s=first.timeline.began_s, attempts=self._past)
        for route, error in zip(self._routes[1:], others, strict=True):
            first.add_note(f"fallback {route}: {error.message}")
        return first

    def completed(self, event: Completed) -> Completed:
        """Give the answer, with what happened before it."""
        if not self._errors:
            return event
        response: LLMResponse = event.response
        timeline = response.timeline
        failed = tuple(
            {"route": route, "code": error.code}
            for route, error in zip(self._routes, self._errors, strict=True)
        )
        return Completed(
            msgspec.structs.replace(
                response,
                attempts=self.sends + response.attempts,
                timeline=None if timeline is None else timeline.after(self._past),
                metadata={**response.metadata, "failed_routes": failed},
            )
        )

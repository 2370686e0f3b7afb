"""
What can be seen of a call from outside: a span, metrics, two lines in the log. Never what was said.

The outermost layer, so that it sees the whole call: every attempt and route, and the price. When
nobody looks it is not there: the inner stream is handed on as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid, LoomError
from loom.core.events import Completed, Sending, StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.layers.trace_log import Lines

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from loom.layers.trace_otel import Instruments, Recorder

__all__ = ["Telemetry", "Tracing", "ending"]

# What nobody raises: the stream ended without its answer, and whoever folds it says so.
_TRUNCATED = "stream_truncated"


class Telemetry:
    """
    Traces and metrics of calls, by the OpenTelemetry GenAI conventions.

    Needs the extra `otel`. One serves any number of clients.

    Args:
        tracer_provider: Makes the spans; None: the global one, whenever it is set.
        meter_provider: Makes the metrics; None: the global one, whenever it is set.
        content: Whether spans hold what was said: prompts, answers, instructions, tools. Metrics
            and log never do.

    Raises:
        ConfigInvalid: If OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        content: bool = False,
    ) -> None:
        self.content = content
        self.instruments = _instruments(tracer_provider, meter_provider)

    def __repr__(self) -> str:
        """Whether it records what was said."""
        return f"Telemetry(content={self.content!r})"


def _instruments(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> Instruments:
    try:
        from loom.layers.trace_otel import Instruments  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            "Telemetry needs OpenTelemetry, which is not installed: pip install 'looms[otel]'"
        ) from error
    return Instruments(tracer_provider, meter_provider)


class Tracing(Layer):
    """
    Records each call: in a span and metrics if there is a `Telemetry`, and in the log.

    Args:
        inner: The provider that answers.
        clock: Tells the time.
        telemetry: Where spans and metrics go; None: nowhere.
        old_metrics: Whether the token histogram of older conventions gets its points too.
        title: The provider's name in the log, as people write it; empty: its name.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        clock: Clock,
        telemetry: Telemetry | None = None,
        old_metrics: bool = True,
        title: str = "",
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._telemetry = telemetry
        self._old_metrics = old_metrics
        self._lines = Lines(inner.name, title)

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass every event on; with nobody to look, it is the inner stream itself.

        Args:
            request: What is asked.

        Returns:
            The inner provider's events.
        """
        # Asked for each call: a log may be turned up while a program runs.
        if self._telemetry is None and not self._lines.wanted:
            return self.inner.stream(request)
        return self._watched(request)

    async def _watched(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        request = request.begun(self._clock.monotonic_s())
        call = self._begun(request)
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    if type(event) is Completed:
                        # Law 6: it is all told before the answer is handed on.
                        call.answered(event.response)
                    else:
                        call.saw(event)
                    yield event
        except LoomError as error:
            call.failed(error)
            raise
        except BaseException as error:
            call.ended(ending(error))
            raise
        finally:
            call.ended(_TRUNCATED)

    def _begun(self, request: ChatRequest) -> _Call:
        now_s = self._clock.monotonic_s()
        recorder: Recorder | None = None
        if self._telemetry is not None:
            from loom.layers.trace_otel import Recorder  # noqa: PLC0415 - an extra

            recorder = Recorder(
                self._telemetry.instruments,
                self.name,
                request,
                now_s=now_s,
                content=self._telemetry.content,
                old_metrics=self._old_metrics,
            )
        return _Call(request, self._clock, now_s, self._lines, recorder)


class _Call:
    """One call on its way; it ends once, whatever is told after that."""

    __slots__ = ("_attempts", "_began_s", "_clock", "_lines", "_open", "_recorder", "_request")

    def __init__(
        self,
        request: ChatRequest,
        clock: Clock,
        began_s: float,
        lines: Lines,
        recorder: Recorder | None,
    ) -> None:
        self._request = request
        self._clock = clock
        self._began_s = began_s
        self._lines = lines
        self._recorder = recorder
        self._attempts = 0
        self._open = True
        lines.asked(request)

    def saw(self, event: StreamEvent) -> None:
        """Take note of an event before the last one."""
        if type(event) is Sending:
            self._attempts = event.attempt
        if self._recorder is not None:
            self._recorder.saw(event, self._clock.monotonic_s())

    def answered(self, response: LLMResponse) -> None:
        """End with an answer."""
        now_s = self._close()
        if self._recorder is not None:
            self._recorder.answered(response, now_s)
        self._lines.answered(response, now_s - self._began_s)

    def failed(self, error: LoomError) -> None:
        """End with an error, unless it is over: a reader's own error may come this way."""
        if not self._open:
            return
        now_s = self._close()
        if self._recorder is not None:
            self._recorder.failed(error, now_s)
        self._lines.failed(error, self._request, now_s - self._began_s)

    def ended(self, code: str) -> None:
        """End without an answer and without an error of ours, unless it is over."""
        if not self._open:
            return
        now_s = self._close()
        if self._recorder is not None:
            self._recorder.ended(code, now_s, attempts=self._attempts)
        latency_s = now_s - self._began_s
        self._lines.ended(code, self._request, latency_s, attempts=self._attempts)

    def _close(self) -> float:
        self._open = False
        return self._clock.monotonic_s()


def ending(error: BaseException) -> str:
    """
    What a call came to that neither answered nor failed by itself.

    Args:
        error: What left it.

    Returns:
        `abandoned`, `cancelled`, or the name of a foreign error's class.
    """
    from asyncio import CancelledError  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

    if isinstance(error, GeneratorExit):
        return "abandoned"
    return "cancelled" if isinstance(error, CancelledError) else type(error).__qualname__

"""
Spans and metrics of calls: the only file that needs OpenTelemetry, imported when one is asked for.

Law 3 of a layer holds here too: a span is started and ended, and never made the current one, for
the reader of a stream would run inside it.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md,
gen-ai-metrics.md and gen-ai-token-metrics.md, read 2026-11-26 (names, units, buckets, what a
failed call counts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from loom.core.errors import LoomError
from loom.core.events import NOTICES, Restarted, Sending, StreamEvent
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, Usage
from loom.core.version import VERSION
from loom.layers.trace_content import answer_content, request_content
from loom.layers.trace_names import (
    answer_attributes,
    error_attributes,
    input_modality,
    metric_attributes,
    notice_attributes,
    output_modality,
    request_attributes,
)

__all__ = ["Instruments", "Recorder"]

# "[0.01, 0.02, 0.04, ...]" and "[1, 4, 16, 64, ...]" of the conventions.
_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]


class Instruments:
    """
    What calls are recorded with: one tracer, and one of each metric.

    Args:
        tracer_provider: Makes the tracer; None: the global one, whenever it is set.
        meter_provider: Makes the metrics; None: the global one, whenever it is set.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self.tracer = trace.get_tracer("loom", VERSION, tracer_provider)
        meter = metrics.get_meter("loom", VERSION, meter_provider)

        def seconds(name: str, says: str) -> metrics.Histogram:
            return meter.create_histogram(
                f"gen_ai.client.operation.{name}",
                unit="s",
                description=says,
                explicit_bucket_boundaries_advisory=_SECONDS,
            )

        def spread(name: str, says: str) -> metrics.Histogram:
            return meter.create_histogram(
                f"gen_ai.client.{name}",
                unit="{token}",
                description=says,
                explicit_bucket_boundaries_advisory=_TOKENS,
            )

        def total(name: str, says: str) -> metrics.Counter:
            return meter.create_counter(
                f"gen_ai.client.inference.usage.{name}", unit="{token}", description=says
            )

        self.duration = seconds("duration", "GenAI operation duration.")
        self.first_chunk = seconds("time_to_first_chunk", "Time to receive the first chunk.")
        self.each_chunk = seconds("time_per_output_chunk", "Time per output chunk.")

        def work(name: str, says: str) -> metrics.Histogram:
            return meter.create_histogram(
                f"gen_ai.{name}.duration",
                unit="s",
                description=says,
                explicit_bucket_boundaries_advisory=_SECONDS,
            )

        self.agent_duration = work("invoke_agent", "Duration of a turn of an agent.")
        self.tool_duration = work("execute_tool", "Duration of a tool's execution.")
        self.input = total("input_tokens", "Input tokens used, cached ones included.")
        self.output = total("output_tokens", "Output tokens used, thinking included.")
        self.cached = total("cache_read.input_tokens", "Input tokens read from a cache.")
        self.input_spread = spread(
            "inference.operation.input_tokens", "Input tokens used per inference operation."
        )
        self.output_spread = spread(
            "inference.operation.output_tokens", "Output tokens used per inference operation."
        )
        self.old_spread = spread("token.usage", "Number of input and output tokens used.")


class Recorder:
    """
    One call: its span, and its points.

    Args:
        instruments: What it is recorded with.
        provider: Our name of who is asked.
        request: What is asked.
        now_s: When it begins, in seconds of the clock's monotonic time.
        content: Whether the span gets what was said.
        old_metrics: Whether the token histogram of older conventions gets a point too.
    """

    def __init__(
        self,
        instruments: Instruments,
        provider: str,
        request: ChatRequest,
        *,
        now_s: float,
        content: bool,
        old_metrics: bool,
    ) -> None:
        self._instruments = instruments
        self._request = request
        self._old_metrics = old_metrics
        self._began_s = self._sent_s = now_s
        self._first_s: float | None = None
        self._last_s = now_s
        self._known = request_attributes(provider, request)
        self._split_by = metric_attributes(self._known)
        # The parent is the span that is current now: when the first event is asked for.
        # An agent names its own turn's, which is never the current one.
        self._span = instruments.tracer.start_span(
            f"{self._known['gen_ai.operation.name']} {request.model}",
            context=request.trace_parent,
            kind=SpanKind.CLIENT,
            attributes=self._known,
        )
        self._content = content and self._span.is_recording()
        if self._content:
            self._span.set_attributes(request_content(request))

    def saw(self, event: StreamEvent, now_s: float) -> None:
        """
        Take note of an event before the last one.

        Args:
            event: What happened.
            now_s: Seconds of the clock's monotonic time.
        """
        kind = type(event)
        if kind in NOTICES:
            self._noticed(event, now_s)
        elif self._first_s is None:
            self._first_s = self._last_s = now_s
        else:
            self._instruments.each_chunk.record(now_s - self._last_s, self._split_by)
            self._last_s = now_s

    def _noticed(self, event: Any, now_s: float) -> None:
        if type(event) is Sending:
            self._sent_s = now_s
            return
        if type(event) is Restarted:
            self._first_s = None
        self._span.add_event(*notice_attributes(event))

    def answered(self, response: LLMResponse, now_s: float) -> None:
        """
        End with an answer.

        Args:
            response: The answer, priced.
            now_s: Seconds of the clock's monotonic time.
        """
        found = answer_attributes(response)
        if self._request.stream and self._first_s is not None:
            found["gen_ai.response.time_to_first_chunk"] = self._first_s - self._sent_s
        if self._content:
            found.update(answer_content(response))
        self._span.set_attributes(found)
        split_by = self._ended(found, now_s)
        usage = None if response.usage.estimated else response.usage
        self._count(usage, split_by, output_modality(response))
        if usage is not None:
            self._spread(usage, split_by)

    def failed(self, error: LoomError, now_s: float) -> None:
        """
        End with an error; its message is not recorded.

        Args:
            error: How the call failed.
            now_s: Seconds of the clock's monotonic time.
        """
        partial = error.partial
        found = error_attributes(error, begun=self._first_s is not None)
        self._broken_off(found, None if partial is None else partial.usage, now_s)

    def ended(self, code: str, now_s: float, *, attempts: int) -> None:
        """
        End without an answer and without an error of ours.

        Args:
            code: `cancelled`, `abandoned`, or the class of a foreign error.
            now_s: Seconds of the clock's monotonic time.
            attempts: Requests that were begun.
        """
        self._broken_off({"error.type": code, "loom.attempts": attempts}, None, now_s)

    def _broken_off(self, found: dict[str, Any], usage: Usage | None, now_s: float) -> None:
        self._span.set_attributes(found)
        self._span.set_status(Status(StatusCode.ERROR, str(found["error.type"])))
        split_by = self._ended(found, now_s)
        self._count(usage, split_by, "unknown")

    def _ended(self, found: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        self._span.end()
        split_by = metric_attributes({**self._known, **found})
        code = found.get("error.type")
        of_duration = split_by if code is None else {**split_by, "error.type": code}
        self._instruments.duration.record(now_s - self._began_s, of_duration)
        if self._request.stream and self._first_s is not None:
            self._instruments.first_chunk.record(self._first_s - self._sent_s, split_by)
        return split_by

    def _count(self, usage: Usage | None, split_by: dict[str, Any], said: str) -> None:
        """Tokens by modality; a zero of unknown kind if the vendor reported none."""
        unknown = {**split_by, "gen_ai.token.modality": "unknown"}
        if usage is None:
            self._instruments.input.add(0, unknown)
            self._instruments.output.add(0, unknown)
            return
        asked = {**split_by, "gen_ai.token.modality": input_modality(self._request)}
        self._instruments.input.add(usage.input_tokens, asked)
        if usage.audio_tokens:
            sound = {**split_by, "gen_ai.token.modality": "audio"}
            self._instruments.input.add(usage.audio_tokens, sound)
        if usage.cached_tokens:
            self._instruments.cached.add(usage.cached_tokens, asked)
        answered = {**split_by, "gen_ai.token.modality": said}
        self._instruments.output.add(usage.output_tokens, answered)

    def _spread(self, usage: Usage, split_by: dict[str, Any]) -> None:
        prompt, answer = usage.input_tokens + usage.audio_tokens, usage.output_tokens
        self._instruments.input_spread.record(prompt, split_by)
        self._instruments.output_spread.record(answer, split_by)
        if self._old_metrics:
            spread = self._instruments.old_spread
            spread.record(prompt, {**split_by, "gen_ai.token.type": "input"})
            spread.record(answer, {**split_by, "gen_ai.token.type": "output"})

"""What OpenTelemetry was told, kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from loom.layers.trace import Telemetry


class Seen:
    """A `Telemetry` and what came of it."""

    def __init__(self, *, content: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(
            tracer_provider=self.tracers, meter_provider=self.meters, content=content
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every span that has ended."""
        return self._exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        """The only span."""
        (span,) = self.spans
        return span

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the only span."""
        return dict(self.span.attributes or {})

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Of the only span."""
        return [(event.name, dict(event.attributes or {})) for event in self.span.events]

    def metrics(self) -> dict[str, list[Any]]:
        """Each metric's points, by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def dump(self) -> str:
        """All of it as text."""
        data = self._reader.get_metrics_data()
        spans = "\n".join(span.to_json() for span in self.spans)
        return spans + ("" if data is None else data.to_json())

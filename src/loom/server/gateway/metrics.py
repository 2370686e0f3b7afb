"""
What the gateway counts, and Prometheus' text of it.

Counting is adding to numbers in dicts, because every request does it; `prometheus-client` (the
extra `server`) writes the text when somebody asks. Labels are words of ours: a model that nobody
knows is "other", and no text of a caller becomes one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

__all__ = ["ABSENT", "Answered", "Gauge", "Metrics"]

ABSENT = (
    501,
    {"content-type": "text/plain; charset=utf-8"},
    b"metrics need the package prometheus-client: pip install 'looms[server]'\n",
)
"""What is answered where the extra is missing: status, headers, body."""

# Doubling, as the GenAI conventions of OpenTelemetry have it; half as many.
_BOUNDS_S = (0.01, 0.04, 0.16, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_OTHER = "other"
# More combinations of labels than this are no longer looked at one by one.
_MOST_SERIES = 2000

_Labels: TypeAlias = tuple[str, ...]
Gauge: TypeAlias = Callable[[], Mapping[str, float]]
"""Gives numbers by the value of one label."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request that was answered.

    Attributes:
        route: The path without what a caller chose, for example "/v1/models/{id}".
        dialect: "openai" or "mistral".
        status: The HTTP status.
        model: As the caller named it; None: none was asked.
        elapsed_s: Seconds from the head of the request to the end of the answer.
        first_s: Seconds to the first piece of a stream; None: it was none.
        input_tokens: Of the answer.
        output_tokens: Of the answer.
        cost_usd: What it cost; None when unknown, or when nobody was asked.
    """

    route: str
    dialect: str
    status: int
    model: str | None = None
    elapsed_s: float = 0.0
    first_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = None


class _Histogram:
    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        total, found = 0, []
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Metrics:
    """
    Counters of one gateway. Used from one thread.

    Args:
        routes: Every route there is; another is "other".
        known: Tells whether a model is one, and so may be a label; it must not wait.
    """

    def __init__(
        self, routes: Collection[str] = (), known: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._routes = frozenset(routes)
        self._known = known
        self._models: set[str] = set()
        self._requests: dict[_Labels, int] = defaultdict(int)
        self._latency: dict[_Labels, _Histogram] = defaultdict(_Histogram)
        self._first: dict[_Labels, _Histogram] = defaultdict(_Histogram)
        self._tokens: dict[_Labels, int] = defaultdict(int)
        self._cost: dict[_Labels, Decimal] = defaultdict(Decimal)
        self._drops: dict[_Labels, int] = defaultdict(int)
        self._gauges: dict[str, tuple[str, str, Gauge]] = {}
        self._registry: CollectorRegistry | None = None

    def answered(self, facts: Answered) -> None:
        """
        Count a request.

        Args:
            facts: How it ended.
        """
        route = facts.route if facts.route in self._routes else _OTHER
        model = self._label(facts.model)
        labels = (route, facts.dialect, str(facts.status), model)
        if labels not in self._requests and len(self._requests) >= _MOST_SERIES:
            labels = (_OTHER, facts.dialect, str(facts.status), _OTHER)
            route = model = _OTHER
        self._requests[labels] += 1
        self._latency[route, model].add(facts.elapsed_s)
        if facts.first_s is not None:
            self._first[route, model].add(facts.first_s)
        if facts.input_tokens or facts.output_tokens:
            self._tokens[model, "input"] += facts.input_tokens
            self._tokens[model, "output"] += facts.output_tokens
        if facts.cost_usd is not None:
            self._cost[model,] += facts.cost_usd

    def dropped(self, reason: str) -> None:
        """
        Count what the door refused.

        Args:
            reason: A word of ours.
        """
        self._drops[reason,] += 1

    def watch(self, name: str, description: str, label: str, gauge: Gauge) -> None:
        """
        Show numbers that are asked for when somebody looks.

        Args:
            name: The metric's, without `loom_gateway_`.
            description: What it is.
            label: The label's name; empty: there is none, and the number's name is "".
            gauge: Gives the numbers. It must not wait.
        """
        self._gauges[name] = (description, label, gauge)

    def page(self, accept: str = "") -> tuple[int, Mapping[str, str], bytes]:
        """
        What `/metrics` answers.

        Args:
            accept: The header of that name: OpenMetrics for who asks for it.

        Returns:
            Status, headers and body; `ABSENT` where the package is missing.
        """
        try:
            from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - an extra
        except ImportError:
            return ABSENT
        if self._registry is None:
            self._registry = _registry(self)
        encode, kind = choose_encoder(accept)
        return 200, {"content-type": kind}, encode(self._registry)

    def collect(self) -> Iterator[Any]:
        """Give everything, as `prometheus-client` asks for it."""
        from prometheus_client.core import (  # noqa: PLC0415 - an extra
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        counters: list[tuple[str, str, _Labels, Mapping[_Labels, Any]]] = [
            ("requests", "Requests.", ("route", "dialect", "status", "model"), self._requests),
            ("tokens", "Tokens of answers.", ("model", "kind"), self._tokens),
            ("cost_usd", "Cost in US dollars.", ("model",), self._cost),
            ("refused_at_door", "What never came inside.", ("reason",), self._drops),
        ]
        for name, text, labels, values in counters:
            counter = CounterMetricFamily(f"loom_gateway_{name}", text, labels=labels)
            for key, value in values.items():
                # Prometheus knows floats only: the exact sums stand in the ledger.
                counter.add_metric(key, float(value))
            yield counter
        for name, text, series in (
            ("request_duration_seconds", "From the head to the end of the answer.", self._latency),
            ("first_chunk_seconds", "From the head to the first piece.", self._first),
        ):
            histogram = HistogramMetricFamily(
                f"loom_gateway_{name}", text, labels=("route", "model")
            )
            for key, each in series.items():
                histogram.add_metric(key, each.buckets(), each.sum_s)
            yield histogram
        for name, (text, label, gauge) in self._gauges.items():
            family = GaugeMetricFamily(
                f"loom_gateway_{name}", text, labels=(label,) if label else ()
            )
            for word, number in gauge().items():
                family.add_metric((word,) if label else (), number)
            yield family

    def _label(self, model: str | None) -> str:
        if model is None:
            return ""
        if model not in self._models:
            if not self._known(model):
                return _OTHER
            self._models.add(model)
        return model


def _registry(metrics: Metrics) -> CollectorRegistry:
    from prometheus_client import (  # noqa: PLC0415 - an extra
        CollectorRegistry,
        PlatformCollector,
        ProcessCollector,
    )

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry

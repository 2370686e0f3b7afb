"""What the gateway counts, as a scraper reads it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loom.server.gateway.metrics import ABSENT, Answered, Metrics

CHAT = "/v1/chat/completions"


def made() -> Metrics:
    return Metrics(routes=[CHAT], known=["mistral-small-latest"].__contains__)


def chat(**facts: Any) -> Answered:
    usual: dict[str, Any] = {"route": CHAT, "dialect": "openai", "status": 200}
    return Answered(**{**usual, "model": "mistral-small-latest", **facts})


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Read the page as Prometheus does."""
    status, headers, body = metrics.page()
    assert 200 == status
    assert headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("loom_gateway_"), *_values(sample.labels)): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def _values(labels: Mapping[str, str]) -> list[str]:
    """Give the values in the order of their names."""
    return [labels[name] for name in sorted(labels)]


def test_requests_tokens_cost_and_times() -> None:
    """A request is counted by route, dialect, status and model, with what it used and took."""
    metrics = made()
    metrics.answered(
        chat(
            elapsed_s=0.5,
            first_s=0.02,
            input_tokens=10,
            output_tokens=4,
            cost_usd=Decimal("0.0000075"),
        )
    )
    metrics.answered(chat(status=429, elapsed_s=0.001))
    seen = samples(metrics)
    model = "mistral-small-latest"
    assert 1 == seen["requests_total", "openai", model, CHAT, "200"]
    assert 1 == seen["requests_total", "openai", model, CHAT, "429"]
    assert (10, 4) == (seen["tokens_total", "input", model], seen["tokens_total", "output", model])
    assert 0.0000075 == pytest.approx(seen["cost_usd_total", model])
    assert 2 == seen["request_duration_seconds_count", model, CHAT]
    assert 0.501 == pytest.approx(seen["request_duration_seconds_sum", model, CHAT])
    buckets = ("0.01", "0.64", "+Inf")
    found = [seen["request_duration_seconds_bucket", bound, model, CHAT] for bound in buckets]
    assert [1, 2, 2] == found
    assert 1 == seen["first_chunk_seconds_count", model, CHAT]


def test_labels_hold_no_text_of_a_caller() -> None:
    """S8: a path or a model that nobody knows is "other", however many there are."""
    metrics = made()
    for number in range(100):
        metrics.answered(chat(route=f"/secret/{number}", model=f"secret {number}", elapsed_s=1))
    seen = samples(metrics)
    assert 100 == seen["requests_total", "openai", "other", "other", "200"]
    assert "secret" not in repr(seen)


def test_a_new_model_becomes_a_label() -> None:
    """What the catalogue learns later is known then."""
    models = ["a"]
    metrics = Metrics(known=models.__contains__)
    metrics.answered(chat(model="b"))
    models.append("b")
    metrics.answered(chat(model="b"))
    metrics.answered(chat(model=None))
    seen = samples(metrics)
    found = [seen["requests_total", "openai", name, "other", "200"] for name in ("other", "b", "")]
    assert [1, 1, 1] == found


def test_the_number_of_series_is_bounded() -> None:
    """Labels beyond the bound are counted together."""
    models = [f"model-{number}" for number in range(2100)]
    metrics = Metrics(routes=[CHAT], known=models.__contains__)
    for model in models:
        metrics.answered(chat(model=model))
    assert 100 == samples(metrics)["requests_total", "openai", "other", "other", "200"]


def test_what_the_door_refused_and_what_is_watched() -> None:
    """Drops by reason; numbers that are asked for when somebody looks; the process itself."""
    metrics = made()
    metrics.dropped("head_time")
    metrics.dropped("head_time")
    metrics.watch("in_flight", "Requests inside.", "", lambda: {"": 3})
    metrics.watch("breaker_open", "Origins.", "origin", lambda: {"mistral": 1, "openai": 0})
    seen = samples(metrics)
    assert 2 == seen["refused_at_door_total", "head_time"]
    assert 3 == seen["in_flight",]
    assert (1, 0) == (seen["breaker_open", "mistral"], seen["breaker_open", "openai"])
    assert seen["process_open_fds",] > 0


def test_open_metrics_for_who_asks() -> None:
    """Prometheus asks for its newer form."""
    _, headers, body = made().page("application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """501 names the command that installs it; counting goes on."""
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    metrics = made()
    metrics.answered(chat())
    assert ABSENT == metrics.page()

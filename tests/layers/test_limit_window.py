"""A moving window is exact: nothing is forgotten early, nothing is kept long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.layers.limit_window import Used, pace_wait_s


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3), st.integers(0, 900)), max_size=60),
    st.sampled_from([(60.0, 1.0), (60.0, 0.25), (30.0, 1.0), (7.0, 2.0)]),
)
def test_what_was_used_counts_as_long_as_it_must(
    steps: list[tuple[float, int, int]], spans: tuple[float, float]
) -> None:
    """Everything of the last interval is in it, nothing older than interval and guard."""
    span_s, guard_s = spans
    window, now_s = Used.over(*spans), 1000.0
    log: list[tuple[float, int, int]] = []
    for gap_s, requests, tokens in steps:
        now_s += gap_s
        window = window.at(now_s).add(requests, tokens, now_s)
        log.append((now_s, requests, tokens))
        least = [one for one in log if one[0] >= now_s - span_s]
        most = [one for one in log if one[0] >= now_s - span_s - guard_s - 1e-6]
        assert sum(one[1] for one in least) <= window.requests <= sum(one[1] for one in most)
        assert sum(one[2] for one in least) <= window.tokens <= sum(one[2] for one in most)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 70), st.integers(1, 900)), max_size=40))
def test_what_ends_late_is_counted_by_when_it_began(
    steps: list[tuple[float, float, int]],
) -> None:
    """A late entry counts where it belongs, and is forgotten with it."""
    window, now_s = Used(), 1000.0
    log: list[tuple[float, int]] = []
    for gap_s, age_s, tokens in steps:
        now_s += gap_s
        window = window.at(now_s).add(0, tokens, now_s - age_s).at(now_s)
        log.append((now_s - age_s, tokens))
        least = sum(some for when_s, some in log if when_s >= now_s - 60)
        most = sum(some for when_s, some in log if when_s >= now_s - 61 - 1e-6)
        assert least <= window.tokens <= most


def test_the_wait_is_until_enough_is_forgotten() -> None:
    """The oldest goes first; what is not in it is never forgotten."""
    window = Used().add(1, 100, 1000.0).add(1, 50, 1010.0)
    assert 61 == window.wait_s(1, 100, 1000.0)
    assert 71 == window.wait_s(1, 101, 1000.0)
    assert math.inf == window.wait_s(3, 0, 1000.0)
    assert 0 == window.at(1071.0).tokens


@pytest.mark.parametrize(
    ("owed_s", "cost_s", "wait_s"),
    [(0, 1, 0), (0, 100, 0), (1, 1, 0), (1.5, 1, 0.5), (3, 0, 1), (1, 100, 1), (-5, 7, 0)],
)
def test_what_fits_into_the_burst_goes_at_once(owed_s: float, cost_s: float, wait_s: float) -> None:
    """And what does not, when enough is paid for; the largest, when everything is."""
    assert wait_s == pace_wait_s(1000 + owed_s, cost_s, 2.0, 1000.0)

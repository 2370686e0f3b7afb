"""The breaker's states: the table, the window, the probes."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loom.layers.breaker_state import (
    TRANSITIONS,
    BreakerRules,
    BreakerState,
    Cause,
    Outcome,
    State,
)

RULES = BreakerRules()


def failing(calls: int, now_s: float = 100.0, state: BreakerState | None = None) -> BreakerState:
    state = state or BreakerState()
    for _ in range(calls):
        state = state.after("failure", now_s, RULES)
    return state


def opened(now_s: float = 100.0) -> BreakerState:
    state = failing(20, now_s)
    assert "open" == state.state
    return state


def test_the_table_names_every_state_and_cause() -> None:
    """No state without a way in and out, no cause that nothing uses."""
    assert set(get_args(State)) == {state for state, _ in TRANSITIONS}
    assert set(get_args(State)) == set(TRANSITIONS.values())
    assert set(get_args(Cause)) == {cause for _, cause in TRANSITIONS}


def test_it_opens_at_the_twentieth_failure() -> None:
    """Below `min_calls` nothing opens it, however much failed."""
    assert "closed" == failing(19).state
    assert "open" == failing(20).state


def test_it_opens_when_half_of_the_calls_failed() -> None:
    """Half is enough, a little less is not."""
    state = BreakerState()
    for _ in range(50):
        state = state.after("success", 1.0, RULES)
    assert "closed" == failing(49, 1.0, state).state
    assert "open" == failing(50, 1.0, state).state


def test_what_is_ignored_counts_for_nothing() -> None:
    """429, another 4xx, a cancellation: neither call nor failure."""
    state = failing(19)
    for _ in range(100):
        state = state.after("ignored", 100.0, RULES)
    assert "open" == failing(1, 100.0, state).state


def test_the_window_forgets() -> None:
    """Failures of more than 30 s ago are gone."""
    state = failing(19, 100.0)
    assert "closed" == failing(1, 131.0, state).state
    assert "open" == failing(1, 129.0, state).state


@pytest.mark.parametrize(("after_s", "state"), [(9.9, "open"), (10.0, "half_open")])
def test_it_waits_before_it_probes(after_s: float, state: State) -> None:
    """10 s the first time."""
    assert state == opened(100.0).at(100.0 + after_s).state
    assert pytest.approx(max(0.0, 10 - after_s)) == opened(100.0).retry_after_s(100.0 + after_s)


def test_three_good_probes_close_it() -> None:
    """Not two."""
    state = opened().at(110.0)
    for _ in range(2):
        state = state.probed().after("success", 111.0, RULES)
        assert ("half_open", False) == (state.state, state.probing)
    state = state.probed().after("success", 112.0, RULES)
    assert ("closed", 0.0, ()) == (state.state, state.open_for_s, state.buckets)


def test_failed_probes_double_the_wait_up_to_its_cap() -> None:
    """10, 20, 40, 80, 120, 120 s; closed once, it begins at 10 again."""
    state, now_s, waits = opened(), 100.0, []
    for _ in range(6):
        waits.append(state.open_for_s)
        now_s += state.open_for_s
        state = state.at(now_s).probed().after("failure", now_s, RULES)
    assert [10, 20, 40, 80, 120, 120] == waits
    state = state.at(now_s + 120)
    for _ in range(3):
        state = state.probed().after("success", now_s + 121, RULES)
    assert 10 == failing(20, now_s + 122, state).open_for_s


def test_a_probe_that_told_nothing_makes_room() -> None:
    """Cancelled, it gives its permit back (fault matrix, row 64)."""
    state = opened().at(110.0).probed()
    assert 1.0 == state.retry_after_s(110.0)
    state = state.after("ignored", 110.0, RULES)
    assert (False, 0.0) == (state.probing, state.retry_after_s(110.0))


def test_values_are_new_ones() -> None:
    """A state that somebody holds does not change."""
    state = BreakerState()
    failing(20, 1.0, state)
    assert BreakerState() == state


class Machine(RuleBasedStateMachine):
    """Any order of calls, outcomes and hours."""

    def __init__(self) -> None:
        super().__init__()
        self.state = BreakerState()
        self.now_s = 0.0
        self.failures: list[float] = []
        self.successes: list[float] = []

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        before = self.state
        self.state = before.at(self.now_s)
        if before.state == "open":
            due = self.now_s >= before.since_s + before.open_for_s
            assert due == (self.state.state == "half_open")
        else:
            assert before == self.state

    @precondition(lambda self: self.state.state == "closed")
    @rule(outcome=st.sampled_from(get_args(Outcome)), times=st.integers(1, 15))
    def calls(self, outcome: Outcome, times: int) -> None:
        for _ in range(times):
            if self.state.state == "closed":
                self._call(outcome)

    def _call(self, outcome: Outcome) -> None:
        if outcome == "failure":
            self.failures.append(self.now_s)
        elif outcome == "success":
            self.successes.append(self.now_s)
        self.state = self.state.after(outcome, self.now_s, RULES)
        second = int(self.now_s)
        failed = sum(int(at) > second - 30 for at in self.failures)
        calls = failed + sum(int(at) > second - 30 for at in self.successes)
        must = outcome == "failure" and calls >= 20 and failed >= calls / 2
        assert ("open" if must else "closed") == self.state.state

    @precondition(lambda self: self.state.state == "half_open")
    @rule(outcome=st.sampled_from(get_args(Outcome)))
    def probe(self, outcome: Outcome) -> None:
        before = self.state
        self.state = before.probed().after(outcome, self.now_s, RULES)
        assert not self.state.probing
        if outcome == "failure":
            assert min(120.0, before.open_for_s * 2) == self.state.open_for_s
        if self.state.state != "half_open":
            self.failures, self.successes = [], []

    @invariant()
    def holds(self) -> None:
        assert 0 <= self.state.retry_after_s(self.now_s) <= 120
        assert 0 <= self.state.proofs < 3
        assert len(self.state.buckets) <= 30
        if self.state.state == "open":
            assert 10 <= self.state.open_for_s <= 120
            self.failures, self.successes = [], []


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=40)

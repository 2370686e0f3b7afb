"""Who goes first: priorities, tenants, and that nobody starves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from loom.core.request import Priority
from loom.layers.limit_queue import FairQueue, Waiting


def waiting(tenant: str = "", priority: Priority = "normal", cost: int = 1) -> Waiting:
    return Waiting(tenant, priority, cost, cost)


def drain(queue: FairQueue, tokens: float = float("inf")) -> list[Waiting]:
    gone: list[Waiting] = []
    while (head := queue.head()) is not None and tokens > 0:
        queue.pop(head)
        tokens -= head.cost
        gone.append(head)
    return gone


def filled(*calls: Waiting) -> FairQueue:
    queue = FairQueue()
    for call in calls:
        queue.push(call)
    return queue


def test_calls_of_one_tenant_go_in_the_order_of_coming() -> None:
    """However large they are."""
    calls = [waiting(cost=cost) for cost in (5, 1, 3)]
    assert calls == drain(filled(*calls))


def test_an_urgent_call_goes_before_those_that_came_earlier() -> None:
    """Interactive before normal before batch."""
    batch, normal, urgent = waiting(priority="batch"), waiting(), waiting(priority="interactive")
    assert [urgent, normal, batch] == drain(filled(batch, normal, urgent))


def test_batch_gets_five_percent_while_others_wait() -> None:
    """Of the tokens, and normal calls the same, so that nobody starves."""
    queue = FairQueue()
    for priority in ("interactive", "normal", "batch"):
        for _ in range(1000):
            queue.push(waiting(priority=priority, cost=10))
    shares = Counter(call.priority for call in drain(queue, 8000))
    assert 40 <= shares["batch"] <= 55
    assert 40 <= shares["normal"] <= 55


def test_tenants_get_equal_tokens_however_many_calls_they_make() -> None:
    """A tenant with a thousand small calls, and one with ten large ones."""
    queue = FairQueue()
    for _ in range(1000):
        queue.push(waiting("many", cost=10))
    for _ in range(10):
        queue.push(waiting("few", cost=500))
    tokens: Counter[str] = Counter()
    for call in drain(queue, 8000):
        tokens[call.tenant] += call.cost
    assert abs(tokens["many"] - tokens["few"]) <= 510


def test_who_was_away_has_saved_up_nothing() -> None:
    """A tenant that comes late begins at the time of the queue."""
    queue = filled(*(waiting("a", cost=10) for _ in range(200)))
    drain(queue, 1000)
    for _ in range(100):
        queue.push(waiting("b", cost=10))
    late = Counter(call.tenant for call in drain(queue, 400))
    assert abs(late["a"] - late["b"]) <= 2


def test_coming_back_at_once_does_not_help() -> None:
    """A tenant with one call at a time that is large gets no more than its half."""
    queue = filled(*(waiting("many", cost=10) for _ in range(1000)))
    tokens: Counter[str] = Counter()
    queue.push(waiting("one", cost=100))
    while sum(tokens.values()) < 8000 and (head := queue.head()) is not None:
        queue.pop(head)
        tokens[head.tenant] += head.cost
        if head.tenant == "one":
            queue.push(waiting("one", cost=100))
    assert abs(tokens["many"] - tokens["one"]) <= 110


def test_calls_that_gave_up_cost_their_tenant_nothing() -> None:
    """A thousand cancelled calls do not put the next one last."""
    queue = FairQueue()
    storm = [waiting("a", cost=10) for _ in range(1000)]
    for call in storm:
        queue.push(call)
    for call in storm:
        queue.remove(call)
        queue.remove(call)
    first = waiting("a", cost=10)
    for call in (waiting("b", cost=10), first, waiting("b", cost=10)):
        queue.push(call)
    assert 3 == len(queue)
    assert first in drain(queue)[:2]


def test_what_is_ahead_is_the_part_that_fairness_lets_go_first() -> None:
    """A new tenant has its own share ahead of it, not the whole queue."""
    queue = filled(*(waiting("a", cost=10) for _ in range(100)))
    mine, last = waiting("b", cost=10), waiting("a", cost=10)
    queue.push(mine)
    queue.push(last)
    assert (1, 10) == queue.ahead(mine)
    assert (101, 1010) == queue.ahead(last)
    urgent = waiting("c", "interactive", cost=10)
    queue.push(urgent)
    assert (0, 0) == queue.ahead(urgent)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["push", "pop", "remove"]),
            st.sampled_from("abc"),
            st.sampled_from(["interactive", "normal", "batch"]),
            st.integers(1, 1000),
        ),
        max_size=300,
    )
)
def test_nobody_is_lost(steps: list[tuple[str, str, Priority, int]]) -> None:
    """Whoever came is in line until he is granted or gives up, and is granted once."""
    queue, line = FairQueue(), list[Waiting]()
    for step, tenant, priority, cost in steps:
        if step == "push":
            line.append(waiting(tenant, priority, cost))
            queue.push(line[-1])
        elif step == "pop" and line:
            head = queue.head()
            assert head is not None
            queue.pop(head)
            line.remove(head)
        elif step == "remove" and line:
            queue.remove(line.pop(cost % len(line)))
        assert len(line) == len(queue)
    assert set(line) == set(drain(queue))

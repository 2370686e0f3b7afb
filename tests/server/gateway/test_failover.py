"""The sixteen failover scenarios through the gateway, with a fallback route, in rescue mode."""

from __future__ import annotations

import threading

import pytest
from tests.client.failover import PRIMARY, options_for, providers
from tests.client.failover_judge import LAWS, TEXT
from tests.server.gateway.kit import Answer, Served, chat

from loom.server.simulator import Simulator
from loom.testing import FakeClock


def asked(served: Served, primary: Simulator, *, stream: bool, speaks: str) -> Answer:
    """Ask once; a provider that holds its answer back is given time meanwhile."""
    answers: list[Answer] = []
    body = chat(model=PRIMARY, stream=stream)
    work = threading.Thread(
        target=lambda: answers.append(served.ask(body, x_loom_dialect=speaks)), daemon=True
    )
    work.start()
    for _ in range(50):
        work.join(0.4)
        if not work.is_alive():
            break
        primary.clock.advance(20.0)
    return answers[0]


def text_of(answer: Answer, *, stream: bool) -> str:
    if stream:
        return answer.text
    return str(answer.json["choices"][0]["message"]["content"])


@pytest.mark.parametrize("speaks", ["openai", "mistral"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("scenario", sorted(LAWS))
def test_a_scenario(scenario: str, stream: bool, speaks: str) -> None:  # noqa: FBT001 - a parameter of pytest
    """A whole answer from whoever can give it, or the reason why there is none; one row each."""
    clock = FakeClock(auto=True)
    calls = 20 if scenario == "FB15" else 2
    with providers(scenario, clock) as (primary, fallback):
        options = options_for(scenario, "rescue", primary, fallback)
        with Served(
            primary, client={"retry": None, **options, "clock": clock}, rescue=True
        ) as served:
            for _ in range(calls):
                answer = asked(served, primary, stream=stream, speaks=speaks)
                if LAWS[scenario].answers is None:
                    assert 400 == answer.status
                else:
                    assert 200 == answer.status, answer.body
                    assert TEXT == text_of(answer, stream=stream)
                    assert not stream or answer.body.endswith(b"data: [DONE]\n\n")
                clock.advance(5.0)
            rows = served.rows()
    assert calls == len(rows)
    assert all(row.state != "open" for row in rows)

"""
FB01 to FB16: what a caller gets and what both providers see, with and without a fallback.

`python -m pytest tests/client/test_failover.py -s -k table` prints the table.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.client.failover import (
    DRAWS,
    FALLBACK,
    KINDS,
    MODES,
    PRIMARY,
    PROMPT,
    Kind,
    Mode,
    Played,
    options_for,
    play,
    providers,
)
from tests.client.failover_judge import LAWS, TEXT, grade

from loom import (
    AsyncMistral,
    ContentBlocked,
    LLMResponse,
    Mistral,
    Route,
    StreamTruncated,
    Timeouts,
)
from loom.core.route import Fallback
from loom.layers.breaker import Breaker
from loom.server.simulator import Rule, Scenario
from loom.testing import FakeClock, simulator
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

# Where half an answer was given and nobody may begin it anew, or where there is nobody else.
SAFE: dict[tuple[Mode, Kind], set[str]] = {
    ("rescue", "chat"): set(),
    ("rescue", "stream"): set(),
    ("default", "chat"): set(),
    ("default", "stream"): {"FB08", "FB09", "FB10", "FB14"},
    ("alone", "chat"): {"FB02", "FB04", "FB06", "FB08", "FB14", "FB15", "FB16"},
    ("alone", "stream"): {
        "FB02", "FB04", "FB06", "FB08", "FB09", "FB10", "FB14", "FB15", "FB16",
    },
}  # fmt: skip

_played: dict[tuple[str, Mode, Kind], Played] = {}


async def played(scenario: str, mode: Mode, kind: Kind) -> Played:
    """A scenario is played once, for its own test and for the table."""
    key = scenario, mode, kind
    if key not in _played:
        _played[key] = await play(scenario, mode, kind)
    return _played[key]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", LAWS)
async def test_a_scenario(scenario: str, mode: Mode, kind: Kind) -> None:
    """All pass with `rescue`; where one cannot, a clear error says what happened."""
    seen = grade(await played(scenario, mode, kind))
    assert ("safe" if scenario in SAFE[mode, kind] else "pass") == seen.word, seen.why


async def test_table() -> None:
    """Sixteen pass in rescue mode, and nothing fails in any; the table says what was asked."""
    rows = [f"{'':5}" + "".join(f"{f'{mode} {kind}':18}" for mode in MODES for kind in KINDS)]
    words: dict[Mode, list[str]] = {mode: [] for mode in MODES}
    for scenario in LAWS:
        row = f"{scenario:5}"
        for mode in MODES:
            for kind in KINDS:
                one = await played(scenario, mode, kind)
                word = grade(one).word
                words[mode].append(word)
                row += f"{f'{word} {requests(one)}':18}"
        rows.append(row)
    rows.append(
        "After the word: requests to primary + fallback; all of them in FB15, else one call's."
    )
    print("", *rows, sep="\n")  # noqa: T201 - with -s it is what was asked for
    assert ["pass"] * 32 == words["rescue"]
    assert "fail" not in words["default"] + words["alone"]


def requests(one: Played) -> str:
    calls = one.calls if one.scenario == "FB15" else one.calls[:1]
    primary = sum(len(got.primary) for got in calls)
    return f"{primary}+{sum(len(got.fallback) for got in calls)}"


async def test_backing_off_has_jitter() -> None:
    """FB02 alone: each wait is drawn from a limit that doubles; five requests in all."""
    got = (await played("FB02", "alone", "chat")).calls[0]
    times = [entry.at for entry in got.primary]
    gaps = [(two - one).total_seconds() for one, two in pairwise(times)]
    wanted = [draw * 2.0**number for number, draw in enumerate(DRAWS[:4])]
    assert wanted == pytest.approx(gaps, abs=1e-3)


async def test_a_stream_without_its_mark_ends_at_once() -> None:
    """FB11: whoever has the finish reason and usage waits for nothing more."""
    got = (await played("FB11", "alone", "stream")).calls[0]
    assert got.took_s < 1.5  # two seconds are granted to a vendor that owes usage


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_event_may_be_left_out(kind: Kind) -> None:
    """FB10 with `skip_bad_events`: the primary's own answer is whole, and one event less."""
    one = await play("FB10", "default", kind, skip_bad_events=True)
    for got in one.calls:
        assert got.response is not None
        assert (TEXT, PRIMARY) == (got.response.content, got.response.model)
        assert 1 == got.response.metadata["skipped_events"]
        assert (1, 0) == (len(got.primary), len(got.fallback))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_breaker_spares_a_primary_that_is_down(mode: Mode, kind: Kind) -> None:
    """FB15: it opens, probes once each time it may, and is closed before the twentieth call."""
    breaker = Breaker()
    pauses = [*[2.0] * 7, *[1.0] * 3, 10.0, 1.0, 40.0, *[1.0] * 7]

    one = await play("FB15", mode, kind, breaker=breaker, pauses=pauses)

    assert ("safe" if mode == "alone" else "pass") == grade(one).word, grade(one).why
    asked = [len(got.primary) for got in one.calls]
    # The twentieth failure opens it; ten seconds later one probe fails, and then three succeed.
    assert [3, 3, 3, 3, 3, 3, 2, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1] == asked
    assert {"closed"} == {
        state.state for (_, _, model), state in breaker.states().items() if model == PRIMARY
    }
    assert 0 == breaker.probes_held


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_error_is_not_hidden_by_the_second(kind: Kind) -> None:
    """FB14, and the fallback is down as well: the cut is raised, and its notes tell the rest."""
    down = Scenario(rules=(Rule(fault="40-503"),))
    with simulator(scenario="FB14") as primary, simulator(scenario=down) as fallback:
        async with AsyncMistral(
            primary.api_key,
            base_url=primary.base_url,
            clock=FakeClock(auto=True),
            fallback=Route(base_url=fallback.base_url, api_key=fallback.api_key, model=FALLBACK),
            rescue=True,
        ) as m:
            with pytest.raises(StreamTruncated) as caught:
                await (m.chat(PROMPT) if kind == "chat" else m.stream(PROMPT).final())
        assert (1, 3) == (len(primary.journal), len(fallback.journal))
    error = caught.value
    assert (4, PRIMARY) == (error.attempts, error.model)
    assert [f"fallback mistral:{FALLBACK}: Mistral API error (503): Service unavailable."] == (
        error.__notes__
    )
    assert error.partial is not None
    assert TEXT.startswith(error.partial.text)


@pytest.mark.parametrize("events", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
async def test_headers_and_comments_are_no_token(kind: Kind, events: int) -> None:
    """FB07 with headers at once: the limit is for the first token, and an opening is none."""
    slow = Scenario(answer=TEXT, rules=(Rule(fault=f"14-stall;after={events};seconds=20"),))
    with simulator(scenario=slow) as primary, simulator(scenario="FB07:fallback") as fallback:
        route = Route(base_url=fallback.base_url, api_key=fallback.api_key, model=FALLBACK)
        async with AsyncMistral(
            primary.api_key,
            base_url=primary.base_url,
            fallback=Fallback([route], first_token_s=0.2),
        ) as m:
            response = await (m.chat(PROMPT) if kind == "chat" else m.stream(PROMPT).final())
        assert (1, 1) == (len(primary.journal), len(fallback.journal))
    assert (TEXT, FALLBACK) == (response.content, response.model)


def test_limits_are_those_of_the_law() -> None:
    """12 s for a first token where there is another route, 60 s where not, 30 s between events."""
    assert 12.0 == Fallback([FALLBACK]).first_token_s
    assert (60.0, 30.0) == (Timeouts().first_byte_s, Timeouts().idle_s)
    assert Timeouts().first_token_s is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", LAWS)
def test_the_blocking_client_is_rescued_too(scenario: str, kind: Kind) -> None:
    """The same answer from the same route, or the same error; no connection is left."""
    line, clock = HttpTransport(), FakeClock(auto=True)
    with providers(scenario, clock) as (primary, fallback):
        options = options_for(scenario, "rescue", primary, fallback)
        with Mistral(**options, clock=clock, transport=line) as m:
            if LAWS[scenario].answers is None:
                with pytest.raises(ContentBlocked):
                    _ask(m, kind)
            else:
                response = _ask(m, kind)
                wanted = FALLBACK if LAWS[scenario].answers == "fallback" else PRIMARY
                assert (TEXT, wanted) == (response.content, response.model)
        assert LAWS[scenario].requests == len(primary.journal)
        assert int(LAWS[scenario].answers == "fallback") == len(fallback.journal)
    assert (0, 0) == (line.open_sockets, line.permits_in_use)


def _ask(m: Mistral, kind: Kind) -> LLMResponse:
    return m.chat(PROMPT) if kind == "chat" else m.stream(PROMPT).final()

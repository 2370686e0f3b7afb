"""Scripts: which answer and which fault a request gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulator.socket_client import MODEL, Caller, Seen, SleepClock, seen

from loom.core.errors import ConfigInvalid, RateLimited
from loom.core.messages import Message
from loom.core.request import ChatRequest
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Rule, Scenario, Simulator
from loom.server.simulator.scenario import ScenarioProvider, request_info

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def content(reply: Seen) -> str:
    return str(json.loads(reply.body)["choices"][0]["message"]["content"])


def asked(source: str, *requests: dict[str, Any]) -> list[Seen]:
    with Simulator(scenario=Scenario.parse(source)) as simulator:
        return [seen(simulator, **request) for request in requests]


def test_the_first_rule_that_fits_answers() -> None:
    """By the text of the last user message, as a string or as parts; else the usual answer."""
    source = """
        [[rule]]
        text = "(?i)weather in \\\\w+"
        answer = "It is sunny."

        [[rule]]
        text = "weather"
        answer = "Where?"
        """
    parts = [{"type": "text", "text": "The weather "}, {"type": "text", "text": "in Rome?"}]

    replies = asked(
        source,
        {"messages": [user("Weather in Paris?")]},
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [user("The weather?")]},
        {"messages": [user("Say hello")]},
    )

    assert ["It is sunny.", "It is sunny.", "Where?", "hello"] == [content(r) for r in replies]


def test_a_rule_fits_by_model_tool_turn_and_last_message() -> None:
    """Each condition picks its request; several must all hold."""
    source = """
        [[rule]]
        model = "ministral-*"
        answer = "by model"

        [[rule]]
        result_of = "get_weather"
        answer = "by result"

        [[rule]]
        tool = "get_weather"
        turn = 2
        answer = "by tool and turn"

        [[rule]]
        tool = "get_weather"
        calls = [{ name = "get_weather", arguments = { city = "Paris" } }]

        [[rule]]
        last_role = "assistant"
        answer = "by role"

        [[rule]]
        stream = false
        turn = 3
        answer = "by turn"
        """
    call = {"id": "abcdefghi", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [user("One"), {"role": "assistant", "content": "1"}, user("Two")]
    results = [
        user("Paris?"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
    ]

    replies = asked(
        source,
        {"model": "ministral-8b-latest"},
        {"messages": results, "tools": [WEATHER]},
        {"messages": turns, "tools": [WEATHER]},
        {"tools": [WEATHER]},
        {"messages": [user("Go on"), {"role": "assistant", "content": "A", "prefix": True}]},
        {"messages": [*turns, {"role": "assistant", "content": "2"}, user("Three")]},
    )

    said = [content(reply) for reply in replies]
    assert ["by model", "by result", "by tool and turn", "", "by role", "by turn"] == said
    (made,) = json.loads(replies[3].body)["choices"][0]["message"]["tool_calls"]
    assert {"name": "get_weather", "arguments": '{"city":"Paris"}'} == made["function"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", made["id"])


def test_a_rule_counts_the_requests_that_it_fits() -> None:
    """One, several, ranges; the first request of a rule is its number 1."""
    source = """
        answer = "healthy"

        [[rule]]
        text = "count"
        requests = [1, "3-4"]
        fault = "503"

        [[rule]]
        text = "count"
        requests = "6-"
        answer = "late"
        """
    count = {"messages": [user("count")]}

    replies = asked(source, {}, *[count] * 7)

    assert [200, 503, 200, 503, 503, 200, 200, 200] == [reply.status for reply in replies]
    assert ["late", "late"] == [content(reply) for reply in replies[6:]]


def test_a_rule_holds_for_its_time() -> None:
    """From and until so many seconds after the first request."""
    clock = SleepClock()
    scenario = Scenario(
        answer="healthy",
        rules=(Rule(after_s=10, before_s=20, fault="503"),),
    )
    statuses = []
    with Simulator(clock=clock, scenario=scenario) as simulator:
        for _ in range(4):
            statuses.append(seen(simulator).status)
            simulator.clock.advance(7)

    assert [200, 200, 503, 200] == statuses


def test_a_rule_has_an_answer_and_a_fault() -> None:
    """The scripted answer is what is cut."""
    source = """
        [[rule]]
        answer = "One two three four"
        fault = "clean-end:3"
        """
    (reply,) = asked(source, {"stream": True})

    texts = [json.loads(e[6:])["choices"][0]["delta"]["content"] for e in reply.events]
    assert ["", "One", " two"] == texts


def test_thinking_comes_before_the_answer() -> None:
    """As a part of its own, streamed and not."""
    source = 'rule = [{ thinking = "Hm.", answer = "Yes." }]'
    (reply,) = asked(source, {})

    thought, said = json.loads(reply.body)["choices"][0]["message"]["content"]
    assert ("thinking", "text", "Yes.") == (thought["type"], said["type"], said["text"])


def test_arguments_may_be_a_text_as_it_is() -> None:
    """A model that writes bad JSON."""
    source = 'rule = [{ calls = [{ id = "abcdefghi", name = "f", arguments = "{bad" }] }]'
    (reply,) = asked(source, {})

    (call,) = json.loads(reply.body)["choices"][0]["message"]["tool_calls"]
    assert ("abcdefghi", "{bad") == (call["id"], call["function"]["arguments"])


def test_equal_answers_have_ids_of_their_own() -> None:
    """And the same ones again with the same seed."""

    def ids() -> list[str]:
        replies = asked('answer = "Yes."', {}, {}, {"stream": True})
        plain = [json.loads(reply.body)["id"] for reply in replies[:2]]
        return [*plain, json.loads(replies[2].events[0][6:])["id"]]

    assert 3 == len(set(ids()))
    assert ids() == ids()


def test_python_rules_answer_with_anything_scripted() -> None:
    """A message, or an error of the tree."""
    scenario = Scenario(
        rules=(
            Rule(text="fail", answer=RateLimited("Rate limit exceeded", retry_after_s=3)),
            Rule(answer=Message.assistant("From Python.")),
        )
    )
    with Simulator(scenario=scenario) as simulator:
        failed = seen(simulator, messages=[user("fail")])
        answered = seen(simulator)

    assert (429, ["3"]) == (failed.status, failed.header("retry-after"))
    assert "From Python." == content(answered)


def test_a_header_goes_before_the_script_and_is_counted_by_it() -> None:
    """The script's count goes on."""
    source = """
        [[rule]]
        requests = 2
        fault = "502"
        """
    with Simulator(scenario=Scenario.parse(source)) as simulator:
        statuses = [
            seen(simulator, "503").status,
            seen(simulator, "500").status,
            seen(simulator).status,
        ]
        simulator.reset()
        again = [seen(simulator).status for _ in range(3)]

    assert [503, 500, 200] == statuses
    assert [200, 502, 200] == again


def test_times_of_a_rules_fault_end_it() -> None:
    """As in a header."""
    replies = asked('rule = [{ fault = "503;times=2" }]', *[{}] * 3)

    assert [503, 503, 200] == [reply.status for reply in replies]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("rule = 5", "x.toml: the top: 'rule' must be written as [[rule]]"),
        ("rules = []", "x.toml: the top: unknown key 'rules'; known: title, answer, rule"),
        ("title = 3", "x.toml: the top: 'title' must be a string"),
        ("[[rule]]\nfault = 503", "x.toml: [[rule]] 1: 'fault' must be a string, not 503"),
        ("[[rule]]\nturn = true", "x.toml: [[rule]] 1: 'turn' must be a whole number, not True"),
        ("[[rule]]\nstream = 1", "'stream' must be true or false, not 1"),
        ("[[rule]]\nafter_s = 'x'", "'after_s' must be a number, not 'x'"),
        ("[[rule]]\n[[rule]]\nfalt = ''", "x.toml: [[rule]] 2: unknown key 'falt'; known: model"),
        ("[[rule]]\nfault = 'stal'", "x.toml: [[rule]] 1: 'fault': unknown fault 'stal'"),
        ("[[rule]]\ntext = '('", "x.toml: [[rule]] 1: 'text' is no regular expression: "),
        ("[[rule]]\nrole = 'both'", "'role' must be one of primary, fallback"),
        ("[[rule]]\nrequests = 0", "'requests' must hold numbers from 1, or ranges"),
        ("[[rule]]\nrequests = '2..3'", "'requests' must hold numbers from 1, or ranges"),
        ("[[rule]]\nrequests = [true]", "'requests' must hold numbers from 1, or ranges"),
        ("[[rule]]\ncalls = ['f']", "each of 'calls' must be a table with a 'name'"),
        ("[[rule]]\ncalls = [{ name = 'f', args = 1 }]", "'calls': unknown key 'args'"),
        (
            "[[rule]]\ncalls = [{ name = 'f', arguments = 1 }]",
            "'arguments' must be a table, or a string as it is",
        ),
        ("[[rule", "x.toml: not valid TOML: "),
    ],
)
def test_a_bad_script_is_refused_by_file_table_and_key(source: str, says: str) -> None:
    """One clear line."""
    with pytest.raises(ConfigInvalid, match=re.escape(says)) as raised:
        Scenario.parse(source, name="x.toml")

    assert raised.value.message.isprintable()


def test_a_bad_rule_of_python_is_refused_too() -> None:
    """When the scenario is made, not when a request comes."""
    with pytest.raises(ConfigInvalid, match="rule 2: 'fault': unknown fault 'nine'"):
        Scenario(rules=(Rule(), Rule(fault="nine")))


def test_a_script_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A name lists those that come with the package; a file says why not."""
    not_text = tmp_path / "latin.toml"
    not_text.write_bytes(b'title = "caf\xe9"')

    with pytest.raises(ConfigInvalid, match="no script 'FB99': not a file, and not one of FB01"):
        Scenario.load("FB99")
    with pytest.raises(ConfigInvalid, match="No such file"):
        Scenario.load(tmp_path / "none.toml")
    with pytest.raises(ConfigInvalid, match="it is not UTF-8"):
        Scenario.load(not_text)


def test_a_script_is_read_from_a_file_or_by_its_name(tmp_path: Path) -> None:
    """Names in any case, with a role behind them; a file of the same name goes first."""
    file = tmp_path / "mine.toml"
    file.write_text('title = "mine"', encoding="utf-8")

    assert "mine" == Scenario.load(file).title
    assert "mine" == Scenario.load(f"{file}:fallback").title
    assert "500 once, then healthy" == Scenario.load("fb03").title
    assert 1 == len(Scenario.load("FB14:fallback").rules)


@given(st.text(alphabet='[]rule="\n 1fault', max_size=80))
def test_any_text_is_a_script_or_one_clear_error(source: str) -> None:
    """Nothing else than ConfigInvalid leaves."""
    try:
        Scenario.parse(source)
    except ConfigInvalid as error:
        assert error.message


def _play(name: str, requests: int = 3, **fields: Any) -> list[Seen]:
    with Simulator(scenario=name) as simulator:
        return [seen(simulator, **fields) for _ in range(requests)]


def test_all_sixteen_scenarios_are_shipped() -> None:
    """FB01 to FB16, each with the same healthy answer of sixty words."""
    names = [f"FB{number:02d}" for number in range(1, 17)]
    scenarios = [Scenario.load(name) for name in names]

    assert names == Scenario.shipped()
    assert 1 == len({scenario.answer for scenario in scenarios})
    assert 60 == len(str(scenarios[0].answer).split())
    assert all(scenario.title and scenario.rules for scenario in scenarios)


@pytest.mark.parametrize("name", Scenario.shipped())
def test_a_fallback_is_healthy(name: str) -> None:
    """Whatever the primary does, the other simulator gives the sixty words."""
    for reply in _play(f"{name}:fallback", requests=1):
        assert 60 == len(content(reply).split())


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("FB01", [429, 200, 200]),
        ("FB02", [429, 429, 429]),
        ("FB03", [500, 200, 200]),
        ("FB04", [503, 503, 503]),
        ("FB12", [400, 400, 400]),
        ("FB13", [400, 400, 400]),
        ("FB16", [503, 503, 503]),
    ],
)
def test_a_scenario_has_its_statuses(name: str, statuses: list[int]) -> None:
    """Once, or for ever; healthy afterwards."""
    replies = _play(name)

    assert statuses == [reply.status for reply in replies]
    for reply in replies:
        assert reply.status != 200 or 60 == len(content(reply).split())


def test_fb01_asks_for_two_seconds_and_fb02_for_nothing() -> None:
    """The header is there, or it is not."""
    assert ["2"] == _play("FB01")[0].header("retry-after")
    assert [] == _play("FB02")[0].header("retry-after")


def test_fb05_resets_once() -> None:
    """Before any byte."""
    first, second, _ = _play("FB05")

    assert (b"", True) == first
    assert 200 == second.status


def test_fb06_and_fb07_are_silent() -> None:
    """For ever, and for twenty seconds."""
    clock = SleepClock()
    with Simulator(scenario="FB06") as simulator, Caller(simulator) as caller:
        assert caller.quiet()
    with Simulator(scenario="FB07", clock=clock) as simulator, Caller(simulator) as caller:
        clock.until_waiting()
        simulator.clock.advance(19)
        assert caller.quiet()
        simulator.clock.advance(1)
        assert 60 == len(content(caller.all()).split())


def _words(reply: Seen) -> int:
    chunks = [e for e in reply.events if e.startswith(b"data: {") and b"}" in e[-4:]]
    deltas = [json.loads(e[6:])["choices"][0]["delta"] for e in chunks]
    return len("".join(delta["content"] for delta in deltas).split())


def test_fb08_and_fb14_cut_after_forty_words() -> None:
    """Closed, and reset; the other provider of FB14 refuses a prefill."""
    closed = _play("FB08", stream=True)[0]
    reset = _play("FB14", stream=True)[0]
    prefill = [user("Go on"), {"role": "assistant", "content": "The loom", "prefix": True}]
    refused = _play("FB14:fallback", messages=prefill)[0]

    assert (40, False, False) == (_words(closed), closed.reset, closed.ended)
    assert (40, True) == (_words(reset), reset.reset)
    assert 400 == refused.status


def test_fb09_stalls_once_for_thirty_seconds() -> None:
    """In the middle, with the connection open; then the rest."""
    clock = SleepClock()
    with Simulator(scenario="FB09", clock=clock) as simulator:
        with Caller(simulator, stream=True) as caller:
            clock.until_waiting()
            simulator.clock.advance(29)
            caller.until(b"data: ")
            assert b"[DONE]" not in caller.data
            simulator.clock.advance(1)
            assert 60 == _words(caller.all())
        assert 60 == _words(seen(simulator, stream=True))


def test_fb10_holds_a_bad_chunk_and_fb11_no_mark() -> None:
    """The words are all there."""
    bad = _play("FB10", stream=True)[0]
    without = _play("FB11", stream=True)[0]

    assert 60 == _words(bad)
    assert any(event.endswith(b'"cont') for event in bad.events)
    assert 60 == _words(without)
    assert b'"usage"' in without.body
    assert b"[DONE]" not in without.body
    assert without.ended


def test_fb15_is_down_for_a_minute() -> None:
    """Twenty requests, five seconds apart."""
    with Simulator(scenario="FB15", clock=SleepClock()) as simulator:
        statuses = []
        for _ in range(20):
            statuses.append(seen(simulator, model=MODEL).status)
            simulator.clock.advance(5)

    assert [503] * 12 + [200] * 8 == statuses


@pytest.mark.anyio
async def test_a_scripted_provider_is_named_as_the_one_behind_it() -> None:
    """And closes it; outside a simulator no rule is chosen, and its answer counts."""
    inner = ScriptedProvider(name="inner", model="m")
    provider = ScenarioProvider(
        inner, Scenario(answer="Yes."), lambda item, _: ScriptedProvider([item])
    )

    reply = await provider.chat(ChatRequest(model="m", messages=(Message.user("Hello"),)))
    await provider.aclose()

    assert ("inner", "m", "Yes.") == (provider.name, provider.model, reply.content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ("model", "messages", "role", "content", "tools", "function", "name")
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_body_is_read(value: Any) -> None:
    """What is malformed counts as absent."""
    fields = value if isinstance(value, dict) else {"messages": [value], "tools": [value]}

    info = request_info(fields, number=1, header=None, suffix=None)

    assert isinstance(info.text, str)


def test_a_malformed_tool_has_no_name() -> None:
    """It is neither offered nor answered."""
    tools = [{"function": {"name": 5}}, {"function": None}, {"function": {"name": "f"}}, 7]
    messages = [{"role": "tool", "tool_call_id": "x", "content": "1"}]

    info = request_info({"tools": tools, "messages": messages}, number=1, header=None, suffix=None)
    named = request_info(
        {"messages": [{**messages[0], "name": "g"}]}, number=1, header=None, suffix=None
    )

    assert (("f",), None, "g") == (info.tools, info.result_of, named.result_of)
